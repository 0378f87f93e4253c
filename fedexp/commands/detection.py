"""The work of `fedexp detect fit` and `fedexp detect scan`: a detector for update files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from fedexp.commands.answers import answer
from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError, at_least, in_range
from fedexp.core.files import write_atomically
from fedexp.core.text import printable
from fedexp.core.types import Updates
from fedexp.detection.fitted import Fitted
from fedexp.detection.fitted import fit as fit_detector
from fedexp.detection.scorers import SCORERS, Scorer
from fedexp.reporting.detection import Scored, write_scan
from fedexp.run_folder.untrusted import (
    NotUsable,
    OtherModel,
    metadata,
    read_bytes,
    tensors_in,
    with_metadata,
)
from fedexp.run_folder.update_files import Layout
from fedexp.run_folder.update_folder import (
    Batch,
    Read,
    Unusable,
    UpdateFile,
    UpdateFolder,
    batches,
    find_updates,
    reader,
)

LAYOUT = "layout"
"""Key in a detector file's metadata: names and shapes of the tensors that it was fitted on."""


def fit(
    folder: Path,
    out: Path,
    *,
    scorer: str,
    quantile: float,
    sketch: int | None,
    seed: int,
    baseline: Path | None,
    include_malicious: bool,
    force: bool,
) -> None:
    """Fit a detector on the honest updates in `folder`, write it to `out`, and say how it went.

    Args:
        folder: of update files, or a run folder.
        out: the detector's file.
        scorer: a name in `fedexp.detection.scorers.SCORERS`.
        quantile: of the held-out honest scores at which the threshold lies.
        sketch: numbers that an update is made into first; None takes what conf/detector says.
        seed: of the sketch and of the fit.
        baseline: a global model; the files then hold local models.
        include_malicious: fit also on what index.csv marks as malicious.
        force: replace `out` if it is there.

    Raises:
        InputError: an argument, or no file, can be used.
    """
    in_range(0, 1, **{"--quantile": quantile})
    at_least(0, **{"--seed": seed})
    if out.is_dir() or not out.parent.is_dir():
        raise InputError("must be a file in a folder that exists", "--out", out)
    if out.exists() and not force:
        raise InputError("is there already; --force replaces it", "--out", out)
    torch.set_num_threads(1)  # as in a run: the same bits for any number of cores
    kind = _scorer(scorer, sketch)
    read = reader(_global_model(baseline))
    found = find_updates(folder, without=[out, *([baseline] if baseline else [])])
    honest = [file for file in found.files if include_malicious or not file.malicious]
    left_out, found.files = len(found.files) - len(honest), honest
    if left_out and not honest:
        raise InputError(
            f"index.csv marks all {left_out} as malicious; --include-malicious fits on them",
            "UPDATES_DIR",
            folder,
        )
    rows = _Rows(found, _commonest_layout(folder, found, read), read)
    fitted = fit_detector(kind, rows.updates("fitting"), quantile, seed)
    write_atomically(out, with_metadata(fitted.to_bytes(), LAYOUT, rows.layout.to_json()))
    aside = [
        f"{left_out} that index.csv marks as malicious" if left_out else "",
        f"{found.twins} copies in another format" if found.twins else "",
        f"{len(found.unusable)} that cannot be used" if found.unusable else "",
    ]
    without = " and ".join(words for words in aside if words)
    alarms = _false_alarms(kind, rows, quantile, seed)
    text = (
        f"Fitted {scorer} on {fitted.rows} updates of {fitted.d:,} numbers"
        f"{f', leaving out {without}' if without else ''}.\n"
        f"Threshold {fitted.threshold:.4g}: the {quantile:g} quantile of held-out scores.\n"
        f"False alarms: {_in_words(alarms)}.\n"
        f"Saved: {out}"
    )
    answer(
        "\n".join([text, *_names(found.unusable)]),
        lambda: {
            "schema": "detector/1",
            "detector": str(out),
            "scorer": scorer,
            "updates": fitted.rows,
            "numbers": fitted.d,
            "quantile": quantile,
            "threshold": fitted.threshold,
            "left_out_as_malicious": left_out,
            "copies": found.twins,
            "unusable": _as_documents(found.unusable),
            "false_alarms": None if alarms is None else asdict(alarms),
        },
    )


