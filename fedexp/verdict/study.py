"""What federation is worth to every site: each comparison is trained, and each patient asked.

The roles (`fedexp.verdict.roles`) are trained by the same round loop, one beside the other on all
cores. What their models answered about every site's own patients is kept in the run's folder
together with a digest of the config and the code's version, so that a verdict that was interrupted
goes on, and other metrics of the same answers cost nothing.

A site is **harmed** where the federation's model is right about fewer of the site's own patients
than the model that the site trains alone, and **gains** where it is right about more: as far as
these patients can tell, which is when the 95 % interval of the paired difference leaves out 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from fedexp.config.adversary import malicious_clients
from fedexp.config.build import Built, build
from fedexp.config.origin import code_of_fedexp
from fedexp.core.checks import InputError, at_least, in_range
from fedexp.core.flat import vector_of
from fedexp.core.metric import Metric
from fedexp.core.parallel import in_parallel
from fedexp.core.protocols import Backend
from fedexp.core.rng import generator
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.run_folder.format import config_hash
from fedexp.store.files import leave_file, take_file
from fedexp.verdict import roles
from fedexp.verdict.answers import Answers, Site, digest_of, sites_of
from fedexp.verdict.figures import Figures, as_document, gained, of_sites, over_sites, plainly
from fedexp.verdict.metrics import Answered
from fedexp.verdict.operating_point import OperatingPoint
from fedexp.verdict.roles import ALONE, FEDERATED, FINE_TUNED, POOLED, Role

FORMAT = "fedexp-verdict-1"
FOLDER = "verdict"
MOST_LEFT_OUT = 20  # sites that are left out in turn; more would take longer than all the rest
IN_FULL = (FEDERATED, ALONE, POOLED, FINE_TUNED)  # of the others, the accuracy is enough
Progress = Callable[[float], None]


@final
@dataclass(frozen=True)
class HospitalVerdict:
    """The comparisons, and how they are measured.

    Args:
        fine_tuning_rounds: rounds of training at home after the federation; 0: none.
        leave_out: whether the federation is trained once more without each site.
        operating_point: half, youden or sensitivity, see `OperatingPoint`.
        sensitivity: that the last of them requires.
        grades: whether classes are grades in order.
        dishonest: share of the sites that attack in some of the comparisons, 0 to below 1.

    Raises:
        InputError: an argument is outside its range.
    """

    fine_tuning_rounds: int
    leave_out: bool
    operating_point: str
    sensitivity: float
    grades: bool
    dishonest: float

    def __post_init__(self) -> None:
        at_least(0, fine_tuning_rounds=self.fine_tuning_rounds)
        OperatingPoint(self.operating_point, self.sensitivity)
        in_range(0, 1, dishonest=self.dishonest)

    def __call__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        built: Built,
        final: Tensor,
        progress: Progress,
    ) -> dict[str, Any]:
        """The verdict as `verdict.json` has it; see `fedexp.verdict.figures`.

        Args:
            folder: of the run; answers are kept in it.
            config: of the run, resolved.
            built: of it, with a backend that can be asked.
            final: `[d]`, the model after the last round.
            progress: told the share that is done.
        """
        sites = sites_of(built)
        chosen = self._roles(config, built, sites)
        made_of = digest_of(FORMAT, code_of_fedexp(), built.loaded.digest)
        trained = _trained(chosen, folder / FOLDER, sites, final, made_of, progress)
        given = {FEDERATED: Answers.of(built, [final])}
        given |= {name: result.answers for name, result in trained.items() if result.answers}
        refused = {name: result.refusal for name, result in trained.items() if result.refusal}
        return self._document(config, built, sites, chosen, given, refused)

    def _roles(self, config: Mapping[str, Any], built: Built, sites: Sequence[Site]) -> list[Role]:
        chosen = [roles.alone(config), roles.pooled(config)]
        if self.fine_tuning_rounds:
            chosen.append(roles.fine_tuned(config, self.fine_tuning_rounds))
        attacked = bool(built.experiment.malicious.any())
        n = roles.dishonest(self.dishonest, sites)
        if n and not attacked:
            node = config["verdict"]
            chosen += [
                roles.attacked(config, node["attack"], n, rule, aggregator)
                for rule, aggregator in node["defences"].items()
            ]
        if self.leave_out and 1 < len(sites) <= MOST_LEFT_OUT:
            chosen += [roles.without(config, k, site.name) for k, site in enumerate(sites)]
        return chosen

    def _document(
        self,
        config: Mapping[str, Any],
        built: Built,
        sites: Sequence[Site],
        chosen: Sequence[Role],
        given: Mapping[str, Answers],
        refused: Mapping[str, str],
    ) -> dict[str, Any]:
        point = OperatingPoint(self.operating_point, self.sensitivity)
        seed = config["seed"]

        def figures_of(name: str, answers: Answers) -> list[tuple[Answered, Figures]]:
            def stream(site: int) -> np.random.Generator | None:
                return generator(seed, f"verdict {name}", site) if name in IN_FULL else None

            shared = name not in (ALONE, FINE_TUNED)
            return of_sites(built.task, sites, answers, point, self.grades, shared, stream)

        found = {name: figures_of(name, answers) for name, answers in given.items()}
        right = {name: [answered for answered, _ in figures] for name, figures in found.items()}
        named = {role.name: role for role in chosen if role.name in found}
        liars = _dishonest_sites(config, named, sites)
        document: dict[str, Any] = {
            "patients": "own" if built.own.are_known else "drawn",
            "operating_point": self.operating_point,
            "sites": {},
            "left_out": {},
            "attacked": {},
            "not_measured": dict(refused),
        }
        for k, site in enumerate(sites):
            there = site.patients["test"]
            document["sites"][site.name] = {
                "n": len(there),
                "patients": there.number,
                "trained_on": site.trained_on,
                "dishonest": k in liars,
                "roles": {name: as_document(figures[k][1]) for name, figures in found.items()},
                "gain": {
                    name: plainly(gained(right[name][k], right[ALONE][k], there.of_whom))
                    for name in found
                    if name != ALONE and ALONE in found and named.get(name, _NOBODY).left_out != k
                },
            }
        for name, role in named.items():
            if role.left_out is not None:
                lost = over_sites(right[FEDERATED], right[name], sites, role.left_out)
                document["left_out"][sites[role.left_out].name] = plainly(lost)
            if role.rule:
                honest = [k for k in range(len(sites)) if k not in liars]
                document["attacked"][role.rule] = {
                    "dishonest": [sites[k].name for k in sorted(liars)],
                    "honest_accuracy": _mean([found[name][k][1] for k in honest]),
                    "without_attack": _mean([found[FEDERATED][k][1] for k in honest]),
                }
        return document


_NOBODY = Role("", {})


def _mean(figures: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean accuracy of sites, each counted once."""
    values = [figure["accuracy"].value for figure in figures if figure]
    return float(sum(values) / len(values)) if values else None


