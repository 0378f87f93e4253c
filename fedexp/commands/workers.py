"""`hydra/launcher=workers`: the jobs of a sweep side by side, in processes that live over jobs.

A worker is a copy (fork) of the process that started the sweep, made once torch and the plots are
imported and the parts of the config that jobs share are composed; so a job costs its rounds and its
report, and nothing else. It works with one thread. Who asks there how many cores there are is told
the worker's share, so that backends do not start as many processes again.

A worker that dies costs the job that it was at, which is noted as failed; a new one takes its
place. One that has done `jobs_per_worker` jobs is replaced too. When the sweep is ended (Ctrl-C,
SIGTERM) every worker saves its rounds and leaves; when it is killed, they notice and do the same.

Callbacks (`hydra.callbacks`) hear of jobs in the process of the sweep, not in a worker.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, final

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from fedexp.core import cores
from fedexp.core.checks import InputError, at_least
from fedexp.core.interrupt import endings_as_interrupts
from fedexp.core.objective import NO_FIGURE
from fedexp.core.preparation import over
from fedexp.core.text import duration

NAMES_EACH_JOB = ("hydra.job.override_dirname", "hydra.job.num")  # in hydra.sweep.subdir
PATIENCE = 60.0  # seconds in which a worker that is to end saves what it has

Ended = tuple[str, Any]  # "done" and what a job gave; "past" and what ends the sweep; "at" a folder


class SideBySide(BasicLauncher):
    """A launcher of Hydra's (`hydra_plugins.fedexp_workers`); for one job it needs no worker.

    Args:
        workers: how many jobs at once.
        jobs_per_worker: after so many a worker is replaced by a new one.
    """

    def __init__(self, workers: int, jobs_per_worker: int) -> None:
        super().__init__()
        at_least(1, **{"hydra.launcher.workers": workers})
        at_least(1, **{"hydra.launcher.jobs_per_worker": jobs_per_worker})
        self._workers, self._jobs_per_worker = workers, jobs_per_worker

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """What every job gave, in their order. Called by Hydra."""
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        sweep = _Sweep(self.config, self.hydra_context, self.task_function)
        jobs = [
            _Job(initial_job_idx + k, tuple(overrides)) for k, overrides in enumerate(job_overrides)
        ]
        _refuse_one_folder_for_two(sweep, jobs)
        n = min(self._workers, len(jobs))
        if n < 2 or not cores.can_fork():
            return super().launch(job_overrides, initial_job_idx)
        # What all jobs need, once: the copies have it.
        import fedexp.commands.execution
        import fedexp.reporting.plots  # noqa: F401

        over()  # or several processes would write into that line
        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        return _Crew(sweep, n, self._jobs_per_worker).carry_out(jobs)


def in_a_worker() -> bool:
    """Whether this process is one of several that work at once, whose lines would mix."""
    return multiprocessing.parent_process() is not None


@final
@dataclass(frozen=True)
class _Job:
    """One job of a sweep."""

    number: int
    overrides: tuple[str, ...]


@final
@dataclass(frozen=True)
class _Sweep:
    """What Hydra's jobs need beside their overrides."""

    config: DictConfig
    context: HydraContext
    task: Callable[[Any], Any]

    def compose(self, job: _Job) -> DictConfig:
        """The job's config, with Hydra's part."""
        loader = self.context.config_loader
        config = loader.load_sweep_config(self.config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        return config

    def carry_out(self, job: _Job) -> JobReturn:
        """What a job gives, without its configs, which nobody needs to be sent."""
        given = run_job(
            task_function=self.task,
            config=self.compose(job),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=HydraContext(self.context.config_loader, Callbacks()),
        )
        given.cfg = given.hydra_cfg = None
        return given

    def tell(self, what: str, job: _Job, **more: Any) -> None:
        """Let callbacks other than our own, which does not listen to jobs, hear of one."""
        if len(self.context.callbacks.callbacks) > 1:
            getattr(self.context.callbacks, what)(config=self.compose(job), **more)


def _refuse_one_folder_for_two(sweep: _Sweep, jobs: Sequence[_Job]) -> None:
    """Raise InputError where two jobs have one folder, to which only one of them would come."""
    stated = OmegaConf.to_container(sweep.config.hydra.sweep, resolve=False)
    assert isinstance(stated, dict)
    if any(word in str(stated["subdir"]) for word in NAMES_EACH_JOB):
        return
    taken: dict[str, _Job] = {}
    for job in jobs:
        name = str(sweep.compose(job).hydra.sweep.subdir)
        if (other := taken.setdefault(name, job)) is not job:
            both = " and ".join(" ".join(each.overrides) for each in (other, job))
            reason = f"is {name!r} for two jobs: {both}; name all that is swept, or leave it out"
            raise InputError(reason, "hydra.sweep.subdir", stated["subdir"])


@dataclass
class _Worker:
    """A worker as its sweep sees it."""

    process: BaseProcess
    connection: Connection
    job: _Job | None = None
    folder: Path | None = None  # of the job, as soon as it has one
    done: int = 0


class _Crew:
    """Hands jobs to workers, and sees to it that none is left behind."""

    def __init__(self, sweep: _Sweep, size: int, jobs_per_worker: int) -> None:
        self._sweep, self._size, self._limit = sweep, size, jobs_per_worker
        self._workers: list[_Worker] = []
        self._started = time.monotonic()

    def carry_out(self, jobs: Sequence[_Job]) -> list[JobReturn]:
        """What every job gave; one whose worker has died gives NaN, as others that fail."""
        waiting, untold, given = deque(jobs), deque(jobs), dict[int, JobReturn]()
        try:
            while len(given) < len(jobs):
                while waiting and len(self._workers) < self._size:
                    self._hand(self._hire(), waiting.popleft())
                for worker in self._ready():
                    job = worker.job
                    if (answer := self._answer(worker)) is None or job is None:
                        continue
                    given[job.number] = answer
                    self._say(len(given), len(jobs))
                    while untold and untold[0].number in given:  # in their order
                        told = untold.popleft()
                        self._sweep.tell("on_job_end", told, job_return=given[told.number])
                    if worker in self._workers and waiting and worker.done < self._limit:
                        self._hand(worker, waiting.popleft())
                    else:
                        self._dismiss(worker)
        finally:
            self._end()
        return [given[job.number] for job in jobs]

    def _hire(self) -> _Worker:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or the copy would print what is still to be printed, too
        process = fork.Process(target=_work, args=(theirs, self._sweep, self._size))
        with warnings.catch_warnings():
            # Python 3.12 warns of threads. NumPy's, which wait for work, are not in the copy.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _hand(self, worker: _Worker, job: _Job) -> None:
        self._sweep.tell("on_job_start", job, task_function=self._sweep.task)
        worker.job, worker.folder = job, None
        worker.connection.send(job)

    def _ready(self) -> list[_Worker]:
        """Those that have said something, or died."""
        places: dict[Any, _Worker] = {}
        for worker in self._workers:
            places |= {worker.connection: worker, worker.process.sentinel: worker}
        ready = [places[place] for place in wait(list(places))]
        return [worker for worker in self._workers if worker in ready]

    def _answer(self, worker: _Worker) -> JobReturn | None:
        """What the worker's job has given; None if it is still at it."""
        from fedexp.commands.past_hydra import PastHydra

        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            return self._lost(worker)
        if kind == "past":
            raise PastHydra(content)
        if kind == "at":
            worker.folder = content
            return None
        worker.done += 1
        answer: JobReturn = content
        return answer

    def _lost(self, worker: _Worker) -> JobReturn | None:
        """Note that a worker has died over its job, which counts as failed."""
        from fedexp.commands.job_of_a_sweep import note_failure

        worker.process.join()
        self._dismiss(worker)
        if worker.job is None:
            return None
        if worker.folder is not None and worker.process.exitcode:
            note_failure(worker.folder, f"its process died ({_end_of(worker.process)})")
        given = JobReturn(overrides=list(worker.job.overrides), status=JobStatus.COMPLETED)
        given.return_value = NO_FIGURE
        return given

    def _dismiss(self, worker: _Worker) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            with suppress(OSError):  # it is gone already
                worker.connection.send(None)
            worker.process.join(PATIENCE)

    def _end(self) -> None:
        """Have everybody save and leave, also those that are in the middle of a job."""
        workers, self._workers = self._workers, []
        try:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.process.join(PATIENCE)
        finally:  # also of a second Ctrl-C
            for worker in workers:
                worker.process.kill()
                worker.process.join()

    def _say(self, done: int, of: int) -> None:
        if not self._sweep.config.quiet:
            left = (time.monotonic() - self._started) / done * (of - done)
            rest = f", about {duration(left)} left" if done < of else ""
            print(f"{done} of {of} jobs done{rest}", flush=True)


def _end_of(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"exit code {code}"
    memory = "; for want of memory?" if -code == signal.SIGKILL else ""
    return f"{signal.Signals(-code).name}{memory}"


def _work(connection: Connection, sweep: _Sweep, workers: int) -> None:
    """A worker's whole life."""
    gc.freeze()  # what a copy has from the sweep is not looked through for garbage, job after job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the sweep decides
    cores.shared_among(workers)
    threading.Thread(target=_leave_with_the_sweep, daemon=True).start()
    try:
        with endings_as_interrupts():
            job: _Job
            while job := connection.recv():
                connection.send(_carried_out(connection, sweep, job))
    except (KeyboardInterrupt, EOFError, OSError):  # the sweep ends
        return


def _leave_with_the_sweep() -> None:
    """Save and leave when the process of the sweep is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _carried_out(connection: Connection, sweep: _Sweep, job: _Job) -> Ended:
    from fedexp.commands.job_of_a_sweep import told_where
    from fedexp.commands.past_hydra import PastHydra

    def tell(folder: Path) -> None:
        connection.send(("at", folder))

    try:
        with told_where(tell):
            given = sweep.carry_out(job)
    except PastHydra as carried:
        return "past", _sendable(carried.error)
    except Exception as error:  # not of the job: of the config, or of Hydra
        return "past", _sendable(error)
    if given.status != JobStatus.COMPLETED:
        given.return_value = _sendable(given._return_value)
    return "done", given


def _sendable(error: Exception) -> Exception:
    """The error as it can be sent to another process."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(str(error))
    return error
