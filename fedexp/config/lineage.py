"""Which data the model has seen that a run starts from, and what a promise about privacy can cover.

`from=RUN` (and `model.weights=RUN`) starts from a model that was trained on RUN's data. What RUN
spent is not in this run's ledger, so this run's epsilon is about its own rounds alone:

    RUN promised nothing, on these data    no epsilon would be true of them: refused
    RUN promised an epsilon, on these      stated: both together cost up to the sum;
                                           refused with RUN's seed, of which the noise comes again
    RUN had other data                     stated: the promise does not cover those
    a file that no run has left            stated: whatever it was trained on is not covered

The same data are those of one digest, or of one name: a split that was drawn otherwise has another
digest and the same patients. The ancestors of RUN count too; they are what its record says of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from fedexp.config.weights import MODEL_FILE, Start
from fedexp.core.checks import InputError
from fedexp.core.documents import read_json_object
from fedexp.core.examples import Dataset
from fedexp.core.text import rounded_up
from fedexp.run_folder.documents import read_config, read_summary
from fedexp.run_folder.format import config_hash


@final
@dataclass(frozen=True)
class Ancestor:
    """A run whose model the start goes back to."""

    dataset: str  # the name of its collection
    data: str  # the digest of its examples; "" if it is not known
    epsilon: float | None  # what it promised; None: nothing
    delta: float | None
    unit: str  # of its promise
    seed: int | None = None  # that its noise came from; None: not known

    def has_data_of(self, dataset: Dataset) -> bool:
        """Whether it may have trained on the same examples."""
        return self.data in ("", dataset.digest) or self.dataset in ("", dataset.name)


@final
@dataclass(frozen=True)
class Lineage:
    """Where a start comes from.

    Args:
        start: what the model starts from.
        document: for the record, so that the runs that start from this one know; {} for fresh.
        ancestors: the nearest first.
    """

    start: Start
    document: Mapping[str, Any]
    ancestors: tuple[Ancestor, ...]

    def not_covered(self, dataset: Dataset, seed: int) -> tuple[str, ...]:
        """What a promise about this run leaves out, in sentences; empty for a fresh model.

        Args:
            dataset: as it came from its loader.
            seed: of this run, from which its noise comes.

        Raises:
            InputError: it would not be true of the run's own data.
        """
        if not self.start.digest:
            return ()
        said = []
        for ancestor in self.ancestors:
            if not ancestor.has_data_of(dataset):
                said.append(f"what the model it starts from learned of {ancestor.dataset}")
            elif ancestor.epsilon is None:
                raise InputError(
                    f"was trained on {dataset.name} without a promise, and so no epsilon would be "
                    "true of these data; start afresh, or use privacy=none",
                    self.start.key,
                    self.start.value,
                )
            elif ancestor.seed in (None, seed):
                raise InputError(
                    "would draw the noise of the run that it starts from once more, and who "
                    "compares the two sees the data without it; use another seed",
                    "seed",
                    seed,
                )
            else:
                spent = rounded_up(ancestor.epsilon)
                said.append(
                    f"what the run that it starts from released of the same data (epsilon {spent} "
                    f"at delta {ancestor.delta:g}, for {ancestor.unit}): "
                    "the ledger of that run is not continued, and both together cost up to the sum "
                    "of their epsilons and deltas, where they protect the same"
                )
        return tuple(dict.fromkeys(said))


def lineage_of(start: Start) -> Lineage:
    """Read from the run's folder that a start is of, if it is of one.

    Raises:
        InputError: `from` names no run's folder, or its documents cannot be read.
    """
    place = Path(start.value).expanduser()
    folder = place if place.is_dir() else place.parent
    of_a_run = bool(start.value) and (folder / "config.yaml").is_file()
    if not of_a_run or not (place.is_dir() or place.name == MODEL_FILE):
        if start.key == "from" and start.value:
            raise InputError("is not a run folder (it has no config.yaml)", "from", start.value)
        of_a_file = [Ancestor(f"the data of {place.name}", start.digest, None, None, "")]
        return _lineage(start, {"file": str(place)}, of_a_file if start.digest else [])
    config, summary = read_config(folder), read_summary(folder)
    about = {
        "run": str(folder),
        "config_hash": config_hash(config),
        "rounds": summary.get("rounds"),
    }
    return _lineage(start, about, [_ancestor(folder, config, summary), *_before(summary)])


def _lineage(start: Start, about: Mapping[str, Any], ancestors: Sequence[Ancestor]) -> Lineage:
    if not ancestors:
        return Lineage(start, {}, ())
    seen = [vars(ancestor) for ancestor in ancestors]
    document = {**about, "model_sha256": start.digest, "trained_on": seen}
    return Lineage(start, document, tuple(ancestors))


def _ancestor(folder: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> Ancestor:
    try:
        data = str(read_json_object(folder / "origin.json").get("data") or "")
    except (OSError, ValueError):
        data = ""
    promise = summary.get("privacy")
    dataset = config.get("dataset")
    name = dataset.get("name") if isinstance(dataset, Mapping) else None
    promised = promise if isinstance(promise, Mapping) else {}
    return _of({**promised, "dataset": name, "data": data, "seed": config.get("seed")})


def _before(summary: Mapping[str, Any]) -> Sequence[Ancestor]:
    """The ancestors that a run's own record names; what cannot be read promises nothing."""
    named = (summary.get("from") or {}).get("trained_on") if "from" in summary else []
    if not isinstance(named, list):
        return [_of({})]
    return [_of(known if isinstance(known, Mapping) else {}) for known in named]


def _of(known: Mapping[str, Any]) -> Ancestor:
    epsilon, delta, seed = known.get("epsilon"), known.get("delta"), known.get("seed")
    whole = all(isinstance(number, int | float) for number in (epsilon, delta))
    return Ancestor(
        dataset=str(known.get("dataset") or ""),
        data=str(known.get("data") or ""),
        epsilon=float(epsilon) if whole and epsilon is not None else None,
        delta=float(delta) if whole and delta is not None else None,
        unit=str(known.get("unit") or ""),
        seed=seed if isinstance(seed, int) else None,
    )
