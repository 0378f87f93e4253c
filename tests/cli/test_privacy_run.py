"""Runs with a promise: what they cost is what an accountant of somebody else says, to the end."""

import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedexp.commands.cli import run_command
from tests.support.commands import assert_same_bits, rows_of, summary_of

pytestmark = pytest.mark.usefixtures("without_pictures")
DELTA = 1e-5
SMALL = ("model.hidden=[16]", "training.epochs=1", "quiet=true", "backend=in_process")


@pytest.fixture
def run(here):
    """Carries out a small run; gives its folder."""

    def carry_out(*overrides, name="run"):
        folder = here / name
        assert run_command(["run", *SMALL, *overrides, f"hydra.run.dir={folder}"]) == 0
        return folder

    return carry_out


def values(folder, scope, metric, client="all"):
    """Round -> value."""
    return {
        number: value
        for number, where, who, what, value in rows_of(folder)
        if (where, who, what) == (scope, client, metric)
    }


def prv(history):
    """Opacus' own answer."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(history)
    return accountant.get_epsilon(DELTA)


def final_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


# What is spent, in the record.


def test_dp_sgd_costs_what_its_clients_steps_cost(run):
    folder = run("privacy=dp_sgd", "rounds=3", "n_clients=4", "cohort_size=2")
    spent, expected = defaultdict(int), {}
    rates = {}
    for number, scope, client, metric, value in rows_of(folder):
        if scope == "train" and client != "all":
            if metric == "sampling_rate":
                rates[client] = value
            if metric == "steps":
                spent[client] += int(value)
                expected[number] = dict(spent)
    epsilons = values(folder, "privacy", "epsilon")
    assert sorted(epsilons) == [1, 2, 3]
    for number, steps in expected.items():
        each = [prv([(1.0, rates[client], count)]) for client, count in steps.items()]
        assert epsilons[number] == pytest.approx(max(each), abs=1e-9)
    statement = summary_of(folder)["privacy"]
    assert statement["epsilon"] == epsilons[3]
    assert statement["delta"] == DELTA
    assert statement["unit"] == "one example of one client"
    assert (statement["adjacency"], statement["accountant"]) == ("add_remove", "prv")
    assert "seed" in statement["noise_source"]
    assert any("accuracies" in thing for thing in statement["not_covered"])


def test_a_run_that_is_stopped_between_evaluations_says_what_it_has_spent(here, monkeypatch):
    def stop(self, state, record):
        if state.round == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("fedexp.observers.round_log.RoundLog.round_done", stop)
    sampled = ("privacy=client_dp", "sampler=poisson", "cohort_size=1")
    seldom = ("rounds=9", "eval_every=9", f"hydra.run.dir={here / 'run'}")
    assert run_command(["run", *SMALL, *sampled, *seldom]) == 130
    summary = summary_of(here / "run")
    assert (summary["status"], summary["rounds"]) == ("interrupted", 2)
    assert summary["privacy"]["epsilon"] == pytest.approx(prv([(1.0, 0.1, 2)]), abs=1e-9)


@pytest.mark.parametrize(("source", "releases"), [("os", 4 + 2), ("task", 4)])
def test_rounds_that_are_made_again_with_other_noise_are_charged_again(
    here, monkeypatch, source, releases
):
    """Round 3 after a checkpoint of round 2, and round 4 that may have been under way."""
    rounds = ("rounds=4", "checkpoint_every=2", f"hydra.run.dir={here / 'run'}")
    noise = ("privacy=local_laplace", f"privacy.noise_seed={source}")

    def stop(self, state, record):
        if state.round == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedexp.observers.round_log.RoundLog.round_done", stop)
        assert run_command(["run", *SMALL, *noise, *rounds]) == 130
    assert run_command(["resume", str(here / "run")]) == 0
    summary = summary_of(here / "run")
    assert summary["privacy"]["epsilon"] == pytest.approx(8.0 * releases)
    said = any("rounds 3 to 4 may have been made before" in text for text in summary["remarks"])
    assert said == (source == "os")


@pytest.mark.parametrize("saved", [0, 2])
def test_rounds_that_were_made_again_stay_charged_when_the_run_is_stopped_again(
    here, monkeypatch, saved
):
    """Killed after round 3, and again when round 3 is made a second time; by then it is running."""
    rounds = ("rounds=4", f"checkpoint_every={saved or 4}", f"hydra.run.dir={here / 'run'}")
    noise = ("privacy=local_laplace", "privacy.noise_seed=os")

    class Killed(BaseException):
        """Nothing more is written."""

    def stop(self, state, record):
        if state.round == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("fedexp.observers.round_log.RoundLog.round_done", stop)
        with pytest.raises(Killed):
            run_command(["run", *SMALL, *noise, *rounds])
        with pytest.raises(Killed):
            run_command(["resume", str(here / "run")])
    assert summary_of(here / "run")["status"] == "running"
    assert run_command(["resume", str(here / "run")]) == 0
    made = 4 + 2 * (4 - saved)  # the last round may have been under way both times
    assert summary_of(here / "run")["privacy"]["epsilon"] == pytest.approx(8.0 * made)


def test_client_level_dp_costs_a_release_a_round_and_gives_one_also_without_clients(run):
    folder = run("privacy=client_dp", "sampler=poisson", "cohort_size=1", "rounds=6")
    clients = values(folder, "round", "clients")
    empty = [number for number, count in clients.items() if count == 0]
    assert empty, "the seed draws no empty cohort"
    epsilons = values(folder, "privacy", "epsilon")
    for number in range(1, 7):
        assert epsilons[number] == pytest.approx(prv([(1.0, 0.1, number)]), abs=1e-9)
    # Noise alone: z C sqrt(d) / m, to the spread of a chi distribution.
    d = summary_of(folder)["parameters"]
    for number in empty:
        assert values(folder, "round", "step_norm")[number] == pytest.approx(d**0.5, rel=0.15)
        assert values(folder, "round", "skipped")[number] == 0
    assert summary_of(folder)["privacy"]["unit"] == "one client with all its data"


def test_local_noise_costs_a_release_for_every_round_that_a_client_answers(run):
    from dp_accounting import get_epsilon_gaussian

    folder = run(
        "privacy=local_gaussian", "privacy.noise_multiplier=2", "n_clients=6", "cohort_size=3"
    )
    releases = defaultdict(int)
    epsilons = values(folder, "privacy", "epsilon")
    for number in sorted(epsilons):
        for _, scope, client, metric, _ in (r for r in rows_of(folder) if r[0] == number):
            releases[client] += (scope, metric) == ("update", "norm")
        exact = get_epsilon_gaussian(2 / max(releases.values()) ** 0.5, DELTA)
        assert exact <= epsilons[number] <= exact + 0.012
    assert summary_of(folder)["privacy"]["adjacency"] == "replace_one"


def test_laplace_noise_adds_up(run):
    folder = run("privacy=local_laplace", "privacy.epsilon_per_release=0.5", "rounds=3")
    assert values(folder, "privacy", "epsilon") == {1: 0.5, 2: 1.0, 3: 1.5}
    assert summary_of(folder)["privacy"]["delta"] == 0


def test_without_noise_nothing_is_promised(run):
    folder = run(
        "privacy=client_dp",
        "privacy.noise_multiplier=0",
        "privacy.allow_no_noise=true",
        "rounds=1",
    )
    assert values(folder, "privacy", "epsilon") == {1: None}
    statement = summary_of(folder)["privacy"]
    assert statement["epsilon"] is None
    assert statement["note"] == "nothing is promised: epsilon is infinite"


def test_an_infinite_target_is_a_run_that_clips_and_promises_nothing(run, capsys):
    folder = run(
        "privacy=dp_sgd",
        "privacy.target_epsilon=.inf",
        "privacy.allow_no_noise=true",
        "rounds=2",
        "n_clients=4",
    )
    statement = summary_of(folder)["privacy"]
    assert (statement["epsilon"], statement["noise_multiplier"]) == (None, 0)
    assert set(values(folder, "privacy", "epsilon").values()) == {None}
    capsys.readouterr()
    assert run_command(["report", str(folder)]) == 0
    assert "nothing is promised for one example of one client" in capsys.readouterr().out
    assert "**Nothing is promised: epsilon is infinite**" in (folder / "report.md").read_text()
    before = (folder / "metrics.csv").read_bytes()
    assert run_command(["resume", str(folder)]) == 0
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_run_without_a_promise_says_nothing_of_one(run):
    folder = run("rounds=1")
    assert summary_of(folder)["privacy"] is None
    assert not [row for row in rows_of(folder) if row[1] == "privacy"]


def test_a_calibrated_run_ends_within_its_target(run):
    folder = run(
        "privacy=dp_sgd", "privacy.target_epsilon=3", "setting=centralised", "rounds=2", "seed=1"
    )
    assert 2.9 < values(folder, "privacy", "epsilon")[2] <= 3
    assert summary_of(folder)["privacy"]["noise_multiplier"] > 0.3
    assert values(folder, "test", "accuracy")[2] > 0.15


# Where it ends.


def test_it_stops_before_the_round_that_would_exceed_the_limit(run, capfd):
    limited = ("privacy=client_dp", "sampler=poisson", "cohort_size=5", "privacy.max_epsilon=6")
    folder = run(*limited, "rounds=20", "eval_every=50")
    summary = summary_of(folder)
    last = summary["rounds"]
    assert prv([(1.0, 0.5, last)]) <= 6 < prv([(1.0, 0.5, last + 1)])
    assert summary["status"] == "complete"
    assert summary["stopped"] == (f"round {last + 1} of 20 could take epsilon above max_epsilon=6")
    assert f"stopped after round {last}" in capfd.readouterr().err
    # Though it was planned for later, the last round is evaluated and saved.
    assert list(values(folder, "privacy", "epsilon")) == [last]
    assert summary["privacy"]["epsilon"] == pytest.approx(prv([(1.0, 0.5, last)]), abs=1e-9)
    assert (folder / "checkpoints" / f"round-{last:06d}.pt").exists()
    before = (folder / "metrics.csv").read_bytes()
    assert run_command(["resume", str(folder)]) == 0
    assert (folder / "metrics.csv").read_bytes() == before


# Interrupted, elsewhere, and without a seed.


@pytest.mark.parametrize(
    "overrides",
    [
        (
            *("privacy=client_dp", "sampler=poisson", "cohort_size=5", "privacy.adaptive=true"),
            *("privacy.count_noise=2", "server_optimizer=adam"),
        ),
        ("privacy=dp_sgd", "cohort_size=4", "privacy.accountant=rdp"),
        ("privacy=local_gaussian", "worker_momentum=momentum", "cohort_size=4"),
        ("channel=secure_aggregation", "channel.drop_before_masking=0.2"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_resumed_equals_uninterrupted(run, here, overrides):
    whole = run(*overrides, "rounds=5", "checkpoint_every=3", name="whole")
    killed = shutil.copytree(whole, here / "killed")
    (killed / "checkpoints" / "round-000005.pt").unlink()
    summary = json.loads((killed / "summary.json").read_text())
    (killed / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    assert run_command(["resume", str(killed)]) == 0
    assert_same_bits(killed, whole)


def test_dp_sgd_is_the_same_in_worker_processes(run, quick_workers):
    overrides = ("privacy=dp_sgd", "rounds=1", "n_clients=4", "privacy.accountant=rdp")
    here = run(*overrides, name="here")
    there = run(*overrides, "backend=process_pool", "backend.workers=2", name="there")
    assert (here / "metrics.csv").read_bytes() == (there / "metrics.csv").read_bytes()


@pytest.mark.parametrize("choice", ["dp_sgd", "client_dp", "local_laplace"])
def test_noise_of_the_operating_system_is_new_every_time_and_the_run_says_so(run, choice, capfd):
    overrides = (f"privacy={choice}", "privacy.noise_seed=os", "rounds=1", "n_clients=3")
    first, second = (run(*overrides, name=name) for name in ("first", "second"))
    assert not np.array_equal(final_weights(first), final_weights(second))
    assert "noise comes from the operating system: the run cannot be" in capfd.readouterr().err
    assert summary_of(first)["privacy"]["noise_source"].startswith("the operating system")


# Secure aggregation.


def test_secure_aggregation_is_the_plain_run_to_the_rounding(run):
    grid = 1 / (2**19 - 1)  # between two levels of 20 bits in [-1, 1]
    plain, secure = (
        final_weights(run("rounds=1", f"channel={channel}", name=channel))
        for channel in ("plain", "secure_aggregation")
    )
    assert 0 < np.abs(plain - secure).max() < grid + 1e-6
    later = [
        run("rounds=4", f"channel={channel}", name=f"{channel}-4")
        for channel in ("plain", "secure_aggregation")
    ]
    losses = [values(folder, "test", "loss")[4] for folder in later]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_dropouts_and_lost_groups_are_counted_and_told(run):
    folder = run(
        "channel=secure_aggregation",
        "n_clients=12",
        "channel.groups=2",
        "channel.drop_before_masking=0.3",
        "rounds=6",
    )
    lost, out = (values(folder, "round", m) for m in ("groups_lost", "dropped_out"))
    assert sum(out.values()) > 0
    assert sum(lost.values()) > 0
    said = (folder / "fedexp.log").read_text()
    assert "clients left before they could mask" in said
    assert "of 2 is lost: " in said
    rows = [(n, c) for n, scope, c, metric, _ in rows_of(folder) if metric == "norm"]
    for number, groups in lost.items():
        assert len([c for n, c in rows if n == number]) == 2 - groups
    assert {client for _, client in rows} <= {"-1", "-2"}
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert all(line["transmit"] > 0 for line in timing)


def test_a_median_across_groups_learns_and_its_bytes_are_real(run):
    plain, secure = (
        run("n_clients=20", "rounds=4", "aggregator=median", *more, name=str(len(more)))
        for more in ((), ("channel=secure_aggregation", "channel.groups=5"))
    )
    accuracy = [values(folder, "test", "accuracy")[4] for folder in (plain, secure)]
    assert accuracy[1] > accuracy[0] - 0.05
    d = summary_of(secure)["parameters"]
    up, down = (values(secure, "round", way)[1] for way in ("bytes_up", "bytes_down"))
    assert up > 20 * d * 5  # 20 bits times the number of examples need a ring of 5 bytes
    assert down > 20 * d * 4
    assert values(plain, "round", "bytes_up")[1] == 20 * d * 4


def test_skellam_noise_costs_a_little_more_than_gaussian_noise(run):
    from dp_accounting import get_epsilon_gaussian

    folder = run("channel=secure_skellam", "rounds=2")
    epsilons = values(folder, "privacy", "epsilon")
    for number in (1, 2):
        gaussian = get_epsilon_gaussian(number**-0.5, DELTA)  # exact; Skellam's is by RDP
        assert gaussian < epsilons[number] < 1.2 * gaussian
    statement = summary_of(folder)["privacy"]
    assert statement["noise_added_by"].startswith("the clients together")


@pytest.mark.parametrize(
    "overrides",
    [
        ("channel=secure_aggregation", "aggregator=krum"),
        ("privacy=client_dp", "privacy.sampling=poisson"),
        ("privacy=dp_sgd", "privacy.max_epsilon=0.1"),
    ],
    ids=" ".join,
)
def test_a_refusal_is_one_line_and_leaves_nothing_behind(here, capfd, overrides):
    assert run_command(["run", *SMALL, *overrides, "hydra.run.dir=refused"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert list(here.iterdir()) == []
