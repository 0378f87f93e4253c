"""thresholds.csv: what is written is read, and what nobody wrote is refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedexp.core.checks import InputError
from fedexp.core.thresholds import Bin
from fedexp.run_folder.thresholds import FILE, read_thresholds, write_thresholds

HEAD = "of,at_least,mean,positives,negatives\n"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    bins = [Bin("1", 0.5, 0.75, 4, 1), Bin("answer", 0.25, 0.5, 3, 2)]
    write_thresholds(tmp_path, bins)
    assert read_thresholds(tmp_path) == {"1": bins[:1], "answer": bins[1:]}
    write_thresholds(tmp_path, [])
    assert not (tmp_path / FILE).exists()
    assert read_thresholds(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "of,mean\n",
        HEAD + "1,0.5,0.5,1\n",
        HEAD + "1,0.5,nan,1,1\n",
        HEAD + "1,0.5,2,1,1\n",
        HEAD + "1,0.5,0.5,-1,2\n",
        HEAD + "1,0.5,0.5,0,0\n",
        HEAD + "../x,0.5,0.5,1,1\n",
        HEAD + "1,0.5,0.5,1e400,1\n",
        HEAD + f"1,0.5,0.5,{10**30},1\n",
        HEAD + "\udcff\n",
    ],
)
def test_what_no_run_wrote_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="thresholds") as caught:
        read_thresholds(tmp_path)
    assert "\n" not in str(caught.value)
