"""A folder of a person's own images, with their sites and patients; no Python to write.

They are decoded once into a file of bytes (`fedexp.data.pixel_cache`), in the order of the
parts, which is mapped: so 100,000 images of 224 pixels need 15 GB of disk and little memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import final

import numpy as np

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.core.mapping import map_bytes
from fedexp.data.columns import Columns
from fedexp.data.decode import WHITE_OF_16_BIT, Decoding, Fit, Picture
from fedexp.data.division import By, Division
from fedexp.data.download import RemoteFile
from fedexp.data.image_files import Listing, listed, said
from fedexp.data.loader import Facts
from fedexp.data.own import about, dataset_of, in_order
from fedexp.data.pixel_cache import Known, PixelCache, cache_folder
from fedexp.data.records import Records, some
from fedexp.data.survey import Survey, counted, tried, twins

JUST_NOW = 10.0  # seconds in which a folder is not looked through twice for one run


@final
@dataclass(frozen=True)
class Readable:
    """The images of a folder that can be decoded, and what was left out."""

    listing: Listing
    cache: PixelCache
    known: Known
    rows: np.ndarray  # [n] places in `listing.files`
    records: Records  # [n]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def pictures(self) -> list[Picture]:
        """`[n]` what each of them is."""
        return [p for p in self.known.pictures if p is not None]

    @property
    def hashes(self) -> list[str]:
        """`[n]` of their files' bytes."""
        return [self.known.hashes[row] for row in self.rows.tolist()]


