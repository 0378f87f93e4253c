"""The work of `fedexp leakage RUN_DIR`, and what `fedexp run leakage=...` does at the end of a run.

Each study lands in RUN_DIR/leakage/NAME. The run itself is only read: a second attack trains
nothing again, and one whose findings are there with the same settings is not carried out again.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tqdm import tqdm

from fedexp.commands.trust import refuse_borrowed_trust, refuse_missing_data
from fedexp.config.build import Built
from fedexp.config.composition import Loader
from fedexp.config.folders import conf_folder
from fedexp.config.hydra_errors import COMPLAINTS, one_line
from fedexp.config.parts import Parts, as_typed
from fedexp.config.schema import register
from fedexp.core.checks import InputError
from fedexp.core.files import locked
from fedexp.core.findings import Findings
from fedexp.core.flat import vector_of
from fedexp.core.observer import Observer
from fedexp.core.plots import Plots
from fedexp.core.text import called
from fedexp.leakage.study import SaysBeforehand, Study, Watches
from fedexp.leakage.victim import Victim, open_victim
from fedexp.run_folder.documents import read_config
from fedexp.run_folder.findings import add_to_summary, read_findings, write_findings
from fedexp.store.entries import Kept
from fedexp.store.use import named, using

OVERRIDABLE = ("leakage", "paths.data_dir", "quiet", "trust")
LINE_EVERY = 10.0  # seconds between plain lines of progress


def leak(folder: Path, overrides: Sequence[str], name: str | None, force: bool) -> str:
    """Study a run; gives its report, none with `quiet=true`.

    Args:
        folder: of the run.
        overrides: `leakage=NAME`, `leakage=[NAME,...]` and values of theirs; with several values
            for a key, `key=a,b`, every combination is a study of its own.
        name: where the findings of the one study are kept, in the place of its own name.
        force: carry out studies again whose findings are there.

    Raises:
        InputError: the run or an override cannot be used.
    """
    from fedexp.reporting.run_report import report_run

    # A folder without a run is the first thing to complain about.
    saved = read_config(folder)
    refuse_borrowed_trust(saved, overrides)
    refuse_missing_data(saved, overrides)
    combinations = _combinations(overrides)
    chosen = [(_chosen(single), varied) for single, varied in combinations]
    nodes = {
        ",".join([kind, *varied]): node
        for config, varied in chosen
        for kind, node in config["leakage"].items()
    }
    if not nodes:
        raise InputError("choose what to do, e.g. leakage=geiping (see: fedexp list leakage)")
    kinds: dict[str, str] = {}
    if name is not None:
        if len(nodes) > 1 or not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError("must be a plain name, for one study", "--as", name)
        ((asked, node),) = nodes.items()
        nodes, kinds = {name: node}, {name: _kind(asked)}
    paths, trust = chosen[0][0]["paths"], chosen[0][0]["trust"]
    quiet = chosen[0][0]["quiet"]
    with locked(folder):
        say = _nobody if quiet else print
        study_run(folder, nodes, paths["data_dir"], trust, force, say, kinds=kinds)
        plots = Plots.of(saved.get("plots", True))
        text = report_run(folder, also=plots.also, style=plots.style)
    return "" if quiet else text


def _nobody(line: str) -> None:
    """Hears it."""


def study_run(
    folder: Path,
    nodes: Mapping[str, Mapping[str, Any]],
    data_dir: str | None,
    trust: Sequence[str],
    force: bool,
    say: Callable[[str], object],
    built: Built | None = None,
    kinds: Mapping[str, str] | None = None,
) -> None:
    """Carry out studies of the run in `folder`, which the caller has locked.

    Args:
        folder: of the run.
        nodes: by name, a study's part of a resolved config.
        data_dir: where the data lie now; None: where they lay.
        trust: packages whose code may be built beside fedexp's; what the run's own config says
            of it counts for nothing.
        force: carry out studies again whose findings are there.
        say: is given a line now and then.
        built: what was built of the run's config, if that is at hand.
        kinds: what the studies are called in the config, of those that have another name.

    Raises:
        InputError: a study cannot be made of its node, or not of this run.
    """
    kinds = kinds or {}
    torch.set_num_threads(1)  # as in a run: the same bits for any number of cores
    studies = {name: study_of(kinds.get(name, name), node, trust) for name, node in nodes.items()}
    there = {found.name: found for found in read_findings(folder)}
    victim = open_victim(folder, data_dir, built, trust)
    kept = named(victim.config["store"], one_of_many=True)
    for name, study in studies.items():
        if name in there and there[name].settings == nodes[name] and not force:
            say(f"{name}: its findings are there already")
            add_to_summary(folder, name, there[name].headline)  # a kill may have come in between
            continue
        if isinstance(study, SaysBeforehand) and (sentence := study.beforehand(victim)):
            say(f"{name}: {sentence}")
        kind = kinds.get(name, name)
        headline = carry_out(name, study, victim, nodes[name], say, kept, kind)
        add_to_summary(folder, name, headline)


def carry_out(
    name: str,
    study: Study,
    victim: Victim,
    node: Mapping[str, Any],
    say: Callable[[str], object],
    kept: Kept,
    kind: str | None = None,
) -> Mapping[str, float]:
    """The headline of one study, whose findings are left in the victim's folder.

    `kind` is what the config calls it, if that is not its name.
    """
    started = time.perf_counter()
    with (
        using(kept),  # what a study trains is asked for again, by others and of other runs
        _progress(name, say) as progress,
        as_typed(f"leakage.{_kind(kind or name)}", node),
    ):
        findings = study(victim, progress)
    if not isinstance(findings, Findings):
        wrong = f"must return Findings, and returned a {type(findings).__name__}"
        raise InputError(wrong, f"leakage.{_kind(kind or name)}", called(study))
    write_findings(victim.folder, name, node, findings, time.perf_counter() - started)
    return findings.headline


def watchers_of(folder: Path, config: Mapping[str, Any], built: Built) -> list[Observer]:
    """Who watches the rounds of a run that is about to start or to go on.

    Args:
        folder: of the run.
        config: of the run, resolved, with its studies.
        built: of it.

    Raises:
        InputError: a study cannot be made of this run.
    """
    found: list[Observer] = []
    for name, node in config["leakage"].items():
        study = study_of(name, node, config["trust"])
        if isinstance(study, Watches):
            with as_typed(f"leakage.{name}", node):
                start = built.experiment.setting.init(
                    vector_of(built.model), built.experiment.n_clients
                )
                found.append(study.watch(Victim.of(folder, config, built, {0: start})))
    return found


def study_of(name: str, node: Mapping[str, Any], trust: Sequence[str]) -> Study:
    """The study that a part of a resolved config describes."""
    kind = _kind(name)
    study: Study = Parts({"leakage": {kind: node}}, trust)(f"leakage.{kind}")
    return study


def _kind(name: str) -> str:
    return re.split("[,.]", name)[0]  # a name may go on with values, and those with dots


def _combinations(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Every combination of values given as `key=a,b`, and what names it beside its study."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except COMPLAINTS as error:
        raise InputError(one_line(error, list(overrides))) from error
    choices = [
        [(str(o.get_key_element()), value) for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [(str(o.input_line), None)]
        for o in parsed
    ]
    return [
        (
            [key if value is None else f"{key}={value}" for key, value in single],
            [
                f"{key.rpartition('.')[2]}={value}"
                for key, value in single
                if value is not None and key != "leakage"
            ],
        )
        for single in product(*choices)
    ]


def _chosen(overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not key.startswith(OVERRIDABLE):
            raise InputError(
                f"the run is finished; may be set: {', '.join(OVERRIDABLE)}", "override", override
            )
    register()
    Loader.said = tuple(overrides)
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
        container = {
            key: OmegaConf.to_container(config[key], resolve=True, throw_on_missing=True)
            for key in ("leakage", "paths", "trust")
        }
        return {**container, "quiet": config["quiet"]}
    except COMPLAINTS as error:
        raise InputError(one_line(error, list(overrides))) from error


@contextmanager
def _progress(name: str, say: Callable[[str], object]) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal, else a line every few seconds."""
    started = said = time.monotonic()
    with tqdm(
        total=1.0,
        desc=name,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        disable=not sys.stderr.isatty(),
    ) as bar:

        def progress(share: float) -> None:
            nonlocal said
            bar.update(share - bar.n)
            now = time.monotonic()
            if bar.disable and now - said > LINE_EVERY:
                said = now
                say(f"{name}: {share:.0%}  {now - started:.0f} s")

        yield progress
        progress(1.0)
