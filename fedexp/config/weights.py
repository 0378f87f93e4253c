"""Where training starts: fresh weights, those of a file, or the last model of another run.

    model.weights=FILE    a state dict (.safetensors, .pth, .pt; torchvision's), or a run's folder
    model.frozen=body     only the head is trained, and only the head is sent
    from=RUN              see `fedexp.config.lineage`

The head is the last layer with parameters of its own, in the order in which the model registers
them. It may have another shape in the file: then it stays as it was drawn. Everything else has to
fit by name and shape. Whole numbers, such as BatchNorm's count of batches, are not taken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from fedexp.config.parts import Config
from fedexp.core.checks import InputError, NotThere, one_of
from fedexp.run_folder.untrusted import SUFFIXES, NotUsable, read_bytes, tensors_in

MODEL_FILE = "model.safetensors"
MOST_NAMED = 3


@final
@dataclass(frozen=True)
class Start:
    """What a model starts from.

    Args:
        tensors: by name; empty: it stays as it was drawn.
        digest: SHA-256 of the file, in hex; "" for none.
        key: that named the file.
        value: what it was named.
        frozen: "none", or "body".
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    digest: str = ""
    key: str = "model.weights"
    value: str = ""
    frozen: str = "none"

    def prepare(self, model: nn.Module) -> list[str]:
        """Put the weights into `model`, and freeze what is not trained; sentences about it.

        Raises:
            InputError: something does not fit, or nothing would be left to train.
        """
        said = self._fill(model) if self.tensors else []
        if self.frozen == "body":
            _freeze_body(model)
        return said

    def _fill(self, model: nn.Module) -> list[str]:
        own = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
        self._refuse_names(own)
        others = [name for name, t in own.items() if t.shape != self.tensors[name].shape]
        name, head = head_of(model)
        of_head = [f"{name}.{p}" if name else p for p, _ in head.named_parameters(recurse=False)]
        if wrong := [name for name in others if name not in of_head]:
            raise self._refusal(f"do not fit: {_shapes(wrong, self.tensors, own)}")
        kept = of_head if others else []
        with torch.no_grad():
            for name, tensor in own.items():
                if name not in kept:
                    tensor.copy_(self.tensors[name])
        if not others:
            return []
        shapes = _shapes(others, self.tensors, own)
        return [f"{self.key}: the head was left as it is drawn anew: {shapes}"]

    def _refuse_names(self, own: Mapping[str, Tensor]) -> None:
        if all(re.match(r"client\d+\.", name) for name in self.tensors):
            raise self._refusal("are a model for every client (setting=local_only), not one")
        missing = [name for name in own if name not in self.tensors]
        extra = sorted(name for name in self.tensors if name not in own)
        if missing or extra:
            parts = [f"lack {_list(missing)}"] if missing else []
            parts += [f"have {_list(extra)}, which the model has not"] if extra else []
            raise self._refusal(f"are those of another model: they {' and '.join(parts)}")

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"its weights {reason}", self.key, self.value)


def starting_point(config: Config) -> Start:
    """What a config says of the start, read from the disk.

    Raises:
        InputError: a file cannot be used, or is named twice.
    """
    model = config["model"]
    place = model.get("weights")
    frozen = "none" if model.get("frozen") is None else model["frozen"]
    one_of(("none", "body"), **{"model.frozen": frozen})
    if place is not None and not isinstance(place, str):
        raise InputError("must be a file, or a run's folder", "model.weights", place)
    origin = config.get("from")
    if origin is not None and place is not None:
        raise InputError("is given twice: from=RUN starts from its model", "model.weights", place)
    if origin is None and place is None:
        return Start(frozen=frozen)
    key, value = ("from", origin) if origin is not None else ("model.weights", place)
    path = Path(str(value)).expanduser()
    path = path / MODEL_FILE if path.is_dir() else path
    try:
        if path.suffix not in SUFFIXES:
            raise NotUsable(f"must be a run's folder, or a file {', '.join(SUFFIXES)}")
        content = read_bytes(path)
        tensors = tensors_in(content, path.suffix)
    except NotUsable as error:
        inside = "" if path == Path(str(value)).expanduser() else f"{MODEL_FILE} in it "
        kind = InputError if path.exists() else NotThere
        raise kind(f"{inside}{error}", key, value) from error
    return Start(tensors, hashlib.sha256(content).hexdigest(), key, str(value), frozen)


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """The last layer that has parameters of its own, and its name.

    >>> head_of(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Identity()))[0]
    '2'
    """
    with_parameters = [
        (name, module)
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    if not with_parameters:
        raise InputError("has no parameters", "model", type(model).__name__)
    return with_parameters[-1]


def head_columns(model: nn.Module) -> slice:
    """Where in the vector `[d]` of a model (`fedexp.core.flat`) its last trained layer lies.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> head_columns(model)
    slice(15, 23, None)
    >>> _ = model[2].requires_grad_(False)
    >>> head_columns(model)
    slice(0, 15, None)
    """
    layers = [list(module.parameters(recurse=False)) for module in model.modules()]
    of_head = [{id(p) for p in own} for own in layers if any(p.requires_grad for p in own)][-1]
    trained = [p for p in model.parameters() if p.requires_grad]
    places = [k for k, p in enumerate(trained) if id(p) in of_head]
    ends = [0, *accumulate(p.numel() for p in trained)]
    return slice(ends[places[0]], ends[places[-1] + 1])


def _freeze_body(model: nn.Module) -> None:
    _, head = head_of(model)
    ours = {id(p) for p in head.parameters(recurse=False)}
    body = [p for p in model.parameters() if id(p) not in ours]
    if not body:
        raise InputError("the model is one layer: nothing can be frozen", "model.frozen", "body")
    for parameter in body:
        parameter.requires_grad_(False)


def _list(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _shapes(names: list[str], found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    shapes = [f"{n} is {list(found[n].shape)}, not {list(own[n].shape)}" for n in names]
    return "; ".join(shapes[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
