"""The tables of docs/results, written from the CSV files in docs/results/data.

    python scripts/results_tables.py            write each table between its markers
    python scripts/results_tables.py --check    write nothing; say what differs, and end with 1

A table stands in its page between `<!-- table: NAME -->` and `<!-- end -->`, and is made of
`data/NAME.csv`: lines of provenance (`# command: ...`), a header, rows. A cell is what the file
says, digit by digit. What belongs to a column H is joined to it: `H ±` is its spread ("a ± b"),
`H (%)` a share ("a (b %)"), `H low` and `H high` its interval ("a [b, c]").
"""

import csv
import re
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
TABLE = re.compile(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", re.DOTALL)
BESIDE = re.compile(r"(.+?) (?:±|\(%\)|low|high)")


def read(path: Path) -> tuple[dict[str, str], list[str], list[dict[str, str]]]:
    """Provenance, header and rows of a file; ValueError if it is no table."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if line.startswith("#")]
    provenance = dict(line[2:].split(": ", 1) for line in said)
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    if len(set(header)) < len(header):
        raise ValueError(f"{path.name}: two columns of one name")
    return provenance, header, [dict(zip(header, row, strict=True)) for row in rows]


def shown(header: list[str]) -> list[str]:
    """The columns of the page: those that belong to no other."""
    beside = {name: BESIDE.fullmatch(name) for name in header}
    return [name for name, of in beside.items() if not (of and of[1] in header)]


def cell(row: dict[str, str], name: str) -> str:
    """What a row says in a column, with its spread, share or interval where there is one."""
    text = row[name]
    if spread := row.get(f"{name} ±"):
        text += f" ± {spread}"
    if share := row.get(f"{name} (%)"):
        text += f" ({share} %)"
    if low := row.get(f"{name} low"):
        text += f" [{low}, {row[f'{name} high']}]"
    return text


def table(path: Path) -> str:
    """The Markdown of a file."""
    _, header, rows = read(path)
    names = shown(header)
    lines = [names, ["---"] * len(names), *([cell(row, name) for name in names] for row in rows)]
    return "\n".join(re.sub(" +", " ", f"| {' | '.join(line)} |") for line in lines)


def page(text: str) -> str:
    """The text of a page with its tables as the files have them."""
    return TABLE.sub(
        lambda of: f"{of[1]}\n\n{table(RESULTS / 'data' / f'{of[2]}.csv')}\n\n{of[3]}", text
    )


def main(arguments: list[str]) -> int:
    old = {path: path.read_text(encoding="utf-8") for path in sorted(RESULTS.glob("*.md"))}
    differ = {path: new for path, text in old.items() if (new := page(text)) != text}
    for path, text in differ.items():
        print(path.relative_to(RESULTS.parent))
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    return int(bool(differ) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
