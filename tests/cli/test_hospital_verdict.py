"""One command, and what federation is worth to every site: figures, report, page."""

import json
import re

import pytest

from fedexp.commands.cli import main as fedexp
from fedexp.reporting.sweep_report import report_sweep
from fedexp.run_folder.documents import read_summary
from fedexp.run_folder.verdict import read_verdict

SMALL = (
    *("rounds=2", "eval_every=2", "training.epochs=1", "plots=false", "quiet=true"),
    *("experiment=hospital_verdict", "backend=in_process", "partition.skewed_clients=3"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verdict") / "run"
    assert fedexp(["run", *SMALL, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_every_way_to_train_is_measured_on_every_sites_own_patients(run):
    verdict = read_verdict(run)
    roles = {"federated", "alone", "pooled", "fine-tuned", "mean, attacked", "median, attacked"}
    roles.add("weighted median, attacked")
    roles |= {f"without client {k}" for k in range(3)}
    assert verdict["not_measured"] == {}
    for site in verdict["sites"].values():
        assert set(site["roles"]) == roles
        for figures in site["roles"].values():
            value, low, high = figures["accuracy"]
            assert 0 <= low <= value <= high <= 1
    assert set(verdict["left_out"]) == set(verdict["sites"])
    assert [len(of["dishonest"]) for of in verdict["attacked"].values()] == [1, 1, 1]


def test_the_gain_is_the_paired_difference_to_training_alone(run):
    for site in read_verdict(run)["sites"].values():
        gain, low, high = site["gain"]["federated"]
        accuracy = {role: of["accuracy"][0] for role, of in site["roles"].items()}
        assert gain == pytest.approx(accuracy["federated"] - accuracy["alone"], abs=2e-6)
        assert low <= gain <= high


def test_the_summary_has_the_names_that_scripts_rely_on(run):
    for site in read_summary(run)["sites"].values():
        assert {"n", "accuracy", "accuracy_low", "accuracy_high", "auc", "auc_low"} <= set(site)
        assert site["harmed"] == (site["gain_high"] < 0)
        assert site["gains"] == (site["gain_low"] > 0)
        assert site["estimate"] is True  # digits know nobody's patients


def test_the_federations_figures_are_those_of_the_run(run):
    """The overall accuracy lies between the sites'; all of them from the last round's model."""
    overall = read_summary(run)["final"]["test"]["accuracy"]
    of_sites = [site["accuracy"] for site in read_summary(run)["sites"].values()]
    assert min(of_sites) - 0.1 <= overall <= max(of_sites) + 0.1


def test_the_page_is_one_file_without_network(run):
    page = (run / "report.html").read_text()
    assert not re.search(r"<script[^>]|https?://|@import|url\(", page)
    assert page.partition("<h2>The run")[0].count('<section class="card') == 3
    assert "What is federation worth to every site?" in page
    assert "Estimate: nobody&#39;s patients are known" in page


def test_the_report_says_the_same(run):
    report = (run / "report.md").read_text()
    assert "## What federation is worth to every site" in report
    assert "### When some sites flip their updates" in report


def test_an_interrupted_verdict_goes_on_from_what_it_has(run, tmp_path):
    """Without verdict.json the answers are there still: nothing is trained, the same is said."""
    before = read_verdict(run)
    kept = {path: path.stat().st_mtime_ns for path in (run / "verdict").iterdir()}
    (run / "verdict.json").unlink()
    assert fedexp(["resume", str(run)]) == 0
    assert read_verdict(run) == before
    assert {path: path.stat().st_mtime_ns for path in (run / "verdict").iterdir()} == kept


@pytest.mark.slow
def test_more_rounds_get_a_verdict_of_their_own(run, tmp_path):
    from shutil import copytree

    copy = copytree(run, tmp_path / "copy")
    assert fedexp(["resume", str(copy), "rounds=3"]) == 0
    before, after = read_verdict(run)["sites"], read_verdict(copy)["sites"]
    alone = [v["client 0"]["roles"]["alone"]["brier"] for v in (before, after)]
    assert alone[0] != alone[1]


def test_names_from_a_strangers_file_are_text(run, tmp_path):
    from shutil import copytree

    copy = copytree(run, tmp_path / "copy")
    text = (copy / "verdict.json").read_text()
    (copy / "verdict.json").write_text(text.replace("client 1", "<img src=x onerror=alert(1)>"))
    assert fedexp(["report", str(copy)]) == 0
    page = (copy / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"sites": []}, "sites must be a mapping"),
        ({"sites": {"a": {"n": 1}}}, "lacks"),
        ({"left_out": {"a": [1, 2]}}, "must be [value, low, high]"),
    ],
)
def test_a_verdict_of_another_shape_is_refused_by_its_place(run, tmp_path, capsys, broken, words):
    from shutil import copytree

    copy = copytree(run, tmp_path / "copy")
    document = json.loads((copy / "verdict.json").read_text())
    (copy / "verdict.json").write_text(json.dumps({**document, **broken}))
    assert fedexp(["report", str(copy)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("setting=local_only", "needs setting=federated"),
        ("verdict.operating_point=best", "verdict.operating_point=best"),
        ("verdict.dishonest=2", "verdict.dishonest=2"),
        ("verdict.defences.median.assumed=1", "verdict.defences.median"),
        ("verdict.attack._target_=os.system", "verdict.attack"),
    ],
)
def test_what_could_not_be_compared_is_refused_before_the_run(tmp_path, capsys, override, words):
    override = f"+{override}" if "assumed=" in override else override
    assert fedexp(["run", *SMALL, override, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_role_whose_parts_do_not_go_together_is_told(tmp_path):
    """Client-level DP has no bound for a median: that comparison is missing, with the reason."""
    folder = tmp_path / "run"
    private = ("privacy=client_dp", "privacy.noise_multiplier=1", "privacy.delta=1e-2")
    quick = ("verdict.leave_out=false", "verdict.fine_tuning_rounds=0", "rounds=1")
    mean = "aggregator.weighting=uniform"
    command = ["run", *SMALL, *private, *quick, mean, f"hydra.run.dir={folder}"]
    assert fedexp(command) == 0
    verdict = read_verdict(folder)
    assert "no bound is known" in verdict["not_measured"]["median, attacked"]
    assert "alone" in verdict["sites"]["client 0"]["roles"]


def test_a_sweep_counts_seeds_and_not_sites(run, tmp_path):
    from shutil import copytree

    for seed in (0, 1):
        copy = copytree(run, tmp_path / f"seed={seed}")
        config = (copy / "config.yaml").read_text().replace("seed: 0\n", f"seed: {seed}\n", 1)
        (copy / "config.yaml").write_text(config)
    text = report_sweep([tmp_path], tmp_path)
    row = next(line for line in text.splitlines() if "every site alike" in line)
    cells = [cell.strip() for cell in row.split("|")][1:-1]
    sites = read_verdict(run)["sites"].values()
    alone = sum(site["roles"]["alone"]["accuracy"][0] for site in sites) / 3
    assert cells[2] == "2"
    assert cells[3] == f"{alone:.3f} ± 0.000"  # two equal seeds
    assert sum(map(int, cells[8].split(" / "))) == 2 * 3
    table = (tmp_path / "verdict.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 3 * 10


def test_a_seed_that_ran_twice_is_one_seed_and_has_no_deviation(run, tmp_path):
    from shutil import copytree

    for name in "ab":
        copytree(run, tmp_path / name)
    text = report_sweep([tmp_path])
    row = next(line for line in text.splitlines() if "every site alike" in line)
    cells = [cell.strip() for cell in row.split("|")][1:-1]
    assert cells[2] == "1"
    assert "±" not in row
    assert "[" not in cells[7]
