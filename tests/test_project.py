"""The project's face: one version everywhere, a dated changelog, files that can be parsed."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

import fedexp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PYTHONS = [
    name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)
]


def test_the_version_is_the_same_everywhere_and_its_changelog_is_dated():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    version, day = released[0].split(" - ")
    assert {version} == {PROJECT["version"], fedexp.__version__, CITATION["version"]}
    assert date.fromisoformat(day) == CITATION["date-released"]
    assert headings.index("Unreleased") == 0, "what comes next goes on top"


def test_the_license_is_what_is_said_to_be():
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License")
    assert PROJECT["license"] == CITATION["license"] == "MIT"


def test_ci_tests_the_pythons_that_are_promised():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert PYTHONS == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    for job in ("test", "elsewhere"):
        assert jobs[job]["strategy"]["matrix"]["python"] == PYTHONS
    systems = {jobs["test"]["runs-on"], *jobs["elsewhere"]["strategy"]["matrix"]["os"]}
    assert {name.partition("-")[0] for name in systems} == {"ubuntu", "macos", "windows"}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert "python scripts/start.py test" in commands


def test_every_night_what_ci_leaves_out_is_run():
    night = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())
    (when,) = night[True]["schedule"]  # YAML 1.1 reads a bare `on` as true
    assert len(when["cron"].split()) == 5
    (job,) = night["jobs"].values()
    assert set(job["strategy"]["matrix"]["python"]) <= set(PYTHONS)
    assert '-m "slow and not network and not real_data"' in job["steps"][-1]["run"]
    # What the default leaves out for its length, and nothing else, is what the night runs.
    start = (ROOT / "scripts" / "start.py").read_text()
    assert '"not slow and not network"' in start
    assert '" and not real_data"' in start


@pytest.mark.parametrize("name", ["ci", "nightly"])
def test_every_job_ends(name):
    jobs = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"]
    assert all(0 < job["timeout-minutes"] <= 180 for job in jobs.values())


@pytest.mark.parametrize("name", ["bug", "part"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text())
    assert form["name"]
    assert form["description"]
    for field in form["body"]:
        assert field["type"] in ("textarea", "input", "checkboxes")
        assert field["attributes"]["label"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_pre_commit_runs_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = {hook["entry"].split()[2] for hook in hooks if "-m" in hook["entry"]}
    start = (ROOT / "scripts" / "start.py").read_text()
    assert tools == {"ruff", "mypy"}
    assert all(f'"{tool}"' in start for tool in tools)


def test_the_container_starts_the_commands_of_the_readme():
    text = (ROOT / "Dockerfile").read_text()
    (first,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert " ".join(yaml.safe_load(first)) == "python scripts/start.py run"
    python = re.search(r"^FROM python:([\d.]+)-slim$", text, re.MULTILINE)
    assert python
    assert python[1] in PYTHONS
