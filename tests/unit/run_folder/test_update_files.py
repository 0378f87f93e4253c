"""Update files that a run writes, and the layout of the vectors in them."""

import csv

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fedexp.core.checks import InputError
from fedexp.core.flat import FlatModel, vector_of
from fedexp.core.types import Sent, Updates
from fedexp.run_folder.update_files import Layout, NoUpdates, UpdateWriter, update_record
from tests.support.updates_on_disk import LAYOUT, random_updates, write


def index_of(folder):
    with open(folder / "updates" / "index.csv", newline="") as file:
        return list(csv.DictReader(file))


class Mixed(nn.Module):
    """Parameters after a buffer, a frozen one, and a count: all that can move a vector about."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Parameter(torch.zeros(5), requires_grad=False)
        self.last = nn.Linear(3, 2)


def test_the_layout_of_a_module_is_that_of_its_vector():
    module, layout = Mixed(), Layout.of(Mixed())
    assert layout.names[-2:] == ("norm.running_mean", "norm.running_var")
    vector = torch.arange(float(layout.d))
    assert layout.d == len(vector_of(module))
    model = FlatModel(module, torch.device("cpu"))
    model.load(vector)
    state = model.module.state_dict()
    for name, tensor in layout.split(vector).items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(layout.join(state), vector)
    assert Layout.from_json(layout.to_json()) == layout


def test_what_is_sent_beside_the_delta_has_a_place_of_its_own():
    row = LAYOUT.beside((Sent("control"), Sent("steps", numbers=1)))
    assert row.d == 2 * LAYOUT.d + 1
    tensors = row.split(torch.arange(float(row.d)))
    assert tensors.keys() == {"weight", "bias", "control", "steps"}
    assert tensors["control"].tolist() == list(range(8, 16))
    assert tensors["steps"].tolist() == [16.0]
    assert LAYOUT.beside(()) == LAYOUT
    with pytest.raises(InputError, match="sends=bias: the model has a tensor of that name"):
        LAYOUT.beside((Sent("bias"),))


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"bias": torch.ones(2), "weight": torch.ones(2, 3)}, ""),
        ({"weight": torch.ones(2, 3)}, "holds 6 numbers, not 8: lacks 'bias'"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, "its 'weight' is 3 x 2, not 2 x 3"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "x": torch.tensor(1.0)},
            "holds 9 numbers, not 8: has 'x', which is not expected",
        ),
    ],
)
def test_what_sets_tensors_apart_from_a_layout(tensors, problem):
    assert LAYOUT.difference(Layout.of_tensors(tensors)) == problem


def test_both_kinds_hold_the_rows_under_their_names(tmp_path):
    sent = random_updates(first_client=4)
    UpdateWriter(tmp_path, LAYOUT, ("safetensors", "pth")).write(1, sent, [False, True, False])
    for k, client in enumerate((4, 5, 6)):
        stem = tmp_path / "updates" / "round-000001" / f"client-{client:05d}"
        for tensors in (
            load_file(stem.with_suffix(".safetensors")),
            torch.load(stem.with_suffix(".pth"), weights_only=True),
        ):
            assert {n: tuple(t.shape) for n, t in tensors.items()} == dict(LAYOUT.unordered)
            assert torch.equal(tensors["weight"].reshape(-1), sent.matrix[k, :6])
            assert torch.equal(tensors["bias"], sent.matrix[k, 6:])
        assert stem.with_suffix(".pth").stat().st_size < 3000  # not the storage of all rows
    rows = index_of(tmp_path)
    assert [row["client"] for row in rows] == ["4", "4", "5", "5", "6", "6"]
    assert [row["malicious"] for row in rows] == ["0", "0", "1", "1", "0", "0"]
    assert [row["num_examples"] for row in rows][::2] == ["1", "2", "3"]
    assert float(rows[0]["norm"]) == pytest.approx(float(sent.matrix[0].double().norm()))


def test_a_mixture_of_clients_is_not_a_client(tmp_path):
    sent = Updates(torch.ones(1, 8), (-2,), torch.ones(1).double())
    UpdateWriter(tmp_path, LAYOUT, ("pth",)).write(1, sent, [False])
    assert index_of(tmp_path)[0]["file"] == "round-000001/mixture-00002.pth"


def test_a_killed_round_is_forgotten_and_the_record_goes_on_the_same(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        for number in (1, 2, 3):
            writer = UpdateWriter(folder, LAYOUT, ("safetensors", "pth"))
            writer.write(number, random_updates(seed=number), [True, False, False])
    index = killed / "updates" / "index.csv"
    index.write_bytes(index.read_bytes()[:-30])  # in the last row of round 3
    write(killed, "updates/round-000004/client-00000.pth", b"half")  # no row yet

    writer = UpdateWriter(killed, LAYOUT, ("safetensors", "pth"))
    writer.keep_until(1)
    assert {p.name for p in (killed / "updates").iterdir()} == {"index.csv", "round-000001"}
    assert {row["round"] for row in index_of(killed)} == {"1"}
    for number in (2, 3):
        writer.write(number, random_updates(seed=number), [True, False, False])
    for path in sorted((whole / "updates").rglob("*.*")):
        assert path.read_bytes() == (killed / path.relative_to(whole)).read_bytes(), path
    writer.keep_until(0)
    assert [p.name for p in (killed / "updates").iterdir()] == ["index.csv"]
    assert index_of(killed) == []


def test_what_record_updates_may_say(tmp_path):
    module = nn.Linear(3, 2)
    nothing = update_record(False, tmp_path, module)
    assert isinstance(nothing, NoUpdates)
    nothing.write(1, random_updates(), [False] * 3)
    nothing.keep_until(0)
    UpdateWriter(tmp_path, LAYOUT, ("pth",)).keep_until(0)  # nothing was written yet
    assert list(tmp_path.iterdir()) == []
    for value, endings in [(True, {".safetensors", ".pth"}), ("pth", {".pth"})]:
        folder = tmp_path / str(value)
        update_record(value, folder, module).write(1, random_updates(), [False] * 3)
        assert {p.suffix for p in folder.rglob("client-*")} == endings
    for value in ("json", ["pth"], None):
        with pytest.raises(InputError, match=r"^record_updates=.*: Allowed: false, true, safeten"):
            update_record(value, tmp_path, module)
