"""YAML that anybody may have written: read as PyYAML reads it, or refused in a line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from fedexp.core.checks import InputError
from fedexp.core.documents import DEEPEST, _Loader, read_yaml_mapping

ROOT = Path(__file__).parents[3]
SCALARS = r"""
strings: [plain, 'quoted', "two\nlines", "1", '', "null", 'a: b', 2026-11-27, off-line, 08, 1.2.3]
numbers: [1, -1, +3, 0x10, 0o7, 010, 1_000, 1.5, 1e-3, 1E5, -2.5e-7, .5, .inf, -.inf, 12:30:45, 0]
nothing: [null, ~, Null, ]
truths: [true, FALSE, yes, off, "true", n]
tagged: [!!str 1, !!int "7", !!float 3, !!bool "yes", ! 12, !!seq [1], !!map {a: 1}]
empty: {list: [], mapping: {}}
block: |
  kept
  as it is
folded: >-
  one
  line
twice: 1
twice: 2
1: of another kind
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_what_is_read_is_what_pyyaml_reads(tmp_path: Path) -> None:
    text = SCALARS.replace("1: of another kind\n", "")
    read = read_yaml_mapping(written(tmp_path, text))
    assert repr(read) == repr(yaml.load(text, _Loader))
    assert read["numbers"][8] == 1e-3
    assert read["twice"] == 2


def test_every_config_of_ours_is_read_the_same() -> None:
    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "tests").rglob("*.yaml")]
    contents = {path: yaml.load(path.read_text(), _Loader) for path in files}
    read = {path: content for path, content in contents.items() if isinstance(content, dict)}
    assert len(read) > 100
    assert {path: read_yaml_mapping(path) for path in read} == read


REFUSED = {
    "an alias": ("a: &x 1\nb: *x\n", "aliases"),
    "one list in another": ("a: " + "[" * DEEPEST + "]" * DEEPEST, "nests too deep"),
    "a mapping in another, in blocks": (
        "".join(f"{' ' * k}a:\n" for k in range(DEEPEST + 1)),
        "nests too deep",
    ),
    "bytes": ("a: !!binary aGk=\n", "bytes"),
    "a set": ("a: !!set {b, c}\n", "set"),
    "pairs in order": ("a: !!omap [b: 1]\n", "omap"),
    "an object": ("a: !!python/object/apply:os.getcwd []\n", "python/object"),
    "an object that is a word": ("a: !!python/name:os.getcwd ''\n", "python/name"),
    "a date that says it is one": ("a: !!timestamp 2026-11-27\n", "date"),
    "a number of thousands of digits": (f"a: {'9' * 5000}\n", "digits"),
    "names of two kinds": (SCALARS, "several kinds"),
    "a name that is a list": ("? [1]\n: 2\n", "several kinds"),
    "a name that is a number": ("1.5: 2\n", "several kinds"),
    "no name": ("~: 2\n", "several kinds"),
    "two documents": ("a: 1\n---\nb: 2\n", "several documents"),
    "a list": ("- 1\n", "is not a YAML mapping"),
    "nothing": ("# a comment\n", "is not a YAML mapping"),
    "a merge": ("a:\n  <<: {b: 1}\n", "merge"),
    "no YAML": ("a: [1\n", "is not a YAML mapping"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_json_cannot_say_is_refused(tmp_path: Path, name: str) -> None:
    text, word = REFUSED[name]
    with pytest.raises(InputError, match=word):
        read_yaml_mapping(written(tmp_path, text))


def test_the_deepest_is_read(tmp_path: Path) -> None:
    text = "a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert list(read_yaml_mapping(written(tmp_path, text))) == ["a"]


def test_neither_what_unfolds_nor_what_nests_is_built(tmp_path: Path) -> None:
    unfolding = "a0: &a0 [x]\n" + "".join(
        f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 60)
    )
    started = time.process_time()
    for text in (unfolding, "a: " + "[" * 500_000, "a: " + "{b: " * 100_000):
        with pytest.raises(InputError):
            read_yaml_mapping(written(tmp_path, text))
    assert time.process_time() - started < 1  # seconds; the first event too many ends it
