"""`store=`: what was computed with the same bits is not computed again, and is the same bits."""

import sys

import pytest

from fedexp.commands.cli import run_command
from fedexp.run_folder.record import Recorder
from tests.support.commands import assert_same_bits, summary_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]
SMALL = ("n_clients=4", "partition=iid", "model.hidden=[8]", "quiet=true", "backend=in_process")
ONE_BY_ONE = ("hydra/launcher=basic",)


def _sweep(folder, *arguments):
    made = run_command(["run", "-m", *SMALL, *ONE_BY_ONE, f"hydra.sweep.dir={folder}", *arguments])
    assert made == 0


def _computed(folder):
    """Rounds that the jobs of a sweep have computed."""
    jobs = [summary_of(path.parent) for path in folder.glob("*/summary.json")]
    return sum(job["rounds"] - job.get("rounds_from_store", 0) for job in jobs)


def _entries(here):
    return sorted((here / "outputs" / "store").glob("rounds-*"))


def test_a_second_identical_sweep_computes_nothing(here):
    _sweep("one", "seed=0,1", "rounds=2")
    _sweep("two", "seed=0,1", "rounds=2")
    assert (_computed(here / "one"), _computed(here / "two")) == (4, 0)
    for seed in (0, 1):
        assert_same_bits(here / "two" / f"seed={seed}", here / "one" / f"seed={seed}")


def test_a_single_run_is_computed_unless_it_names_the_store(here):
    _sweep("one", "seed=0", "rounds=2")
    run = ["run", *SMALL, "seed=0", "rounds=2"]
    assert run_command([*run, "hydra.run.dir=alone"]) == 0
    assert run_command([*run, "hydra.run.dir=taken", "store=outputs/store"]) == 0
    assert "rounds_from_store" not in summary_of(here / "alone")
    assert summary_of(here / "taken")["rounds_from_store"] == 2
    assert_same_bits(here / "taken", here / "alone")


def test_none_keeps_nothing(here):
    _sweep("one", "seed=0", "rounds=1", "store=none")
    assert not (here / "outputs").exists()


def test_longer_runs_go_on_from_shorter_ones(here):
    _sweep("one", "seed=0", "rounds=2")
    _sweep("two", "rounds=3,4")
    assert _computed(here / "two") == 2
    assert run_command(["run", *SMALL, "rounds=4", "hydra.run.dir=alone"]) == 0
    assert_same_bits(here / "two" / "rounds=4", here / "alone")


DETECTING = (
    *("rounds=5", "detector.warm_up_rounds=3", "attack.first_round=3", "attack.fraction=0.25"),
    *("eval_every=2", "checkpoint_every=2", "detector.scorer.sketch_size=16"),
    *("assumed_malicious=1", "n_clients=6"),
)


def test_honest_rounds_are_shared_by_attacks_and_detectors(here):
    _sweep("one", *DETECTING, "attack=none,sign_flip", "detector=pca")
    assert _computed(here / "one") == 5 + (5 - 3)
    _sweep("two", *DETECTING, "attack=none,sign_flip", "detector=norm")  # it fits in round 3
    assert _computed(here / "two") == (5 - 2) + (5 - 3)
    arguments = [*SMALL, *DETECTING, "attack=sign_flip", "detector=norm", "hydra.run.dir=alone"]
    assert run_command(["run", *arguments]) == 0
    assert_same_bits(here / "two" / "attack=sign_flip", here / "alone")


def test_what_code_of_ones_own_imports_counts_too(here, monkeypatch):
    (here / "ownhelper.py").write_text("FACTOR = 1.0\n")
    (here / "ownrule.py").write_text(
        "import ownhelper\nfrom fedexp.aggregation.mean import Mean\n\n"
        "class Rule(Mean):\n    def __call__(self, *given):\n"
        "        step, *more = super().__call__(*given)\n"
        "        return (ownhelper.FACTOR * step, *more)\n"
    )
    monkeypatch.syspath_prepend(here)
    own = ["rounds=2", "aggregator._target_=ownrule.Rule"]
    own += ["trust=[ownrule.]"]
    _sweep("one", *own)
    (here / "ownhelper.py").write_text("FACTOR = 0.1  # another\n")
    for name in ("ownrule", "ownhelper"):
        monkeypatch.delitem(sys.modules, name)
    _sweep("two", *own)
    assert _computed(here / "two") == 2


AMBUSH = ("rounds=3", "cohort_size=2", "assumed_malicious=1", "attack.n_malicious=2")


