"""Hydra's complaints, each as one line that names the key and, where one is near, the right choice.

Hydra's own messages take several lines and leave out what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError  # type: ignore[import-untyped]

from fedexp.config.composition import hydra_set_aside
from fedexp.config.folders import conf_folder
from fedexp.config.schema import Schema
from fedexp.core.checks import InputError, did_you_mean

# ValueError: Hydra's own for some overrides, and what YAML files that are not text give.
COMPLAINTS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
EXTRAS = {
    "hydra/sweeper=optuna": "optuna",
    "hydra/launcher=ray": "ray-launcher",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
}
"""Plugins of Hydra's -> what of ours installs them."""
KINDS = {"int": "a whole number", "str": "a word", "bool": "true or false", "list[str]": "a list"}
TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def one_line(error: BaseException, overrides: Sequence[str] = ()) -> str:
    """What is wrong, and what would be right.

    Args:
        error: anything; what is not one of Hydra's complaints gives its own first line.
        overrides: what the user asked for, to say which override it is and which keys there are.

    >>> one_line(OverrideParseException("rounds", "Error parsing override 'rounds'"))
    "'rounds': must look like key=value"
    """
    if isinstance(error, HydraException) and isinstance(error.__cause__, InputError):
        return str(error.__cause__)  # of a launcher of ours, which Hydra makes
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _syntax(error.override, text)
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"a config file is not text: {text}"
    if getattr(error, "options", None) is not None:
        group, _, choice = str(getattr(error, "missing_cfg_file", "")).rpartition("/")
        options: Sequence[str] = getattr(error, "options", ())
        said = f"{group}={choice}"
        if said in EXTRAS:
            return f"{said}: is not installed; pip install 'fedexp[{EXTRAS[said]}]'"
        return f"{said}: {did_you_mean(choice, options)}Allowed: {', '.join(options)}"
    if found := re.search(r"Could not load '([^'/]+)/([^']+)'", text):
        choices = sorted(path.stem for path in (conf_folder() / found[1]).glob("*.yaml"))
        suggestion = did_you_mean(found[2], choices)
        return f"{found[1]}={found[2]}: {suggestion}Allowed: {', '.join(choices)}"
    if found := re.search(r"InputError raised while resolving interpolation: (.+)", text):
        return found[1]  # one of our resolvers refused
    if found := re.search(r"Ambiguous value for argument '(.+)'", text):
        return f"{found[1]}: several values need fedexp run -m, and a list needs [brackets]"
    if text.startswith("Config group override must be a string"):
        return f"{_nameless_choice(overrides)}: a choice must be named; see: fedexp list"
    if found := re.search(r"An item is already at '(.+)'", text):
        present = _present_value(found[1], overrides)
        return f"{found[1]}: is set already, to {present}; leave out the + to change it"
    if found := re.search(r"Could not (?:override|append to config)[^']*'([^']+)'", text):
        return f"{found[1]}: there is no such key; {_other_keys(found[1], overrides)}"
    if found := re.search(r"In '(.+)': .* raised while composing config:?\s+(.+)", text):
        return f"{found[1]}.yaml: {_slip_in_a_file(found[2], text)}"
    if found := re.search(r"Error merging override (\S+)", text):
        return f"{found[1]}: {wrong_type(str(error.__cause__ or text))}"
    first = text.splitlines()[0].rstrip(":") if text else type(error).__name__
    key = getattr(error, "full_key", None)
    return f"{key}: {first}" if key and str(key) not in first else first


def refusal(error: BaseException, overrides: Sequence[str]) -> InputError:
    """The same as an error that knows its key, where that is one of the overrides'.

    >>> from hydra.errors import HydraException
    >>> refusal(HydraException("model=mpl: Allowed: cnn, mlp"), ["rounds=3", "model=mpl"]).key
    'model'
    """
    line = one_line(error, overrides)
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        for start in (f"{key}: ", f"{key}={value}: "):
            if line.startswith(start):
                return InputError(line.removeprefix(start), key, value)
    return InputError(line)


