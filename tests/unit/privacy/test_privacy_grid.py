"""What is printed of epsilon against a second implementation, on settings drawn at random.

Never below dp-accounting's privacy loss distribution by more than 0.1 %, never above Opacus's PRV
by more than 2 %: on paper (`fedexp privacy`) and in the statements of runs.
"""

import math
import re

import numpy as np
import pytest

from fedexp.commands.privacy import worked_out
from fedexp.config.build import build
from tests.support.composing import config_for

pytest.importorskip("dp_accounting")

N_SETTINGS = 80
IN_EVERY_RUN = (0, 3, 41, 42)  # of them, the ones that the default suite tries
BELOW, ABOVE = 0.001, 0.02
ROUNDED = 1e-4  # how far up a printed epsilon may be rounded


def drawn(number):
    """(noise multiplier, sample rate, steps, delta) of setting `number`."""
    rng = np.random.Generator(np.random.PCG64(number))
    z = float(np.exp(rng.uniform(math.log(0.5), math.log(8))))
    q = float(np.exp(rng.uniform(math.log(1e-3), 0)))
    steps = int(np.exp(rng.uniform(0, math.log(3000))))
    return z, q, steps, float(10 ** rng.uniform(-7, -3))


def by_pld(z, q, steps, delta):
    """dp-accounting's epsilon, rounded up on a grid of 1e-4 (of 1e-5 where epsilon is small)."""
    from dp_accounting.dp_event import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    found = math.inf
    for interval in (1e-4, 1e-5):
        accountant = PLDAccountant(value_discretization_interval=interval)
        accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps)
        found = min(found, accountant.get_epsilon(delta))
        if found > 1:
            break
    return found


def by_prv(z, q, steps, delta):
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(z, q, steps)]
    return accountant.get_epsilon(delta)


def check(printed, z, q, steps, delta):
    least, most = by_pld(z, q, steps, delta), by_prv(z, q, steps, delta)
    said = (
        f"noise {z:.4g}, rate {q:.4g}, {steps} steps, delta {delta:.3g}: {printed:.5g} is printed"
    )
    assert printed >= (1 - BELOW) * least, f"{said}, and {least:.5g} is spent"
    assert printed <= (1 + ABOVE) * most + ROUNDED, f"{said}, and prv says {most:.5g}"


SETTINGS = [
    pytest.param(number, marks=() if number in IN_EVERY_RUN else pytest.mark.slow)
    for number in range(N_SETTINGS)
]


@pytest.mark.filterwarnings("ignore")  # of the other implementations
@pytest.mark.parametrize("number", [p for p in SETTINGS if p.values[0] % 2])
def test_on_paper(number):
    z, q, steps, delta = drawn(number)
    cost = worked_out(
        delta=delta,
        sampling="poisson",
        noise_multiplier=z,
        target_epsilon=None,
        sample_rate=q,
        steps=steps,
        examples=None,
        batch_size=None,
        epochs=None,
    )
    text = cost.text()
    printed = re.search(r"^prv +(\S+)$", text, re.M)
    assert printed is not None, text
    check(float(printed[1]), z, q, steps, delta)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [p for p in SETTINGS if p.values[0] % 2 == 0])
def test_in_the_statement_of_a_run(number):
    z, q, rounds, delta = drawn(number)
    cohort = max(1, round(20 * q))
    built = build(
        config_for(
            *["n_clients=20", f"cohort_size={cohort}", "sampler=poisson", f"rounds={rounds}"],
            *["privacy=client_dp", f"privacy.noise_multiplier={z}", f"privacy.delta={delta}"],
            *["backend=in_process", "model.hidden=[8]", "partition=iid"],
        )
    )
    account = built.experiment.account
    state = account.init()
    for _ in range(rounds):
        state = account.at_most(state, [])  # a round costs the same whoever is drawn
    statement = account.statement(state)
    assert f"probability {cohort / 20:.4g}" in statement["sampling"]
    check(statement["epsilon"], z, cohort / 20, rounds, delta)
