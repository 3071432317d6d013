"""A field of a settings class is an option, its help and its check; a function gets objects, whatever the options came from."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from localdiff_cli import declared, options
from localdiff_cli.declared import OneOf, Range
from localdiff_cli.errors import UsageError


@dataclass(frozen=True)
class How:
    jobs: Annotated[int, typer.Option("--jobs", help="Workers.", rich_help_panel="Run"), Range(0, 8)] = 1


@dataclass(frozen=True)
class Shared:
    source: Annotated[str, typer.Option("--in", help="Input.", rich_help_panel="Files")]
    how: How = field(default_factory=How)
    quiet: Annotated[bool, typer.Option("--quiet", help="Errors only.", rich_help_panel="Run")] = False
    place: Annotated[Path | None, typer.Option("--place", help="Where.", rich_help_panel="Input")] = None


@dataclass(frozen=True)
class Own:
    word: Annotated[str | None, typer.Option("--word", help="A word.", rich_help_panel="Model"), OneOf(("a", "b"))] = None
    soft: Annotated[bool | None, typer.Option("--soft/--hard", help="Soft.", rich_help_panel="Model")] = None
    several: Annotated[tuple[str, ...], typer.Option("--several", help="More.", rich_help_panel="Output")] = ()
    place: Annotated[Path | None, typer.Option("--place", help="Where.", rich_help_panel="Input")] = None


MILD = Annotated[bool | None, typer.Option("--mild/--hard", help="Mild.", rich_help_panel="Model")]


@pytest.fixture
def called():
    """``called(*words)``: what the function was called with, or the runner's result where it was not."""
    app, seen = typer.Typer(), []

    @app.command()
    @declared.command(Shared, Own, without=("quiet",), soft=MILD)
    def toy(shared: Shared, own: Own) -> None:
        """A toy."""
        seen.append((shared, own))

    def run(*words):
        result = CliRunner().invoke(app, [*words], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
        return seen.pop() if seen else result

    return run


def test_a_function_gets_one_object_of_each_class_made_from_the_options(called):
    words = ("--in", "x", "--jobs", "3", "--word", "a", "--mild", "--several", "p", "--several", "q", "--place", "here")
    assert called(*words) == (Shared("x", How(3), place=Path("here")), Own("a", True, ("p", "q"), Path("here")))
    assert called("--in", "x") == (Shared("x"), Own())


def test_the_help_has_the_panels_in_their_order_and_nothing_of_what_was_left_out(called):
    shown = called("--help").output
    assert re.findall(r"^╭─ (Files|Model|Input|Output|Run) ─", shown, re.M) == ["Files", "Model", "Input", "Output", "Run"]
    assert "--quiet" not in shown
    assert "--mild" in shown
    assert "--soft" not in shown
    assert called().exit_code == 2  # --in is required


@pytest.mark.parametrize(
    ("settings", "told"),
    [(How(9), "--jobs 9: expected 0 to 8"), (Own(word="c"), "--word c: expected one of a, b")],
    ids=["range", "choice"],
)
def test_a_value_beyond_its_limit_is_refused_under_the_options_name(settings, told):
    with pytest.raises(UsageError, match=told):
        declared.check(settings)


@pytest.mark.parametrize(
    ("settings", "roles"),
    [
        (options.TranslateOptions(), []),
        (options.TranslateOptions(samples=2, save_map=True, save_source=True), ["std", "map", "source"]),
        (options.TranslateOptions(interval=0.9, save_brain=True), ["lo", "hi", "brain"]),
        (options.DetectOptions(save_mask=True, save_score=True), ["mask", "score"]),
        (options.SegmentOptions(save_prob=True, save_brain=True), ["prob", "brain"]),
    ],
)
def test_an_option_that_asks_for_a_further_output_says_which(settings, roles):
    assert [role.name for role in declared.asked_for(settings)] == roles


@pytest.mark.parametrize(
    "settings",
    [
        options.DetectOptions(), options.TranslateOptions(), options.SegmentOptions(), options.EvaluateOptions("ref"),
        options.DetectorOptions(), options.Asked(), options.FitOptions(("d",), "o"), options.TranslatorData(("d",), "o"),
        options.SegmenterData(("d",), "o"), options.TrainOptions(), options.ExpertTraining(), options.SegmenterTraining(),
        options.TranslatorFit(), options.ExpertFit("b"), options.DetectorFit(), options.SegmenterFit(),
        options.CalibrateOptions("m", ("d",), "o"), options.ViewOptions(("v",)),
    ],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_every_default_keeps_its_own_limits(settings):
    declared.check(settings)
