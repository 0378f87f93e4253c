"""What a config may have built: parts that are declared as such, and code that its user trusts.

A config can come from a stranger, and a `_target_` names anything that Python can reach: a prefix
such as `fedexp.` is no fence, for our own functions append to files and start runs. So a target is
built in one of three cases only:

    it is declared      a YAML of that group in the packaged `conf/` names it
    it is torch's       in `model` a public module of torch.nn or a model of torchvision.models,
                        in `training` an optimiser of torch.optim
    it is trusted       the user has named its package in `trust`, on the command line

The YAML that every part has is thus its declaration: there is no second list.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra.utils import get_object

from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError, did_you_mean

TORCH = {"model": ("torch.nn.", "torchvision.models."), "training": ("torch.optim.",)}
"""Group -> of which of torch's packages it may take what `_is_torchs` lets pass."""

NOT_THE_USERS = ("fedexp.", *(name for names in TORCH.values() for name in names))
"""What the names of code begin with that is no user's own."""


@cache
def declared(group: str) -> frozenset[str]:
    """Every `_target_` in the packaged YAMLs of a group and of the groups below it.

    >>> sorted(declared("setting"))[0]
    'fedexp.federation.settings.Centralised'
    """
    texts = (path.read_text(encoding="utf-8") for path in (conf_folder() / group).rglob("*.yaml"))
    found = {name for text in texts for name in re.findall(r"^\s*_target_:\s*([\w.]+)", text, re.M)}
    return frozenset(found)


def buildable(name: str, path: str, trust: Sequence[str] = ()) -> Any:
    """The class or function called `name`, if it may be built; else it is not even imported.

    Args:
        name: a `_target_`.
        path: where in the config it stands; its first word is the group.
        trust: packages whose code the user lets run.

    Raises:
        InputError: it may not be built, or is not there.
    """
    group = path.partition(".")[0]
    trusted = tuple(package_prefix(package) for package in trust)
    torchs = TORCH.get(group, ())
    if name in declared(group):
        return _found(name, path)
    if name.startswith(torchs) and _is_torchs(name):
        return _found(name, path)
    if name.startswith(trusted):
        found = _found(name, path)
        # A second look, for names such as mine.os.system, which only pass through the package.
        if f"{getattr(found, '__module__', '')}.".startswith(trusted):
            return found
    key = f"{path}._target_"
    if name.startswith("fedexp."):
        suggestion = did_you_mean(name, sorted(declared(group)))
        raise InputError(f"is no part for {group}; {suggestion}See: fedexp list {group}", key, name)
    if name.startswith(torchs):
        raise InputError("not found among what torch has for it", key, name)
    package = name.partition(".")[0]
    raise InputError(
        f"is no part of fedexp's; the code of others is run only where its user asks for it on the "
        f"command line: trust=[{package}.]",
        key,
        name,
    )


def package_prefix(package: str) -> str:
    """What the names in a trusted package begin with.

    Raises:
        InputError: it names no package.

    >>> package_prefix("mine"), package_prefix("mine.parts.")
    ('mine.', 'mine.parts.')
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*\.?", package):
        raise InputError("must be names of packages, such as [mypackage.]", "trust", package)
    return f"{package.removesuffix('.')}."


def _is_torchs(name: str) -> bool:
    """Whether torch itself calls it a module, a model or an optimiser, under its public name."""
    import torch
    from torchvision import models

    package, _, last = name.rpartition(".")
    if package == "torchvision.models":
        return last in models.list_models(module=models) or _is_a(models, last, torch.nn.Module)
    if package == "torch.nn":
        return _is_a(torch.nn, last, torch.nn.Module)
    return package == "torch.optim" and _is_a(torch.optim, last, torch.optim.Optimizer)


def _is_a(package: Any, name: str, kind: type) -> bool:
    found = getattr(package, name, None)
    return inspect.isclass(found) and issubclass(found, kind)


def _found(name: str, path: str) -> Any:
    try:
        return get_object(name)
    except Exception as error:
        reason = str(error).splitlines()[0]
        if isinstance(error.__cause__, ModuleNotFoundError):  # Hydra's own line names none
            reason = (
                f"{error.__cause__}; modules are looked for on PYTHONPATH, and in the current "
                "folder with PYTHONPATH=."
            )
        raise InputError(f"not found: {reason}", f"{path}._target_", name) from error