def test_cohorts_with_so_many_malicious_clients_are_not_those_without(here):
    """They have them before the first attack, too."""
    later = [*AMBUSH, "attack.first_round=2", "attack=sign_flip"]
    fixed = [*later, "attack.schedule.clients_a_round=2"]
    _sweep("one", *later)
    _sweep("two", *fixed)
    assert _computed(here / "two") == 3
    assert run_command(["run", *SMALL, *fixed, "hydra.run.dir=alone"]) == 0
    assert_same_bits(here / "two" / "0", here / "alone")
    _sweep("three", *fixed, "attack=ipm")
    assert _computed(here / "three") == 1


def test_a_beginning_that_went_on_on_another_machine_is_not_kept(here, monkeypatch):
    def stopping(self, state, record):
        done(self, state, record)
        raise KeyboardInterrupt

    job = ["rounds=3", "attack.first_round=2", "attack=sign_flip"]
    done = Recorder.round_done
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(Recorder, "round_done", stopping)
        elsewhere.setattr("fedexp.config.origin.kernels", lambda: "OTHER")
        with pytest.raises(AssertionError):
            _sweep("one", *job)
    assert summary_of(here / "one" / "0")["status"] == "interrupted"
    _sweep("one", *job)
    assert summary_of(here / "one" / "0")["rounds"] == 3
    assert _entries(here) == []


@pytest.mark.parametrize(
    "key",
    [
        *(
            "training.lr=0.05",
            "attack=ipm",
            "attack=label_flip",
            "aggregator=median",
            "eval_every=2",
        ),
        *("objective=loss", "checkpoint_every=2", "privacy=dp_sgd", "early_stopping.patience=1"),
    ],
)
def test_nothing_else_is_shared(here, key):
    """What attacks from the first round on, and every other key that decides bits or files."""
    _sweep("one", "rounds=1")
    _sweep("two", "rounds=2", key)
    assert _computed(here / "two") == 2


def test_a_schedule_that_knows_the_last_round_is_not_shared(here):
    _sweep("one", "rounds=1", "training/schedule=cosine")
    _sweep("two", "rounds=2", "training/schedule=cosine")
    assert _computed(here / "two") == 2


def test_noise_of_the_system_is_not_kept(here):
    noise = ["privacy=client_dp", "privacy.noise_seed=os"]
    _sweep("one", "rounds=1", *noise)
    assert _entries(here) == []


@pytest.mark.parametrize("name", ["metrics.csv", "entry.json", "checkpoints/round-000002.pt"])
def test_a_broken_entry_is_dropped_and_computed_again(here, name):
    _sweep("one", "rounds=2")
    (entry,) = _entries(here)
    content = bytearray((entry / name).read_bytes())
    content[len(content) // 2] ^= 1
    (entry / name).unlink()
    (entry / name).write_bytes(content)
    _sweep("two", "rounds=2")
    assert _computed(here / "two") == 2
    assert _entries(here) == [entry]
    _sweep("three", "rounds=2")
    assert _computed(here / "three") == 0


def test_a_run_that_goes_on_leaves_its_entry_as_it_was(here):
    _sweep("one", "rounds=1")
    assert run_command(["resume", "one/0", "rounds=2", "quiet=true"]) == 0
    _sweep("two", "rounds=1")
    assert _computed(here / "two") == 0
    assert summary_of(here / "two" / "0")["rounds"] == 1


def test_a_store_that_cannot_be_written_costs_nothing(here):
    (here / "outputs").write_text("in the way")
    _sweep("one", "rounds=1")
    assert summary_of(here / "one" / "0")["status"] == "complete"


def test_a_file_is_no_store(here, capfd):
    (here / "file").write_text("")
    assert run_command(["run", *SMALL, "store=file", "hydra.run.dir=run"]) == 2
    assert capfd.readouterr().err == (
        "fedexp: store=file: is a file, not a folder; auto, none or a folder\n"
    )
    assert not (here / "run").exists()


def test_the_command_lists_and_empties(here, capfd):
    assert run_command(["store"]) == 0
    assert "no entries" in capfd.readouterr().out
    _sweep("one", "seed=0,1", "rounds=1")
    assert run_command(["store"]) == 0
    said = capfd.readouterr().out
    assert said.count("1 round, seed ") == 2
    assert "2 entries" in said
    assert run_command(["store", "--empty"]) == 0
    assert _entries(here) == []
    _sweep("two", "seed=0,1", "rounds=1")
    assert _computed(here / "two") == 2


def test_half_an_option_empties_nothing(here, capfd):
    assert run_command(["store", "--empt"]) == 2
    assert "unrecognized arguments: --empt" in capfd.readouterr().err
