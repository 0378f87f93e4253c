"""Splits: nothing that belongs to a row is lost, and what is stored is told to the bit."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import fedexp
from fedexp.core.examples import Split
from fedexp.core.normalise import Normalisation

ROOT = Path(fedexp.__file__).parent


def numbered(n=6, divisor=255):
    """Row k holds k everywhere: image, class, site and subject."""
    k = torch.arange(n)
    x = k.to(torch.uint8).view(n, 1, 1, 1).expand(n, 2, 3, 3).clone()
    return Split(x, k.clone(), site=k + 100, subject=k + 200, divisor=divisor)


def names(split):
    """What each row says that it is, four times."""
    x = (split.as_floats().x[:, 0, 0, 0] * 255).round().long()
    return [
        x.tolist(),
        split.y.tolist(),
        (split.site - 100).tolist(),
        (split.subject - 200).tolist(),
    ]


def test_rows_take_everything_that_belongs_to_them_along():
    split = numbered()
    assert names(split.rows(torch.tensor([4, 1]))) == [[4, 1]] * 4
    assert names(split.rows(split.y > 3)) == [[4, 5]] * 4
    assert names(split.between(2, 4)) == [[2, 3]] * 4
    assert names(split.joined(split.between(0, 1))) == [[0, 1, 2, 3, 4, 5, 0]] * 4
    assert names(split.as_floats()) == names(split.to(torch.device("cpu"))) == [list(range(6))] * 4
    assert names(split.shared()) == [list(range(6))] * 4
    assert names(Normalisation.none()(split)) == [list(range(6))] * 4


def test_changed_examples_keep_their_site_and_subject():
    split = numbered()
    other = split.with_x(split.as_floats().x + 1).with_y(split.y * 0)
    assert other.site is split.site
    assert other.subject is split.subject
    assert (other.y == 0).all()
    swapped = split.with_rows(torch.tensor([1, 3]), other.rows(torch.tensor([0, 5])))
    assert swapped.y.tolist() == [0, 0, 2, 0, 4, 5]
    assert swapped.site.tolist() == split.site.tolist()


def test_whose_site_is_not_known_has_minus_one():
    split, unknown = numbered(2), Split(torch.zeros(1, 2, 3, 3), torch.tensor([9]))
    joined = split.joined(unknown)
    assert joined.site.tolist() == [100, 101, -1]
    assert joined.subject.tolist() == [200, 201, -1]
    assert unknown.joined(unknown).site is None
    assert (split.has_sites, unknown.has_sites, unknown.has_subjects) == (True, False, False)


def test_between_is_a_view_and_rows_are_a_copy():
    split = numbered()
    split.between(0, 2).x.fill_(77)
    split.rows(torch.arange(6)).x.fill_(1)
    assert split.x[:, 0, 0, 0].tolist() == [77, 77, 2, 3, 4, 5]


@pytest.mark.parametrize("divisor", [255, 16, 7, 100])
def test_bytes_become_the_floats_that_numpy_divides_them_to(divisor):
    every = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    split = Split(every, torch.zeros(256).long(), divisor=divisor)
    expected = torch.from_numpy(every.numpy() / np.float32(divisor))
    assert torch.equal(split.as_floats().x, expected)
    # And back, without a change.
    assert torch.equal(split.as_floats().stored_like(split).x, every)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_arranging_a_batch_gives_the_bits_of_scaling_everything(layout):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (50, 3, 5, 4), dtype=torch.uint8, generator=g)
    split = Split(x, torch.zeros(50).long(), divisor=255)
    scale = Normalisation.of(split)
    floats = torch.from_numpy(x.numpy() / np.float32(255))
    expected = (floats - scale.mean) / scale.deviation
    for part in (split, split.as_floats()):
        found = scale.arranged(part, layout)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=layout)
    assert torch.equal(scale.arranged(split.between(7, 9), layout), expected[7:9])


def test_normalisation_is_by_channel_of_images_and_by_feature_of_rows():
    g = torch.Generator().manual_seed(0)
    images, rows = torch.rand(40, 3, 5, 4, generator=g), 100 * torch.rand(40, 7, generator=g)
    for x, axes, shape in ((images, (0, 2, 3), (1, 3, 1, 1)), (rows, (0,), (1, 7))):
        scale = Normalisation.of(Split(x, torch.zeros(40).long()))
        assert scale.mean.shape == scale.deviation.shape == shape
        expected = x.double().numpy()
        assert scale.mean.flatten().numpy() == pytest.approx(expected.mean(axis=axes), rel=1e-5)
        deviation = expected.std(axis=axes, ddof=1)
        assert scale.deviation.flatten().numpy() == pytest.approx(deviation, rel=1e-5)


def test_a_channel_that_never_changes_becomes_zero_and_others_are_not_blown_up():
    constant = Split(torch.full((5, 3), 0.7), torch.zeros(5).long())
    grey = Split(torch.full((5, 2, 3, 3), 7, dtype=torch.uint8), constant.y, divisor=255)
    for split in (constant, grey):
        scale = Normalisation.of(split)
        assert (scale(split).x == 0).all()
        assert (scale.x(split.as_floats().x + 0.25) - 0.25).abs().max() < 1e-6
    assert (Normalisation.of(grey.between(0, 1))(grey).x == 0).all()
    assert (Normalisation.of(constant.between(0, 1))(constant).x == 0).all()


def test_new_values_stay_stored_where_bytes_can_hold_them():
    split = numbered()
    rows = torch.tensor([0, 2])
    own = split.rows(rows).as_floats()
    white = own.x.clone()
    white[:, :, 0, 0] = 1.0
    stamped = split.with_rows(rows, own.with_x(white))
    assert stamped.x.dtype == torch.uint8
    assert stamped.x[0, 0, 0, 0] == stamped.x[2, 1, 0, 0] == 255
    assert torch.equal(stamped.x[[1, 3, 4, 5]], split.x[[1, 3, 4, 5]])
    assert split.x[0, 0, 0, 0] == 0  # what was given is as it was


def test_and_become_float32_where_they_cannot():
    split = numbered()
    rows = torch.tensor([5])
    own = split.rows(rows).as_floats()
    changed = split.with_rows(rows, own.with_x(own.x + 0.1234))
    assert changed.x.dtype == torch.float32
    assert changed.divisor == 1
    assert torch.equal(changed.x[5:], own.x + 0.1234)
    assert torch.equal(changed.x[:5], split.as_floats().x[:5])
    for impossible in (-0.5, 1.5, float("nan")):
        other = own.with_x(torch.full_like(own.x, impossible))
        assert other.stored_like(split) is other


def test_parts_stored_differently_are_joined_as_floats():
    fine, coarse = numbered(3), numbered(2, divisor=16)
    joined = fine.joined(coarse)
    assert joined.x.dtype == torch.float32
    assert torch.equal(joined.x, torch.cat([fine.as_floats().x, coarse.as_floats().x]))
    assert fine.joined(fine).x.dtype == torch.uint8


def test_bytes_without_their_divisor_are_not_scaled():
    split = numbered()
    with pytest.raises(TypeError, match="as_floats"):
        Normalisation.of(split).x(split.x)


# Where a `Split(` may stand: where data are made. Anywhere else a site or a subject would be lost.
MAKERS = {
    "core/examples.py",  # its own methods
    "data/assemble.py",  # from a publisher's arrays
    "data/own.py",  # from the files of one's own, whose sites and subjects it reads
    "leakage/audit/examples.py",  # canaries, which nobody was ever examined for
}


def calls(name):
    """Files of ours that call a function or method of this name."""
    found = set()
    for path in ROOT.rglob("*.py"):
        source = path.read_text()
        if f"{name}(" not in source:  # to read a file's tree takes much longer
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                called = node.func
                named = called.attr if isinstance(called, ast.Attribute) else None
                named = called.id if isinstance(called, ast.Name) else named
                if named == name:
                    found.add(path.relative_to(ROOT).as_posix())
    return found


def test_splits_are_made_where_data_are_made_and_nowhere_else():
    assert calls("Split") == MAKERS


@pytest.mark.parametrize(
    "loss", ["cross_entropy", "binary_cross_entropy_with_logits", "CrossEntropyLoss", "nll_loss"]
)
def test_nothing_but_a_task_knows_a_loss(loss):
    assert {Path(name).parent.name for name in calls(loss)} <= {"tasks"}
