"""From the YAML files to configs and parts, as `fedexp run` does it."""

import copy
from functools import cache

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.folders import conf_folder
from fedexp.config.found import settle
from fedexp.config.parts import BUILDERS_OWN
from fedexp.config.schema import register

CONF = conf_folder()

LISTS = ("pre_aggregation", "leakage")  # groups of which several choices can be made, by name

PATH = ("dataset.path=/nowhere",)
# What a choice leaves to the user: a complete command line names it too.
COMPLETED = {
    "model=custom": (
        "model._target_=fedexp.models.small_cnn",
        "+model.input_shape=${dataset.input_shape}",
        "+model.num_classes=${dataset.num_classes}",
    ),
    "dataset=images": (*PATH, "dataset.input_shape=[1,64,64]", "dataset.num_classes=2"),
    "dataset=arrays": (*PATH, "dataset.input_shape=[1,28,28]", "dataset.num_classes=2"),
    "dataset=table": (
        *PATH,
        "dataset.input_shape=[30]",
        "dataset.num_classes=2",
        "dataset.label=label",
    ),
    "partition=site": ("partition.n_clients=4",),
    "partition=site_or_skew": ("partition.n_clients=4",),
    "partition=within_sites": ("partition.n_clients=4",),
    "partition=sizes": ("partition.sizes=[100,200,300]",),
    "partition=file": ("partition.path=partition.json", "partition.n_clients=3"),
}


def choices(group: str, *subgroups: str) -> list[str]:
    """Every choice of a group, also in folders below it that are not groups of their own."""
    folder = CONF / group
    names = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.yaml"))]
    return [name.as_posix() for name in names if name.parts[0] not in subgroups]


def config_for(*overrides: str) -> dict:
    """The resolved config of `fedexp run overrides`, the caller's own to change."""
    return copy.deepcopy(_composed(overrides))


_registered = cache(register)


@cache
def _composed(overrides: tuple[str, ...]) -> dict:
    _registered()
    completed = list(overrides)
    for choice, values in COMPLETED.items():
        open_key = values[0].partition("=")[0] + "="
        if choice in overrides and not any(o.startswith(open_key) for o in overrides):
            completed += values
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=completed)
    settle(config)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def part(group: str, choice: str, *overrides: str):
    """One part on its own, built from its resolved YAML."""
    node = config_for(f"{group}={choice}", *overrides)
    for key in [*group.split("/"), *([choice] if group in LISTS else [])]:
        node = node[key]
    node = {k: v for k, v in node.items() if k not in BUILDERS_OWN.get(group, ())}
    return instantiate(node, _convert_="all")