def scan(
    folder: Path,
    detector: Path,
    *,
    threshold: float | None,
    out: Path | None,
    baseline: Path | None,
) -> bool:
    """Score the updates in `folder`; print and save the table and the picture.

    Args:
        folder: of update files, or a run folder.
        detector: a file that `fit` wrote.
        threshold: flags scores above it, instead of the detector's own.
        out: the folder for scores.csv and histogram.png; None: one beside the detector.
        baseline: a global model; the files then hold local models.

    Returns:
        Whether every file could be used.

    Raises:
        InputError: the folder, the detector or the global model cannot be used, or every update
            is of another model.
    """
    if threshold is not None and not math.isfinite(threshold):
        raise InputError("must be a finite number", "--threshold", threshold)
    torch.set_num_threads(1)
    fitted, layout = _read_detector(detector)
    start = _global_model(baseline)
    if start and (problem := layout.difference(Layout.of_tensors(start))):
        raise InputError(f"is of another model than the detector: {problem}", "--global", baseline)
    found = find_updates(folder, without=[detector, *([baseline] if baseline else [])])
    limit = fitted.threshold if threshold is None else threshold
    scored = [
        Scored(file.name, file.round, file.client, file.malicious, score, score > limit)
        for file, score in _scores(fitted, _Rows(found, layout, reader(start)).batches("scanning"))
    ]
    said = []
    if scored:
        place = detector.parent / f"scan-of-{_name_of(folder)}" if out is None else out
        if out is None and place.is_symlink():
            raise InputError("is a link; name the folder with --out", "--out", place)
        unusable = [(u.path, u.reason) for u in found.unusable]
        subtitle = f"{printable(str(folder))}, scored by {printable(str(detector))}"
        said.append(write_scan(scored, unusable, limit, place, subtitle))
    elif all(u.other_model for u in found.unusable):
        first = found.unusable[0]
        raise InputError(
            f"no file is of the detector's model; {first.path} {first.reason}",
            "UPDATES_DIR",
            folder,
        )
    if found.twins:
        said.append(f"{found.twins} copies in another format were not counted.")
    answer(
        "\n".join([*said, *_names(found.unusable)]),
        lambda: {
            "schema": "scan/1",
            "folder": str(folder),
            "detector": str(detector),
            "threshold": limit,
            "flagged": sum(one.flagged for one in scored),
            "scores": [asdict(one) for one in scored],
            "copies": found.twins,
            "unusable": _as_documents(found.unusable),
            "written_to": str(place) if scored else None,
        },
    )
    return not found.unusable


def _scorer(name: str, sketch: int | None) -> Scorer:
    """The scorer with the settings that it has in a run."""
    config: Any = OmegaConf.load(conf_folder() / "detector" / f"{name}.yaml")
    settings = {k: v for k, v in config.scorer.items() if k != "_target_"}
    if sketch is not None:
        if settings.get("sketch_size", 0) == 0:
            raise InputError(f"{name} needs none", "--sketch", sketch)
        at_least(1, **{"--sketch": sketch})
        settings["sketch_size"] = sketch
    return SCORERS[name](**settings)


@final
@dataclass(frozen=True)
class _Rows:
    """The rows of a folder, to be read as often as needed."""

    found: UpdateFolder
    layout: Layout
    read: Read

    def batches(self, verb: str) -> Iterator[Batch]:
        """Round by round, under a bar on a terminal where it lasts for more than a second."""
        with _progress(self.read, len(self.found.files), verb) as read:
            yield from batches(self.found, self.layout, read)

    def updates(self, verb: str) -> Iterator[Tensor | Updates]:
        """The same, with their senders where those are known."""
        for batch in self.batches(verb):
            if batch.clients is None:
                yield batch.matrix
            else:
                equal = torch.ones(len(batch.files), dtype=torch.float64)
                yield Updates(batch.matrix, batch.clients, equal)

    def of(self, files: Iterable[UpdateFile]) -> _Rows:
        """The rows of some of the files; what is noted on the way is not noted again."""
        return replace(self, found=UpdateFolder(list(files)))


@final
@dataclass(frozen=True)
class _Alarms:
    """What a detector fitted without the last rounds makes of these."""

    first_round: int
    last_round: int
    flagged: int
    of: int


def _in_words(alarms: _Alarms | None) -> str:
    if alarms is None:
        return "unknown, with too few rounds to hold some of them out"
    first, last = alarms.first_round, alarms.last_round
    where = f"rounds {first} to {last}" if last > first else f"round {first}"
    return (
        f"fitted without {where}, it flags {alarms.flagged} of {alarms.of} updates there "
        f"({alarms.flagged / alarms.of:.1%})"
    )


