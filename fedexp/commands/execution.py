"""Carry out one run: build it, go through its rounds under its observers' eyes, report."""

from __future__ import annotations

import errno
import io
import logging
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedexp.commands.about import about
from fedexp.commands.drawing import drawing
from fedexp.commands.verdicts import figures_of_sites, thresholds_of
from fedexp.commands.workers import in_a_worker
from fedexp.config.build import Built, build
from fedexp.config.origin import origin_of
from fedexp.core.capabilities import does_nothing, draws_anew
from fedexp.core.checks import InputError
from fedexp.core.cohort import drawn
from fedexp.core.files import not_through_links
from fedexp.core.flat import vector_of
from fedexp.core.interrupt import endings_as_interrupts
from fedexp.core.library_warnings import into_the_log
from fedexp.core.observer import Observer, RunStart
from fedexp.core.own_code import own_code_named
from fedexp.core.plots import Plots
from fedexp.core.preparation import pause, say
from fedexp.core.rng import generator
from fedexp.core.round_record import ServerState
from fedexp.core.text import called, printable_lines
from fedexp.federation.rounds import Experiment, initial_state, run_rounds
from fedexp.observers.guest import Guest
from fedexp.observers.progress import progress_for
from fedexp.observers.redraw import Redraw
from fedexp.observers.round_log import RoundLog
from fedexp.partition.document import partition_document
from fedexp.run_folder.documents import read_summary, write_config
from fedexp.run_folder.origin import remarks_on_origin
from fedexp.run_folder.record import Recorder
from fedexp.run_folder.thresholds import write_thresholds
from fedexp.store.rounds import Beginnings
from fedexp.store.use import in_use

log = logging.getLogger("fedexp")


