"""What a run's figures are made of, and on what they were computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Origin:
    """Compared where a run goes on, or is studied.

    With other data, another partition or other code of the user's own it would be another
    experiment. On another machine, or with other versions, it is the same one in other last digits:
    kernels are chosen by the processor and round differently.
    """

    data: str  # SHA-256 of all examples as they were loaded, see `Dataset.digest`
    partition: str  # SHA-256, see `fedexp.core.shards.partition_hash`
    sources: Mapping[str, str]  # by module, SHA-256 of the user's own code that was built from
    machine: Mapping[str, str]  # versions, kernels, processor, ...
    weights: str = ""  # SHA-256 of the file that the model starts from; "": it starts afresh
