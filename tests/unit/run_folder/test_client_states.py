"""What clients keep, in a run's folder."""

import hashlib
import subprocess
import sys

import pytest
import torch

from fedexp.federation.client_state import InMemory, keep, of_part, read
from fedexp.run_folder.client_states import ClientStates


def state(value, d=3):
    return {"control": torch.full((d,), float(value)), "count": torch.tensor(int(value))}


def numbers(clients):
    return {
        c: {n: (t.dtype, t.tolist()) for n, t in kept.read().items()} for c, kept in clients.items()
    }


@pytest.fixture(params=["in memory", "on disk"])
def store(request, tmp_path):
    return InMemory() if request.param == "in memory" else ClientStates(tmp_path)


def test_the_newest_state_of_every_client_is_read_back(store):
    first = store.keep(1, {}, {0: state(1), 7: state(2)})
    second = store.keep(2, first, {7: state(3), 4: state(4)})
    assert numbers(first) == numbers(InMemory().keep(1, {}, {0: state(1), 7: state(2)}))
    expected = {0: state(1), 7: state(3), 4: state(4)}
    assert numbers(second) == numbers(InMemory().keep(1, {}, expected))


def test_what_is_kept_is_a_copy(store):
    rows = torch.zeros(2, 3)
    kept = store.keep(1, {}, {0: {"momentum": rows[0]}, 1: {"momentum": rows[1]}})
    rows += 5
    assert kept[0].read()["momentum"].tolist() == [0.0] * 3
    kept[0].read()["momentum"].untyped_storage()


def test_one_client_pins_no_other_clients_numbers():
    rows = torch.zeros(1000, 3)
    kept = InMemory().keep(1, {}, {0: {"momentum": rows[0]}})
    assert kept[0].read()["momentum"].untyped_storage().nbytes() == 3 * 4


def test_the_same_round_again_is_the_same_file(tmp_path):
    store = ClientStates(tmp_path)
    first = store.files(store.keep(3, {}, {1: state(1), 0: state(2)}))
    content = (tmp_path / "client_state" / "round-000003.safetensors").read_bytes()
    again = store.files(store.keep(3, {}, {1: state(1), 0: state(2)}))
    assert first == again
    assert (tmp_path / "client_state" / "round-000003.safetensors").read_bytes() == content


def test_clients_that_keep_nothing_leave_no_file(tmp_path):
    store = ClientStates(tmp_path)
    clients = keep(store, 1, {}, (0, 1), algorithm=({}, {}), worker_momentum=({}, {}))
    assert clients == {}
    assert not store.folder.exists()
    assert store.files({}) == {}


def test_the_parts_of_a_state_are_put_together_and_taken_apart(store):
    a, m = {"control": torch.ones(2)}, {"momentum": torch.zeros(2)}
    clients = keep(store, 1, {}, (5, 6), algorithm=(a, {}), worker_momentum=(m, m))
    both, one = read(clients, 5), read(clients, 6)
    assert torch.equal(of_part(both, "algorithm")["control"], a["control"])
    assert of_part(both, "worker_momentum").keys() == {"momentum"}
    assert of_part(one, "algorithm") == {}
    assert read(clients, 9) == {}


def test_opened_again_from_what_was_noted(tmp_path):
    store = ClientStates(tmp_path)
    first = store.keep(1, {}, {0: state(1), 7: state(2)})
    second = store.keep(2, first, {7: state(3)})
    third = store.keep(12, second, {8: state(4)})
    assert store.files(second).keys() == {1, 2}
    for clients in (first, second, third):
        assert numbers(ClientStates(tmp_path).open(store.files(clients))) == numbers(clients)


def test_a_damaged_or_missing_file_is_noticed(tmp_path):
    store = ClientStates(tmp_path)
    files = store.files(store.keep(1, {}, {0: state(1)}))
    path = store.folder / "round-000001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"round-000001.safetensors does not have the SHA-256"):
        store.open(files)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        store.open(files)


def test_files_that_nobody_needs_are_removed(tmp_path):
    store = ClientStates(tmp_path)
    clients = {}
    for round in (1, 2, 3):
        clients = store.keep(round, clients, {round: state(round)})
    store.keep_only({1, 3})
    assert sorted(p.name for p in store.folder.iterdir()) == [
        "round-000001.safetensors",
        "round-000003.safetensors",
    ]
    store.keep_only(())
    assert not store.folder.exists()
    store.keep_only(())


GROWTH = """
import resource, tempfile, torch
from pathlib import Path
from fedexp.run_folder.client_states import ClientStates

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

clients, before = {}, 0.0
with tempfile.TemporaryDirectory() as folder:
    store = ClientStates(Path(folder))
    for round in range(1, 61):  # 20 others each time, of 100 kB each: 120 MB
        cohort = range(20 * (round - 1), 20 * round)
        states = {c: {"control": torch.full((25_000,), float(c))} for c in cohort}
        clients = store.keep(round, clients, states)
        assert clients[10 * round].read()["control"][0] == 10 * round
        store.keep_only(store.files(clients).keys())
        before = before or peak()
print(peak() - before, len(clients))
"""


def test_memory_grows_with_the_cohort_and_not_with_the_clients():
    answer = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    growth, clients = answer.stdout.split()
    assert int(clients) == 1200
    assert float(growth) < 40  # megabytes, of 120


def test_states_that_lie_elsewhere_cannot_be_noted(tmp_path):
    elsewhere = InMemory().keep(1, {}, {0: state(1)})
    with pytest.raises(ValueError, match=r"Experiment.store=ClientStates"):
        ClientStates(tmp_path).files(elsewhere)
    other = ClientStates(tmp_path / "other")
    other.run.mkdir()
    with pytest.raises(ValueError, match="does not lie in"):
        ClientStates(tmp_path).files(other.keep(1, {}, {0: state(1)}))


def test_a_file_whose_digest_was_noted_may_hold_no_states_all_the_same(tmp_path):
    folder = ClientStates(tmp_path).folder
    folder.mkdir()
    (folder / "round-000001.safetensors").write_bytes(b"not what is kept")
    digest = hashlib.sha256(b"not what is kept").hexdigest()
    with pytest.raises(ValueError, match=r"round-000001.safetensors is broken"):
        ClientStates(tmp_path).open({1: digest})
