"""Divides examples into train, validation and test: as they come officially, or by a draw.

A draw goes site by site and, within a site, class by class. Patients are drawn and not images (of
an unknown patient, the image), in a random order; each goes to the part that is furthest behind its
share of what was drawn so far, in this site first, and in all. So the shares hold to a patient in
every site and nearly in every class; scikit-learn's stratified splits instead refuse a class of one
patient, and know no second layer such as the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from fedexp.core.checks import InputError, at_least, one_of
from fedexp.core.rng import generator
from fedexp.data.records import PARTS, UNKNOWN, Records, some

By = Literal["auto", "official", "patient", "example"]
TRAIN, VALIDATION, TEST = range(3)
OF_ALL = 0.5  # what being behind in all sites together counts, beside being behind in this one


@final
@dataclass(frozen=True)
class Division:
    """How examples are divided.

    Args:
        by: official (as the data say), patient (all of a patient's examples in one part), example
            (each by itself), or auto: the first of these that the data allow.
        validation: share of the examples, where the data do not say.
        test: the same.
        seed: decides which; apart from the run's seed.
    """

    by: By
    validation: float
    test: float
    seed: int

    def __post_init__(self) -> None:
        one_of(("auto", "official", "patient", "example"), split=self.by)
        for key, share in (("validation_share", self.validation), ("test_share", self.test)):
            if not 0 < share < 1:
                raise InputError("must lie between 0 and 1", key, share)
        if self.validation + self.test >= 1:
            reason = f"leaves nothing to train on beside validation_share={self.validation:g}"
            raise InputError(reason, "test_share", self.test)
        at_least(0, split_seed=self.seed)

    def __call__(self, records: Records) -> np.ndarray:
        """The part of each example: `[n]` int64, a place in `PARTS`.

        Raises:
            InputError: they cannot be divided so, or a part cannot be used.
        """
        chosen = self._chosen(records)
        if chosen == "official":
            parts = self._official(records)
        else:
            parts = self._drawn(records, np.arange(len(records)), (VALIDATION, TEST))
        _refuse_unusable(records, parts)
        return parts

    def remarks(self, records: Records, parts: np.ndarray) -> list[str]:
        """What a person should know about it."""
        found = []
        if self._chosen(records) == "example" and records.subject is not None:
            found.append(
                "dataset.split=example: images of one patient lie in train and in test, which "
                "flatters the model; dataset.split=patient keeps them together"
            )
        if records.site is not None:
            for part in (TEST, VALIDATION):
                there = set(records.site[parts == part].tolist())
                lacking = [n for k, n in enumerate(records.site_names) if k not in there]
                if lacking:
                    have = "has" if len(lacking) == 1 else "have"
                    found.append(
                        f"site {some(lacking)} {have} no {PARTS[part]} examples: too few patients"
                    )
        return found

    def _chosen(self, records: Records) -> str:
        known = {"official": records.part is not None, "patient": records.subject is not None}
        if self.by == "auto":
            return next((how for how, there in known.items() if there), "example")
        if not known.get(self.by, True):
            what = {"official": "to which part", "patient": "of which patient"}[self.by]
            raise InputError(f"the data do not say {what} an example is", "split", self.by)
        return self.by

    def _official(self, records: Records) -> np.ndarray:
        """As the data say; a part that they do not have is drawn from the training part."""
        assert records.part is not None
        parts = records.part.copy()
        unsaid = np.flatnonzero(parts == UNKNOWN)
        if len(unsaid):
            reason = f"{some(list(records.places[unsaid]))}: it is not said in which part"
            raise InputError(reason, "split", self.by)
        missing = [part for part in (VALIDATION, TEST) if not (parts == part).any()]
        if missing:
            rows = np.flatnonzero(parts == TRAIN)
            parts[rows] = self._drawn(records, rows, missing)
        if twice := in_two_parts(records, parts):
            raise InputError(twice[0], "split", "official")
        return parts

    def _drawn(self, records: Records, rows: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
        """The parts of `rows` `[k]`, drawn for `wanted` beside the training part."""
        shares = np.zeros(len(PARTS))
        for part in wanted:
            shares[part] = (self.validation, self.test)[part - 1]
        shares[TRAIN] = 1 - shares.sum()
        groups = self._groups(records, rows)
        site = np.zeros(len(rows), np.int64) if records.site is None else records.site[rows]
        label = records.patterns[rows]
        first, size, usual = _of_groups(groups, label)
        shuffled = generator(self.seed, "division").permutation(len(first))
        order = shuffled[np.lexsort((usual[shuffled], site[first[shuffled]]))]
        of_group = _dealt(order, size, site[first], usual, shares)
        drawn: np.ndarray = of_group[groups]
        return drawn

    def _groups(self, records: Records, rows: np.ndarray) -> np.ndarray:
        """`[k]` int64, 0..: alike for examples that stay together."""
        own = np.arange(len(rows)) + len(records)
        if records.subject is None or self.by == "example":
            return np.arange(len(rows))
        subject = records.subject[rows]
        groups: np.ndarray
        _, groups = np.unique(np.where(subject == UNKNOWN, own, subject), return_inverse=True)
        return groups


def _of_groups(groups: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each group its first row, its size and its most frequent label, each `[groups]`."""
    first, size = np.unique(groups, return_index=True, return_counts=True)[1:]
    pairs, times = np.unique(np.stack([groups, label]), axis=1, return_counts=True)
    usual = np.empty(len(first), np.int64)
    rising = np.argsort(times, kind="stable")
    usual[pairs[0, rising]] = pairs[1, rising]  # the last to be written is the most frequent
    return first, size, usual


def _dealt(
    order: np.ndarray, size: np.ndarray, site: np.ndarray, label: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """The part of each group, dealt in `order`; the first of a site or of a class is trained on."""
    parts = np.empty(len(order), np.int64)
    sites_seen: set[int] = set()
    labels_seen: set[int] = set()
    wanted = [part for part in (TEST, VALIDATION, TRAIN) if shares[part] > 0]  # a tie: the first
    behind_in_all = dict.fromkeys(wanted, 0.0)
    behind = dict.fromkeys(wanted, 0.0)
    for group in order.tolist():
        n, its_site, its_label = int(size[group]), int(site[group]), int(label[group])
        if its_site not in sites_seen:
            behind = dict.fromkeys(wanted, 0.0)
        for part in wanted:
            behind[part] += shares[part] * n
            behind_in_all[part] += shares[part] * n
        if its_site not in sites_seen or its_label not in labels_seen:
            part = TRAIN
        else:
            part = wanted[0]
            for other in wanted[1:]:  # a tie, to a rounding, is the first's
                ahead = behind[other] - behind[part]
                if ahead + OF_ALL * (behind_in_all[other] - behind_in_all[part]) > 1e-9:
                    part = other
        behind[part] -= n
        behind_in_all[part] -= n
        sites_seen.add(its_site)
        labels_seen.add(its_label)
        parts[group] = part
    return parts


def in_two_parts(records: Records, parts: np.ndarray) -> list[str]:
    """A sentence for every patient whose examples are not all in one part."""
    if records.subject is None:
        return []
    known = np.flatnonzero(records.subject != UNKNOWN)
    subject, part = records.subject[known], parts[known]
    pairs, first = np.unique(np.stack([subject, part]), axis=1, return_index=True)
    found = []
    for patient in np.flatnonzero(np.bincount(pairs[0]) > 1):
        at = [
            f"{PARTS[pairs[1, k]]} ({records.places[known[first[k]]]})"
            for k in np.flatnonzero(pairs[0] == patient)
        ]
        found.append(f"patient {records.subject_names[patient]} is in {' and in '.join(at)}")
    return found


def _refuse_unusable(records: Records, parts: np.ndarray) -> None:
    """Raise InputError for a class that is not trained on, and for a part without examples."""
    if len(records.class_names) < 2:
        raise InputError(f"there is one class only, {records.class_names[0]}: nothing to learn")
    for part, name in enumerate(PARTS):
        if not (parts == part).any():
            raise InputError(
                f"{len(records)} examples are too few: the {name} part would be empty "
                "(dataset.validation_share, dataset.test_share)"
            )
    if records.y.ndim == 1:
        trained = np.bincount(records.y[parts == TRAIN], minlength=len(records.class_names))
        for k in np.flatnonzero(trained == 0):
            row = int(np.flatnonzero(records.y == k)[0])
            raise InputError(
                f"class {records.class_names[k]} has no training example, and is in "
                f"{PARTS[parts[row]]} ({records.places[row]})"
            )
