"""Arrays of a person's own: labels that would become others are refused."""

import numpy as np
import pytest

from fedexp.core.checks import InputError
from fedexp.data.arrays import Arrays

X = np.zeros((30, 4, 4), np.uint8)
Y = np.arange(30) % 3


def loaded(path, **arrays):
    np.savez(path, **{"x": X} | arrays)
    nobody = dict.fromkeys(("label", "site", "subject", "official"))
    shares = {"validation_share": 0.1, "test_share": 0.2, "split_seed": 0}
    return Arrays("a", str(path), **nobody, split="auto", **shares)(None)


def test_floats_that_are_no_whole_number_of_their_own(tmp_path):
    assert loaded(tmp_path / "a.npz", y=Y.astype(float)).class_names == ("0", "1", "2")
    for wrong in (1e300, 2.0**60, np.nan, 0.5):
        with pytest.raises(InputError, match=r"is .*, and no whole number or word"):
            loaded(tmp_path / "a.npz", y=Y * wrong)


def test_two_classes_have_two_names(tmp_path):
    with pytest.raises(InputError, match="class_names has a twice"):
        loaded(tmp_path / "a.npz", y=Y, class_names=np.array(["a", "b", "a"]))


def test_a_patient_called_nan_is_nobody(tmp_path):
    patients = np.where(Y, np.arange(30) // 10, np.nan).astype(str)
    dataset = loaded(tmp_path / "a.npz", y=Y, patient=patients)
    subjects = np.concatenate([part.subject.numpy() for part in dataset.parts.values()])
    assert sorted(set(subjects.tolist())) == [-1, 0, 1, 2]
    assert any("10 examples have no patient, as a.npz row 0" in r for r in dataset.remarks)


def test_channels_in_the_last_axis_are_not_taken_for_a_width(tmp_path):
    for shape in ((30, 8, 8, 4), (30, 8, 8, 2)):
        with pytest.raises(InputError, match=rf"x is \[30, 8, 8, {shape[3]}\]: .* 1 or 3\], or"):
            loaded(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=Y)
    for shape in ((30, 1, 8, 4), (30, 3, 2, 2), (30, 4, 8, 8)):
        dataset = loaded(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=Y)
        assert dataset.input_shape == shape[1:]
    assert loaded(tmp_path / "a.npz", x=np.zeros((30, 8, 4, 3)), y=Y).input_shape == (3, 8, 4)
