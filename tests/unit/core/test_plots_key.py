"""The key `plots`, in both its forms."""

from __future__ import annotations

import pytest

from fedexp.core.checks import InputError
from fedexp.core.plots import Plots
from tests.support.composing import config_for


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("png", "plots"),
        (None, "plots"),
        ({"stile": "paper"}, "plots.stile"),
        ({"style": "Paper"}, "plots.style"),
        ({"format": "eps"}, "plots.format"),
        ({"format": ["pdf"]}, "plots.format"),
        ({"draw": 1}, "plots.draw"),
    ],
)
def test_what_is_neither_is_refused_by_name(value: object, key: str) -> None:
    with pytest.raises(InputError) as caught:
        Plots.of(value)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), Plots()),
        (("plots=false",), Plots(draw=False)),
        (("plots=true",), Plots()),
        (("plots.style=paper", "plots.format=pdf"), Plots(format="pdf", style="paper")),
        (("plots.draw=false", "plots=true"), Plots()),
        (("experiment=attack_matrix",), Plots(draw=False)),
        (("experiment=attack_matrix", "plots=true"), Plots()),
        (("experiment=attack_matrix", "plots={style:paper}"), Plots(style="paper")),
    ],
)
def test_a_command_line_may_say_it_either_way(overrides: tuple[str, ...], expected: Plots) -> None:
    assert Plots.of(config_for(*overrides)["plots"]) == expected