def _false_alarms(scorer: Scorer, rows: _Rows, quantile: float, seed: int) -> _Alarms | None:
    """The last fifth of the rounds is held out; None where there are too few."""
    files = rows.found.files
    rounds = sorted({file.round for file in files if file.round is not None})
    late = rounds[len(rounds) - len(rounds) // 5 :]
    early = rows.of(file for file in files if file.round not in late)
    if not late:
        return None
    try:
        fitted = fit_detector(scorer, early.updates("holding out"), quantile, seed)
    except InputError:  # too few updates are left
        return None
    # All rounds in their order: the detector remembers.
    scores = _scores(fitted, rows.of(files).batches("scoring"))
    flags = [score > fitted.threshold for file, score in scores if file.round in late]
    if not flags:  # somebody has taken the files away
        return None
    return _Alarms(late[0], late[-1], sum(flags), len(flags))


def _scores(fitted: Fitted, rounds: Iterable[Batch]) -> Iterator[tuple[UpdateFile, float]]:
    """Every file with its score; the detector remembers the rounds as they pass."""
    memory = fitted.start()
    for batch in rounds:
        scores, memory = fitted.score_round(batch.matrix, batch.clients, memory)
        yield from zip(batch.files, scores.tolist(), strict=True)


def _commonest_layout(folder: Path, found: UpdateFolder, read: Read) -> Layout:
    """The layout that most files have; the other files are refused."""
    layouts: dict[UpdateFile, Layout] = {}
    with _progress(read, len(found.files), "checking") as counted:
        for file in found.files:
            try:
                layouts[file] = Layout.of_tensors(counted(file))
            except NotUsable as error:
                found.refuse(file, error)
    if not layouts:
        first = next(iter(found.unusable), None)
        why = f"; the first, {first.path}: {first.reason}" if first else ""
        raise InputError(f"holds no honest update that can be used{why}", "UPDATES_DIR", folder)
    counts = Counter(layout.unordered for layout in layouts.values())
    commonest = counts.most_common(1)[0][0]  # of equally common ones the first
    chosen = next(layout for layout in layouts.values() if layout.unordered == commonest)
    for file, layout in layouts.items():
        if problem := chosen.difference(layout):
            found.refuse(file, OtherModel(f"{problem} (as in most files)"))
    found.files = [file for file, layout in layouts.items() if layout.unordered == commonest]
    return chosen


def _global_model(path: Path | None) -> dict[str, Tensor] | None:
    if path is None:
        return None
    try:
        return tensors_in(read_bytes(path), path.suffix.lower())
    except NotUsable as error:
        raise InputError(str(error), "--global", path) from error


def _read_detector(path: Path) -> tuple[Fitted, Layout]:
    try:
        content = read_bytes(path)
        fitted = Fitted.from_bytes(content)
        layout = Layout.from_json(metadata(content)[LAYOUT])
    except NotUsable as error:
        raise InputError(str(error), "--detector", path) from error
    except InputError as error:
        raise InputError(error.reason, "--detector", path) from error
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            "does not say which tensors it was fitted on", "--detector", path
        ) from error
    if layout.d != fitted.d:
        raise InputError(
            f"is broken: fitted on {fitted.d:,} numbers, but names tensors of {layout.d:,}",
            "--detector",
            path,
        )
    return fitted, layout


@contextmanager
def _progress(read: Read, total: int, verb: str) -> Iterator[Read]:
    """`read` with a bar on a terminal, where it lasts for more than a second."""
    with tqdm(
        total=total, desc=verb, unit="file", delay=1, leave=False, disable=None, dynamic_ncols=True
    ) as bar:

        def counted(file: UpdateFile) -> Mapping[str, Tensor]:
            bar.update()
            return read(file)

        yield counted


def _name_of(folder: Path) -> str:
    place = folder.resolve()
    return f"{place.parent.name}-updates" if place.name == "updates" else place.name


def _names(unusable: Sequence[Unusable]) -> list[str]:
    if not unusable:
        return []
    lines = [f"  {u.path}: {u.reason}" for u in unusable]
    return [f"{len(unusable)} could not be used:", *lines]


def _as_documents(unusable: Sequence[Unusable]) -> list[dict[str, str]]:
    return [{"file": str(u.path), "reason": u.reason} for u in unusable]
