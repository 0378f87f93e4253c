"""Reading folders of updates: those of a run, and those that people share."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from fedexp.core.checks import InputError
from fedexp.run_folder import update_folder
from fedexp.run_folder.untrusted import tensors_in
from fedexp.run_folder.update_files import Layout, UpdateWriter
from fedexp.run_folder.update_folder import batches, find_updates, reader
from tests.support.updates_on_disk import LAYOUT, ROW, TENSORS, pth, random_updates, read_all, write


def test_what_was_written_is_read_round_by_round_and_once(tmp_path):
    writer = UpdateWriter(tmp_path, LAYOUT, ("safetensors", "pth"))
    sent = {number: random_updates(seed=number) for number in (1, 2)}
    for number, of_round in sent.items():
        writer.write(number, of_round, [False, True, False])
    for folder in (tmp_path, tmp_path / "updates"):
        found = find_updates(folder)
        assert found.knows_truth
        read = list(batches(found, LAYOUT, reader(None)))
        for number, batch in zip((1, 2), read, strict=True):
            assert torch.equal(batch.matrix, sent[number].matrix)
            assert [(f.round, f.client, f.malicious) for f in batch.files] == [
                (number, 0, False),
                (number, 1, True),
                (number, 2, False),
            ]
            assert {f.path.suffix for f in batch.files} == {".safetensors"}
        assert (found.twins, found.unusable) == (6, [])


def test_the_order_of_the_vector_survives_the_file(tmp_path):
    UpdateWriter(tmp_path, LAYOUT, ("safetensors",)).write(1, random_updates(1), [False])
    content = (tmp_path / "updates/round-000001/client-00000.safetensors").read_bytes()
    assert Layout.of_tensors(tensors_in(content, ".safetensors")) == LAYOUT


def test_a_twin_that_differs_is_an_update_of_its_own(tmp_path):
    UpdateWriter(tmp_path, LAYOUT, ("safetensors",)).write(1, random_updates(1), [False])
    write(tmp_path, "updates/round-000001/client-00000.pth", pth(LAYOUT.split(torch.ones(8))))
    rows, unusable, found = read_all(tmp_path)
    assert (len(rows), unusable, found.twins) == (2, {}, 0)


def test_files_that_disagree_with_the_index(tmp_path):
    UpdateWriter(tmp_path, LAYOUT, ("pth",)).write(1, random_updates(), [False] * 3)
    place = tmp_path / "updates" / "round-000001"
    shutil.copy(place / "client-00001.pth", place / "client-00000.pth")
    (place / "client-00002.pth").unlink()
    rows, unusable, _ = read_all(tmp_path)
    assert list(rows) == ["round-000001/client-00001.pth"]
    assert unusable == {
        "round-000001/client-00000.pth": "its SHA-256 is not the one in index.csv",
        "round-000001/client-00002.pth": "is in index.csv, but not there",
    }


def test_a_large_round_comes_in_parts_of_equal_size(tmp_path, monkeypatch):
    monkeypatch.setattr(update_folder, "BATCH_BYTES", 4 * 8 * 4)  # 4 rows
    writer = UpdateWriter(tmp_path, LAYOUT, ("pth", "safetensors"))
    writer.write(1, random_updates(n=9), [False] * 9)
    read = list(batches(find_updates(tmp_path), LAYOUT, reader(None)))
    assert [len(batch.files) for batch in read] == [4, 4, 1]
    assert torch.equal(torch.cat([b.matrix for b in read]), random_updates(n=9).matrix)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", save(TENSORS)),
        ("a.pth", pth(TENSORS)),
        ("a.pt", pth(TENSORS)),
        ("a.PTH", pth(TENSORS)),
        ("a.pth", pth(TENSORS, _use_new_zipfile_serialization=False)),
        ("a.pth", pth({"state_dict": TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}})),
        ("a.pth", pth({"model_state_dict": TENSORS, "arch": "cnn"})),
        ("a.pth", pth({k: nn.Parameter(t) for k, t in TENSORS.items()})),
        ("a.pth", pth({**TENSORS, "num_batches_tracked": torch.tensor(3)})),
        ("a.pth", pth({k: t.double() for k, t in TENSORS.items()})),
        ("a.pth", pth({k: t.half() for k, t in TENSORS.items()})),
        ("a.safetensors", save({k: t.bfloat16() for k, t in TENSORS.items()})),
        ("a.pth", pth({"bias": TENSORS["bias"], "weight": TENSORS["weight"].T.contiguous().T})),
    ],
)
def test_what_people_share(tmp_path, name, content):
    write(tmp_path, name, content)
    rows, unusable, _ = read_all(tmp_path)
    assert unusable == {}
    assert rows[name].dtype == torch.float32
    assert torch.equal(rows[name], ROW)


def test_rounds_and_clients_from_names(tmp_path):
    content = pth(TENSORS)
    names = {
        "a.pth": (None, None),
        "client-7.pth": (None, 7),
        "round-2/client_08.pth": (2, 8),
        "round-10/late/round-x/Client 9.pth": (10, 9),
        "Round_3/round-00004/b.pth": (4, None),
    }
    for name in names:
        write(tmp_path, name, content)
    found = find_updates(tmp_path)
    assert {f.name: (f.round, f.client) for f in found.files} == names
    read = list(batches(found, LAYOUT, reader(None)))
    assert [[f.round for f in b.files] for b in read] == [[None, None], [2], [4], [10]]
    assert not found.knows_truth
    assert find_updates(tmp_path / "round-2").files[0].round == 2


def test_models_minus_the_global_model(tmp_path):
    weights = {"weight": torch.full((2, 3), 1e4 + 1e-3), "bias": torch.tensor([1.0, 2.0])}
    local = {k: t.double() + 1e-6 for k, t in weights.items()}
    write(tmp_path, "a.pth", pth({**local, "num_batches_tracked": torch.tensor(3)}))
    write(tmp_path, "b.pth", pth({"weight": weights["weight"]}))
    write(tmp_path, "c.pth", pth({k: t.half() for k, t in weights.items()}))
    write(tmp_path, "global.pth", pth(weights))
    baseline = tensors_in(pth(weights), ".pth")
    rows, unusable, _ = read_all(
        tmp_path, baseline=baseline, without=[tmp_path / "x" / ".." / "global.pth"]
    )
    assert set(rows) == {"a.pth", "c.pth"}
    torch.testing.assert_close(rows["a.pth"], torch.full((8,), 1e-6), rtol=1e-3, atol=0)
    assert rows["c.pth"][0] == weights["weight"][0, 0].half().float() - weights["weight"][0, 0]
    assert unusable == {"b.pth": "holds 6 numbers, not 8: lacks 'bias' (as in the global model)"}


def test_a_model_too_far_from_the_global_one(tmp_path):
    write(tmp_path, "a.pth", pth({k: torch.full_like(t, 3e38) for k, t in TENSORS.items()}))
    rows, unusable, _ = read_all(
        tmp_path, baseline={k: torch.full_like(t, -3e38) for k, t in TENSORS.items()}
    )
    assert rows == {}
    assert unusable == {"a.pth": "its 'weight' lies too far from the global model's"}


@pytest.mark.parametrize(
    "index",
    [
        b"\xff\xfe\0\0",
        b"a,b\n1,2\n",
        b"round,client,malicious,num_examples,norm,file,sha256\n1,x,0,1,1,a.pth," + b"0" * 64,
        b"round,client,malicious,num_examples,norm,file,sha256\n1,1,0,1,1,a.pth,00",
        b'round,"client',
    ],
)
def test_an_index_of_nonsense_says_nothing(tmp_path, index):
    write(tmp_path, "index.csv", index)
    write(tmp_path, "a.pth", pth(TENSORS))
    rows, unusable, found = read_all(tmp_path)
    assert (list(rows), unusable, found.knows_truth) == (["a.pth"], {}, False)


def test_a_run_that_kept_no_updates(tmp_path):
    write(tmp_path, "model.safetensors", save(TENSORS))
    write(tmp_path, "checkpoints/best.pt", pth(TENSORS))
    write(tmp_path, "config.yaml", b"seed: 0")
    with pytest.raises(InputError, match=r"kept no updates; make one with record_updates=true$"):
        find_updates(tmp_path)


def test_no_folder_and_no_file(tmp_path):
    with pytest.raises(InputError, match=r"^UPDATES_DIR=.*nowhere: is no folder$"):
        find_updates(Path(tmp_path / "nowhere"))
    write(tmp_path, "readme.txt", b"hello")
    with pytest.raises(InputError, match=r"holds no file that ends in \.safetensors, \.pth, \.pt$"):
        find_updates(tmp_path)
