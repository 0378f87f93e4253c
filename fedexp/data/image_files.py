"""Which images a folder holds, and what its tree or its manifest says about each.

    class/IMAGE          site/class/IMAGE          (official parts: train/class/IMAGE, ...)
    manifest.csv         path, label and, if there, site, patient, split; paths from the folder on

Nothing outside the folder is read: no path that leads out of it, and no link that does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import pandas as pd

from fedexp.core.checks import InputError, NotThere, did_you_mean
from fedexp.data.columns import Columns, read_csv, row_of
from fedexp.data.records import OF_WORDS, some, without_missing

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
MANIFEST = "manifest.csv"


@final
@dataclass(frozen=True)
class Listing:
    """The images that there are to read, and what cannot be."""

    root: Path  # without links
    files: tuple[str, ...]  # [n] from the folder on, with / between
    frame: pd.DataFrame  # [n] see `fedexp.data.records.COLUMNS`; `place` is the file
    left_out: tuple[tuple[str, str], ...]  # (file or row, why), what is not read
    notes: tuple[str, ...] = ()  # what else is there


def listed(path: str, manifest: str | None, columns: Columns) -> Listing:
    """What is in the folder at `path`.

    Args:
        path: the folder.
        manifest: name of a CSV in it; None: `manifest.csv` if there is one, else the tree says it.
        columns: of the manifest.

    Raises:
        InputError: there is no such folder, nothing in it, its tree or manifest is no such, or a
            column is named and there is no manifest.
    """
    root = Path(path).expanduser()
    try:
        root = root.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "the link leads nowhere"
        kind = NotThere if isinstance(error, FileNotFoundError) else InputError
        raise kind(f"cannot be read: {reason}", "path", path) from None
    if not root.is_dir():
        raise InputError("is no folder", "path", path)
    if manifest is None and not (root / MANIFEST).is_file():
        for key, column in columns.named().items():
            reason = f"is a column of a manifest, and {root} has no {MANIFEST}"
            raise InputError(f"{reason}; say which it is: dataset.manifest=FILE", key, column)
        found = _of_tree(root, path)
    else:
        found = _of_manifest(root, manifest or MANIFEST, columns)
    if not found.files:
        why = f": {found.left_out[0][0]} {found.left_out[0][1]}" if found.left_out else ""
        raise InputError(f"holds no image that can be used{why}", "path", path)
    return found


def _of_tree(root: Path, path: str) -> Listing:
    files, left_out, others = _walked(root)
    if not files:
        reason = f"holds no images ({', '.join(ENDINGS)})"
        raise InputError(f"{reason}{_others(others)}", "path", path)
    folders = [tuple(file.split("/")[:-1]) for file in files]
    levels = _levels(folders, files, path)
    frame = pd.DataFrame({"place": files})
    for place, column in enumerate(levels):
        frame[column] = [parts[place] for parts in folders]
    return Listing(
        root=root,
        files=tuple(files),
        frame=frame,
        left_out=tuple(left_out),
        notes=(*_empty(root, levels, folders), *_unread(others)),
    )


def _levels(folders: list[tuple[str, ...]], files: list[str], path: str) -> tuple[str, ...]:
    """What the folders above an image are, the outermost first."""
    depths = dict(zip(map(len, reversed(folders)), reversed(files), strict=True))
    if len(depths) > 1:
        reason = f"images lie at different depths, as {' and '.join(sorted(depths.values()))}"
        raise InputError(f"{reason}; put them in CLASS/ or SITE/CLASS/", "path", path)
    (depth,) = depths
    if depth == 0:
        reason = f"{files[0]} lies in no folder that says its class; put images in CLASS/ or"
        raise InputError(f"{reason} SITE/CLASS/, or add a {MANIFEST}", "path", path)
    outermost = {above[0].lower() for above in set(folders)}
    official = ("part",) if outermost <= OF_WORDS.keys() else ()
    levels = {1: ("label",), 2: ("site", "label")}.get(depth - len(official))
    if levels is None:
        reason = f"{files[0]} lies too deep for SITE/CLASS/IMAGE; add a {MANIFEST}"
        raise InputError(reason, "path", path)
    return (*official, *levels)


def _walked(root: Path) -> tuple[list[str], list[tuple[str, str]], Counter[str]]:
    """Images in natural order of the tree, what is a link, and the endings of other files."""
    files: list[str] = []
    left_out: list[tuple[str, str]] = []
    others: Counter[str] = Counter()
    for name, entry in _entries(root, ""):
        if entry.is_symlink():
            if not os.path.exists(entry.path):  # a circle neither
                left_out.append((name, "is a link that leads nowhere"))
                continue
            if os.path.isdir(entry.path) or not _inside(root, root / name):
                left_out.append((name, "is a link, and none is followed to a folder or out of it"))
                continue
        ending = os.path.splitext(name)[1].lower()
        if ending in ENDINGS:
            files.append(name)
        elif name != MANIFEST:
            others[ending or "no ending"] += 1
    return files, left_out, others


def _entries(folder: Path, above: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file and link below a folder, by name; hidden ones are nobody's data."""
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        name = f"{above}{entry.name}"
        if entry.name.startswith(".") or entry.name in ("Thumbs.db", "__MACOSX"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), f"{name}/")
        else:
            yield name, entry


