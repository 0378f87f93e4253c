"""Every YAML under conf composes, builds, and holds what scripts and readers rely on."""

import inspect
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from fedexp.config.build import build
from fedexp.config.catalogue import description
from fedexp.config.parts import Parts
from fedexp.config.schema import register
from fedexp.core.flat import vector_of
from tests.support.composing import COMPLETED, CONF, choices, config_for

FILES = [
    path
    for path in sorted(CONF.rglob("*.yaml"))
    if path.parent.name != "local"  # a person's own, never committed
]
each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(CONF).with_suffix("").as_posix()
)

# What the builder hands in beside the YAML's own parameters.
AT_RUN_TIME = {"backend": {"workload"}, "early_stopping": {"metrics"}}
# Datasets that need files are built in tests/unit/data, and where the files are.
WITHOUT_FILES = ["digits"]
# Studies of a claim, of which a run without one has none.
NEEDS_A_CLAIM = {"audit", "audit_many_runs"}


def is_built_on_digits(path):
    """Whether the choice goes with digits."""
    return (
        path.parent not in (CONF, CONF / "leakage" / "exposure")
        and not (path.parent.name == "dataset" and path.stem not in WITHOUT_FILES)
        and path.stem != "multilabel"  # digits have one label each, which it refuses
        and path.stem not in ("site", "within_sites", "file")  # digits know no sites
    )


def override(path):
    """The command line that takes this file."""
    if path.parent == CONF:
        return []
    if path.parent == CONF / "leakage" / "exposure":  # of a study, never by itself
        return ["leakage=geiping", f"leakage/exposure@leakage.geiping.exposure={path.stem}"]
    group = path.parent.relative_to(CONF).as_posix()
    claim = ["privacy=client_dp"] if group == "leakage" and path.stem in NEEDS_A_CLAIM else []
    return [f"{group}={path.stem}", *claim]


