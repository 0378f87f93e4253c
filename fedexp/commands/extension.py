"""`fedexp resume RUN rounds=MORE`: train a run for longer than it was planned for.

The rounds to come are those that a run of MORE rounds from the start would have made, to the bit,
or they are refused. What may depend on the number of rounds is found by composing the run's own
command line with both numbers (a schedule that ends with the run), and by building both (noise that
was calibrated for a target over the planned rounds).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedexp.commands.continuation import taken_over
from fedexp.config.build import Built
from fedexp.core.checks import InputError
from fedexp.run_folder.format import PROVENANCE, WITHOUT_EFFECT, config_hash

LONGER = ("rounds", "overrides", "rounds_before")
"""What changes in the config of a run that is given more rounds."""

ANEW = "; a new run from its last model: fedexp run from={} rounds=..."


def extended(
    folder: Path, saved: Mapping[str, Any], changed: Mapping[str, Any], config_dir: Path | None
) -> dict[str, Any]:
    """The config of the run with more rounds; `changed` itself where they are as many.

    Args:
        folder: of the run.
        saved: its config.
        changed: the config with what this command line says.
        config_dir: what `--config-dir` says, whose names the run may have used.

    Raises:
        InputError: rounds are taken away, or the rounds to come would not be those of a longer run.
    """
    before, now = saved["rounds"], changed["rounds"]
    if now == before:
        return dict(changed)
    if now < before:
        raise InputError(f"the run has {before}, and can only be given more", "rounds", now)
    if (folder / "leakage").is_dir():
        raise InputError(
            f"the run was studied after its {before} rounds (leakage/ in its folder), and would "
            f"have another model; move that away{ANEW.format(folder)}",
            "rounds",
            now,
        )
    if depending := _depending(folder, saved, (before, now), config_dir):
        key, old, new = depending
        raise InputError(
            f"{key}={old} follows from the number of rounds, and would be {new}: the rounds so far "
            f"are not those of a longer run{ANEW.format(folder)}",
            "rounds",
            now,
        )
    overrides = [o for o in saved.get("overrides") or [] if str(o).partition("=")[0] != "rounds"]
    return {
        **changed,
        "overrides": [*overrides, f"rounds={now}"],
        "rounds_before": [*(saved.get("rounds_before") or []), before],
    }


def refuse_other_noise(folder: Path, built: Built, before: Built, rounds: int) -> Built:
    """The longer run, with what should be said of it.

    Args:
        folder: of the run.
        built: with the rounds that it is to have.
        before: with those that it was planned for; its backend is closed.
        rounds: that it is to have.

    Raises:
        InputError: a part that makes the steps or the noise is another one with more rounds.
    """
    with closing(before.experiment.backend):
        if _deciding(built) != _deciding(before):
            raise InputError(
                "the noise was calibrated for the rounds that were planned, and more of them would "
                "need more noise from the first on; give the noise itself and no target_epsilon"
                f"{ANEW.format(folder)}",
                "rounds",
                rounds,
            )
    last, every = before.experiment.rounds, built.experiment.eval_every
    if last % every == 0:
        return built
    said = (
        f"round {last} was evaluated as the last of the run, beside every {every} rounds: its "
        "figures would not be there in a run of more rounds from the start"
    )
    return replace(built, remarks=(*built.remarks, said))


def _deciding(built: Built) -> bytes:
    """What makes the steps and the noise, so that two can be compared."""
    exp = built.experiment
    try:
        return pickle.dumps((built.mechanism, exp.trainer, exp.server.privacy, exp.channel))
    except Exception as error:  # whatever a part of somebody else's raises
        reason = f"whether it depends on the number of rounds cannot be told ({error})"
        raise InputError(reason, "privacy", type(built.mechanism).__name__) from error


def _depending(
    folder: Path, saved: Mapping[str, Any], rounds: tuple[int, int], config_dir: Path | None
) -> tuple[str, Any, Any] | None:
    """A key whose value follows from the number of rounds, with its values; None: there is none."""
    from fedexp.commands.in_python import composed

    kept = taken_over(folder, saved, ["rounds"])
    try:
        short, long = (composed([*kept, f"rounds={n}"], config_dir)[0] for n in rounds)
    except InputError as error:
        raise InputError(
            f"the run's settings cannot be composed again, to see what depends on it ({error})",
            "rounds",
            rounds[1],
        ) from error
    skipped = {*WITHOUT_EFFECT, *PROVENANCE, "rounds"}
    pairs = [(key, short[key], long.get(key)) for key in short if key not in skipped]
    return next(filter(None, (_difference(*pair) for pair in pairs)), None)


def _difference(key: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        inner = (_difference(f"{key}.{k}", v, other.get(k)) for k, v in one.items())
        return next(filter(None, inner), None)
    return None if one == other else (key, one, other)


def same_but_for_rounds(saved: Mapping[str, Any], changed: Mapping[str, Any]) -> bool:
    """Whether two configs give the same results as far as both go."""
    return config_hash({**changed, "rounds": saved["rounds"]}) == config_hash(saved)
