"""A job's config is composed from a kept choice of groups, and is what Hydra composes."""

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


@pytest.mark.parametrize("wrong", ["nosuch=1", "aggregator=nosuch", "+seed=1", "~nosuch"])
def test_what_hydra_refuses_is_refused(sweep, wrong):
    loader, master = sweep
    with pytest.raises(ConfigCompositionException):
        loader.load_sweep_config(master, [wrong])