@final
@dataclass(frozen=True)
class Images:
    """Images in a folder, by class, by site and class, or as a manifest says.

    Args:
        name: the name in the config.
        path: the folder.
        manifest: a CSV in it; None: `manifest.csv` if there is one, else the folders say it.
        label: the manifest's column with the class; None: `label`.
        site: with the place where it was taken; None: `site`, if there is one.
        subject: with the patient; None: `patient` or `subject`, if there is one.
        official: with the official part; None: `split`, if there is one.
        file: with the path; None: `path`.
        size: pixels a side that images are brought to.
        channels: 1 (grey) or 3 (RGB).
        fit: how an image becomes a square: pad (black bars), crop (the middle), stretch.
        white: the value that is white in images of more than 8 bits; None: 65535.
        split: how they are divided: official, patient, example; auto: the first there can be.
        validation_share: of the examples, where the data do not say which they are.
        test_share: the same.
        split_seed: decides which these are; apart from the run's seed.
        input_shape: (channels, height, width), which is compared with what is found.
        num_classes: the same.
    """

    name: str
    path: str
    manifest: str | None
    label: str | None
    site: str | None
    subject: str | None
    official: str | None
    file: str | None
    size: int
    channels: int
    fit: Fit
    white: float | None
    split: By
    validation_share: float
    test_share: float
    split_seed: int
    input_shape: Sequence[int] | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        _ = self._decoding, self._division  # which refuse what cannot be

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; raises InputError where the folder, or what it says, cannot be used."""
        found = self._handed_over(data_dir) or self.readable(data_dir)
        with about(self.path):
            parts = self._division(found.records)
        order = in_order(found.records, parts)
        files = found.listing.files
        place = found.cache.pixels(found.known, found.listing.root, files, found.rows[order])
        remarks = (
            *said(found.left_out, self.path),
            *found.notes,
            *found.records.remarks(),
            *self._division.remarks(found.records, parts),
            *_of_pictures(found.pictures, self._decoding),
            *_of_twins(twins(found.hashes, found.records, parts)),
        )
        return dataset_of(
            self.name,
            map_bytes(place, (len(order), *self._decoding.shape)),
            255,
            found.records.rows(order),
            parts[order],
            remarks,
        )

    def facts(self, data_dir: Path) -> Facts:
        """What is in the folder; images are decoded, if they were not yet."""
        found = self.readable(data_dir)
        _HANDED_OVER[:] = [(self._what, data_dir, time.monotonic(), found)]
        records = found.records
        return Facts(self._decoding.shape, len(records.class_names), len(records.site_names))

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """None: they are there."""
        return ()

    def survey(self, data_dir: Path) -> Survey:
        """What is in the folder, and what is wrong with it."""
        found = self.readable(data_dir)
        records, pictures = found.records, found.pictures
        parts, faults = tried(records, self._division)
        return Survey(
            lines=(*counted(records, parts), *_described(pictures), *found.notes),
            faults=(
                *[f"{place} {why}" for place, why in found.left_out],
                *faults,
                *twins(found.hashes, records, parts),
            ),
            remarks=(*records.remarks(), *_of_pictures(pictures, self._decoding)),
        )

    def readable(self, data_dir: Path) -> Readable:
        """The images that can be used.

        Raises:
            InputError: there are none, or the folder or its manifest cannot be used.
        """
        columns = Columns(self.file, self.label, self.site, self.subject, self.official)
        with about(self.path):
            listing = listed(self.path, self.manifest, columns)
        folder, remark = cache_folder(data_dir)
        cache = PixelCache(folder, self._decoding)
        known = cache.known(listing.root, listing.files)
        rows = np.array([k for k, p in enumerate(known.pictures) if p is not None], dtype=np.int64)
        broken = tuple(
            (file, why) for file, why in zip(listing.files, known.reasons, strict=True) if why
        )
        if not len(rows):
            reason = f"holds no image that can be read: {some([' '.join(b) for b in broken])}"
            raise InputError(reason, "path", self.path)
        with about(self.path):
            records = Records.of(listing.frame.iloc[rows])
        lost = sorted(set(listing.frame["label"]) - set(records.class_names))
        notes = [f"class {name} has no image that can be read" for name in lost]
        return Readable(
            listing=listing,
            cache=cache,
            known=known,
            rows=rows,
            records=records,
            left_out=(*listing.left_out, *broken),
            notes=(*listing.notes, *notes, *([remark] if remark else [])),
        )

    @property
    def _what(self) -> Images:
        """Itself, but for what is only compared with what is found."""
        return replace(self, input_shape=None, num_classes=None)

    def _handed_over(self, data_dir: Path) -> Readable | None:
        """What `facts` has just found: a run asks for the facts, and then for the data."""
        for what, place, moment, found in _HANDED_OVER:
            if (what, place) == (self._what, data_dir) and time.monotonic() - moment < JUST_NOW:
                _HANDED_OVER.clear()
                return found
        return None

    @cached_property
    def _decoding(self) -> Decoding:
        return Decoding(self.size, self.channels, self.fit, self.white)

    @cached_property
    def _division(self) -> Division:
        return Division(self.split, self.validation_share, self.test_share, self.split_seed)


_HANDED_OVER: list[tuple[Images, Path, float, Readable]] = []
"""What the last call of `facts` found, to be taken once: a folder of 100,000 takes seconds."""


def _described(pictures: Sequence[Picture]) -> list[str]:
    """The sizes and modes that there are."""
    widths, heights = ([getattr(p, side) for p in pictures] for side in ("width", "height"))
    ends = [f"{min(side)} to {max(side)}" for side in (widths, heights)]
    modes = Counter(picture.mode for picture in pictures).most_common()
    return [
        f"pixels: {ends[0]} wide, {ends[1]} high, median {median(widths):g}x{median(heights):g}",
        f"modes: {', '.join(f'{n} {mode}' for mode, n in modes)}",
    ]


def _of_pictures(pictures: Sequence[Picture], decoding: Decoding) -> list[str]:
    """What is lost on the way to 8 bits and to so many channels."""
    found = []
    coloured = sum(picture.coloured for picture in pictures)
    if coloured and decoding.channels == 1:
        found.append(
            f"{coloured} of {len(pictures)} images are in colour and become grey; "
            "dataset.channels=3 keeps it"
        )
    deep = [picture.brightest for picture in pictures if picture.mode.startswith(("I", "F"))]
    if deep:
        white = WHITE_OF_16_BIT if decoding.white is None else decoding.white
        found.append(
            f"{len(deep)} images have more than 8 bits: {white:g} is taken for white, and the "
            f"brightest value is {max(deep)}; dataset.white=NUMBER sets another"
        )
    return found


def _of_twins(found: Sequence[str]) -> list[str]:
    if not found:
        return []
    return [f"images that are there twice, {len(found)}: {some(list(found))}"]
