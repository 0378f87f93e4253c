"""From one group of a resolved config to the part that it describes.

What may be built of what is checked first: the target may be built (`declared`), every argument is
one of its constructor's, and has the annotated type. So a part needs no schema beside its own
constructor, and a mistake is one line with the key in it.
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Literal, Union

from hydra.utils import get_object

from fedexp.config.declared import buildable
from fedexp.config.of_its_group import refuse_another_kind
from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.default_type import default_type_kept
from fedexp.core.renames import present_targets

Config = Mapping[str, Any]
LARGEST_FLOAT = 3.4e38  # of 32 bits
PART = "a part of its own, with a _target_"
BUILDERS_OWN: Mapping[str, tuple[str, ...]] = {
    "backend": ("own_bits",),
    "attack": (
        "fraction",
        "n_malicious",
        "first_round",
        "last_round",
        "schedule",
        "extra_clients",
    ),
    "dataset": ("imbalance", "imbalance_of", "normalise", "fixed_mean", "fixed_deviation"),
    "model": ("weights", "frozen"),
    "partition": ("n_clients",),
    "verdict": ("attack", "defences"),
}
"""Keys of a group that are not its part's, but the builder's."""
OF_THE_DATA = ("input_shape", "num_classes")
"""What most models need to be told, and the dataset's own section says (`fedexp.config.found`)."""


def required(node: Config, key: str, path: str) -> None:
    """Raise InputError where a node lacks a key."""
    if key not in node:
        said = f"has no value; set it with +{path}.{key}="
        if key in OF_THE_DATA and path != "dataset":
            said = f"{said}..., or '+{path}.{key}=${{dataset.{key}}}' for that of the data"
        raise InputError(said, f"{path}.{key}", "")


class Parts:
    """Builds one group of the config at a time, after checking it.

    Args:
        config: group -> its node, plain dicts and lists with a `_target_`.
        trust: packages whose code may be built beside what is declared.
    """

    def __init__(self, config: Config, trust: Sequence[str] = ()) -> None:
        self._config = config
        self._trust = tuple(trust)

    def __call__(self, group: str, **runtime: object) -> Any:
        """The part of a group (or of `group.name`, where a group holds several by name).

        `runtime` are arguments that no config gives.

        Raises:
            InputError: names the key, its value and what is allowed.
        """
        whole = self._config
        for key in group.split("."):
            whole = whole[key]
        if not isinstance(whole, Mapping):
            raise InputError(f"must be {PART}", group, whole)
        own = {k: v for k, v in whole.items() if k not in BUILDERS_OWN.get(group, ())}
        node = present_targets(own)
        with default_type_kept(f"{group}._target_", node.get("_target_")):
            _check_node(node, group, self._trust, tuple(runtime))  # which imports its module
            if "_target_" not in node:
                choice = group.replace(".", "=")
                why = f"has settings and no _target_: nobody chose what they are of ({choice} does)"
                raise InputError(why, group, dict(node))
            with prefixed(group):
                part = _made({**node, "_partial_": False}, runtime)
        refuse_another_kind(part, group)
        return part


class prefixed:
    """Puts a config group in front of the keys of the InputErrors that pass.

    Args:
        group: of the part that is at work.
        others: keys that stay as they are, such as groups of parts that this one looks at.
    """

    def __init__(self, group: str, *others: str) -> None:
        self._group, self._others = group, others

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        root = ("n_clients", "cohort_size", "device")  # arguments that are root keys as well
        left = (*root, self._group, *self._others)
        if isinstance(error, InputError) and error.key and error.key not in left:
            raise error.under(self._group) from None


@contextmanager
def as_typed(group: str, node: Mapping[str, Any]) -> Iterator[None]:
    """Names the keys of InputErrors that pass as a user types them.

    A key of the group's config, or of a part inside it, has the way to it in front; another is one
    of the run's own.
    """
    try:
        yield
    except InputError as error:
        place = None if error.key is None else _place_of(error.key, node)
        if place is None:
            raise
        raise InputError(error.reason, f"{group}.{place}", error.value) from None


def _place_of(key: str, node: Mapping[str, Any]) -> str | None:
    """The key as it is reached from `node`; None if it is not below it."""
    if key in node:
        return key
    for part, below in node.items():
        if isinstance(below, Mapping) and (place := _place_of(key, below)) is not None:
            return f"{part}.{place}"
    return None


def _check_node(node: Any, path: str, trust: Sequence[str], runtime: Sequence[str]) -> None:
    """Refuse targets that may not be built, unknown arguments and wrong types."""
    if isinstance(node, list):
        for i, child in enumerate(node):
            _check_node(child, f"{path}.{i}", trust, ())
    if not isinstance(node, Mapping):
        return
    for key, child in node.items():
        _check_node(child, f"{path}.{key}", trust, ())
    for key, kind, words in (("_partial_", bool, "true or false"), ("_args_", list, "a list")):
        if key in node and not isinstance(node[key], kind):
            raise InputError(f"must be {words}", f"{path}.{key}", node[key])
    if "_target_" in node:
        _check_arguments(buildable(str(node["_target_"]), path, trust), node, path, runtime)


