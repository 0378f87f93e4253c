"""The tables in docs/results are what the files behind them say."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "results" / "data"
PAGES = sorted(set((ROOT / "docs" / "results").glob("*.md")) - {DATA.parent / "index.md"})
FILES = sorted(DATA.glob("*.csv"))


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "scripts" / "results_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_the_files_say(tables, page):
    text = page.read_text()
    assert tables.page(text) == text, "run: python scripts/results_tables.py"
    rest = tables.TABLE.sub("", text)
    assert not re.findall(r"^\|.*", rest, re.MULTILINE), "a table without a file behind it"


def test_every_file_is_shown_once():
    shown = re.findall(r"<!-- table: (\w+) -->", "".join(page.read_text() for page in PAGES))
    assert sorted(shown) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_where_its_figures_come_from(tables, path):
    provenance, header, rows = tables.read(path)
    assert set(provenance) == {"command", "version", "kept"}
    assert re.search(r"commit [0-9a-f]{7} of \d{4}-\d\d-\d\d", provenance["version"])
    assert header[0]
    assert rows


def test_what_belongs_to_a_column_is_joined_to_it(tables, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "# command: none\nrule,x,x ±,y,y low,y high,z,z (%)\n"
        "mean,0.10,0.02,1,-1,3,0.5,50\nmedian,,,2,,,0.7,\n"
    )
    assert tables.table(path) == (
        "| rule | x | y | z |\n| --- | --- | --- | --- |\n"
        "| mean | 0.10 ± 0.02 | 1 [-1, 3] | 0.5 (50 %) |\n| median | | 2 | 0.7 |"
    )


@pytest.mark.parametrize("text", ["a,a\n1,2\n", "a,b\n1\n"], ids=["one name twice", "ragged"])
def test_a_file_that_cannot_be_a_table_is_refused(tables, tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"name|zip"):
        tables.read(tmp_path / "a.csv")


def test_the_figures_of_the_readme_stand_in_the_files():
    questions = [line for line in (ROOT / "README.md").read_text().splitlines() if "?" in line]
    known = "".join(path.read_text() for path in FILES)
    figures = re.findall(r"\b0\.\d{3}\b", "".join(questions))
    assert len(figures) >= 8
    assert not [figure for figure in figures if figure not in known]
