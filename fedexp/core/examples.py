"""Labelled examples, and the three parts of a collection; frozen: a change makes new ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedexp.core.mapping import Reference, file_of, gathered, let_go

_HASHED_AT_ONCE = 4096  # examples


@dataclass(frozen=True)
class Split:
    """Labelled examples in the size they have on disk: images `[C, H, W]` or rows `[f]`.

    Bytes stand for their value over `divisor` (255: pixels in [0, 1]), so a collection takes no
    more memory than its file; `x` may be mapped from one. A split is cut, joined and changed by
    its own methods only, or what belongs to a row (site, subject) would be lost on the way.
    """

    x: Tensor  # [n, *shape] uint8, or float32 with divisor 1
    y: Tensor  # [n] int64, the class; or [n, labels] uint8, 1 for every label that an example has
    site: Tensor | None = None  # [n] int64, where the example was taken; -1: not known
    subject: Tensor | None = None  # [n] int64, of whom; -1: not known
    divisor: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def has_sites(self) -> bool:
        """Whether it is known where the examples were taken."""
        return self.site is not None

    @property
    def has_subjects(self) -> bool:
        """Whether it is known of whom they are."""
        return self.subject is not None

    @property
    def are_images(self) -> bool:
        """Whether the examples are `[C, H, W]`."""
        return self.x.dim() == 4

    @property
    def one_class(self) -> bool:
        """Whether every example has exactly one class, rather than any number of labels."""
        return self.y.dim() == 1 and not self.y.is_floating_point()

    def rows(self, chosen: Tensor) -> Split:
        """The rows at `chosen`, indices `[k]` in that order or marks `[n]` bool, as a copy."""
        return self._each(lambda tensor: gathered(tensor, chosen))

    def between(self, start: int, stop: int) -> Split:
        """Rows start..stop-1, as a view."""
        return self._each(lambda tensor: tensor[start:stop])

    def joined(self, other: Split) -> Split:
        """The rows of both; float32 where they are stored differently.

        A part that does not know its sites or subjects has -1 there, if the other knows them.
        """
        mine, its = self, other
        if (self.x.dtype, self.divisor) != (other.x.dtype, other.divisor):
            mine, its = self.as_floats(), other.as_floats()
        return Split(
            torch.cat([mine.x, its.x]),
            torch.cat([mine.y, its.y]),
            _joined(self.site, other.site, len(self), len(other)),
            _joined(self.subject, other.subject, len(self), len(other)),
            mine.divisor,
        )

    def with_x(self, x: Tensor) -> Split:
        """The same examples with other values `[n, *shape]` float32."""
        return replace(self, x=x, divisor=1.0)

    def with_y(self, y: Tensor) -> Split:
        """The same examples with other labels."""
        return replace(self, y=y)

    def with_rows(self, rows: Tensor, changed: Split) -> Split:
        """A copy in which the rows at `rows` `[k]` have the values and labels of `changed`.

        Stored as before where that can hold the new values to the bit, else as float32.
        """
        fitting = changed.stored_like(self)
        base = self if fitting.x.dtype == self.x.dtype else self.as_floats()
        x, y = base.x.clone() if base.x is self.x else base.x, self.y.clone()
        x[rows], y[rows] = fitting.x, fitting.y
        return replace(base, x=x, y=y)

    def as_floats(self) -> Split:
        """The examples as float32 in their own unit: pixels in [0, 1]. Itself if they are."""
        if self.x.dtype == torch.float32:
            return self
        return self.with_x(divided(self.x, self.divisor))

    def stored_like(self, other: Split) -> Split:
        """In the stored form of `other`, if that can hold every value to the bit; else itself."""
        if self.x.dtype == other.x.dtype:
            return self
        levels = (self.x * other.divisor).round()
        if self.x.dtype != torch.float32 or not bool(((levels >= 0) & (levels <= 255)).all()):
            return self
        stored = replace(self, x=levels.to(torch.uint8), divisor=other.divisor)
        return stored if torch.equal(stored.as_floats().x, self.x) else self

    def to(self, device: torch.device) -> Split:
        """On another device; itself if it is there."""
        return self._each(lambda tensor: tensor.to(device))

    def shared(self) -> Split:
        """In memory that other processes can see.

        Examples are moved, so that they are there once: whoever else holds the tensor sees the
        shared memory too. Moving frees the memory they lay in, under any NumPy view of it, so
        nobody may keep one; labels, which people do view, are copied instead. What fedexp mapped
        from a file stays there, and every process maps it; any other mapping is read, for torch
        cannot hand one to another process.
        """
        rest = replace(self, x=self.y)._each(lambda tensor: tensor.clone().share_memory_())
        if file_of(self.x) is not None:
            return replace(rest, x=self.x)
        x = self.x.clone() if is_mapped(self.x) else self.x
        return replace(rest, x=x.share_memory_())

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it is made of."""
        return tuple(t for t in (self.x, self.y, self.site, self.subject) if t is not None)

    def __getstate__(self) -> dict[str, Any]:
        # What is mapped from a file travels as its name.
        return {**self.__dict__, "x": Reference.to(self.x) or self.x}

    def __setstate__(self, state: dict[str, Any]) -> None:
        x = state["x"]
        self.__dict__.update(state, x=x.mapped() if isinstance(x, Reference) else x)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Split:
        """Every tensor changed alike."""
        return replace(
            self,
            x=change(self.x),
            y=change(self.y),
            site=None if self.site is None else change(self.site),
            subject=None if self.subject is None else change(self.subject),
        )


