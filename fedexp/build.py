"""From a resolved config to an `Experiment`; Hydra ends here.

Everything a user can get wrong is found in this file, before any training: unknown arguments, wrong
types, values out of range, parts that do not go together.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Union

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn

from fedexp.checks import InputError, at_least, did_you_mean, in_range, one_of
from fedexp.data.folder import data_folder
from fedexp.data.loader import load
from fedexp.evaluation import ModelEvaluator
from fedexp.flat import refuse_changing_buffers, vector_of
from fedexp.protocols import Aggregator, Attack
from fedexp.rng import generator, seed_for
from fedexp.rounds import Experiment
from fedexp.types import Dataset, Partition, Split, Updates, Workload

TRUSTED_PREFIXES = ("fedexp.", "torch.nn.", "torchvision.models.")
GROUPS = (
    "dataset",
    "partition",
    "model",
    "training",
    "sampler",
    "setting",
    "attack",
    "aggregator",
    "server_optimizer",
    "backend",
)
OBJECTIVES = ("accuracy", "balanced_accuracy", "macro_f1", "auc", "loss")

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """An experiment and what its record needs beside it."""

    experiment: Experiment
    model: nn.Module  # with the initial weights
    dataset: Dataset
    partition: Partition


def build(config: Config) -> Built:
    """Build every part of a resolved config (plain dicts and lists).

    Raises:
        InputError: names the key, its value and what is allowed.
    """
    _check_root(config)
    n_clients, seed = config["n_clients"], config["seed"]
    part = _Parts(config)

    setting = part("setting")
    trainer = setting.trainer(part("training"), n_clients, config["cohort_size"])
    sampler = part("sampler")
    sampler(n_clients, generator(seed, "cohort", 0))  # a cohort that cannot be drawn fails here
    sampler = setting.sampler(sampler)
    aggregator = setting.aggregator(part("aggregator"), n_clients)
    server_optimizer = part("server_optimizer")
    attack: Attack = part("attack", without=("fraction", "n_malicious"))
    malicious = _malicious(config, n_clients)
    _rehearse(aggregator, config["cohort_size"])

    device = _device(config["device"])
    loader = part("dataset")
    with _prefixed("dataset"):
        pixels = load(loader, data_folder(config["paths"]["data_dir"]))
    deal = part("partition")
    with _prefixed("partition"):
        partition = deal(pixels.train, n_clients, generator(seed, "partition"))
    partition = _poisoned(partition, attack, malicious, seed)
    dataset = replace(pixels, train=partition.train).normalised_like(pixels.train)
    model = _model(part, seed, dataset)

    shards = setting.shards(partition)
    counts = partition.label_counts(dataset.num_classes)
    evaluation = {"validation": dataset.validation, "test": dataset.test}
    cohort_size = min(config["cohort_size"], len(shards))
    workload = Workload(model, dataset.train, shards, evaluation, cohort_size, device)
    experiment = Experiment(
        seed=seed,
        rounds=config["rounds"],
        eval_every=config["eval_every"],
        n_clients=len(shards),
        malicious=malicious if len(shards) == n_clients else np.zeros(len(shards), dtype=bool),
        setting=setting,
        sampler=sampler,
        trainer=trainer,
        backend=part("backend", workload=workload),
        attack=attack,
        aggregator=aggregator,
        server_optimizer=server_optimizer,
        evaluator=ModelEvaluator(evaluation, counts / counts.sum(axis=1, keepdims=True)),
    )
    return Built(experiment, model, dataset, partition)


def _check_root(config: Config) -> None:
    for group in GROUPS:
        _required(config[group], "_target_", group)
    for key in ("fraction", "n_malicious"):
        _required(config["attack"], key, "attack")
    at_least(0, seed=config["seed"])
    for key in ("rounds", "n_clients", "cohort_size", "eval_every", "checkpoint_every"):
        at_least(1, **{key: config[key]})
    at_least(0, assumed_malicious=config["assumed_malicious"])
    one_of(OBJECTIVES, objective=config["objective"])
    in_range(0, 1, **{"attack.fraction": config["attack"]["fraction"]})
    n_malicious = config["attack"]["n_malicious"]
    if not isinstance(n_malicious, int) or isinstance(n_malicious, bool):
        raise InputError("must be a whole number", "attack.n_malicious", n_malicious)
    in_range(0, config["n_clients"], **{"attack.n_malicious": n_malicious})
    setting = config["setting"]["_target_"].rpartition(".")[2]
    if n_malicious and setting != "Federated":
        raise InputError("an attack needs setting=federated", "attack.n_malicious", n_malicious)
    if setting == "LocalOnly" and not config["server_optimizer"]["_target_"].endswith(".SGD"):
        raise InputError(
            "setting=local_only has no server; use server_optimizer=sgd",
            "server_optimizer",
            config["server_optimizer"]["_target_"],
        )


def _required(node: Config, key: str, path: str) -> None:
    if key not in node:
        raise InputError(f"has no value; set it with +{path}.{key}=", f"{path}.{key}", "")


class _Parts:
    """Builds one group of the config at a time, after checking what may be built of what."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._trusted = (*TRUSTED_PREFIXES, *config["trust"])

    def __call__(self, group: str, without: Sequence[str] = (), **runtime: object) -> Any:
        node = {k: v for k, v in self._config[group].items() if k not in without}
        _check_node(node, group, self._trusted, tuple(runtime))
        with _prefixed(group):
            try:
                # In two steps: Hydra would take a dataclass among the arguments for a config.
                make = instantiate({**node, "_partial_": True}, _convert_="all")
                return make(**runtime)
            except InputError:
                raise
            except Exception as error:
                cause = error.__cause__ if isinstance(error, InstantiationException) else error
                if isinstance(cause, InputError):
                    # Hydra's message ends with where in the group the part lies that refused.
                    inner = re.search(r"full_key: (\S+)", str(error))
                    raise (cause.under(inner[1]) if inner else cause) from None
                reason = str(cause or error).splitlines()[0]
                raise InputError(f"cannot be built: {reason}", "_target_", node["_target_"]) from (
                    error
                )