def _inside(root: Path, file: Path) -> bool:
    try:
        return file.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # nowhere, or in a circle
        return False


def _empty(root: Path, levels: tuple[str, ...], folders: list[tuple[str, ...]]) -> Iterator[str]:
    """Folders that would be a class, and hold no image."""
    known = set(folders)
    for folder, below, _ in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) == len(levels) and parts not in known and not hidden:
            yield f"the folder {'/'.join(parts)} holds no image"
        if len(parts) >= len(levels):
            below.clear()


def _unread(others: Counter[str]) -> Iterator[str]:
    if others:
        yield f"{others.total()} other files are not read{_others(others)}"


def _others(others: Counter[str]) -> str:
    return f" ({', '.join(f'{n} {ending}' for ending, n in others.most_common(5))})" * bool(others)


def _of_manifest(root: Path, manifest: str, columns: Columns) -> Listing:
    place = root / manifest
    if not place.is_file():
        known = [p.name for p in sorted(root.glob("*.csv"))]
        reason = f"{did_you_mean(manifest, known)}There is no such file in {root}"
        raise InputError(reason, "manifest", manifest)
    if not _inside(root, place):
        raise InputError("lies outside the folder", "manifest", manifest)
    table = read_csv(place)
    found = columns.found(table, place, needed=("file", "label"))
    table = table.apply(lambda column: column.str.strip())
    frame = pd.DataFrame({"label": table[found["label"]]})
    for column, key in (("site", "site"), ("subject", "subject"), ("part", "official")):
        if key in found:
            words = table[found[key]]
            frame[column] = words if column == "part" else without_missing(words)
    used, files, left_out = _rows(root, place, table[found["file"]].tolist(), frame["label"])
    frame = frame.iloc[used].assign(place=files).reset_index(drop=True)
    return Listing(root, tuple(files), frame, tuple(left_out))


def _rows(
    root: Path, manifest: Path, paths: list[str], labels: pd.Series[str]
) -> tuple[list[int], list[str], list[tuple[str, str]]]:
    """Which rows can be used, their files, and why others cannot."""
    used: list[int] = []
    files: list[str] = []
    left_out: list[tuple[str, str]] = []
    first: dict[str, int] = {}
    folders: dict[str, bool] = {}
    for row, (path, label) in enumerate(zip(paths, labels.tolist(), strict=True)):
        where = row_of(manifest, row)
        if not path:
            left_out.append((where, "names no path"))
            continue
        name = _normal(path, where)
        if not label:
            left_out.append((name, f"has no label ({where})"))
        elif name in first:
            if labels.iloc[first[name]] != label:
                other = f"{labels.iloc[first[name]]} in line {first[name] + 2}"
                raise InputError(f"{where}: {name} is labelled {label}, and {other}")
            left_out.append((where, f"names {name} again (line {first[name] + 2})"))
        else:
            why = _unusable(root, name, folders)
            if why == OUTSIDE:
                raise InputError(f"{where}: {path} {why}")
            if why:
                left_out.append((name, f"{why} ({where})"))
            else:
                first[name] = row
                used.append(row)
                files.append(name)
    return used, files, left_out


OUTSIDE = "lies outside the folder, and nothing there is read"


def _normal(path: str, where: str) -> str:
    """A path of a manifest from the folder on, however it was written."""
    name = os.path.normpath(path.replace("\\", "/")).replace(os.sep, "/")
    if name.startswith(("/", "../")) or name == ".." or ":" in name[:2]:
        raise InputError(f"{where}: {path} {OUTSIDE}")
    return name


def _unusable(root: Path, name: str, folders: dict[str, bool]) -> str:
    """Why a file of a manifest cannot be read; "": it can. `folders` keeps what was seen."""
    above = name.rpartition("/")[0]
    if above not in folders:
        folders[above] = not os.path.lexists(root / above) or _inside(root, root / above)
    file = os.path.join(root, name)
    if not os.path.lexists(file):
        return "is not there"
    if not folders[above]:
        return OUTSIDE
    if os.path.islink(file):
        if not os.path.exists(file):
            return "is a link that leads nowhere"
        if not _inside(root, Path(file)):
            return OUTSIDE
    return "" if os.path.isfile(file) else "is no file"


def said(left_out: tuple[tuple[str, str], ...], path: str) -> list[str]:
    """A remark about what is left out."""
    if not left_out:
        return []
    names = some([f"{place} ({why})" for place, why in left_out])
    more = f"; all: fedexp data check {path}" if len(left_out) > 5 else ""
    return [f"left out, {len(left_out)} of the data: {names}{more}"]