def _made(node: Any, runtime: Mapping[str, object]) -> Any:
    """What a checked node describes, the parts inside it first.

    Not Hydra's `instantiate`: it resolves interpolations once more, and what these give (a
    `${oc.create:...}` makes any node) nobody has checked.
    """
    if isinstance(node, list):
        return [_made_inside(child, str(i)) for i, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    values = {key: _made_inside(child, str(key)) for key, child in node.items()}
    if "_target_" not in node:
        return values
    name, arguments = values.pop("_target_"), values.pop("_args_", [])
    later = values.pop("_partial_", False)
    try:
        make = partial(get_object(name), *arguments, **values, **runtime)
        return make if later else make()
    except InputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot be built: {reason}", "_target_", name) from error


def _made_inside(child: Any, key: str) -> Any:
    if not isinstance(child, list | Mapping):
        return child
    with prefixed(key):
        return _made(child, {})


def _check_arguments(target: Any, node: Config, path: str, runtime: Sequence[str]) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # some classes written in C say nothing about their arguments
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    hints = _hints(target)
    names = [name for name in parameters if name not in runtime]
    for name, value in node.items():
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in names:
            if why := getattr(target, "refused_arguments", {}).get(name):
                raise InputError(why, f"{path}.{name}", value)
            meant = did_you_mean(name, names)
            known = f"{meant}Known here: {', '.join(names) or 'nothing'}"
            rid = "" if meant else _without([k for k in node if k not in names], node, path)
            raise InputError(known + rid, f"{path}.{name}", value)
        if name in hints and not _fits(value, hints[name]):
            raise InputError(f"must be {_describe(hints[name])}", f"{path}.{name}", value)
        if _overflows(value):
            reason = (
                f"is more than numbers hold: within {LARGEST_FLOAT:.1e}, whole ones below 2**63"
            )
            raise InputError(reason, f"{path}.{name}", value)
    for name, parameter in parameters.items():
        given = name in node or name in runtime or node.get("_partial_", False)
        if (
            not given
            and parameter.default is parameter.empty
            and parameter.kind
            in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
        ):
            required(node, name, path)


def _without(unknown: Sequence[str], node: Config, path: str) -> str:
    """How a part is rid of all that it does not take.

    An overridden _target_ is given what belonged to the choice in whose place it is. Hydra takes a
    key that is null for one that does not exist: it is given a value first.

    >>> _without(["_target_", "lr", "steps"], {"lr": 0.1, "steps": None}, "training")
    '; without them: ~training.lr training.steps=0 ~training.steps'
    """
    keys = [key for key in unknown if not (key.startswith("_") and key.endswith("_"))]
    rid = [f"{path}.{k}=0 ~{path}.{k}" if node[k] is None else f"~{path}.{k}" for k in keys]
    return f"; without {'it' if len(keys) == 1 else 'them'}: {' '.join(rid)}"


def _hints(target: Any) -> dict[str, Any]:
    """The types of what a part is annotated with, each as it is known where it was written.

    A dataclass inherits arguments from classes in other files, whose imports are not its own. Names
    that only a type checker imports are left out, and their arguments fit anything.
    """
    owners: list[Any] = [target.__init__ if inspect.isclass(target) else target]
    if is_dataclass(target):
        owners = [*reversed(inspect.getmro(typing.cast(type, target))), *owners]
    found: dict[str, Any] = {}
    for owner in owners:
        names = vars(inspect.getmodule(owner) or typing)
        for name, hint in inspect.get_annotations(owner).items():
            one = types.SimpleNamespace(__annotations__={name: hint})
            with suppress(NameError, TypeError):  # TypeError: a ClassVar, which is no argument
                found |= typing.get_type_hints(one, globalns=names)
    return found


def _overflows(value: Any) -> bool:
    """Whether a number, or one in a list, is none in the formats that models and rules use.

    Infinity and NaN are numbers in all of them: each part says whether it takes them.
    """
    if isinstance(value, list):
        return any(map(_overflows, value))
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) > LARGEST_FLOAT
    return isinstance(value, int) and abs(value) >= 2**63


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config value has the annotated type; annotations we do not know fit anything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if origin is Callable:
        return isinstance(value, Mapping) and "_target_" in value
    if _is_of_a_part(hint):  # and not what would make one, when it is called
        return isinstance(value, Mapping) and "_target_" in value and not value.get("_partial_")
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return isinstance(value, list) and all(_fits(v, arguments[0]) for v in value)
    return True


def _is_of_a_part(hint: Any) -> bool:
    """Whether an annotation is of what only a part can be: a protocol, or a dataclass."""
    return is_dataclass(hint) or getattr(hint, "_is_protocol", False)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is Callable:
        return "a part of its own, chosen with a slash (group/part=choice)"
    if _is_of_a_part(hint):
        return PART
    if origin is not None and arguments:
        return f"a list, each item {_describe(arguments[0])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    return "null" if hint is type(None) else words.get(hint, str(hint))
