"""The list of mutations fits the code as it is; ``make mutants`` says whether they are caught."""

from pathlib import Path

import pytest

from tests.mutants.mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
SUBJECTS = {
    "fusion", "λ", "masks", "step noise", "samplers", "thresholds", "clip", "affine", "units", "--match", "settings hash", "counting",
    "claims", "limits", "resampling", "bootstrap unit", "one grid",
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[f"{m.path}-{i}" for i, m in enumerate(MUTATIONS)])
def test_a_mutation_changes_one_place_and_its_tests_are_there(mutation):
    found = (ROOT / mutation.path).read_text(encoding="utf-8").count(mutation.old)
    assert found == 1, f"{mutation.path} has {mutation.old!r} {found} times; expected it once. Share the code, or update mutations.py"
    assert mutation.old != mutation.new
    for test in mutation.tests:
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_there_are_sixty_of_every_subject_of_the_core():
    assert len(set(MUTATIONS)) == len(MUTATIONS) >= 60
    assert {mutation.subject for mutation in MUTATIONS} >= SUBJECTS
