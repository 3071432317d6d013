"""The commands that cards, results and pages quote can be run from the checkout."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUOTED = re.compile(r"-m ((?:localdiff_cli|examples|tests)(?:\.\w+)*)")


def test_every_module_that_a_page_a_card_or_a_table_runs_exists():
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *(p for folder in ("examples", "models") for p in (ROOT / folder).rglob("*.*"))]
    texts = {page: page.read_text() for page in pages if page.suffix in ("", ".md", ".json", ".py", ".sh", ".mk")}
    quoted = {(page, module) for page, text in texts.items() for module in QUOTED.findall(text)}

    assert len({module for _, module in quoted}) > 5
    assert not [(page.name, module) for page, module in quoted if importlib.util.find_spec(module) is None]
