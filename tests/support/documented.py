"""The commands that README and documentation show, as a reader would type them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
    *sorted((ROOT / "docs" / "explanation").glob("*.md")),
]
BLOCK = re.compile(r"^```(?:bash|text)\n(.*?)^```|((?:^    .*\n)+)", re.MULTILINE | re.DOTALL)
IN_A_TABLE = re.compile(r"`(fedexp run [^`]+)`")


@dataclass(frozen=True)
class Command:
    """One command: where it stands, and its words."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"

    @property
    def overrides(self) -> list[str]:
        """What is chosen, without options and the reader's files; of a sweep the first."""
        said = [word for word in self.words[2:] if "=" in word or word[0] in "~+"]
        said = [word for word in said if not word.startswith(("dataset.path=", "partition.path="))]
        parsed = OverridesParser.create().parse_overrides(said)
        return [
            f"{of.get_key_element()}={next(of.sweep_string_iterator())}"
            if of.is_sweep_override()
            else of.input_line
            for of in parsed
        ]


def commands(page: Path) -> list[Command]:
    """Every `fedexp ...` and `python scripts/...` of a page's blocks and tables, whole ones only.

    `...` in a command says that something is left out, so it is nobody's to type.
    """
    text = page.read_text(encoding="utf-8")
    lines = [line for found in BLOCK.findall(text) for line in _joined("".join(found))]
    rows = "\n".join(line for line in text.splitlines() if "|" in line)
    lines += IN_A_TABLE.findall(rows)
    split = (tuple(shlex.split(line, comments=True)) for line in lines)
    return [Command(page, words) for words in split if "..." not in words]


def _joined(block: str) -> list[str]:
    """The commands of a block, each on one line, without prompts, variables and output."""
    text = re.sub(r"\\\n\s*", " ", block)
    before = re.compile(r"^\s*(\$ )?([A-Z_]+=\S+ )*(\S+/)?")
    lines = [before.sub("", line).rstrip() for line in text.splitlines()]
    return [line for line in lines if re.match(r"fedexp [a-z]|python3? scripts/", line)]
