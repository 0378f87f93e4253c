"""`fedexp detect` as a user meets it: fit on one folder of updates, scan another."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedexp.commands.cli import run_command
from fedexp.core.types import Updates
from fedexp.run_folder.update_files import Layout, UpdateWriter

LAYOUT = Layout(("layer.weight", "layer.bias"), ((8, 5), (8,)))
CLIENTS, BAD = 10, (0, 7)
HONEST = torch.randn(CLIENTS, LAYOUT.d, generator=torch.Generator().manual_seed(0)) + 1


def record(folder, rounds, malicious=(), kinds=("safetensors",), seed=0):
    """Updates of clients that keep their directions; malicious ones send many times as much."""
    writer = UpdateWriter(folder, LAYOUT, kinds)
    g = torch.Generator().manual_seed(seed)
    marks = [client in malicious for client in range(CLIENTS)]
    for number in range(1, rounds + 1):
        matrix = HONEST + 0.3 * torch.randn(CLIENTS, LAYOUT.d, generator=g)
        matrix[torch.tensor(marks)] *= 30
        clients = tuple(range(CLIENTS))
        writer.write(number, Updates(matrix, clients, torch.ones(CLIENTS).double()), marks)
    return folder


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run folder of honest updates. Not to be changed."""
    return record(tmp_path_factory.mktemp("honest"), rounds=6, kinds=("safetensors", "pth"))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A run folder with two malicious clients. Not to be changed."""
    return record(tmp_path_factory.mktemp("attacked"), 4, BAD, kinds=("pth",), seed=1)


@pytest.fixture(scope="module")
def detector(tmp_path_factory, honest):
    """A detector fitted on `honest`, in a folder of its own."""
    path = tmp_path_factory.mktemp("detector") / "honest.safetensors"
    assert run_command(["detect", "fit", str(honest), "--out", str(path), "--scorer", "pca"]) == 0
    return path


@pytest.fixture
def said(capsys, here):
    """Runs a command and gives its exit code, output and one line of errors."""

    def run(*arguments):
        code = run_command(["detect", *map(str, arguments)])
        output = capsys.readouterr()
        assert output.err.count("\n") <= 1
        assert "Traceback" not in output.err
        return code, output.out, output.err

    return run


def scores_of(folder):
    with open(folder / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def is_picture(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# Fit.


@pytest.mark.parametrize("scorer", ["autoencoder", "norm", "pca"])
def test_every_scorer_catches_what_is_far_too_long(said, honest, attacked, scorer):
    code, out, _ = said("fit", honest, "--out", "d.safetensors", "--scorer", scorer)
    assert code == 0
    assert f"Fitted {scorer} on 60 updates of 48 numbers, leaving out 60 copies in another" in out
    assert "Threshold " in out
    assert "False alarms: fitted without round 6, it flags " in out
    assert "of 10 updates there (" in out
    code, out, _ = said("scan", attacked, "--detector", "d.safetensors")
    assert code == 0
    assert "Of 8 malicious, 8 caught, 0 missed; of 32 honest, " in out
    assert "AUC 1.000" in out


def test_the_same_command_writes_the_same_detector(said, honest):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        assert said("fit", honest, "--out", name, "--scorer", "pca", "--seed", seed)[0] == 0
    a, b, c = (Path(name).read_bytes() for name in "abc")
    assert a == b != c


def test_a_detector_is_not_lost_by_mistake(said, honest, here):
    (here / "d").write_bytes(b"precious")
    code, _, err = said("fit", honest, "--out", "d", "--scorer", "norm")
    assert (code, err) == (2, "fedexp: --out=d: is there already; --force replaces it\n")
    assert (here / "d").read_bytes() == b"precious"
    assert said("fit", honest, "--out", "d", "--scorer", "norm", "--force")[0] == 0
    assert (here / "d").read_bytes() != b"precious"


def test_malicious_updates_are_left_out_unless_asked_for(said, attacked):
    _, out, _ = said("fit", attacked, "--out", "a", "--scorer", "norm")
    assert "Fitted norm on 32 updates of 48 numbers, leaving out 8 that index.csv marks as" in out
    _, out, _ = said("fit", attacked, "--out", "b", "--scorer", "norm", "--include-malicious")
    assert "Fitted norm on 40 updates of 48 numbers.\n" in out
    assert "False alarms: unknown, with too few rounds to hold some of them out." in out


def test_the_commonest_layout_is_the_one_to_learn(said, honest, here):
    for k, row in enumerate(HONEST):
        torch.save(LAYOUT.split(row), here / f"client-{k}.pth")
    for name, shape in (("aa", (3, 3)), ("zz", (48,))):
        torch.save({"other": torch.ones(shape)}, here / f"{name}.pth")
    code, out, _ = said("fit", here, "--out", "d", "--scorer", "pca")
    assert code == 0
    assert "Fitted pca on 10 updates of 48 numbers, leaving out 2 that cannot be used." in out
    assert "2 could not be used:\n" in out
    assert "  aa.pth: holds 9 numbers, not 48: lacks 'layer.weight' (as in most files)\n" in out
    assert "  zz.pth: lacks 'layer.weight' (as in most files)\n" in out


# Scan.


def test_the_table_the_scores_and_the_picture(said, attacked, detector, here):
    code, out, _ = said("scan", attacked, "--detector", detector, "--out", "found")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["score", "flagged", "truth", "round", "client", "file"]
    assert all(line.split()[1:3] == ["yes", "malicious"] for line in lines[1:9])
    assert "... and 20 with lower scores, all in scores.csv" in lines
    rows = scores_of(here / "found")
    assert len(rows) == 40
    numbers = [float(row["score"]) for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    for row in rows:
        assert row["malicious"] == str(int(row["client"]) in BAD)
        assert row["file"] == f"round-{int(row['round']):06d}/client-{int(row['client']):05d}.pth"
    assert {row["flagged"] for row in rows[:8]} == {"True"}
    assert is_picture(here / "found" / "histogram.png")


def test_results_lie_beside_the_detector_and_are_told_apart(said, attacked, detector):
    for folder, name in [(attacked, attacked.name), (attacked / "updates",) * 2]:
        if name == folder:
            name = f"{attacked.name}-updates"
        _, out, _ = said("scan", folder, "--detector", detector)
        assert f"Saved: {detector.parent / f'scan-of-{name}' / 'scores.csv'}, histogram.png" in out
        assert is_picture(detector.parent / f"scan-of-{name}" / "histogram.png")


def test_a_threshold_of_ones_own(said, attacked, detector, here):
    _, out, _ = said("scan", attacked, "--detector", detector, "--threshold", "1e9", "--out", "o")
    assert "0 of 40 updates lie above the threshold 1e+09." in out
    assert "Of 8 malicious, 0 caught, 8 missed; of 32 honest, 0 false alarms (0.0%)" in out
    _, out, _ = said("scan", attacked, "--detector", detector, "--threshold", "-1", "--out", "o")
    assert "40 of 40 updates lie above the threshold -1." in out


def test_scores_are_those_of_the_detector(said, attacked, detector, here):
    from fedexp.detection.fitted import Fitted

    said("scan", attacked, "--detector", detector, "--out", "o")
    fitted = Fitted.from_bytes(detector.read_bytes())
    memory = fitted.start()
    expected = {}
    for number in range(1, 5):
        place = f"round-{number:06d}"
        names = [f"{place}/client-{client:05d}.pth" for client in range(CLIENTS)]
        files = [torch.load(attacked / "updates" / name, weights_only=True) for name in names]
        rows = torch.stack([torch.cat([t.reshape(-1) for t in file.values()]) for file in files])
        scores, memory = fitted.score_round(rows, range(CLIENTS), memory)
        expected.update(zip(names, scores.tolist(), strict=True))
    found = {row["file"]: float(row["score"]) for row in scores_of(here / "o")}
    assert found == pytest.approx(expected, rel=1e-6)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def test_a_folder_from_somewhere(said, detector, here):
    post = here / "post"
    post.mkdir()
    for k, row in enumerate(HONEST):
        torch.save({"state_dict": LAYOUT.split(row * (30 if k == 3 else 1))}, post / f"site{k}.pth")
    whole = (post / "site0.pth").read_bytes()
    (post / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    (post / "empty.safetensors").touch()
    torch.save({"layer.weight": Bomb(here / "went-off")}, post / "bomb.pth")
    torch.save({"layer.weight": torch.ones(9, 9)}, post / "large.pth")
    code, out, _ = said("scan", post, "--detector", detector, "--out", "o")
    assert code == 1
    assert not (here / "went-off").exists()
    assert out.splitlines()[0].split() == ["score", "flagged", "file"]
    assert out.splitlines()[1].split()[1:] == ["yes", "site3.pth"]
    assert "1 of 10 updates lie above" in out
    assert "malicious" not in out
    assert out.splitlines()[-5] == "4 could not be used:"
    assert out.splitlines()[-4:] == [
        "  bomb.pth: holds something else than tensors (posix.system): it could run code, and was "
        "not loaded",
        "  empty.safetensors: is empty",
        "  large.pth: holds 81 numbers, not 48: its 'layer.weight' is 9 x 9, not 8 x 5",
        "  truncated.pth: is broken or no such file: File is not a zip file",
    ]
    problems = {r["file"]: r["problem"] for r in scores_of(here / "o") if r["problem"]}
    assert set(problems) == {"bomb.pth", "empty.safetensors", "large.pth", "truncated.pth"}


def test_nothing_but_broken_files(said, detector, here):
    (here / "a.pth").touch()
    code, out, err = said("scan", here, "--detector", detector)
    assert (code, out, err) == (1, "1 could not be used:\n  a.pth: is empty\n", "")


def test_local_models_and_the_global_one(said, detector, here):
    start = torch.randn(LAYOUT.d, generator=torch.Generator().manual_seed(5))
    for k, row in enumerate(HONEST):
        folder = here / "models" / f"round-{1 + k % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        model = start + row * (30 if k == 4 else 1)
        torch.save({"model_state_dict": LAYOUT.split(model)}, folder / f"client-{k}.pth")
    save_file(LAYOUT.split(start), here / "models" / "global.safetensors")
    globally = ("--global", "models/global.safetensors")
    code, out, _ = said("scan", "models", "--detector", detector, "--out", "o", *globally)
    assert code == 0
    rows = scores_of(here / "o")
    assert len(rows) == 10
    assert rows[0]["file"] == "round-1/client-4.pth"
    assert rows[0]["flagged"] == "True"
    assert {row["round"] for row in rows} == {"1", "2"}

    code, out, _ = said("fit", "models", "--out", "d", "--scorer", "pca", *globally)
    assert (code, "Fitted pca on 10 updates of 48" in out) == (0, True)
    names = load_file("d")  # numbers, with the words in its header
    assert all(torch.isfinite(tensor).all() for tensor in names.values())

    torch.save({"layer.weight": torch.ones(2)}, "wrong.pth")
    code, _, err = said("scan", "models", "--detector", detector, "--global", "wrong.pth")
    assert code == 2
    assert err.startswith("fedexp: --global=wrong.pth: is of another model than the detector: ")
    assert "holds 2 numbers, not 48" in err


# What a user may get wrong.


def test_another_model_altogether(said, detector, here):
    for k in range(3):
        torch.save({"w": torch.ones(100)}, here / f"{k}.pth")
    code, _, err = said("scan", here, "--detector", detector)
    assert code == 2
    assert err == (
        f"fedexp: UPDATES_DIR={here}: no file is of the detector's model; 0.pth holds 100 "
        "numbers, not 48: lacks 'layer.weight'\n"
    )


def test_a_detector_for_other_names(said, attacked, detector, here):
    content = detector.read_bytes()
    (here / "d").write_bytes(content.replace(b"layer.bias", b"layer.beta"))
    code, _, err = said("scan", attacked, "--detector", "d")
    assert code == 2
    assert "no file is of the detector's model" in err
    assert err.endswith("client-00000.pth lacks 'layer.beta'\n")


def test_too_few_updates(said, here):
    torch.save(LAYOUT.split(HONEST[0]), here / "a.pth")
    code, _, err = said("fit", here, "--out", "d", "--scorer", "norm")
    assert code == 2
    assert "needs at least 8 honest updates to learn from, not 1" in err
    assert not (here / "d").exists()


def test_nothing_that_can_be_learned_from(said, attacked, here):
    (here / "a.pth").touch()
    code, _, err = said("fit", here, "--out", "d")
    assert code == 2
    assert err.endswith("holds no honest update that can be used; the first, a.pth: is empty\n")
    only_bad = record(here / "run", 1, malicious=range(CLIENTS))
    code, _, err = said("fit", only_bad, "--out", "d")
    assert code == 2
    assert "index.csv marks all 10 as malicious; --include-malicious fits on" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["fit"], "the following arguments are required: UPDATES_DIR, --out"),
        (["fit", "HONEST"], "the following arguments are required: --out"),
        (["scan", "HONEST"], "the following arguments are required: --detector"),
        ([], "the following arguments are required: {fit,scan}"),
        (["sacn", "HONEST"], "invalid choice: 'sacn'"),
        (["fit", "nowhere", "--out", "d"], "UPDATES_DIR=nowhere: is no folder"),
        (["fit", ".", "--out", "d"], "UPDATES_DIR=.: holds no file that ends in .safetensors, "),
        (["fit", "HONEST", "--out", "."], "--out=.: must be a file in a folder that exists"),
        (["fit", "HONEST", "--out", "no/d"], "--out=no/d: must be a file in a folder that exists"),
        (["fit", "HONEST", "--out", "d", "--scorer", "vae"], "invalid choice: 'vae'"),
        (["fit", "HONEST", "--out", "d", "--quantile", "2"], "--quantile=2.0: must lie between"),
        (["fit", "HONEST", "--out", "d", "--quantile", "nan"], "--quantile=nan: must lie between"),
        (["fit", "HONEST", "--out", "d", "--quantile", "x"], "argument --quantile: invalid float"),
        (["fit", "HONEST", "--out", "d", "--sketch", "0"], "--sketch=0: must be a whole number"),
        (
            ["fit", "HONEST", "--out", "d", "--sketch", "9", "--scorer", "norm"],
            "--sketch=9: norm needs none",
        ),
        (["fit", "HONEST", "--out", "d", "--seed", "-1"], "--seed=-1: must be a whole number, 0"),
        (["fit", "HONEST", "--out", "d", "--global", "g.pth"], "--global=g.pth: cannot be opened"),
        (["scan", "nowhere", "--detector", "DETECTOR"], "UPDATES_DIR=nowhere: is no folder"),
        (["scan", "HONEST", "--detector", "nowhere"], "--detector=nowhere: cannot be opened: No"),
        (["scan", "HONEST", "--detector", "."], "--detector=.: is a folder"),
        (["scan", "HONEST", "--detector", "text"], "--detector=text: is no detector file, or a"),
        (["scan", "HONEST", "--detector", "model"], "--detector=model: is no detector file, or a"),
        (["scan", "HONEST", "--detector", "bare"], "--detector=bare: does not say which tensors"),
        (
            ["scan", "HONEST", "--detector", "DETECTOR", "--threshold", "nan"],
            "--threshold=nan: must be a finite number",
        ),
        (
            ["scan", "HONEST", "--detector", "DETECTOR", "--out", "text"],
            "text: File exists",
        ),
    ],
)
def test_one_line_says_what_is_wrong(said, honest, detector, here, arguments, reason):
    from fedexp.detection.fitted import Fitted

    (here / "text").write_text("hello")
    save_file({"a": torch.ones(3)}, here / "model")
    (here / "bare").write_bytes(Fitted.from_bytes(detector.read_bytes()).to_bytes())
    given = {"HONEST": honest, "DETECTOR": detector}
    code, out, err = said(*(given.get(a, a) for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("fedexp: ")
    assert reason in err
    assert not (here / "d").exists()


def test_help_names_every_option(said):
    for action, options in {
        "fit": ("--out", "--scorer", "--quantile", "--sketch", "--seed", "--include-malicious"),
        "scan": ("--detector", "--threshold", "--out"),
    }.items():
        code, out, _ = said(action, "--help")
        assert code == 0
        assert all(option in out for option in (*options, "--global", "UPDATES_DIR"))


# The picture and the figures behind it.


def test_auc_by_hand():
    from fedexp.reporting.detection import area_under_curve

    malicious = np.array([True, True, False, False])
    # Pairs (malicious, honest) that are in order: 3 > 1, 3 > 2, 1.5 > 1; not 1.5 > 2.
    assert area_under_curve(malicious, np.array([3, 1.5, 1, 2])) == 0.75
    assert area_under_curve(malicious, np.array([np.inf, np.nan, 1, 2])) == 1.0
    assert np.isnan(area_under_curve(np.array([True, True]), np.array([1.0, 2.0])))


@pytest.mark.parametrize("high", [4.0, 4000.0])
def test_no_bar_lies_across_the_threshold(high):
    from fedexp.reporting.detection import Scored, scan_figure, scan_table

    scores = [1.0, 1.1, 1.9, 2.1, high]
    rows = [Scored(f"{s}.pth", 1, 1, s > 2, s, s > 2) for s in scores]
    figure = scan_figure(scan_table(rows), 2.0, "")
    bars = [bar for bar in figure.axes[0].patches if bar.get_height()]
    assert sum(bar.get_height() for bar in bars) == len(scores)
    for bar in bars:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        assert right <= 2 + 1e-9 or left >= 2 - 1e-9


@pytest.mark.parametrize("scores", [[0.0], [3.0, 3.0], [float("inf"), float("nan")]])
def test_a_picture_of_next_to_nothing(tmp_path, scores):
    from fedexp.reporting.detection import Scored, write_scan

    rows = [Scored("a.pth", None, None, None, s, s > 1) for s in scores]
    text = write_scan(rows, [], 1.0, tmp_path, "")
    assert is_picture(tmp_path / "histogram.png")
    assert f"of {len(scores)} updates lie above the threshold 1." in text