@dataclass(frozen=True)
class Dataset:
    """Three disjoint parts of one collection.

    `train` is given to the clients, `validation` is what choices may be made on, `test` is for
    reporting only.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    site_names: tuple[str, ...] = ()  # of the numbers in `Split.site`; empty: they have none
    remarks: tuple[str, ...] = ()  # what a person should know: what was left out, and why

    @property
    def parts(self) -> Mapping[str, Split]:
        """The parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def num_classes(self) -> int:
        """How many classes (or labels) there are, also when a part lacks some of them."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width) of an image, or (features,) of a row."""
        return tuple(self.train.x.shape[1:])

    @property
    def has_sites(self) -> bool:
        """Whether it is known where the training examples were taken."""
        return self.train.has_sites

    @property
    def has_subjects(self) -> bool:
        """Whether it is known of whom they are."""
        return self.train.has_subjects

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of all that the parts hold, and of the names of classes and sites."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        if self.site_names:
            digest.update(json.dumps(self.site_names).encode())
        for part in self.parts.values():
            for tensor in part.tensors():
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)} {part.divisor:g}".encode())
                for block in tensor.split(_HASHED_AT_ONCE):  # of a mapped file, never all at once
                    digest.update(block.contiguous().numpy())
                    let_go(block)
        return digest.hexdigest()

    def as_floats(self) -> Dataset:
        """Every part as float32 in its own unit: pixels in [0, 1]."""
        return self._each(Split.as_floats)

    def scaled(self, scale: Callable[[Split], Split]) -> Dataset:
        """Every part shifted and scaled alike, see `Normalisation`."""
        return self._each(scale)

    def _each(self, change: Callable[[Split], Split]) -> Dataset:
        return replace(
            self,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )


def is_mapped(tensor: Tensor) -> bool:
    """Whether torch mapped it from a file: it calls itself shared then, and cannot be sent."""
    storage = tensor.untyped_storage()
    # Not by its file name: a private mapping (`shared=False`) has none.
    return bool(storage.is_shared()) and int(storage._share_fd_cpu_()[0]) < 0


def divided(x: Tensor, divisor: float, out: Tensor | None = None) -> Tensor:
    """Bytes over `divisor` as float32, correctly rounded."""
    # By a tensor: on a GPU, torch multiplies by the reciprocal of a number, and loses a bit.
    return torch.div(x, torch.full((), divisor, dtype=torch.float32, device=x.device), out=out)


def _joined(mine: Tensor | None, its: Tensor | None, n: int, m: int) -> Tensor | None:
    if mine is None and its is None:
        return None
    parts = ((mine, n), (its, m))
    return torch.cat([torch.full((k,), -1) if t is None else t for t, k in parts])
