"""The work of `fedexp leakage FILE.pth`: attack a model that somebody else trained.

Nothing of the file is executed. The findings land in outputs/leakage/NAME-HASH, or where --out
says, beside `model.json`, which says what was assumed; the file itself is only read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedexp.commands.studies import carry_out, study_of
from fedexp.config.composition import Loader
from fedexp.config.folders import conf_folder
from fedexp.config.found import settle
from fedexp.config.hydra_errors import COMPLAINTS, one_line
from fedexp.config.schema import register
from fedexp.core.checks import InputError
from fedexp.core.documents import DOCUMENT_BYTES, parse_json, read_text
from fedexp.core.files import locked, to_json, write_atomically
from fedexp.leakage.model_file import AS_FEDEXP, RAW, ModelFile, check_study
from fedexp.leakage.victim import Victim
from fedexp.run_folder.findings import StudyRecord, read_findings
from fedexp.run_folder.untrusted import NotUsable, read_bytes
from fedexp.store.use import named

SETTABLE = ("dataset", "model", "leakage", "train_examples", "seed", "task", "paths.data_dir")
ABOUT = "model.json"


@final
@dataclass(frozen=True)
class Attacked:
    """What studies of one model found, and under which conditions."""

    path: Path  # as it was named: a file, or a run
    folder: Path  # of the findings
    studies: tuple[StudyRecord, ...]
    conditions: Mapping[str, object]
    said: tuple[str, ...]  # what was taken for true, in sentences

    @property
    def name(self) -> str:
        """As a table calls it."""
        return self.path.name


def attack_file(
    path: Path,
    overrides: Sequence[str],
    model: str | None,
    members: str | None,
    scale: str,
    out: Path | None,
    force: bool,
) -> Attacked:
    """Study the model in a file.

    Args:
        path: .pth, .pt or .safetensors.
        overrides: the dataset, the study and values of theirs.
        model: a choice of the group `model`.
        members: see `ModelFile`.
        scale: see `ModelFile`; "MEAN,DEVIATION" for two numbers.
        out: where the findings are left.
        force: carry out studies again whose findings are there.

    Raises:
        InputError: the file, an option or an override cannot be used.
    """
    if model is None:
        raise InputError(
            "say which model the weights are of, such as --model mlp (see: fedexp list model)",
            "--model",
            "",
        )
    file = ModelFile(path, members, _scale(scale))
    try:
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
    except NotUsable as error:
        raise InputError(str(error), "MODEL_FILE", path) from error
    config = _composed([f"model={model}", *overrides])
    nodes = config["leakage"]
    if not nodes:
        raise InputError(
            "choose what to do: leakage=model_inversion or leakage=loss_threshold", "leakage", None
        )
    studies = {name: study_of(name, node, ()) for name, node in nodes.items()}
    for name, study in studies.items():
        check_study(name, study, members)
    torch.set_num_threads(1)  # as in a run: the same bits for any number of cores
    conditions = {"members": members or "not said", "scale": scale, **conditions_of(config)}
    victim = file.victim(config, out or Path())  # before there is a folder
    made_of = {"sha256": digest, "examples": victim.pixels.digest, **conditions}
    key = hashlib.sha256(to_json(made_of)).hexdigest()[:12]
    folder = out or Path("outputs") / "leakage" / f"{path.stem}-{key}"
    _refuse_others_folder(folder, made_of)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        about = {"file": str(path), **made_of, "assumed": file.assumptions()}
        write_atomically(folder / ABOUT, to_json(about, indent=1))
        _study(replace(victim, folder=folder), studies, nodes, force)
    found = tuple(study for study in read_findings(folder) if study.name in nodes)
    return Attacked(path, folder, found, conditions, tuple(file.assumptions()))


def _refuse_others_folder(folder: Path, made_of: Mapping[str, object]) -> None:
    """Raise InputError where findings lie that would be taken for this model's."""
    if (folder / "config.yaml").exists():
        raise InputError("is a run's folder: findings in it are of that run", "--out", folder)
    if not (folder / "leakage").exists():
        return
    try:
        about = parse_json(read_text(folder / ABOUT, DOCUMENT_BYTES))
    except (OSError, ValueError):
        about = None
    about = about if isinstance(about, dict) else {}
    now = parse_json(to_json(made_of).decode())
    if other := [key for key in now if about.get(key) != now[key]]:
        reason = f"holds findings of other conditions ({', '.join(other)}): name another folder"
        raise InputError(reason, "--out", folder)


def _study(
    victim: Victim, studies: Mapping[str, Any], nodes: Mapping[str, Any], force: bool
) -> None:
    there = {found.name: found for found in read_findings(victim.folder)}
    nothing = named("none", one_of_many=False)  # is kept of what these train
    for name, study in studies.items():
        if name in there and there[name].settings == nodes[name] and not force:
            print(f"{name}: its findings are there already")
        else:
            carry_out(name, study, victim, nodes[name], print, nothing)


def conditions_of(config: Mapping[str, Any]) -> dict[str, object]:
    """What two attacks must have alike to be compared."""
    return {
        "dataset": {k: v for k, v in config["dataset"].items() if k != "imbalance" or v},
        "train_examples": config["train_examples"],
        "seed": config["seed"],
        "model": {k: v for k, v in config["model"].items() if k not in ("weights", "frozen")},
    }


def _scale(words: str) -> str | tuple[float, float]:
    if words in (AS_FEDEXP, RAW):
        return words
    try:
        mean, deviation = map(float, words.split(","))
    except ValueError:
        mean, deviation = 0.0, 0.0
    if not (0 < deviation < math.inf and math.isfinite(mean)):
        raise InputError("must be fedexp, none, or MEAN,DEVIATION", "--scale", words)
    return mean, deviation


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """The config whose data and studies these are: a plain run's, which is not carried out."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not key.startswith(SETTABLE):
            reason = f"there is no run to set; may be set: {', '.join(SETTABLE)}"
            raise InputError(reason, "override", override)
    register()
    Loader.said = tuple(overrides)
    plain = ["partition=iid", "n_clients=1", "backend=in_process", "store=none", "tracker=none"]
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose("config", overrides=[*plain, *overrides])
        settle(config)
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except COMPLAINTS as error:
        raise InputError(one_line(error, list(overrides))) from error
    assert isinstance(container, dict)
    resolved = {str(key): value for key, value in container.items()}
    if resolved["model"].get("weights") is not None:
        raise InputError("are the file's", "model.weights", resolved["model"]["weights"])
    return {**resolved, "quiet": True}
