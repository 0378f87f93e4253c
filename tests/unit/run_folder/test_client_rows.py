"""The columns of single clients: what comes back, also of what a kill or a stranger has left."""

import math
import struct
import zlib

import numpy as np
import pytest

from fedexp.core.checks import InputError
from fedexp.core.metric import Metric
from fedexp.run_folder.client_rows import (
    FILE,
    frame,
    is_of_a_client,
    read_tables,
    tables_in,
)
from fedexp.run_folder.estimates import MOST_ROWS, estimates
from fedexp.run_folder.reading import measured

ROWS = [
    *(Metric(2, "update", str(c), "norm", v) for c, v in ((3, 0.1), (11, math.inf), (-1, 1e-300))),
    *(Metric(2, "train", str(c), "loss", v) for c, v in ((3, 0.5), (11, math.nan), (-1, 2.0))),
    Metric(2, "test", "7", "accuracy", 0.25),
]


def back(content):
    return [row for table in tables_in(content) for row in table.rows()]


def test_every_number_comes_back_and_one_that_is_not_finite_as_none():
    found = back(frame(2, ROWS))
    assert [(r.round, r.scope, r.client, r.metric) for r in found] == [
        (r.round, r.scope, r.client, r.metric) for r in ROWS
    ]
    expected = [r.value if math.isfinite(r.value) else math.nan for r in ROWS]
    np.testing.assert_array_equal([r.value for r in found], expected)


def test_clients_of_whom_the_same_was_measured_share_a_table():
    first, second = tables_in(frame(2, ROWS))
    assert first.clients.tolist() == [3, 11, -1]
    assert list(first.columns) == [("update", "norm"), ("train", "loss")]
    assert second.clients.tolist() == [7]


def test_what_is_about_a_client_is_told_by_its_number():
    words = ("all", "mean", "007", "-0", "1" * 19, "1.5", "", "٣")
    assert not [word for word in words if is_of_a_client(Metric(1, "test", word, "x", 0.0))]
    assert all(is_of_a_client(Metric(1, "test", word, "x", 0.0)) for word in ("0", "12", "-3"))


def test_a_frame_that_a_kill_has_cut_is_as_if_it_were_not_there():
    whole, last = frame(1, ROWS[:1]), frame(2, ROWS)
    for kept in range(len(last)):
        assert len(back(whole + last[:kept])) == 1
    assert len(back(whole + last)) == 1 + len(ROWS)
    assert frame(3, []) == b""


def framed(head, columns=b""):
    body = zlib.compress(struct.pack("<I", len(head)) + head + columns)
    return struct.pack("<4sII", b"fxc1", len(body), zlib.crc32(body)) + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (frame(1, ROWS)[:20] + b"!" + frame(1, ROWS)[21:], "does not have its checksum"),
        (b"another file, of another kind", "no frame begins at byte 0"),
        (framed(b"{}"), "head is none"),
        (framed(b"[1"), "Expecting"),
        (framed(b'{"round": 1, "tables": [{"n": -1, "columns": []}]}'), "other numbers"),
        (framed(b'{"round": 1, "tables": [{"n": 9, "columns": []}]}'), "shorter than its head"),
        (
            framed(
                b'{"round": 1, "tables": [{"n": 1, "columns": [["a\\u001b", "b"]]}]}', bytes(16)
            ),
            "a word in it is none",
        ),
    ],
)
def test_a_broken_file_is_refused_by_its_name(tmp_path, content, words):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match=words) as refusal:
        read_tables(tmp_path)
    assert FILE in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("cut", [1, 7, len(frame(2, ROWS)) - 5])
def test_half_a_frame_is_damage_once_nobody_writes(tmp_path, cut):
    (tmp_path / FILE).write_bytes((frame(1, ROWS) + frame(2, ROWS))[:-cut])
    assert [table.round for table in read_tables(tmp_path)] == [1, 1]
    with pytest.raises(InputError, match=r"the frame at byte \d+ is cut off"):
        read_tables(tmp_path, complete=True)


def test_half_a_line_is_damage_once_nobody_writes(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "round,scope,client,metric,value\n1,test,all,loss,2.5\n1,test,all,accuracy,0.9"
    )
    assert [row[3] for row in measured(tmp_path, complete=False)] == ["loss"]
    with pytest.raises(InputError, match="its last line is cut off"):
        measured(tmp_path, complete=True)


def test_estimates_are_over_the_classes_that_test_has():
    counts = np.array([[0, 4], [2, 2], [4, 0], [0, 0]])
    (table,) = estimates({1: {"0": 0.5, "1": math.nan}}, counts)
    found = table.columns["test", "own_mix_accuracy"]
    assert found.tolist() == pytest.approx([math.nan, 0.5, 0.5, math.nan], nan_ok=True)


def test_estimates_of_too_many_clients_are_those_of_the_last_evaluation():
    counts = np.ones((MOST_ROWS // 2, 1), dtype=np.int64)
    recalls = {r: {"0": r / 10} for r in (1, 2, 3)} | {4: {"1": 0.5}}
    assert [table.round for table in estimates(dict(list(recalls.items())[:2]), counts)] == [1, 2]
    (last,) = estimates(recalls, counts)
    assert last.round == 3
    assert set(last.columns["test", "own_mix_accuracy"]) == {0.3}
