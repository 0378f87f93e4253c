"""MkDocs hooks: the pages that are made from the YAMLs and the code, so that they cannot disagree.

    mkdocs build          the site, in outputs/site; warnings are errors
    mkdocs serve          the same while it is being written

A page for every config group with each choice's paper, formula and keys (what `fedexp list GROUP
CHOICE` prints), one for the commands, one for Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fedexp.commands.cli import HELP
from fedexp.config.catalogue import groups
from fedexp.config.explanation import Explanation, explain
from fedexp.config.folders import conf_folder

FOLDERS = [conf_folder()]
INTERNAL = ("local", "hydra")

PYTHON = """# Python

::: fedexp.api
    options:
      heading_level: 2

::: fedexp.testing
    options:
      heading_level: 2
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The parts of the navigation that follow from what is there."""
    notes = sorted(Path(config.docs_dir, "decisions").glob("*.md"))
    reference: list[Any] = [
        "reference/commands.md",
        "reference/python.md",
        {"Choices": [{name: _page(name)} for name in _groups()]},
    ]
    nav: list[Any] = config.nav or []
    nav.append({"Reference": reference})
    nav.append({"Decisions": [f"decisions/{path.name}" for path in notes]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/commands.md": f"# Commands\n\n```text\n{HELP}```\n",
        "reference/python.md": PYTHON,
        **{_page(name): group_page(name) for name in _groups()},
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def group_page(group: str) -> str:
    """A config group as Markdown: its choices in a table, then each one whole."""
    choices = groups(FOLDERS)[group]
    lines = [f"# {group}", "", "| choice | |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {_cell(said)} |" for name, said in choices.items()]
    for name in choices:
        lines += ["", *_of_choice(explain(FOLDERS, group, name))]
    return "\n".join(lines) + "\n"


def _of_choice(of: Explanation) -> list[str]:
    lines = [f"## `{of.choice}` {{ #{of.choice} }}", "", _prose(of.description), ""]
    for text in (of.notes, of.source, of.about if of.about not in of.source else ""):
        lines += ["```text", text, "```", ""] if text else []
    lines += [f"Class: `{of.target}`", ""] if of.target else []
    if of.keys:
        lines += ["| key | default | meaning |", "|---|---|---|"]
    for key in of.keys:
        said = [text for text in (key.comment, key.meaning) if text]
        meaning = _cell(said[0] if len(said) == 1 else "; ".join(said))
        lines.append(f"| `{of.group}.{key.name}` | {_code(key.default)} | {meaning} |")
    return lines


def _groups() -> list[str]:
    return [name for name in groups(FOLDERS) if name.split("/")[0] not in INTERNAL]


def _page(group: str) -> str:
    return f"reference/choices/{group.replace('/', '_')}.md"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", r"\|") if text else ""


def _cell(text: str) -> str:
    return _prose(text).replace("|", r"\|")


def _prose(text: str) -> str:
    """Text of a comment or a docstring: nothing in it is Markdown or HTML."""
    for mark in ("<", "*", "_", "[", "]"):
        text = text.replace(mark, {"<": "&lt;"}.get(mark, f"\\{mark}"))
    return text
