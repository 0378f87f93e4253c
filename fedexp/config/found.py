"""What a config leaves to the data, found before anything else is made of it.

The size of an example and the number of classes of a hospital's own folder are known to the folder
only, and a model needs both. Where a config says null for one of the keys below, the data are asked
(`fedexp.data.loader.facts_of`), and the answer stands in the resolved config, so that the
run's `config.yaml` says what was found and `fedexp resume` holds the data to it.

A key that another part would leave to the data is one more line of `FOUND`. How many clients there
are is asked of the partition, where that knows it, and the partition may ask for the sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedexp.config.parts import Parts, prefixed
from fedexp.core.checks import InputError
from fedexp.core.protocols import CountsClients
from fedexp.data.folder import data_folder
from fedexp.data.loader import Facts, facts_of

FOUND: Mapping[str, Callable[[Facts], Any]] = {
    "dataset.input_shape": lambda facts: list(facts.input_shape),
    "dataset.num_classes": lambda facts: facts.num_classes,
}
"""Key of a config -> what stands there in the place of null."""

CLIENTS = "partition.n_clients"
"""What the root's n_clients is, unless somebody says another number."""


def settle(config: DictConfig, known: Mapping[str, Any] | None = None) -> None:
    """Write into `config`, not yet resolved, whatever it leaves to its data.

    The data are looked at only if there is such a key.

    Args:
        config: to be completed.
        known: a resolved config in which the answers stand already; the data are not asked.

    Raises:
        InputError: they cannot be loaded, or it is not said which they are.
    """
    node = config.get("dataset") if not OmegaConf.is_missing(config, "dataset") else None
    for key in sorted(OmegaConf.missing_keys(node)) if isinstance(node, DictConfig) else ():
        raise InputError(f"must be said: {key}=...", key, "")
    for key in (*FOUND, CLIENTS):
        if known and _is_null(config, key) and (answer := _said(known, key)) is not None:
            OmegaConf.update(config, key, answer)
    left_open = [key for key in FOUND if _is_null(config, key)]
    if left_open:
        facts = _facts(config)
        for key in left_open:
            OmegaConf.update(config, key, FOUND[key](facts))
    if _is_null(config, CLIENTS):
        OmegaConf.update(config, CLIENTS, _clients(config))


def _said(config: Mapping[str, Any], key: str) -> Any:
    group, _, last = key.partition(".")
    node = config.get(group)
    return node.get(last) if isinstance(node, Mapping) else None


def _is_null(config: DictConfig, key: str) -> bool:
    """Whether the key is there and says null; one that was not chosen (???) does not."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or last not in node or OmegaConf.is_missing(node, last):
        return False
    return node[last] is None


def _clients(config: DictConfig) -> int:
    """How many clients the partition makes.

    Raises:
        InputError: it does not know, or there is none.
    """
    node = OmegaConf.to_container(config.partition, resolve=True, throw_on_missing=True)
    partitioner = Parts({"partition": node}, list(config.trust))("partition")
    if not isinstance(partitioner, CountsClients):
        raise InputError("must be a number: the partition does not know it", CLIENTS, None)
    with prefixed("partition"):
        n_clients = partitioner.clients(lambda: _facts(config).n_sites)
    if n_clients < 1:
        raise InputError(
            "goes by where examples were taken, and the data do not say it; use "
            "partition=dirichlet, iid or another that deals them, or data with a site column",
            "partition",
            type(partitioner).__name__,
        )
    return n_clients


def _facts(config: DictConfig) -> Facts:
    node = OmegaConf.to_container(config.dataset, resolve=True, throw_on_missing=True)
    loader = Parts({"dataset": node}, list(config.trust))("dataset")
    with prefixed("dataset"):
        return facts_of(loader, data_folder(config.paths.data_dir))