def _dishonest_sites(
    config: Mapping[str, Any], named: Mapping[str, Role], sites: Sequence[Site]
) -> set[int]:
    """Who flips in the comparisons with an attack: the same whatever the rule."""
    for role in named.values():
        if role.rule:
            return set(malicious_clients(role.config, len(sites)).nonzero()[0].tolist())
    return set()


@dataclass(frozen=True)
class _Job:
    """One role to train; plain data, so that it can be sent to a process."""

    role: Role
    path: Path
    digest: str
    start: Tensor | None  # [d]; None: the initial weights


@dataclass(frozen=True)
class _Result:
    """A role's answers, or why it could not be trained."""

    answers: Answers | None
    refusal: str = ""


def _trained(
    chosen: Sequence[Role],
    folder: Path,
    sites: Sequence[Site],
    final: Tensor,
    made_of: str,
    progress: Progress,
) -> dict[str, _Result]:
    """By role."""
    folder.mkdir(parents=True, exist_ok=True)
    of_final = digest_of(str(final.shape), final.cpu().numpy().tobytes().hex())
    jobs = [
        _job(role, folder, final, f"{made_of}{of_final if role.from_final else ''}")
        for role in chosen
    ]
    for job in jobs:
        if not job.path.exists():
            take_file("role", job.role.config, job.digest, job.path)
    kept = {job.role.name: Answers.read(job.path, job.digest, sites) for job in jobs}
    missing = [job for job in jobs if kept[job.role.name] is None]
    done = len(jobs) - len(missing)

    def one_more() -> None:
        nonlocal done
        done += 1
        progress(done / len(jobs))

    fresh = dict(
        zip([job.role.name for job in missing], in_parallel(_train, missing, one_more), strict=True)
    )
    for job in missing:
        if fresh[job.role.name].answers is not None:
            leave_file("role", job.role.config, job.digest, job.path)
    there = {name: _Result(answers) for name, answers in kept.items() if answers is not None}
    return {**there, **fresh}


def _job(role: Role, folder: Path, final: Tensor, made_of: str) -> _Job:
    digest = digest_of(made_of, config_hash(role.config))
    path = folder / f"{digest[:16]}.safetensors"
    return _Job(role, path, digest, final.cpu() if role.from_final else None)


def _train(job: _Job) -> _Result:
    """One role; without answers where its parts do not go together."""
    torch.set_num_threads(1)
    try:
        built = build(job.role.config)
        experiment = replace(built.experiment, evaluator=_Unevaluated())
        with closing(experiment.backend):
            first = vector_of(built.model) if job.start is None else job.start
            state = initial_state(experiment, first)
            for after, _ in run_rounds(experiment, state):
                state = after
            answers = Answers.of(built, experiment.setting.models(state.params))
    except InputError as error:
        return _Result(None, str(error))
    answers.write(job.path, job.digest)
    return _Result(answers)


class _Unevaluated:
    """Answers are asked for after the last round only."""

    def __call__(
        self, backend: Backend, models: Sequence[Tensor], round: int
    ) -> tuple[list[Metric], Tensor | None]:
        return [], None
