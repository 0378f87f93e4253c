"""The first rounds of a run, kept for other runs that begin with the same ones; and whole runs.

What lies in a run's folder after round r is kept under a key of all that decides these r rounds:
for r = the last, all of the config; before, without what has had no effect yet, and that is

    rounds        the number of rounds itself, where neither the other keys nor the parts that make
                  steps and noise depend on it (what they are is in the key)
    attack        while nobody attacks (up to `first_round`, or without malicious clients), unless
                  it has data of its own to be measured on, or clients on top
    detector      while it has no opinion, as far as it says what it goes by (`StartsAlike`)

Everything else counts from the first round on. A run goes on from the longest beginning that is
there, as it would from its own checkpoint, and to the same bits.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from fedexp.config.build import Built
from fedexp.core.capabilities import starts_alike
from fedexp.core.origin import Origin
from fedexp.core.round_record import ServerState
from fedexp.core.text import number_of
from fedexp.run_folder.checkpoints import rename_config
from fedexp.run_folder.format import NOT_OF_ROUNDS, config_hash
from fedexp.run_folder.origin import remarks_on_origin
from fedexp.run_folder.record import Recorder
from fedexp.store.entries import Kept, Nowhere, link
from fedexp.store.keys import computed_with, deciding, digest, files_of, is_known

KIND = "rounds"


@final
@dataclass(frozen=True)
class Beginnings:
    """What a store has, and gets, of one run.

    Args:
        store: in use.
        config: of the run, resolved.
        built: of it.
        origin: of it.
        recorder: of its folder.
    """

    store: Kept
    config: Mapping[str, Any]
    built: Built
    origin: Origin
    recorder: Recorder

    def take(self) -> ServerState | None:
        """The state after as many rounds as are kept, the record of them written; None: none are.

        The folder's record has to be empty (`Recorder.begin`).
        """
        if not self._takes_part or self.config["record_updates"] or self.config["tracker"]:
            return None  # what these were to see of the rounds is not kept
        folder, last = self.recorder.folder, self.config["rounds"]
        for round in range(last, 0, -1):
            if round < last and not self._evaluated(round) and round not in self._branches:
                continue
            if self.store.take(KIND, self._key(round, ended=round == last), folder):
                rename_config(folder / "checkpoints", config_hash(self.config))
                state = self.recorder.resume()
                if state is None or state.round != round:
                    self.recorder.forget()
                    return None
                if round < last:
                    self.recorder.forget_checkpoint_not_due(state)
                return state
        return None

    def leave_beginning(self, state: ServerState) -> None:
        """Keep what lies in the folder now, if other runs part with this one after this round."""
        if self._takes_part and state.round in self._branches:
            self._leave(state, ended=False)

    def leave_end(self, state: ServerState) -> None:
        """Keep the folder of a complete run."""
        if self._takes_part:
            self._leave(state, ended=True)

    def _leave(self, state: ServerState, ended: bool) -> None:
        folder = self.recorder.folder
        if remarks_on_origin(folder):  # rounds of it are another machine's
            return

        def fill(place: Path) -> None:
            for path in folder.rglob("*"):
                name = path.relative_to(folder)
                if path.is_file() and name.parts[0] not in NOT_OF_ROUNDS:
                    link(path, place / name)
            self.recorder.write_state(place / "checkpoints", state)

        chosen = self.config.get("choices") or {}
        parts = [
            str(chosen[k]) for k in ("dataset", "model", "aggregator", "attack") if k in chosen
        ]
        what = f"{number_of(state.round, 'round')}, seed {self.config['seed']}: {', '.join(parts)}"
        self.store.leave(KIND, self._key(state.round, ended), what, fill)

    @cached_property
    def _takes_part(self) -> bool:
        if isinstance(self.store, Nowhere):
            return False
        try:
            pickle.dumps(self._parts_of_steps)
        except Exception:  # whatever a part of somebody else's raises
            return False
        return is_known(self.config, self.origin)

    @property
    def _parts_of_steps(self) -> tuple[object, ...]:
        exp = self.built.experiment
        # The sampler too: one that goes by who is malicious does so before they attack.
        return (self.built.mechanism, exp.trainer, exp.server.privacy, exp.channel, exp.sampler)

    def _evaluated(self, round: int) -> bool:
        return bool(round % self.config["eval_every"] == 0)

    @cached_property
    def _branches(self) -> frozenset[int]:
        """The rounds after which fewer runs go the same way than before.

        Where nobody attacks too: others, who do, part with this one there.
        """
        rounds, attacked = range(1, self.config["rounds"]), self.config["attack"]["first_round"]
        alike = (r for r in rounds if r == attacked or self._deciding(r) != self._deciding(r + 1))
        return frozenset(alike)

    def _deciding(self, round: int) -> dict[str, Any]:
        """The keys of the config that had an effect on the first rounds."""
        exp, kept = self.built.experiment, deciding(self.config)
        kept.pop("rounds")
        quiet = exp.schedule.first if exp.malicious.any() else self.config["rounds"]
        asked = "attack" in getattr(exp.evaluator, "splits", ("attack",))
        if round <= quiet and not asked and not kept["attack"].get("extra_clients"):
            kept.pop("attack")
        alike = starts_alike(exp.server.detector, round)
        if alike is not None:
            kept["detector"] = alike
        return kept

    def _key(self, round: int, ended: bool) -> str:
        return digest(
            [self._made_of, self._deciding(round), round, ended or self._evaluated(round)]
        )

    @cached_property
    def _made_of(self) -> list[Any]:
        parts = digest(pickle.dumps(self._parts_of_steps).hex())
        origin = [self.origin.data, self.origin.partition, self.origin.weights]
        sources, machine = dict(self.origin.sources), dict(self.origin.machine)
        return [parts, origin, sources, files_of(self.config), computed_with(), machine]
