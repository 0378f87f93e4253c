"""Streams are named, stable over machines and versions, and apart from each other."""

import random
import subprocess
import sys

import numpy as np
import torch

from fedexp.core.rng import generator, lent, seed_for, seeded, torch_generator


def test_the_streams_are_what_they_always_were():
    # If this fails, every published number of this package changes: say so in the change log.
    assert seed_for(0, "client", 3, 7) == 9054119213437335338
    first_two = generator(0, "cohort", 0).bit_generator.random_raw(2).tolist()
    assert first_two == [13665165395360851219, 461762496967933636]


def test_another_process_has_the_same_streams():
    # Python's own hash() of a text is salted anew in every process.
    code = "from fedexp.core.rng import seed_for; print(seed_for(5, 'attack', 2))"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1"},
    )
    assert answer.stdout.strip() == str(seed_for(5, "attack", 2))


def test_every_part_of_the_name_counts():
    names = [
        (0, "client", 3, 7),
        (1, "client", 3, 7),
        (0, "attack", 3, 7),
        (0, "client", 7, 3),
        (0, "client", 3),
        (0, "client"),
        (0, "client", 3, 7, 0),
    ]
    assert len({seed_for(*name) for name in names}) == len(names)
    assert len({generator(*name).random() for name in names}) == len(names)


def test_seeds_of_many_clients_and_rounds_are_all_different():
    seeds = {seed_for(0, "client", r, c) for r in range(50) for c in range(100)}
    assert len(seeds) == 5000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stream_does_not_depend_on_what_was_drawn_from_others():
    first = generator(0, "attack", 1).random(5)
    generator(0, "attack", 0).random(1000)
    np.random.random(3)
    assert np.array_equal(generator(0, "attack", 1).random(5), first)


def test_neighbouring_streams_are_not_correlated():
    draws = np.stack([generator(0, "client", r).random(2000) for r in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / 2000**0.5


def test_torchs_generator_takes_any_seed_of_ours():
    seed = seed_for(3, "model")
    first, again = (torch.rand(4, generator=torch_generator(seed)) for _ in range(2))
    assert torch.equal(first, again)
    state = torch.get_rng_state()
    torch.rand(4, generator=torch_generator(seed))
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_lends_the_global_generator_and_gives_it_back():
    torch.manual_seed(0)
    undisturbed = torch.rand(3)
    torch.manual_seed(0)
    with seeded(7, torch.device("cpu")):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), undisturbed)
    assert torch.equal(inside, torch.rand(3, generator=torch_generator(7)))


def test_lent_lends_pythons_and_numpys_generators_for_whom_draws_from_them():
    def inside(seed):
        with lent(seed, torch.device("cpu")):
            return random.random(), float(np.random.rand())

    before = random.getstate(), np.random.get_state()[1].tolist()
    assert inside(2**40 + 1) == inside(2**40 + 1) != inside(2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_seeded_gives_the_generator_back_after_a_failure():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    try:
        with seeded(7, torch.device("cpu")):
            torch.rand(3)
            raise ValueError
    except ValueError:
        pass
    assert torch.equal(torch.get_rng_state(), before)
