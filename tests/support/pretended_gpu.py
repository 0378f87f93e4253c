"""A second device that there is not: memory of its own in name, the CPU's arithmetic.

Tensors on it hold a CPU tensor that nobody else sees. An operation on tensors of both devices
fails, as on a GPU, and whatever a GPU would have to be waited for is counted: a number read, a copy
to the CPU, a shape that depends on values. For this process alone, and for good: it takes torch's
one place for a foreign backend.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
aten = torch.ops.aten

# A GPU takes indices from the CPU, and numbers `[]`.
MAY_MIX = {aten.index.Tensor, aten.index_put_.default, aten.copy_.default, aten.index_put.default}
WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.is_nonzero.default,
}
waits: Counter = Counter()


class There(torch.Tensor):
    """A tensor on the pretended device."""

    @staticmethod
    def __new__(cls, raw):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})

    def tolist(self):
        waits["tolist"] += 1
        return self.raw.tolist()

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value):
        self.raw = value.raw


class _Made(TorchDispatchMode):
    """For what is made there: of no tensor that lies there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


def carried_out(func, args, kwargs):
    """`func` on the CPU, with its answers where the GPU's would be."""
    given, wrappers = [], {}

    def raw(value):
        if isinstance(value, torch.Tensor):
            given.append(value)
        if isinstance(value, There):
            wrappers[id(value.raw)] = value
            return value.raw
        return torch.device("cpu") if isinstance(value, torch.device) else value

    target = kwargs.get("device")
    raw_args, raw_kwargs = tree_map(raw, args), tree_map(raw, kwargs)
    there = [t for t in given if isinstance(t, There)]
    here = [t for t in given if not isinstance(t, There) and t.dim()]
    if there and here and func not in MAY_MIX:
        raise RuntimeError(f"{func}: tensors on two devices")
    to_there = bool(there) if target is None else torch.device(target).type == NAME
    copied_here = func is aten.copy_.default and there and not isinstance(args[0], There)
    if there and (func in WAITS or copied_here or (target is not None and not to_there)):
        waits[str(func)] += 1
    if func is aten.index.Tensor and any(
        isinstance(t, There) and t.dtype == torch.bool for t in given[1:]
    ):
        waits["a mask as an index"] += 1
    if copied_here:
        to_there = False

    def wrapped(value):
        if not isinstance(value, torch.Tensor) or not to_there:
            return value
        before = wrappers.get(id(value))  # what an operation in place was given
        same = before is not None and before.shape == value.shape
        return before if same else There(value)

    answer = func(*raw_args, **raw_kwargs)
    if there and torch.Tag.inplace_view in func.tags:  # as squeeze_: its wrapper is reshaped too
        with no_dispatch():
            return func(*args, **kwargs)
    return tree_map(wrapped, answer)


@contextmanager
def pretended_gpu():
    """The device, for as long as the block lasts; `waits` counts from 0."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME)
    waits.clear()
    make, inference = torch.tensor, torch.inference_mode

    def tensor(data, *, dtype=None, device="cpu"):  # which asks no mode
        return make(data, dtype=dtype).to(device)

    torch.tensor, torch.inference_mode = tensor, torch.no_grad
    try:
        with _Made():
            yield torch.device(NAME, 0)
    finally:
        torch.tensor, torch.inference_mode = make, inference
