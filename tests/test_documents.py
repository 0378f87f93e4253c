"""README, CONTRIBUTING and the documentation name what there is: groups, choices, files."""

import re
from pathlib import Path

import pytest

from tests.support.composing import CONF, choices

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHOOSING = (ROOT / "docs" / "choosing.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
# Where data lie and which preset to shorten are no parts that a run is made of.
NOT_LISTED = {"paths", "debug", "local"}
GROUPS = sorted(
    path.name for path in CONF.iterdir() if path.is_dir() and path.name not in NOT_LISTED
)
NO_PARTS = {"experiment", "scenario"}  # combinations of choices


def rows(text):
    """Group -> the rest of its row in a table whose first column holds groups in backticks."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            names, rest = line.strip("| ").split(" | ", 1)
            found |= dict.fromkeys(re.findall(r"`(\w+)`", names), rest)
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_listed(group):
    said = rows(CHOOSING)[group]
    missing = [
        c for c in choices(group, "schedule", "exposure") if not re.search(rf"\b{c}\b", said)
    ]
    assert not missing, f"docs/choosing.md's row {group} lacks {missing}"


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in NO_PARTS])
def test_contributing_says_of_every_group_how_to_add_a_part(group):
    said = rows(CONTRIBUTING)[group]
    for suite in re.findall(r"`(test_\w+\.py)`", said):
        assert (ROOT / "tests" / "contract" / suite).is_file(), suite


def test_paths_that_are_named_are_there():
    for text in (README, CHOOSING, CONTRIBUTING):
        for path in re.findall(r"`((?:fedexp|conf|tests|docs|scripts)/[\w/.-]+\.\w+)`", text):
            exists = (ROOT / path).exists()
            example = path.endswith("nearest.py") or path.endswith("nearest.yaml")
            assert exists or example, path
        for module in re.findall(r"`(fedexp\.[\w.]+)`", text):
            place = Path(*module.split("."))
            there = [place, place.with_suffix(".py"), place.parent.with_suffix(".py")]
            assert any((ROOT / p).exists() for p in there) or module == "fedexp.log", module


def test_the_readme_is_a_screen_and_a_half():
    assert len(README.splitlines()) <= 75
    assert len(README.split()) <= 750


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_choices_that_documents_name_are_there(path):
    """Every `group=choice` of a command: a page about something that was renamed misleads."""
    known = {group: set(choices(group)) for group in GROUPS}
    for command in re.findall(r"^\$? ?fedexp run (.*)$", path.read_text(), re.MULTILINE):
        for group, values in re.findall(r"(?:^|\s)(\w+)=([\w,]+)", command):
            own = "medain" in values  # the tutorial's example of a mistake
            if group in known and not own:
                assert set(values.split(",")) <= known[group] | {"none"}, (command, group)
