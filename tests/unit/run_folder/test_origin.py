"""What a run was made of is compared with what it would go on with."""

import json
from dataclasses import replace

import pytest
import torch

from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset, Split
from fedexp.core.origin import Origin
from fedexp.run_folder.origin import (
    note_stretch,
    refuse_other_origin,
    remarks_on_origin,
    write_origin,
)

HERE = Origin("d" * 64, "p" * 64, {"mine.model": "s" * 64}, {"torch": "2.10", "kernels": "AVX2"})
THERE = replace(HERE, machine={"torch": "2.10", "kernels": "AVX512"})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(HERE, data="e" * 64), "other data"),
        (replace(HERE, partition="q" * 64), "another partition"),
        (replace(HERE, sources={"mine.model": "t" * 64}), "other code of mine.model"),
    ],
)
def test_another_experiment_is_refused(tmp_path, other, words):
    write_origin(tmp_path, HERE)
    refuse_other_origin(tmp_path, THERE)
    with pytest.raises(InputError, match=words) as refusal:
        refuse_other_origin(tmp_path, other)
    assert "\n" not in str(refusal.value)


def test_a_run_of_an_older_version_is_known_by_its_partition(tmp_path):
    (tmp_path / "partition.json").write_text(json.dumps({"hash": HERE.partition}))
    refuse_other_origin(tmp_path, HERE)
    with pytest.raises(InputError, match="another partition"):
        refuse_other_origin(tmp_path, replace(HERE, partition="q" * 64))
    note_stretch(tmp_path, HERE, 4)
    (remark,) = remarks_on_origin(tmp_path)
    assert "from round 5 on: on a machine that is not known" in remark


def test_another_machine_is_told_by_round(tmp_path):
    write_origin(tmp_path, HERE)
    note_stretch(tmp_path, HERE, 2)
    assert remarks_on_origin(tmp_path) == []
    note_stretch(tmp_path, THERE, 3)
    (remark,) = remarks_on_origin(tmp_path)
    assert remark.startswith("from round 4 on: kernels AVX2 -> AVX512; ")
    note_stretch(tmp_path, HERE, 7)
    assert [r.partition(" on: ")[0] for r in remarks_on_origin(tmp_path)] == [
        "from round 4",
        "from round 8",
    ]
    # Gone back before round 4: what was computed there is not in the run any more.
    note_stretch(tmp_path, HERE, 1)
    assert remarks_on_origin(tmp_path) == []


def _dataset():
    x = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    part = Split(x, torch.tensor([0, 1, 0, 1, 0, 1]), divisor=255.0)
    return Dataset("toy", part, part.between(0, 3), part.between(3, 6), ("a", "b"))


def test_the_digest_sees_every_value_and_nothing_else():
    toy = _dataset()
    assert toy.digest == _dataset().digest
    others = [replace(toy, class_names=("b", "a"))]
    for name, part in toy.parts.items():
        x, y = part.x.clone(), part.y.clone()
        x[-1, 0, 0, 1] += 1
        y[0] = 1 - y[0]
        changed = [replace(part, x=x), part.with_y(y), replace(part, divisor=100.0)]
        changed += [part.between(0, len(part) - 1), replace(part, site=torch.zeros_like(part.y))]
        others += [replace(toy, **{name: other}) for other in changed]
    digests = {other.digest for other in others}
    assert len(digests) == len(others)
    assert toy.digest not in digests
