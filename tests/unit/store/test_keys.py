"""What is not known to decide the same bits is not kept."""

import pytest

from fedexp.core.origin import Origin
from fedexp.store.keys import deciding, files_of, is_known

IN_PROCESS = {"_target_": "fedexp.backends.in_process.InProcess"}
CONFIG = {"eval_every": 1, "device": "cpu", "backend": IN_PROCESS, "seed": 0, "quiet": True}


def test_what_has_no_effect_does_not_decide():
    assert deciding(CONFIG) == deciding({**CONFIG, "quiet": False, "store": "elsewhere"})
    assert deciding(CONFIG) != deciding({**CONFIG, "seed": 1})


def test_a_backend_with_bits_of_its_own_decides():
    blocks = {"_target_": "fedexp.backends.blocks.Blocks", "own_bits": True}
    assert deciding({**CONFIG, "backend": blocks}) != deciding(CONFIG)


def test_the_order_of_pre_aggregation_decides():
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    parts = [deciding({**CONFIG, "pre_aggregation": mixers}) for mixers in (one, other)]
    assert parts[0] != parts[1]


@pytest.mark.parametrize(
    "change",
    [
        {"eval_every": "auto"},
        {"device": "cuda"},
        {"device": "auto"},
        {"privacy": {"noise_seed": "os"}},
        {"backend": {"_target_": "mine.Backend"}},
        {"aggregator": {"_target_": "mine.Rule"}},
        {"detector": {"scorer": {"_target_": "mine.Scorer"}}},
        {"from": "outputs/run"},
    ],
)
def test_what_is_not_known(change):
    assert is_known(CONFIG)
    assert not is_known({**CONFIG, **change})


def test_own_code_that_was_read_is_known():
    config = {**CONFIG, "aggregator": {"_target_": "mine.Rule"}}
    assert is_known(config, Origin("", "", {"mine.parts": "digest"}, {}))
    assert not is_known(config, Origin("", "", {"others": "digest"}, {}))


def test_a_named_file_counts_with_its_content(tmp_path):
    path = tmp_path / "detector.safetensors"
    path.write_bytes(b"a")
    config = {**CONFIG, "detector": {"path": str(path)}}
    before = files_of(config)
    path.write_bytes(b"b")
    assert before.keys() == files_of(config).keys() == {str(path)}
    assert before != files_of(config)
