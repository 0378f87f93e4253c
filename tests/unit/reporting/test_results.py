"""Reading run folders: also of runs that go on, were cut off or are broken."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from fedexp.core.checks import InputError
from fedexp.core.metric import Metric
from fedexp.reporting.finding import find_runs
from fedexp.reporting.results import load_run
from fedexp.reporting.run_report import report_run
from fedexp.reporting.sweep_report import report_sweep
from fedexp.run_folder.client_rows import frame
from fedexp.run_folder.rows import as_csv
from tests.support.run_folders import write_failed, write_run


def test_a_run_folder_is_read_back(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", rounds=4, seed=7))
    assert run.status == "complete"
    assert run.seed == 7
    assert run.shares_model
    assert list(run.curve("test", "accuracy").index) == [1, 2, 3, 4]
    assert run.final("test", "accuracy") == run.curve("test", "accuracy")[4]
    assert len(run.per_client("test", "own_mix_accuracy")) == 10
    assert run.partition is not None
    assert "indices" not in run.partition
    assert run.confusion is not None
    assert run.confusion.shape == (10, 10)
    assert list(run.timing["round"]) == [1, 2, 3, 4]


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=4)
    from_csv = load_run(folder).metrics
    (folder / "metrics.csv").unlink()
    pd.testing.assert_frame_equal(load_run(folder).metrics, from_csv)


def test_while_a_run_goes_on_the_jsonl_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=4, status="running")
    lines = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join(lines[:20]))
    assert load_run(folder).metrics["round"].max() == 4


def test_a_broken_last_line_is_left_out_a_broken_earlier_one_is_not(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=4)
    (folder / "metrics.csv").unlink()
    whole = len(load_run(folder).metrics)
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines) + '\n{"round": 5, "sco')
    assert len(load_run(folder).metrics) == whole
    lines[3] = lines[3][:10]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 4 is not valid JSON"):
        _ = load_run(folder).metrics


def test_rounds_written_twice_count_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=4, status="interrupted")
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    again = [row | {"value": 0.5} for row in rows if row["round"] == 4]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + again))
    curve = load_run(folder).curve("test", "accuracy")
    assert list(curve.index) == [1, 2, 3, 4]
    assert curve[4] == 0.5


def test_local_only_answers_with_the_mean_over_the_clients(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "r", setting="local_only", rounds=3))
    assert not run.shares_model
    mean = run.curve("test", "accuracy", "mean")
    assert run.final("test", "accuracy") == mean[3]
    assert run.mean_last_5("test", "accuracy") == pytest.approx(mean.mean())


def test_without_a_summary_the_last_evaluation_counts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=7)
    (folder / "summary.json").unlink()
    run = load_run(folder)
    curve = run.curve("test", "accuracy")
    assert run.status == "unknown"
    assert run.final("test", "accuracy") == curve[7]
    assert run.mean_last_5("test", "accuracy") == pytest.approx(
        sum(curve[r] for r in range(3, 8)) / 5
    )


def test_an_undefined_last_auc_is_not_replaced_by_an_older_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", rounds=2, status="interrupted")
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["round"] == 2 and row["metric"] == "auc":
            row["value"] = None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text('{"status": "interrupted", "final": null}')
    assert math.isnan(load_run(folder).final("test", "auc"))


@pytest.mark.parametrize("older", [False, True])
def test_what_was_measured_of_clients_is_found_without_the_table(
    tmp_path: Path, older: bool
) -> None:
    folder = write_run(tmp_path / "r", rounds=2)
    said = [Metric(n, "update", str(c), "score", n + c / 8) for n in (1, 2, 3) for c in (0, 7)]
    other = [Metric(2, "update", "7", "norm", 1.0), Metric(2, "train", "7", "score", 1.0)]
    if older:
        with (folder / "metrics.csv").open("ab") as file:
            file.write(as_csv([*said[:4], *other], header=False))
    else:
        rows = [*said, *other]
        frames = [frame(n, [row for row in rows if row.round == n]) for n in (1, 2, 3)]
        (folder / "clients.bin").write_bytes(b"".join(frames))
    # Nothing of round 3, which the run has not evaluated yet.
    expected = {(row.round, row.client): {"score": row.value} for row in said[:4]}
    assert load_run(folder).of_clients("update", ["score"]) == expected


def test_runs_are_found_below_a_sweep_once_and_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_failed(tmp_path / "sweep" / str(number), "x")
    found = find_runs([tmp_path / "sweep", tmp_path / "sweep" / "2"])
    assert [path.name for path in found] == ["1", "2", "10"]
    assert find_runs([tmp_path / "sweep" / "2"]) == [tmp_path / "sweep" / "2"]


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for call, reason in (
        (lambda: find_runs([tmp_path / "empty"]), "no run lies here"),
        (lambda: find_runs([tmp_path / "nowhere"]), "no such folder"),
        (lambda: find_runs([]), "at least one"),
        (lambda: load_run(tmp_path / "empty"), "is no run folder"),
        (lambda: load_run(tmp_path / "nowhere"), "no such folder"),
        (lambda: report_sweep([tmp_path / "empty"]), "no run lies here"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"status": '),
        ("summary.json", "[]"),
        ("partition.json", "{"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "- 1"),
        ("metrics.csv", "round,scope\n1,test\n"),
        ("metrics.csv", ""),
        ("confusion_matrix.csv", "a,b\n1,2\n"),
        ("confusion_matrix.csv", ""),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_run(tmp_path / "r", rounds=2, n_clients=2)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        report_run(folder)
    assert "\n" not in str(caught.value)


def test_a_config_is_read_as_omegaconf_reads_it(tmp_path: Path) -> None:
    text = "a: 1e-3\nb: 1.0e-05\nc: null\nd: .inf\ne: ${a}\nf: '1e-3'\ng: 2024-01-01\nh: -1E4\n"
    (tmp_path / "config.yaml").write_text(text)
    config = load_run(tmp_path).config
    assert config == OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    assert (config["a"], config["f"], config["g"]) == (0.001, "1e-3", "2024-01-01")
