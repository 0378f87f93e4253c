"""`fedexp leakage`, and `leakage=` at the end of a run: all the way from a command to a table."""

import json
import shutil

import pytest

from fedexp.commands.cli import run_command
from tests.support.studied_runs import finished_run

ONE_IMAGE = ("leakage=analytic", "leakage.analytic.exposure.examples=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("run") / "victim")


@pytest.fixture
def victim(run, tmp_path):
    """A copy, to be spoilt."""
    return shutil.copytree(run, tmp_path / "victim")


def headlines(folder):
    return json.loads((folder / "summary.json").read_text())["leakage"]


def complaint(capsys, *command):
    assert run_command([str(word) for word in command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.usefixtures("real_pictures")
def test_a_study_is_printed_and_left_in_the_runs_folder(victim, capsys):
    assert run_command(["leakage", str(victim), *ONE_IMAGE]) == 0
    printed = capsys.readouterr().out
    assert "the updates leak images" in printed
    assert "honest-but-curious server" in printed
    assert headlines(victim)["analytic"]["psnr_db"] > 79
    assert (victim / "plots" / "leakage_analytic.png").stat().st_size > 5000
    assert "## Leakage" in (victim / "report.md").read_text()


def test_a_second_study_trains_nothing_and_a_repeated_one_is_not_done_again(victim, capsys):
    model = (victim / "model.safetensors").stat().st_mtime_ns
    assert run_command(["leakage", str(victim), *ONE_IMAGE]) == 0
    assert "there already" not in capsys.readouterr().out
    assert run_command(["leakage", str(victim), *ONE_IMAGE, "--as", "again"]) == 0
    assert "there already" not in capsys.readouterr().out
    summary = json.loads((victim / "summary.json").read_text())
    known = summary["leakage"].pop("analytic")  # as if killed before its headline was put there
    (victim / "summary.json").write_text(json.dumps(summary))
    assert run_command(["leakage", str(victim), *ONE_IMAGE]) == 0
    assert "analytic: its findings are there already" in capsys.readouterr().out
    assert headlines(victim)["analytic"] == known
    assert run_command(["leakage", str(victim), *ONE_IMAGE, "--force"]) == 0
    assert "there already" not in capsys.readouterr().out
    assert (victim / "model.safetensors").stat().st_mtime_ns == model
    found = headlines(victim)
    assert found["again"] == found["analytic"]


@pytest.mark.usefixtures("real_pictures")
def test_several_values_are_several_studies_of_the_same_images(victim):
    noises = "leakage.analytic.exposure.noise_multiplier=0,0.5"
    clip = "leakage.analytic.exposure.clip_norm=1"
    assert run_command(["leakage", str(victim), *ONE_IMAGE, clip, noises]) == 0
    found = headlines(victim)
    silent, noisy = (found[f"analytic,noise_multiplier={z}"] for z in (0, 0.5))
    assert silent["psnr_db"] > 60 > 20 > noisy["psnr_db"]
    assert (victim / "plots" / "leakage_noise.png").stat().st_size > 5000


def test_a_run_can_end_with_its_studies_and_the_bits_of_the_run_stay(run, tmp_path):
    folder = finished_run(tmp_path / "with", *ONE_IMAGE)
    assert headlines(folder)["analytic"]["psnr_db"] > 79
    assert (folder / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_studies_missing_from_a_complete_run_are_made_up_for_by_a_resume(tmp_path):
    folder = finished_run(tmp_path / "killed", *ONE_IMAGE)
    shutil.rmtree(folder / "leakage")
    assert run_command(["resume", str(folder)]) == 0
    assert (folder / "leakage" / "analytic" / "findings.json").exists()


def test_a_sweep_sets_leakage_beside_accuracy(tmp_path):
    sweep = ["model=mlp,logistic", *ONE_IMAGE, "rounds=1", "training.epochs=1", "quiet=true"]
    command = ["run", "-m", *sweep, "plots=false", f"hydra.sweep.dir={tmp_path}"]
    assert run_command(command) == 0
    text = (tmp_path / "table.md").read_text()
    assert "Leakage" in text
    assert "accuracy" in text


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "choose what to do, e.g. leakage=geiping"),
        (["leakage=analytics"], "leakage=analytics: did you mean analytic?"),
        (["leakage=analytic", "rounds=3"], "override=rounds=3: the run is finished"),
        ([*ONE_IMAGE, "leakage.analytic.exposure.batch_size=0"], "batch_size=0: "),
        ([*ONE_IMAGE, "leakage.analytic.exposure.rounds=[9]"], "rounds=9: models are there of"),
        ([*ONE_IMAGE, "leakage.analytic.exposure.images=3"], "there is no such key"),
        ([*ONE_IMAGE, "--as", "../up"], "--as=../up: must be a plain name"),
        (["leakage=[analytic,geiping]", "--as", "both"], "must be a plain name, for one study"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(run, capsys, overrides, expected):
    assert expected in complaint(capsys, "leakage", run, *overrides)
    assert not (run / "leakage").exists()


def test_a_folder_without_a_run_or_without_checkpoints_is_one_line(victim, tmp_path, capsys):
    assert "no config.yaml" in complaint(capsys, "leakage", tmp_path, *ONE_IMAGE)
    shutil.rmtree(victim / "checkpoints")
    assert "has no checkpoint to attack" in complaint(capsys, "leakage", victim, *ONE_IMAGE)


def test_a_damaged_checkpoint_says_so(victim, capsys):
    for path in (victim / "checkpoints").glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    assert "SHA-256" in complaint(capsys, "leakage", victim, *ONE_IMAGE)


def test_a_model_that_the_attack_cannot_use_is_named(tmp_path, capsys):
    folder = finished_run(tmp_path / "cnn", "model=small_cnn", "rounds=1", "train_examples=50")
    line = complaint(capsys, "leakage", folder, *ONE_IMAGE)
    assert "Conv2d" in line


def test_clients_that_share_no_model_cannot_be_studied(tmp_path, capsys):
    folder = finished_run(tmp_path / "alone", "setting=local_only", "rounds=1")
    assert "share no model" in complaint(capsys, "leakage", folder, *ONE_IMAGE)


def test_a_run_that_could_not_be_studied_is_refused_before_it_starts(tmp_path, capsys):
    folder = tmp_path / "never"
    where = f"hydra.run.dir={folder}"
    wrong = "leakage.analytic.exposure.examples=0"
    line = complaint(capsys, "run", "leakage=analytic", wrong, where)
    assert "leakage.analytic.exposure.examples=0: must be" in line
    line = complaint(capsys, "run", "leakage=analytic", "setting=local_only", where)
    assert (
        "leakage=analytic: there is no shared model to study where every client keeps its own"
        in line
    )
    for name in ("audit", "audit_many_runs"):
        line = complaint(capsys, "run", f"leakage={name}", where)
        assert "claims no finite epsilon" in line
        private = ("privacy=dp_sgd", "channel=secure_aggregation")
        line = complaint(capsys, "run", f"leakage={name}", *private, where)
        assert "hides what the canaries' scores are made of" in line
    assert not folder.exists()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (
            ("leakage=analytic", "leakage.analytic.exposure.rounds=[7]"),
            "analytic.exposure.rounds=7",
        ),
        (
            (
                "leakage=geiping",
                "leakage/exposure@leakage.geiping.exposure=recorded",
                "leakage.geiping.exposure.largest_client=1",
            ),
            "geiping.exposure.largest_client=1",
        ),
        (
            ("leakage=loss_threshold", "leakage.loss_threshold.rounds=[7]"),
            "loss_threshold.rounds=7",
        ),
    ],
)
@pytest.mark.parametrize("name", [(), ("--as", "mine")])
def test_a_refusal_names_the_key_of_a_study_as_it_is_typed(run, capsys, overrides, key, name):
    line = complaint(capsys, "leakage", run, *overrides, *name)
    assert f"leakage.{key}: " in line


def test_a_refusal_names_a_key_of_the_run_without_the_study(run, capsys):
    assert complaint(capsys, "leakage", run, "leakage=audit").startswith("fedexp: privacy=")


def test_a_run_whose_own_study_does_not_go_with_it_can_be_given_another(victim):
    config = (victim / "config.yaml").read_text()
    audit = "leakage: {audit: {_target_: fedexp.leakage.audit.repeated.ManyRunsAudit, "
    (of_none,) = [line for line in config.splitlines() if line.startswith("leakage:")]
    audit += "runs: 20, confidence: 0.95, noise_scale: 1.0}}"
    (victim / "config.yaml").write_text(config.replace(of_none, audit))
    assert run_command(["leakage", str(victim), "leakage=loss_threshold"]) == 0