def refuse_nameless(overrides: Sequence[str]) -> None:
    """Raise InputError for a list of choices with a number in it, over which Hydra stumbles."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if re.search(r"^\[(.*,)?\s*[-+.\d{\[]", value) and (conf_folder() / key).is_dir():
            raise InputError(f"a choice must be named; see: fedexp list {key}", key, value)


def _syntax(override: str, text: str) -> str:
    key, equals, value = override.partition("=")
    reason = text.splitlines()[0]
    if text.startswith(("LexerNoViableAlt", "Error parsing")):
        # Hydra's grammar knows letters, digits and few signs outside of quotes.
        reason = f"put the value in quotes: \"{key}='{value}'\""
    if not equals:
        reason = "must look like key=value"
    return f"'{override}': {reason}"


def _slip_in_a_file(reason: str, text: str) -> str:
    if wrong := re.match(r"Key '(.+)' not in", reason):
        suggestion = did_you_mean(wrong[1], _known_keys("", ()))
        return f"{wrong[1]}: there is no such key; {suggestion}See: fedexp run --cfg job"
    key = re.search(r"full_key: (\S+)", text)
    return f"{key[1]}: {reason}" if key else reason


def wrong_type(cause: str) -> str:
    """What is allowed, of OmegaConf's words on a value of another type; else their first line."""
    if null := re.search(r"field '(.+)' is not Optional", cause):
        kinds = {key.name: KINDS.get(str(key.type), "a value") for key in fields(Schema)}
        return f"must be {kinds.get(null[1], 'a value')}, and not null"
    if null := re.search(r"Incompatible value 'None' for field of type '(\w+)'", cause):
        return f"must be {KINDS.get(null[1], 'a value')}, and not null"
    if "is not a ListConfig, list or tuple" in cause:
        return "must be a list, as in [a,b]"
    if "is not a valid bool" in cause:
        return "must be true or false"
    wanted = re.search(r"could not be converted to (\w+)", cause)
    return f"must be {TYPES.get(wanted[1], wanted[1])}" if wanted else cause.splitlines()[0]


def _nameless_choice(overrides: Sequence[str]) -> str:
    """The override that Hydra means when it says that one chooses a null or a number."""
    choices = [o for o in overrides if (conf_folder() / o.partition("=")[0]).is_dir()]
    no_name = r"=(null|nan|-?inf|true|false|[^A-Za-z_].*)?$"  # Hydra reads these as values
    return next((o for o in choices if re.search(no_name, o, re.IGNORECASE)), "")


def _present_value(key: str, overrides: Sequence[str]) -> Any:
    composed = _composed_without(key, overrides)
    return None if composed is None else OmegaConf.select(composed, key)


def _other_keys(wrong: str, overrides: Sequence[str]) -> str:
    """What may be meant, and what there is: beside a key, those of its group."""
    known = _known_keys(wrong, overrides)
    group, _, name = wrong.rpartition(".")
    if group and (swept := _swept(wrong.partition(".")[0], overrides)):
        return f"it is looked for before {swept} is chosen; ++{wrong}=... sets it in every job"
    beside = [k.removeprefix(f"{group}.") for k in known if k.rpartition(".")[0] == group != ""]
    if not beside:
        return f"{did_you_mean(wrong, known)}See: fedexp run --cfg job"
    suggestion = did_you_mean(name, beside).replace("mean ", f"mean {group}.", 1)
    there = ", ".join(key for key in beside if not key.startswith("_")) or "nothing"
    # What a part of the user's own takes stands in no file of the group.
    of_their_own = any(o.lstrip("+").startswith(f"{group}._target_=") for o in overrides)
    added = (
        f"; as an argument of the part in {group}._target_: +{wrong}=..." if of_their_own else ""
    )
    return f"{suggestion}Known here: {there}{added}"


def _swept(group: str, overrides: Sequence[str]) -> str:
    """The override that has a job of every choice of a group; empty if none has."""
    of_group = (o for o in overrides if o.lstrip("+").startswith(f"{group}="))
    parse = OverridesParser.create().parse_override
    return next((o for o in of_group if parse(o).is_sweep_override()), "")


def _known_keys(wrong: str, overrides: Sequence[str]) -> list[str]:
    """Every key of the config that the other overrides make; of the default one if they fail."""
    composed = _composed_without(wrong, overrides)
    return [] if composed is None else _flat_keys(OmegaConf.to_container(composed), "")


def _composed_without(wrong: str, overrides: Sequence[str]) -> DictConfig | None:
    others = [o for o in overrides if wrong not in o and not o.startswith("hydra")]
    # A dry run has initialised Hydra, and asks what is wrong with a job.
    with hydra_set_aside(), initialize_config_dir(str(conf_folder()), version_base="1.3"):
        for attempt in (others, []):
            try:
                return compose("config", overrides=list(attempt))
            except COMPLAINTS:
                continue
    return None


def _flat_keys(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    inner = [k for key, v in node.items() for k in _flat_keys(v, f"{prefix}.{key}".lstrip("."))]
    return [prefix, *inner] if prefix else inner
