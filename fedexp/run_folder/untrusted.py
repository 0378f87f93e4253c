"""Tensors from files that anybody may have written. Nothing in them is ever executed.

A .safetensors file holds numbers only. A .pth or .pt file is a pickle, which could run any code;
torch's restricted unpickler (`weights_only=True`) makes tensors and containers and refuses the
rest. A small file may still ask for a lot of memory, through compressed entries of its archive or
strides of 0, so what its tensors would take is added up before a number is touched.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedexp.core.text import printable
from fedexp.run_folder.pickles import TooDeep, refuse_deep_pickles

SUFFIXES = (".safetensors", ".pth", ".pt")
MAX_BYTES = 4 * 2**30
"""Default limit of one file, and of its tensors as float32: a thousand million numbers."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put a state dict in a larger document."""

PARALLEL = "module."
"""What torch.nn.DataParallel puts in front of every name."""

ORDER = "order"
"""Key in the metadata of a .safetensors file: its tensors' names as JSON, in the vector's order."""

_LONGEST_REASON = 160  # characters


class NotUsable(Exception):
    """A file that cannot be used; one line that says why."""

    def __init__(self, reason: str) -> None:
        line = printable(" ".join(reason.split()))
        short = line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
        super().__init__(short)


class OtherModel(NotUsable):
    """A file that holds tensors of other names or shapes than were expected."""


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file (or a link to one) of at most `max_bytes`.

    Raises:
        NotUsable: there is none, it is empty or too large, or it may not be read.
    """
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise NotUsable("is a folder")
        if not stat.S_ISREG(about.st_mode):  # reading a pipe could last for ever
            raise NotUsable("is not a regular file")
        if about.st_size > max_bytes:
            raise NotUsable(f"has {about.st_size:,} bytes; at most {max_bytes:,} are read")
        with open(path, "rb") as file:
            content = file.read(about.st_size)
    except OSError as error:
        raise NotUsable(f"cannot be opened: {error.strerror or error}") from error
    if not content:
        raise NotUsable("is empty")
    return content


def metadata(content: bytes) -> dict[str, str]:
    """What the header of a .safetensors file that its library has read says beside its tensors."""
    return dict(_header(content)[0].get("__metadata__", {}))


def with_metadata(content: bytes, key: str, value: str) -> bytes:
    """A .safetensors file with one more word in its header; the library orders them at random."""
    header, tensors = _header(content)
    header["__metadata__"] = {**header.get("__metadata__", {}), key: value}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants its tensors aligned
    return len(text).to_bytes(8, "little") + text + tensors


def _header(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def tensors_in(content: bytes, suffix: str, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """The floating-point tensors of a state dict, finite, as float32 or float64.

    Args:
        content: of a file.
        suffix: one of `SUFFIXES`, which says how to read it.
        max_bytes: limit on what all tensors take as float32.

    Returns:
        Tensors by name, in the order in which the file states them. Tensors of whole numbers,
        such as BatchNorm's count of batches, are left out.

    Raises:
        NotUsable: it is broken, holds something else than a state dict, or numbers that are not
            finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; a file that fails says so
            if suffix == ".safetensors":
                loaded: object = _from_safetensors(content)
            else:
                loaded = _unpickled(content, max_bytes)
            return _floating(_state_dict(loaded), max_bytes)
    except NotUsable:
        raise
    except Exception as error:  # whatever a broken file makes its reader raise
        raise NotUsable(_reason(error)) from error


def _from_safetensors(content: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    tensors = load(content)
    stated = metadata(content).get(ORDER)
    if stated is not None:
        order = json.loads(stated)
        if isinstance(order, list) and sorted(map(str, order)) == sorted(tensors):
            return {name: tensors[name] for name in order}
    return tensors


def _unpickled(content: bytes, max_bytes: int) -> object:
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > max_bytes:
                raise NotUsable(f"unpacks to {size:,} bytes; at most {max_bytes:,} are read")
            if damaged := archive.testzip():  # torch compares no checksum
                raise NotUsable(f"is damaged: its {damaged} is not what was written (CRC)")
    try:
        refuse_deep_pickles(content)
    except TooDeep as error:
        raise NotUsable(str(error)) from error
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def _state_dict(loaded: object) -> Mapping[Any, Tensor]:
    if not isinstance(loaded, Mapping):
        raise NotUsable(f"holds a {type(loaded).__name__}, not a state dict")
    inner = [loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
    found = inner[0] if inner else loaded
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise NotUsable(
                f"holds a {type(value).__name__} under {str(name)[:60]!r}; a state dict, or one "
                f"under {' or '.join(WRAPPERS)}, holds tensors only"
            )
    if found and all(str(name).startswith(PARALLEL) for name in found):
        return {str(name).removeprefix(PARALLEL): tensor for name, tensor in found.items()}
    return found


def _floating(tensors: Mapping[Any, Tensor], max_bytes: int) -> dict[str, Tensor]:
    kept = {name: t for name, t in tensors.items() if t.is_floating_point()}
    if not kept:
        raise NotUsable("holds no tensor of floating-point numbers")
    size = sum(4 * t.numel() for t in kept.values())
    if size > max_bytes:
        raise NotUsable(f"its tensors take {size:,} bytes; at most {max_bytes:,} are read")
    widened = {}
    for name, tensor in kept.items():
        if not isinstance(name, str):
            raise NotUsable(f"names a tensor {name!r}, which is no text")
        # A subclass could bring behaviour of its own; other layouts and devices hold no numbers.
        plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
        if not plain or tensor.device.type != "cpu":
            raise NotUsable(f"its {name!r} is not an ordinary dense tensor")
        tensor = tensor.detach()
        widened[name] = tensor if tensor.dtype == torch.float64 else tensor.float()
        if not bool(torch.isfinite(widened[name].float()).all()):
            raise NotUsable(f"its {name!r} holds NaN or infinite numbers")
    return widened


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and "Weights only load failed" in text:
        # Our own words: torch's advise to load the file without the restriction.
        found = re.search(r"GLOBAL:? (\S+)", text) or re.search(r"Unsupported class (\S+)", text)
        what = f" ({found[1].rstrip('.,')})" if found else ""
        return f"holds something else than tensors{what}: it could run code, and was not loaded"
    if "TorchScript" in text:
        return "holds a program (TorchScript), and was not loaded"
    if isinstance(error, pickle.UnpicklingError | EOFError | KeyError | IndexError) or not text:
        return f"is broken or no such file: its content cannot be read ({type(error).__name__})"
    return f"is broken or no such file: {text.splitlines()[0]}"
