"""Findings come back as they were written, and a crash leaves no half of them."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedexp.core.checks import InputError
from fedexp.core.findings import Figure, Findings
from fedexp.run_folder import findings
from fedexp.run_folder.findings import add_to_summary, read_findings, write_findings

NODE = {"_target_": "fedexp.leakage.updates.inversion.UpdateInversion", "lr": 1e-05, "rounds": [1]}
FIGURES = (
    Figure("reconstruction", 3, 0, "psnr_db", 0.1 + 0.2),
    Figure('odd, "quoted"\nname ±', 3, 1, "psnr_db", math.nan),
    Figure("noise", 0, 2, "mse", np.float32(0.5)),  # type: ignore[arg-type]
)
ARRAYS = {
    "targets": np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3),
    "round": np.array([3, 3]),
}


def found(**changes: Any) -> Findings:
    parts: dict[str, Any] = {
        "figures": FIGURES,
        "headline": {"psnr_db": np.float32(0.5), "auc": math.nan},
        "arrays": ARRAYS,
        "conclusions": ["One.", "Two ±."],
        "adversary": "A server.",
    }
    return Findings(**{**parts, **changes})


def test_findings_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_findings(tmp_path, "geiping", NODE, found(), seconds=1.23456)
    assert sorted(path.name for path in (tmp_path / "leakage" / "geiping").iterdir()) == [
        "figures.csv",
        "findings.json",
        "pictures.npz",
    ]
    (study,) = read_findings(tmp_path)
    assert (study.name, study.study, study.settings) == ("geiping", "UpdateInversion", NODE)
    assert (study.conclusions, study.adversary) == (("One.", "Two ±."), "A server.")
    assert study.seconds == 1.235
    assert study.headline["psnr_db"] == 0.5
    assert math.isnan(study.headline["auc"])
    assert study.figures["subject"] == [figure.subject for figure in FIGURES]
    assert study.figures["round"] == [3, 3, 0]
    assert study.figures["target"] == [0, 1, 2]
    assert study.figures["metric"] == ["psnr_db", "psnr_db", "mse"]
    assert study.figures["value"][0] == 0.1 + 0.2  # to the last bit
    assert math.isnan(study.figures["value"][1])
    assert study.figures["value"][2] == 0.5
    assert study.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert study.arrays[name].dtype == array.dtype
        assert np.array_equal(study.arrays[name], array)


def test_studies_of_a_run_are_read_by_name(tmp_path: Path) -> None:
    assert read_findings(tmp_path) == ()
    for name in ("lira", "dlg"):
        write_findings(tmp_path, name, NODE, found(), 1.0)
    assert [study.name for study in read_findings(tmp_path)] == ["dlg", "lira"]


def test_new_findings_take_the_place_of_the_old(tmp_path: Path) -> None:
    write_findings(tmp_path, "dlg", NODE, found(), 1.0)
    write_findings(tmp_path, "dlg", NODE, found(figures=FIGURES[:1], arrays={}), 1.0)
    (study,) = read_findings(tmp_path)
    assert len(study.figures["value"]) == 1
    assert study.arrays == {}


@pytest.mark.parametrize("breaks_at", ["figures.csv", "pictures.npz", "findings.json"])
def test_a_crash_leaves_no_findings_rather_than_mixed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks_at: str
) -> None:
    write_findings(tmp_path, "dlg", NODE, found(), 1.0)
    write = findings.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == breaks_at:
            raise OSError("no space left on device")
        write(path, content)

    monkeypatch.setattr(findings, "write_atomically", full)
    with pytest.raises(OSError, match="no space"):
        write_findings(tmp_path, "dlg", NODE, found(conclusions=["New."]), 1.0)
    assert read_findings(tmp_path) == ()


def test_python_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    objects = {"targets": np.array([{"a": 1}], dtype=object)}
    with pytest.raises(ValueError, match="targets"):
        write_findings(tmp_path, "dlg", NODE, found(arrays=objects), 1.0)
    assert not (tmp_path / "leakage").exists()

    write_findings(tmp_path, "dlg", NODE, found(), 1.0)
    archive = io.BytesIO()
    np.savez(archive, **objects)  # pickled: what somebody else's run folder might hold
    (tmp_path / "leakage" / "dlg" / "pictures.npz").write_bytes(archive.getvalue())
    (study,) = read_findings(tmp_path)
    with pytest.raises(InputError, match=r"pictures\.npz: is not a file of arrays"):
        _ = study.arrays


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("findings.json", '{"name": '),
        ("findings.json", "[]"),
        ("findings.json", '{"name": "dlg"}'),
        ("figures.csv", ""),
        ("figures.csv", "subject,round\na,1\n"),
        ("figures.csv", "subject,round,target,metric,value\na,1,0,psnr_db\n"),
        ("figures.csv", "subject,round,target,metric,value\na,first,0,psnr_db,1.0\n"),
        ("pictures.npz", "no archive"),
        ("pictures.npz", ""),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, name: str, content: str) -> None:
    write_findings(tmp_path, "dlg", NODE, found(), 1.0)
    (tmp_path / "leakage" / "dlg" / name).write_text(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        _ = [(study.arrays, study.figures) for study in read_findings(tmp_path)]
    assert "\n" not in str(caught.value)


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    write_findings(tmp_path, "dlg", NODE, found(), 1.0)
    (tmp_path / "leakage" / "dlg" / "figures.csv").unlink()
    (study,) = read_findings(tmp_path)
    with pytest.raises(InputError, match=r"figures\.csv: is not there"):
        _ = study.figures


def test_headlines_are_added_to_the_summary_and_nothing_else_moves(tmp_path: Path) -> None:
    summary = {"status": "complete", "final": {"test": {"accuracy": 0.1 + 0.2}}, "error": None}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    add_to_summary(tmp_path, "dlg", {"psnr_db": np.float64(1.5), "ssim": math.nan})
    add_to_summary(tmp_path, "lira", {"auc": np.float32(0.5)})  # type: ignore[dict-item]
    add_to_summary(tmp_path, "dlg", {"psnr_db": 2.5})
    after = json.loads((tmp_path / "summary.json").read_text())
    assert after.pop("leakage") == {"dlg": {"psnr_db": 2.5}, "lira": {"auc": 0.5}}
    assert after == summary
    assert list(after) == list(summary)
    add_to_summary(tmp_path, "dlg", {"psnr_db": math.nan})
    assert json.loads((tmp_path / "summary.json").read_text())["leakage"]["dlg"] == {
        "psnr_db": None
    }


def test_a_folder_without_a_summary_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no summary\.json"):
        add_to_summary(tmp_path, "dlg", {})


def test_reading_needs_neither_torch_nor_pandas() -> None:
    code = "import sys, fedexp.run_folder.findings; print({'torch', 'pandas'} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_pictures_that_unpack_to_more_than_is_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = {"targets": np.zeros(10_000, np.uint8)}
    write_findings(tmp_path, "geiping", NODE, found(arrays=zeros), seconds=1.0)
    (study,) = read_findings(tmp_path)
    monkeypatch.setattr(findings, "PICTURE_BYTES", 5_000)  # its zip has a tenth of that
    with pytest.raises(InputError, match="unpacks to 10,"):
        study.arrays  # noqa: B018


def test_a_name_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no name for a study"):
        write_findings(tmp_path, "../x", NODE, found(), seconds=1.0)
    write_findings(tmp_path, "geiping", NODE, found(), seconds=1.0)
    (tmp_path / "leakage" / "geiping").rename(tmp_path / "leakage" / "lira")
    with pytest.raises(InputError, match="is of 'geiping', not of its folder's"):
        read_findings(tmp_path)