class _prefixed:
    """Puts a config group in front of the keys of the InputErrors that pass."""

    def __init__(self, group: str) -> None:
        self._group = group

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        root = ("n_clients", "cohort_size", "device")  # arguments that are root keys as well
        if isinstance(error, InputError) and error.key and error.key not in root:
            raise error.under(self._group) from None


def _check_node(node: Any, path: str, trusted: Sequence[str], runtime: Sequence[str]) -> None:
    """Refuse targets outside the trusted prefixes, unknown arguments and wrong types."""
    if isinstance(node, list):
        for i, child in enumerate(node):
            _check_node(child, f"{path}.{i}", trusted, ())
    if not isinstance(node, Mapping):
        return
    for key, child in node.items():
        _check_node(child, f"{path}.{key}", trusted, ())
    if "_target_" in node:
        target = _locate(node["_target_"], path, trusted)
        _check_arguments(target, node, path, runtime)


def _locate(name: Any, path: str, trusted: Sequence[str]) -> Any:
    # `hydra.utils.instantiate` is no sandbox, and a config may come from somebody else. The
    # second look is for names such as fedexp.cli.os.system, which only pass through our modules.
    allowed = f"only targets under {', '.join(trusted)} may be built (see the config key trust)"
    if not str(name).startswith(tuple(trusted)):
        raise InputError(allowed, f"{path}._target_", name)
    try:
        target = get_object(name)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"not found: {reason}", f"{path}._target_", name) from error
    if not f"{getattr(target, '__module__', '')}.".startswith(tuple(trusted)):
        raise InputError(allowed, f"{path}._target_", name)
    return target


def _check_arguments(target: Any, node: Config, path: str, runtime: Sequence[str]) -> None:
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # names that only a type checker imports
        hints = {}
    names = [name for name in parameters if name not in runtime]
    for name, value in node.items():
        if name.startswith("_") and name.endswith("_"):
            continue
        if name not in names:
            raise InputError(
                f"{did_you_mean(name, names)}Known here: {', '.join(names) or 'nothing'}",
                f"{path}.{name}",
                value,
            )
        if name in hints and not _fits(value, hints[name]):
            raise InputError(f"must be {_describe(hints[name])}", f"{path}.{name}", value)
    for name, parameter in parameters.items():
        given = name in node or name in runtime
        if (
            not given
            and parameter.default is parameter.empty
            and parameter.kind
            in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
        ):
            _required(node, name, path)


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
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, Sequence)):
        return isinstance(value, list) and all(_fits(v, arguments[0]) for v in value)
    return True


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is Callable:
        return "a part of its own, chosen with a slash (group/part=choice)"
    if origin is not None and arguments:
        return f"a list, each item {_describe(arguments[0])}"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
    return "null" if hint is type(None) else words.get(hint, str(hint))


def _malicious(config: Config, n_clients: int) -> np.ndarray:
    """`[n_clients]` bool: who the adversary controls, drawn from the seed alone."""
    mask = np.zeros(n_clients, dtype=bool)
    rng = generator(config["seed"], "malicious")
    mask[rng.choice(n_clients, config["attack"]["n_malicious"], replace=False)] = True
    return mask


def _poisoned(partition: Partition, attack: Attack, malicious: np.ndarray, seed: int) -> Partition:
    """The partition with the malicious clients' rows as they will train on them."""
    x, y = partition.train.x, partition.train.y
    changed = False
    for client in np.flatnonzero(malicious).tolist():
        rows = torch.from_numpy(partition.shards[client])
        own = partition.train.rows(rows)
        poisoned = attack.poison(own, generator(seed, "poison", client))
        if poisoned is own:
            continue
        if not changed:
            x, y, changed = x.clone(), y.clone(), True
        x[rows], y[rows] = poisoned.x, poisoned.y
    return replace(partition, train=Split(x, y)) if changed else partition


def _rehearse(aggregator: Aggregator, cohort_size: int) -> None:
    """Aggregate a cohort of zero rows: a precondition that cannot hold fails before training."""
    rows = Updates(
        torch.zeros(cohort_size, 1),
        tuple(range(cohort_size)),
        torch.ones(cohort_size, dtype=torch.float64),
    )
    with _prefixed("aggregator"):
        aggregator(rows, aggregator.init(1))


def _model(part: _Parts, seed: int, dataset: Dataset) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "model"))
        model = part("model")
        name = type(model).__name__
        if not isinstance(model, nn.Module):
            raise InputError("is not a torch.nn.Module", "model", name)
        refuse_changing_buffers(model)
        try:
            with torch.no_grad():  # lazy layers draw their weights here
                shape = tuple(model.eval()(torch.zeros(2, *dataset.input_shape)).shape)
        except Exception as error:
            images = "x".join(map(str, dataset.input_shape))
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot take images of {images}: {reason}", "model", name) from error
    expected = (2, dataset.num_classes)
    if shape != expected:
        raise InputError(f"gives {shape} for 2 images, not {expected}", "model", name)
    vector_of(model)  # refuses a module that has nothing to train
    return model


def _device(name: str) -> torch.device:
    one_of(("cpu", "cuda", "auto"), device=name)
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("no GPU that torch can use was found; use device=cpu", "device", name)
    return torch.device("cuda" if available and name != "cpu" else "cpu")
