"""Detector files: the same detector again, and what such a file may not hold."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from fedexp.core.checks import InputError
from fedexp.detection.fitted import Fitted, fit
from fedexp.detection.scorers import SCORERS
from tests.support.detecting import AUTOENCODER, SCORERS_TO_TRY, P, each_scorer, honest_round, rows


@each_scorer
@pytest.mark.parametrize("by_client", [True, False])
def test_a_file_gives_the_same_detector(scorer, by_client):
    rounds = [honest_round(r) if by_client else honest_round(r).matrix for r in range(3)]
    fitted = fit(scorer, rounds, 0.95, seed=4)
    again = Fitted.from_bytes(fitted.to_bytes())
    assert again.scorer == scorer
    for name in ("d", "seed", "quantile", "threshold", "rows", "by_client"):
        assert getattr(again, name) == getattr(fitted, name)
    matrix = honest_round(5).matrix
    assert torch.equal(again.score(matrix), fitted.score(matrix))
    assert again.to_bytes() == fitted.to_bytes()


def test_without_a_sketch_the_rows_themselves_are_compared():
    scorer = replace(AUTOENCODER, sketch_size=None)
    fitted = Fitted.from_bytes(fit(scorer, [honest_round(r) for r in range(4)], 0.99, 0).to_bytes())
    assert fitted.direction.shape == (400,)
    matrix = honest_round(5).matrix.clone()
    matrix[0] *= -1
    assert fitted.score(matrix).argmax() == 0


def changed(content, tensors=None, **words):
    """A detector file with other words or tensors in it."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = {**json.loads(header["__metadata__"]["detector"]), **words}
    return save({**load(content), **(tensors or {})}, metadata={"detector": json.dumps(document)})


@pytest.fixture(scope="module")
def file():
    return fit(AUTOENCODER, [honest_round(r) for r in range(3)], 0.99, 0).to_bytes()


def test_the_helper_of_the_next_test_breaks_nothing_by_itself(file):
    assert Fitted.from_bytes(changed(file)).to_bytes() == file


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"format": "fedexp-detector-9"}, "another version"),
        ({"scorer": "os.system"}, "no detector file"),
        ({"scorer": ["norm"]}, "no detector file"),
        ({"scorer": "norm", "settings": {}}, "not those of its scorer"),
        ({"settings": {"hidden": 3}}, "no detector file"),
        ({"settings": None}, "no detector file"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"d": -1}, "d=-1"),
        ({"rows": 1.5}, "rows"),
        ({"seed": -1}, "seed"),
        ({"quantile": 2}, "quantile"),
        ({"by_client": 3}, "by_client"),
        ({"surprise": 3}, "no detector file"),
    ],
)
def test_words_that_make_no_detector_are_refused(file, words, reason):
    with pytest.raises(InputError, match=reason):
        Fitted.from_bytes(changed(file, **words))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"direction": torch.zeros(3)}, "direction has 3"),
        ({"fitted.mean": torch.zeros(3)}, "not those of its scorer"),
        ({"fitted.mean": torch.full((P,), torch.nan)}, "not finite"),
        ({"fitted.mean": torch.zeros(P, dtype=torch.float64)}, "not finite float32"),
        ({"fitted.more": torch.zeros(1)}, "not those of its scorer"),
        ({"mean": torch.zeros(P)}, "not those of its scorer"),
    ],
)
def test_tensors_that_make_no_detector_are_refused(file, tensors, reason):
    with pytest.raises(InputError, match=reason):
        Fitted.from_bytes(changed(file, tensors))


def test_other_files_are_refused(file):
    for content in (b"", b"no", file[:-1], file[:40], save({"x": torch.zeros(2)})):
        with pytest.raises(InputError, match="no detector file, or a damaged one"):
            Fitted.from_bytes(content)


def test_rows_of_another_model_are_refused_with_both_numbers(file):
    with pytest.raises(InputError, match="updates of 400 numbers, not 399"):
        Fitted.from_bytes(file).score(rows(3, 399))


def test_every_scorer_can_be_named_in_a_file():
    assert {type(scorer) for scorer in SCORERS_TO_TRY} == set(SCORERS.values())