def run(
    config: Mapping[str, Any],
    folder: Path,
    resume: bool,
    built: Built | None = None,
    longer: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """Run a resolved config in an existing folder; its summary, and a text about it to read.

    Args:
        config: the resolved config, plain dicts and lists.
        folder: where everything is written, locked by the caller.
        resume: go on from the newest checkpoint in `folder`, if there is one.
        built: what was built of `config` already; closed in the end.
        longer: the config of a run that is given more rounds, written once it may go on.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the rounds completed are saved.
    """
    built = built or prepare(config)
    exp, names = built.experiment, built.dataset.class_names
    go_on = f"fedexp resume {shlex.quote(str(folder))}"
    quiet, plots = config["quiet"] or in_a_worker(), Plots.of(config["plots"])
    with (
        _closing(built),
        _a_full_disk_told(folder, go_on),
        _logging_to(folder, quiet),
        endings_as_interrupts(),
        into_the_log(),
        drawing(plots) as draw,
    ):
        origin = origin_of(config, built)
        recorder = Recorder(
            folder,
            config,
            built.model,
            built.task,
            built.dataset.test.y,
            names,
            account=exp.account,
            origin=origin,
            sends=exp.server.algorithm.sends,
        )
        exp = replace(exp, store=recorder.client_states)
        watching = watchers(config, folder, built)
        document = partition_document(built.partition, names, built.task)
        beginnings = Beginnings(in_use(), config, built, origin, recorder)
        left = read_summary(folder) if resume else {}
        state, taken = recorder.resume() if resume else None, 0
        if state is None:
            recorder.begin(document)
            # What was computed before cannot be watched any more.
            state = None if watching else beginnings.take()
            taken = state.round if state else 0
            state = state or initial_state(exp, vector_of(built.model))
        else:
            if longer is not None:
                write_config(folder, longer)
            recorder.describe_partition(document)
        if taken:
            log.info("rounds 1 to %d were computed before, and are taken from the store", taken)
        if resume and draws_anew(built.mechanism):
            state, said = _charged_twice(exp, state, left)
            if said:  # before anything can stop the run once more
                recorder.save(state)
            built = replace(built, remarks=(*built.remarks, *said))
        for remark in (*built.remarks, *remarks_on_origin(folder)):
            log.warning("%s", remark)
        redraw = [Redraw(lambda: draw(folder, plots))] if plots.draw else []
        observers: Sequence[Observer] = (
            *watching,  # before the record: whoever goes on from that finds their round, too
            recorder,  # then: what it has written is there when the others are told
            RoundLog(),
            progress_for(quiet),
            *redraw,
            *(Guest(observer) for observer in built.observers if not does_nothing(observer)),
        )
        start = RunStart(config, folder, about(config, built, document), state, recorder.recorded)
        try:
            with own_code_named():
                stopped = _first((observer, observer.run_started(start)) for observer in observers)
                if taken:
                    recorder.found(rounds_from_store=taken)
                if not stopped:
                    for state, record in run_rounds(exp, state):  # noqa: B020 - it is carried on
                        stopped = _first(
                            (observer, observer.round_done(state, record)) for observer in observers
                        )
                        beginnings.leave_beginning(state)
                        if stopped:
                            break
                if not stopped and state.round < exp.rounds:
                    stopped = (
                        f"round {state.round + 1} of {exp.rounds} could take epsilon above "
                        f"max_epsilon={exp.account.max_epsilon:g}"
                    )
                models = exp.setting.models(state.params)
                if sites := figures_of_sites(built, models, config["seed"]):
                    recorder.found(sites=sites)
                write_thresholds(folder, thresholds_of(built, models))
            summary = recorder.summary("complete", stopped=stopped)
            _end(observers, summary)
            if taken < state.round:
                beginnings.leave_end(state)
        except (KeyboardInterrupt, BrokenPipeError):  # the latter: nobody reads our lines any more
            _end(observers, recorder.summary("interrupted"))
            log.info("stopped after round %d; go on with: %s", recorder.rounds, go_on)
            raise
        except Exception as problem:
            reason = str(problem).splitlines()[0] if str(problem) else repr(problem)
            log.debug("%s", traceback.format_exc())
            _end(observers, recorder.summary("failed", reason))
            if isinstance(problem, ChildProcessError):
                raise InputError(f"{reason}; go on with: {go_on}") from problem
            raise
        if stopped:
            log.warning("stopped after round %d: %s", state.round, stopped)
        exp.backend.close()  # studies bring their own workers
        study(config, folder, built)
        say("report" + " and plots" * plots.draw)
        try:
            return summary, draw(folder, plots)
        finally:
            pause()


def _charged_twice(
    exp: Experiment, state: ServerState, left: Mapping[str, Any]
) -> tuple[ServerState, tuple[str, ...]]:
    """With the rounds charged that are made again with other noise, and a sentence about them.

    What they released the first time is known to whoever saw it, that of the round under way too.

    Args:
        exp: the run.
        state: that it goes on from.
        left: the summary that it was left with.
    """
    last = int(left.get("rounds") or 0) + (left.get("status") != "complete")
    again = range(state.round, min(last, exp.rounds))
    if not again or exp.account.statement(state.ledger) is None:
        return state, ()
    ledger = state.ledger
    for round in again:
        cohort = drawn(exp.sampler, exp.n_clients, generator(exp.seed, "cohort", round))
        ledger = exp.account.at_most(ledger, cohort.tolist())
    said = (
        f"rounds {again[0] + 1} to {again[-1] + 1} may have been made before the stop, with other "
        "noise: they are charged twice"
    )
    return replace(state, ledger=ledger), (said,)


@contextmanager
def _a_full_disk_told(folder: Path, go_on: str) -> Iterator[None]:
    """Whatever was being written: rounds, a study's findings, or the report."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = f"the disk is full; free some space, then: {go_on}"
        raise InputError(advice, "hydra.run.dir", folder) from problem


def prepare(config: Mapping[str, Any]) -> Built:
    """Build a resolved config as a run needs it.

    Raises:
        InputError: it cannot be carried out.
    """
    # One thread: the bits do not depend on how many cores a machine has, and several processes
    # share none. They do depend on its kernels, which are recorded.
    torch.set_num_threads(1)
    say("data, model and every part")
    try:
        return build(config)
    finally:
        pause()


@own_code_named()
def study(config: Mapping[str, Any], folder: Path, built: Built | None = None) -> None:
    """Carry out the studies and the verdict that the config asks for and the folder lacks.

    Args:
        config: the resolved config.
        folder: of the run, locked by the caller.
        built: what was built of `config`, if that is at hand.
    """
    if not config["leakage"] and not config["verdict"]:
        return
    from fedexp.commands.studies import study_run
    from fedexp.commands.verdicts import judge

    data_dir, trust = config["paths"]["data_dir"], config["trust"]
    try:
        if config["leakage"]:
            study_run(folder, config["leakage"], data_dir, trust, False, log.info, built)
        judge(config, folder, log.info)
    except KeyboardInterrupt:
        log.info("the run is complete; go on with: fedexp resume %s", shlex.quote(str(folder)))
        raise


def watchers(config: Mapping[str, Any], folder: Path, built: Built) -> list[Observer]:
    """Who watches the rounds for the studies that the config asks for.

    Args:
        config: the resolved config.
        folder: of the run.
        built: what was built of `config`.

    Raises:
        InputError: a study cannot be made of this run.
    """
    if not config["leakage"]:
        return []
    from fedexp.commands.studies import watchers_of

    return watchers_of(folder, config, built)


def _first(answers: Iterable[tuple[Observer, object]]) -> str:
    """The first reason to stop, in a line, after everybody was asked; empty where nobody has one.

    Raises:
        InputError: somebody answers with something else; a summary with that could not be read.
    """
    reasons = []
    for observer, answer in answers:
        if not isinstance(answer, str | None):
            one = getattr(observer, "guest", observer)  # whose answer it is
            wrong = "must answer with why the run is to end, or with None to let it go on, not with"
            raise InputError(f"{wrong} {answer!r}", "observer", called(one))
        reasons.append(" ".join((answer or "").split()))
    return next((reason for reason in reasons if reason), "")


@own_code_named()
def _end(observers: Sequence[Observer], summary: Mapping[str, Any]) -> None:
    """Tell everybody; what fails in one hides neither the first error nor the end from others."""
    problems = []
    for observer in observers:
        try:
            observer.run_ended(summary)
        except Exception as problem:  # a full disk, or code of the user's own
            log.debug("the end could not be told: %s", problem)
            problems.append(problem)
    if problems and summary["status"] == "complete":
        raise problems[0]


@contextmanager
def _closing(built: Built) -> Iterator[None]:
    try:
        yield
    finally:
        built.experiment.backend.close()


class _OwnFile(logging.FileHandler):
    """Appends to a file of the folder, not to what a link in its place leads to."""

    def _open(self) -> io.TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=not_through_links)


class _Plain(logging.Formatter):
    """Words from a folder's files move no cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextmanager
def _logging_to(folder: Path, quiet: bool) -> Iterator[None]:
    """Everything to fedexp.log, what a person should see to the terminal too.

    Only the logger `fedexp` is touched, and left as it was found.
    """
    to_file = _OwnFile(folder / "fedexp.log", encoding="utf-8")
    to_file.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    to_file.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_file.setLevel(logging.DEBUG)
    to_terminal = logging.StreamHandler(sys.stderr)
    # Beside other jobs a line says whose it is.
    whose = f"{folder.name}: ".replace("%", "%%") if in_a_worker() else ""
    to_terminal.setFormatter(_Plain(f"{whose}%(message)s"))
    to_terminal.setLevel(logging.WARNING if quiet else logging.INFO)
    before = log.handlers, log.level, log.propagate
    log.handlers, log.propagate = [to_file, to_terminal], False
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])
        to_file.close()
