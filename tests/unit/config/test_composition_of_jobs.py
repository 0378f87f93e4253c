"""A job's config is composed from a kept choice of groups, and is what Hydra composes."""

import random

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from fedexp.config.composition import Loader
from fedexp.config.folders import conf_folder
from fedexp.config.schema import register
from fedexp.config.swept_choices import Composed, SweptChoices


@pytest.fixture(scope="module")
def sweep():
    register()
    setup_globals()
    loader = Loader(create_config_search_path(str(conf_folder())))
    of_hydra = ["hydra.sweep.dir=there", "hydra.job.config.override_dirname.exclude_keys=[rounds]"]
    master = loader.load_configuration(
        "config", overrides=["seed=0,1", *of_hydra], run_mode=RunMode.MULTIRUN
    )
    return loader, master


@pytest.mark.parametrize(
    "overrides",
    [
        ["aggregator=median", "seed=1", "rounds=5"],
        ["rounds=5", "training.lr=0.3", "aggregator=median", "seed=7"],  # the same choice again
        ["attack=sign_flip", "+attack.more=3", "attack.fraction=0.3", "~seed"],
        ["seed=4", "experiment=attack_matrix", "pre_aggregation=[nnm,clipping]", "trust=[mine.]"],
        ["leakage=[lira]", "training/schedule=cosine", "++rounds=3"],
    ],
)
def test_it_is_hydras(sweep, overrides):
    loader, master = sweep
    ours = loader.load_sweep_config(master, overrides)
    hydras = ConfigLoaderImpl.load_sweep_config(loader, master, overrides)
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(hydras)
    assert OmegaConf.is_struct(ours) == OmegaConf.is_struct(hydras)
    assert ours.attack.n_malicious == hydras.attack.n_malicious  # by an interpolation


def test_a_copy_is_nobody_elses(sweep):
    loader, master = sweep
    first = loader.load_sweep_config(master, ["seed=1"])
    first.hydra.job.num = 7
    first.training.lr = 99
    assert loader.load_sweep_config(master, ["seed=1"]).training.lr != 99


def test_a_group_that_only_hydras_search_path_has_is_a_group(sweep, tmp_path):
    loader, _ = sweep
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "slow.yaml").write_text("# @package _global_\ntraining:\n  lr: 0.25\n")
    of_hydra = [f"hydra.searchpath=[file://{tmp_path}]"]
    master = loader.load_configuration(
        "config", overrides=["seed=0,1", *of_hydra], run_mode=RunMode.MULTIRUN
    )
    assert loader.load_sweep_config(master, ["+study=slow", "seed=1"]).training.lr == 0.25


@pytest.mark.parametrize("wrong", ["nosuch=1", "aggregator=nosuch", "+seed=1", "~nosuch"])
def test_what_hydra_refuses_is_refused(sweep, wrong):
    loader, master = sweep
    with pytest.raises(ConfigCompositionException):
        loader.load_sweep_config(master, [wrong])


GRID = {
    "attack": ["none", "alie", "worst_of", "mimic"],
    "aggregator": ["mean", "krum", "fltrust", "flame_no_noise"],
    "pre_aggregation": ["none", "nnm", "[nnm,clipping]"],
    "partition": ["dirichlet", "iid", "shards"],
    "privacy": ["none", "dp_sgd"],
    "training": ["sgd", "adam"],
    "dataset": ["digits", "mnist"],
}


@pytest.mark.parametrize("seed", range(12))
def test_choices_put_together_are_what_hydra_composes_whole(sweep, seed):
    loader, master = sweep
    draw = random.Random(seed)
    first = [f"{group}={options[0]}" for group, options in GRID.items()]
    job = [f"{group}={draw.choice(options)}" for group, options in GRID.items()]
    fixed = ["++attack.fraction=0.25", "seed=3"]
    loader.load_sweep_config(master, [*first, "seed=3"])
    hydras = ConfigLoaderImpl.load_sweep_config(loader, master, [*job, *fixed])
    ours = loader.load_sweep_config(master, [*job, *fixed])
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(hydras)
    assert OmegaConf.is_struct(ours) == OmegaConf.is_struct(hydras)
    assert OmegaConf.to_yaml(ours, resolve=False) == OmegaConf.to_yaml(hydras, resolve=False)
    assert ours.attack.n_malicious == hydras.attack.n_malicious


def composing(config):
    """A composer of made-up groups that counts how often it is asked."""
    asked = []

    def compose(lines):
        asked.append(lines)
        choices = dict(line.split("=") for line in lines)
        return config(choices)

    return compose, asked


def plain(choices):
    runtime = {"runtime": {"choices": choices}}
    made = OmegaConf.create({**{g: {"is": c} for g, c in choices.items()}, "hydra": runtime})
    return Composed(made, tuple((f"{g}/{c}", g, False) for g, c in choices.items()))


def grid(sizes=(3, 4, 2)):
    return [
        (f"a={i}", f"b={j}", f"c={k}")
        for i in range(sizes[0])
        for j in range(sizes[1])
        for k in range(sizes[2])
    ]


def test_a_grid_takes_as_many_compositions_as_there_are_choices():
    compose, asked = composing(plain)
    swept = SweptChoices(compose)
    for lines in grid():
        config = swept.config(lines)
        choices = dict(line.split("=") for line in lines)
        assert {g: config[g]["is"] for g in "abc"} == choices
        assert dict(config.hydra.runtime.choices) == choices
    assert len(asked) == 1 + 2 + 3 + 1


def of_a_preset(choices):
    """b=1 is a preset: its file writes everywhere."""
    made = plain(choices)
    entries = [(f, "" if f == "b/1" else package, s) for f, package, s in made.entries]
    if choices["b"] == "1":
        made.config.a["is"] = "as b=1 has it"
    return Composed(made.config, tuple(entries))


def with_defaults_of_its_own(choices):
    """c=1 brings a file of another group with it."""
    made = plain(choices)
    if choices["c"] != "1":
        return made
    made.config.a.more = choices["b"]
    return Composed(made.config, (*made.entries, ("a/more", "a", False)))


def by_another_choice(choices):
    """What is written under `c` is said by a file that a's choice names: `defaults: c/${a}`."""
    made = plain(choices)
    made.config.c.of = choices["a"]
    return Composed(made.config, (*made.entries, (f"c/of/{choices['a']}", "c", False)))


def by_another_choice_sometimes(choices):
    """The same, but only c=1 says so, which a's choice, looked at beside c=0, does not show."""
    return (by_another_choice if choices["c"] == "1" else plain)(choices)


REACHING = [
    of_a_preset,
    with_defaults_of_its_own,
    by_another_choice,
    by_another_choice_sometimes,
]


@pytest.mark.parametrize("config", REACHING)
def test_what_reaches_into_other_groups_is_composed_whole(config):
    compose, asked = composing(config)
    swept = SweptChoices(compose)
    for lines in grid():
        choices = dict(line.split("=") for line in lines)
        assert swept.config(lines) == config(choices).config, lines
    assert len(asked) > 1 + 2 + 3 + 1


def test_a_choice_that_fits_not_the_first_jobs_is_composed_with_its_own():
    def config(choices):
        if choices["a"] == "0" and choices["b"] == "1":
            raise ConfigCompositionException("b=1 needs another a")
        return plain(choices)

    compose, _ = composing(config)
    swept = SweptChoices(compose)
    swept.config(("a=0", "b=0", "c=0"))
    assert swept.config(("a=1", "b=1", "c=0")).b["is"] == "1"
    with pytest.raises(ConfigCompositionException, match="needs another a"):
        swept.config(("a=0", "b=1", "c=1"))
