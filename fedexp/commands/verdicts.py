"""After a run: what each client's own patients say, and the verdict if it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedexp.config.build import Built, build
from fedexp.config.origin import origin_of
from fedexp.config.parts import Parts
from fedexp.core.checks import InputError
from fedexp.core.rng import generator
from fedexp.core.text import called
from fedexp.core.thresholds import Bin, thresholds
from fedexp.run_folder.checkpoints import Unreadable, read_checkpoint
from fedexp.run_folder.format import accepted_hashes, backend_of_studies
from fedexp.run_folder.origin import refuse_other_origin
from fedexp.run_folder.verdict import read_verdict, write_verdict
from fedexp.verdict.answers import Answers, sites_of
from fedexp.verdict.figures import flat, of_sites
from fedexp.verdict.operating_point import OperatingPoint
from fedexp.verdict.study import HospitalVerdict

MOST_SITES = 100  # whose figures a summary holds; those of thousands are in metrics.csv


def figures_of_sites(built: Built, models: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """For the summary: every site's own figures; empty where nobody's patients are known.

    Empty too without a validation part, whose answers they are made with.

    Args:
        built: of the run, its backend open.
        models: after the last round, one for all or one for each client.
        seed: of the run.
    """
    if not built.own.are_known or len(built.partition.shards) > MOST_SITES:
        return {}
    if not len(built.dataset.validation):
        return {}
    sites, answers = sites_of(built), Answers.of(built, models)
    shared, half = len(models) == 1, OperatingPoint()
    found = of_sites(
        built.task, sites, answers, half, False, shared, lambda k: generator(seed, "own", k)
    )
    return {
        site.name: {
            "n": len(site.patients["test"]),
            "patients": site.patients["test"].number,
            "trained_on": site.trained_on,
            **flat(figures),
        }
        for site, (_, figures) in zip(sites, found, strict=True)
    }


def thresholds_of(built: Built, models: Sequence[Tensor]) -> list[Bin]:
    """How the shared model's probabilities on test lie to the truth; nothing without one model.

    Args:
        built: of the run, its backend open.
        models: after the last round, one for all or one for each client.
    """
    if len(models) != 1:
        return []
    (logits,) = built.experiment.backend.evaluate(models, "test")
    probabilities = built.task.probabilities(logits.double()).cpu().numpy()
    return thresholds(probabilities, built.dataset.test.y.numpy())


def judge(config: Mapping[str, Any], folder: Path, say: Callable[[str], object]) -> None:
    """Carry out the verdict that the config asks for, unless the folder has it.

    Args:
        config: the resolved config.
        folder: of the complete run, locked by the caller.
        say: is given a line now and then.

    Raises:
        InputError: the run has no model that can be read, or its data have changed.
    """
    node = config["verdict"]
    if not node:
        return
    there = read_verdict(folder)
    if there is not None and there.get("settings") == node:
        return
    torch.set_num_threads(1)
    quiet = {
        **config,
        "backend": backend_of_studies(config),
        "tracker": {},
        "leakage": {},
        "quiet": True,
    }
    study: HospitalVerdict = Parts(quiet, config["trust"])("verdict")
    built = build(quiet)
    with closing(built.experiment.backend):
        refuse_other_origin(folder, origin_of(quiet, built))
        final = _final(folder, config)

        def progress(share: float) -> None:
            say(f"verdict: {share:.0%} of the comparisons are trained")

        verdict: object = study(folder, config, built, final, progress)
    if not isinstance(verdict, Mapping) or not {"sites", "patients"} <= verdict.keys():
        given = sorted(verdict) if isinstance(verdict, Mapping) else f"a {type(verdict).__name__}"
        wrong = f"must return a dict with sites and patients, and returned {given}"
        raise InputError(wrong, "verdict", called(study))
    write_verdict(folder, node, verdict)


def _final(folder: Path, config: Mapping[str, Any]) -> Tensor:
    """The model `[d]` after the last round."""
    broken = ""
    for path in sorted((folder / "checkpoints").glob("round-*.pt"), reverse=True):
        try:
            return read_checkpoint(path, accepted_hashes(config)).state.params
        except Unreadable as error:
            broken = f"; {path.name} cannot be used: {error}"
    raise InputError(f"has no checkpoint to judge{broken}", "RUN_DIR", folder)