def targets(node, where=""):
    """Every node with a `_target_`, with its dotted place."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield where, node
        for key, child in node.items():
            yield from targets(child, f"{where}.{key}".lstrip("."))
    if isinstance(node, list):
        for i, child in enumerate(node):
            yield from targets(child, f"{where}.{i}")


def test_the_files_were_found():
    assert len(FILES) > 50
    assert CONF / "training" / "schedule" / "cosine.yaml" in FILES


@each_file
def test_composes_with_the_defaults_says_what_it_is_and_builds_on_digits(path):
    config = config_for(*override(path))
    assert {"dataset", "partition", "model", "training", "attack", "backend"} <= config.keys()
    text = description(path)
    assert re.fullmatch(r"[A-Zc].{3,88}[^.]", text), text
    assert "???" not in str(config)
    if not is_built_on_digits(path):
        return
    # Clients of one size: to calibrate noise for ten different ones takes ten times as long.
    alike = ["partition=iid"] if path.parent.name == "scenario" else []
    if alike or config["dataset"]["name"] != "digits":
        config = config_for(*override(path), "dataset=digits", *alike)
    config["train_examples"] = None
    built = build(config)
    try:
        assert built.dataset.name == "digits"
        assert built.experiment.rounds == config["rounds"]
        logits = built.model(torch.zeros(2, 1, 8, 8))
        assert logits.shape == (2, 10)
    finally:
        built.experiment.backend.close()


def weights(*overrides):
    built = build(config_for(*overrides))
    return vector_of(built.model), built.partition.shards, built.experiment.malicious


def test_the_seed_decides_the_weights_the_deal_and_the_liars():
    first, again, other = (
        weights("attack=sign_flip", "n_clients=20", f"seed={seed}") for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert [shard.tolist() for shard in first[1]] == [shard.tolist() for shard in again[1]]
    assert [shard.tolist() for shard in first[1]] != [shard.tolist() for shard in other[1]]
    assert first[2].tolist() == again[2].tolist() != other[2].tolist()
    assert first[2].sum() == other[2].sum() == 5


def test_rules_and_attacks_are_compared_on_the_same_weights_deal_and_liars():
    plain, robust = weights("attack=sign_flip"), weights("attack=sign_flip", "aggregator=median")
    assert torch.equal(plain[0], robust[0])
    assert [shard.tolist() for shard in plain[1]] == [shard.tolist() for shard in robust[1]]
    assert plain[2].tolist() == robust[2].tolist()
    alone = weights("setting=local_only")
    assert torch.equal(plain[0], alone[0])
    assert [shard.tolist() for shard in plain[1]] == [shard.tolist() for shard in alone[1]]


def test_building_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    build(config_for())
    assert torch.equal(torch.get_rng_state(), state)


def test_pixels_are_normalised_by_the_training_part():
    built = build(config_for())
    train, test = (
        built.normalisation.x(part.as_floats().x)
        for part in (built.dataset.train, built.dataset.test)
    )
    assert train.mean().abs() < 1e-5
    assert train.std() == pytest.approx(1, abs=1e-5)
    assert test.mean().abs() > 1e-4  # not by its own statistics


def test_centralised_has_one_honest_client():
    exp = build(config_for("setting=centralised")).experiment
    assert exp.n_clients == 1
    assert exp.malicious.tolist() == [False]


@pytest.mark.parametrize("name", choices("dataset"))
def test_a_dataset_composes_with_every_model_of_ours_and_can_be_instantiated(name):
    config = config_for(f"dataset={name}")
    loader = Parts(config)("dataset")
    assert loader.name == name
    assert config["model"]["input_shape"] == config["dataset"]["input_shape"]
    assert config["model"]["num_classes"] == config["dataset"]["num_classes"]


def test_no_default_is_hidden_in_code():
    assert {place: names for path in FILES for place, names in hidden(path).items()} == {}


def hidden(path):
    """Place in a YAML -> the parameters of its class that have no key there."""
    own = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    defaults = own.pop("defaults", [])
    group = path.parent.relative_to(CONF).parts[0] if path.parent != CONF else ""
    named_subgroups = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    subgroups = {re.split(r"[@.]", key)[-1] for key in named_subgroups}
    found = {}
    for where, node in targets(own):
        if node.get("_partial_"):  # what a partial call is given later has torch's own defaults
            continue
        if node["_target_"] == "???":
            assert f"{group}={path.stem}" in COMPLETED
            continue
        parameters = inspect.signature(get_object(node["_target_"])).parameters.values()
        named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        runtime = AT_RUN_TIME.get(group, set()) if not where else set()
        written = {key for key in node if not key.startswith("_")} | subgroups
        if lacking := named - runtime - written:
            found[f"{group}/{path.stem} {where}"] = lacking
    return found


def test_a_part_is_ours_or_an_open_door():
    allowed = ("fedexp.", "torch.optim.", "???")
    nodes = {path: OmegaConf.to_container(OmegaConf.load(path), resolve=False) for path in FILES}
    named = {(path.stem, node["_target_"]) for path in FILES for _, node in targets(nodes[path])}
    assert len(named) > 100
    assert {pair for pair in named if not pair[1].startswith(allowed)} == set()


@pytest.mark.parametrize("name", choices("experiment"))
def test_a_preset_composes_with_hydras_part_and_says_what_it_shows(name):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
    swept = config.hydra.sweeper.params or {}
    for key in swept:
        place = str(key)
        if not (CONF / place).is_dir():
            assert OmegaConf.select(config, place) is not None, place
    assert "# Shows: " in (CONF / "experiment" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_cell_of_a_presets_sweep_builds(name):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)
    if config.dataset.name not in WITHOUT_FILES:
        assert config_for(f"experiment={name}", "model=cnn", "training.epochs=5")
        return
    for key, values in (config.hydra.sweeper.params or {}).items():
        for value in str(values).split(","):
            built = build(config_for(f"experiment={name}", f"{key}={value}"))
            built.experiment.backend.close()


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "rounds",
        "n_clients",
        "cohort_size",
        "eval_every",
        "device",
        "assumed_malicious",
        "objective",
        "partition.alpha",
        "training.lr",
        "training.batch_size",
        "training.epochs",
        "attack.n_malicious",
        "attack.fraction",
        "paths.data_dir",
    ],
)
def test_the_names_that_scripts_rely_on_are_there(key):
    node = config_for()
    for part in key.split("."):
        assert part in node, key
        node = node[part]


def test_the_output_folder_has_hydras_name():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", return_hydra_config=True)
    raw = OmegaConf.to_container(config.hydra, resolve=False)
    assert raw["run"]["dir"].startswith("outputs/")


def test_a_preset_wins_over_the_defaults_and_the_command_line_over_the_preset():
    assert config_for("experiment=fedavg_2017")["n_clients"] == 100
    assert config_for("experiment=fedavg_2017", "n_clients=7")["n_clients"] == 7
    assert config_for("experiment=fedavg_2017")["cohort_size"] == 10
    assert config_for("n_clients=7")["cohort_size"] == 7


@pytest.mark.parametrize(
    ("overrides", "attackers", "believed"),
    [
        ((), 0, 0),
        (("attack=sign_flip",), 2, 2),  # a quarter of 10 is 2.5, to the nearest even
        (("attack=sign_flip", "n_clients=20"), 5, 5),
        (("attack=sign_flip", "n_clients=100", "cohort_size=10"), 25, 3),  # 2.5, rounded up
        (("attack=sign_flip", "attack.n_malicious=4"), 4, 4),
        (("attack=sign_flip", "assumed_malicious=1"), 2, 1),
        (("attack=sign_flip", "attack.fraction=0"), 0, 0),
    ],
)
def test_the_truth_and_the_belief_are_two_fields(overrides, attackers, believed):
    config = config_for("aggregator=trimmed_mean", *overrides)
    assert config["attack"]["n_malicious"] == attackers
    assert config["assumed_malicious"] == believed
    assert config["aggregator"]["assumed_malicious"] == believed
