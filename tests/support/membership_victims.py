"""Finished runs for the tests of membership inference, trained here and now."""

from dataclasses import replace
from functools import cache

import torch

from fedexp.config.build import build
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.observer import RunStart
from fedexp.core.rng import generator
from fedexp.data.digits import Digits
from fedexp.federation.rounds import initial_state, run_rounds
from fedexp.leakage.victim import Victim
from tests.support.composing import config_for


@cache
def digits(train_examples, reserve_examples):
    """The digits with a small training part, and other training images that nobody trains on."""
    whole = Digits("digits", (1, 8, 8), 10, 180, 360, 0)(None).as_floats()
    # At random: the rows come in the order of their writers, so halves in order would differ.
    order = torch.from_numpy(generator(0, "digits").permutation(len(whole.train)))
    train, reserve, _ = order.tensor_split([train_examples, train_examples + reserve_examples])
    return replace(whole, train=whole.train.rows(train)), whole.train.rows(reserve)


def victim_of(folder, pixels, reserve, *overrides, watch=None):
    """A run of the config `overrides` on `pixels`, opened as a study sees it; `watch` watches."""
    config = config_for("backend=in_process", "partition=iid", *overrides)
    built = build(config, pixels=pixels)
    state = initial_state(built.experiment, vector_of(built.model))
    models = {0: state.params}
    observers = []
    if watch is not None:
        start = replace(Victim.of(folder, config, built, models), reserve=reserve)
        observers = [watch.watch(start)]
        observers[0].run_started(RunStart(config, folder, {}, state, ()))
    for after, record in run_rounds(built.experiment, state):
        models[after.round] = after.params
        for observer in observers:
            observer.round_done(after, record)
    return replace(Victim.of(folder, config, built, models), reserve=reserve)


def nobody():
    """A reserve of no example."""
    return Split(torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))
