"""A detector in a run: the warm-up, the rounds after it, and a file in its place."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fedexp.core.checks import InputError
from fedexp.core.types import Verdict
from fedexp.detection.fitted import fit
from fedexp.detection.in_run import FittedDetector
from fedexp.detection.norm import Norm
from fedexp.tasks.multiclass import Multiclass
from tests.support.composing import part
from tests.support.detecting import AUTOENCODER, honest_round, rows


def rng(seed=0):
    return np.random.default_rng(seed)


def detector(**changes):
    settings = {
        "scorer": AUTOENCODER,
        "warm_up_rounds": 5,
        "path": None,
        "quantile": 0.99,
        "threshold_rule": "quantile",
        "action": "drop",
        "seed": 0,
    }
    return FittedDetector(**{**settings, **changes})


def attacked(round, factor=-1.0):
    given = honest_round(round)
    matrix = given.matrix.clone()
    matrix[:4] *= factor
    return given.with_matrix(matrix)


@pytest.fixture(scope="module")
def warmed_up():
    """The state after the warm-up, in which neither action nor rule for the threshold plays a part.

    Not to be changed.
    """
    found = detector()
    state = found.init(400)
    for r in range(found.warm_up_rounds):
        verdict, state = found(honest_round(r), state, rng(r))
        assert verdict.scores.isnan().all()
    return state


@pytest.fixture(scope="module")
def fitted():
    return fit(AUTOENCODER, [honest_round(r) for r in range(6)], 0.99, 0)


@pytest.mark.parametrize("rule", ["quantile", "round_mean"])
@pytest.mark.parametrize("action", ["drop", "down_weight", "report"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, 3e38])
def test_a_row_that_cannot_be_counted_is_flagged_and_changes_nobody_elses(
    warmed_up, rule, action, broken
):
    found, given = detector(threshold_rule=rule, action=action), honest_round(5)
    expected, after = found(given.select(torch.arange(len(given)) > 1), warmed_up, rng())
    matrix = given.matrix.clone()
    matrix[:2] = broken
    verdict, broken_after = found(given.with_matrix(matrix), warmed_up, rng())
    assert verdict.flagged[:2].all()
    assert (verdict.trust[:2] == float(action == "report")).all()
    assert torch.equal(verdict.scores[2:], expected.scores)
    assert torch.equal(verdict.trust[2:], expected.trust)
    assert verdict.threshold == expected.threshold
    assert all(torch.equal(tensor, broken_after[name]) for name, tensor in after.items())
    nobody, _ = found(given.with_matrix(torch.full_like(matrix, broken)), warmed_up, rng())
    assert nobody.flagged.all()


def test_rows_that_cannot_be_counted_are_not_learned_from():
    found = detector()
    state = found.init(400)
    for r in range(found.warm_up_rounds):
        given = honest_round(r)
        given.matrix[0] = torch.nan
        verdict, state = found(given, state, rng(r))
        assert verdict.scores.isnan().all()
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert found(attacked(6), state, rng())[0].flagged[1:4].all()


def test_who_changes_after_the_warm_up_is_found_and_never_learned(warmed_up):
    found, state = detector(), warmed_up
    habits = dict(zip(state["clients"].tolist(), state["habits"], strict=True))
    for r in range(5, 12):
        verdict, state = found(attacked(r), state, rng(r))
        assert verdict.flagged[:4].all()
        assert verdict.flagged[4:].sum() <= 1
        assert (verdict.trust == (~verdict.flagged).double()).all()
    for client in range(4):
        assert torch.equal(state["habits"][client], habits[client])


@pytest.mark.parametrize("action", ["down_weight", "report"])
def test_what_becomes_of_a_flagged_row(warmed_up, action):
    verdict, _ = detector(action=action)(attacked(5), warmed_up, rng())
    assert verdict.flagged[:4].all()
    shares = verdict.threshold / verdict.scores
    expected = shares.clamp(max=1) if action == "down_weight" else torch.ones(20).double()
    assert torch.equal(verdict.trust, expected)


def test_the_mean_of_the_round_as_a_threshold_flags_honest_clients_too(warmed_up):
    found = detector(threshold_rule="round_mean")
    state, flagged = warmed_up, 0
    for r in range(5, 15):
        verdict, state = found(honest_round(r), state, rng(r))
        assert verdict.threshold == pytest.approx(float(verdict.scores.mean()))
        flagged += int(verdict.flagged.sum())
    assert 0.2 < flagged / 200 < 0.6


def test_a_warm_up_goes_on_until_there_are_rows_to_learn_from():
    found = detector(warm_up_rounds=2, scorer=Norm())
    state = found.init(400)
    for r in range(4):
        assert "threshold" not in state
        given = honest_round(r, n=2)
        _, state = found(given, state, rng(r))
    assert "threshold" in state
    assert "features" not in state


def test_a_file_takes_the_place_of_the_warm_up(tmp_path, fitted):
    path = tmp_path / "detector.safetensors"
    path.write_bytes(fitted.to_bytes())
    found = detector(path=str(path))
    state = found.init(400)
    for r in range(3):
        verdict, state = found(attacked(r), state, rng(r))
        assert isinstance(verdict, Verdict)
        assert verdict.flagged[:4].all()
        assert verdict.flagged[4:].sum() <= 1


def test_in_a_run_and_by_itself_a_file_gives_the_same_scores(tmp_path, fitted):
    path = tmp_path / "detector.safetensors"
    path.write_bytes(fitted.to_bytes())
    found = detector(path=str(path))
    state, memory = found.init(400), fitted.start()
    for r in range(4):
        given = attacked(r)
        verdict, state = found(given, state, rng(r))
        scores, memory = fitted.score_round(given.matrix, given.client_ids, memory)
        assert torch.equal(verdict.scores, scores)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "detector.safetensors"
    with pytest.raises(InputError, match=r"path=.*cannot be read: No such file"):
        detector(path=str(path))
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"path=.*no detector file"):
        detector(path=str(path))
    path.write_bytes(fit(Norm(), [rows(9, 30)], 0.99, 0).to_bytes())
    with pytest.raises(InputError, match=r"path=.*updates of 30 numbers, not 31"):
        detector(path=str(path)).init(31)


@pytest.mark.parametrize(
    "wrong",
    [
        {"warm_up_rounds": 1},
        {"quantile": -0.1},
        {"threshold_rule": "mean"},
        {"action": "shout"},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    (key, value) = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"{key}={value}"):
        detector(**wrong)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_on_mnist_the_autoencoder_tells_malicious_from_honest(partition):
    """Twenty clients, four of which turn after ten honest rounds, against the shared model."""
    from fedexp.backends.in_process import InProcess
    from fedexp.core.flat import vector_of
    from fedexp.core.rng import generator, seed_for, seeded
    from fedexp.core.types import ClientTask
    from fedexp.core.workload import Workload
    from fedexp.data.loader import load as load_dataset

    seed, n, rounds, warm_up = 0, 20, 22, 10
    loader = part("dataset", "mnist")
    pixels = load_dataset(loader, Path(os.environ["FEDEXP_DATA_DIR"]))
    dealt = part("partition", partition)(pixels.train, n, generator(seed, "partition"))
    train = dealt.train.as_floats()
    train = replace(train, x=(train.x - train.x.mean()) / train.x.std())
    with seeded(seed_for(seed, "model"), torch.device("cpu")):
        model = part("model", "mlp", "dataset=mnist")
    workload = Workload(model, train, dealt.shards, {}, n, torch.device("cpu"), Multiclass())
    trainer = part("training", "sgd", "training.epochs=1", "training.batch_size=32")
    backend, params = InProcess(workload), vector_of(model)
    found = part("detector", "autoencoder", f"detector.warm_up_rounds={warm_up}")
    malicious = torch.arange(n) < 4
    attacks = {"sign_flip": -1.0, "scaling": 5.0, "gaussian": None, "none": 1.0}
    states = dict.fromkeys(attacks, found.init(len(params)))
    scores = {name: [] for name in attacks}
    alarms = {name: [] for name in attacks}
    for r in range(rounds):
        tasks = [ClientTask(c, params, r, seed_for(seed, "client", r, c)) for c in range(n)]
        honest = backend.train(trainer, tasks)
        share = (honest.num_examples / honest.num_examples.sum()).float()
        for name, factor in attacks.items():
            matrix = honest.matrix.clone()
            if r >= warm_up:
                own = matrix[malicious]
                noise = rows(4, len(params), seed=r) * own.norm(dim=1, keepdim=True)
                matrix[malicious] = noise / len(params) ** 0.5 if factor is None else factor * own
            verdict, states[name] = found(honest.with_matrix(matrix), states[name], rng(r))
            if r >= warm_up:
                scores[name].append(verdict.scores)
                alarms[name].append(verdict.flagged)
        params = params + share @ honest.matrix
    assert torch.stack(alarms["none"]).double().mean() <= 0.03
    truth = malicious.repeat(rounds - warm_up).numpy()
    for name in ("sign_flip", "scaling", "gaussian"):
        assert roc_auc_score(truth, torch.cat(scores[name]).numpy()) >= 0.95, name
