"""The analytic Gaussian mechanism against the integral that defines it."""

import math

import pytest
from scipy.integrate import quad
from scipy.stats import norm as normal

from fedexp.privacy.analytic_gaussian import delta_of, noise_multiplier_for


def hockey_stick(z, epsilon):
    """The integral of max(0, p - e^epsilon q) for p = N(1, z^2), q = N(0, z^2)."""
    from_here = 1 / 2 + epsilon * z * z  # where p exceeds e^epsilon q
    value, _ = quad(
        lambda x: normal.pdf(x, 1, z) - math.exp(epsilon) * normal.pdf(x, 0, z),
        from_here,
        max(from_here, 1) + 15 * z,
        epsabs=1e-14,
        limit=200,
    )
    return value


@pytest.mark.parametrize("z", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_delta_is_the_hockey_stick_divergence(z, epsilon):
    assert delta_of(z, epsilon) == pytest.approx(hockey_stick(z, epsilon), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("epsilon", "z"), [(4.377178, 1.0), (9.997256, 0.5)])
def test_known_noise_multipliers(epsilon, z):
    # The second: 100 releases with z = 5 are one with z = 5 / sqrt(100).
    assert noise_multiplier_for(epsilon, 1e-5) == pytest.approx(z, rel=1e-6)


@pytest.mark.parametrize("epsilon", [1e-3, 0.5, 8.0, 100.0, 5000.0])
@pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.3])
def test_less_noise_than_the_least_is_too_little(epsilon, delta):
    z = noise_multiplier_for(epsilon, delta)
    assert delta_of(z, epsilon) <= delta < delta_of(z * (1 - 1e-5), epsilon)


def test_the_textbook_formula_wastes_noise_at_1_and_lacks_it_at_20():
    def textbook(epsilon):
        return math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon

    assert textbook(1.0) > noise_multiplier_for(1.0, 1e-5)
    assert textbook(20.0) < noise_multiplier_for(20.0, 1e-5)
    assert delta_of(textbook(20.0), 25.3) > 1e-5 > delta_of(textbook(20.0), 25.5)
