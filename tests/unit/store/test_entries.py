"""Entries are whole or not there, believed as far as their SHA-256, and shared by processes."""

import json
import multiprocessing
import os

import pytest

from fedexp.core.files import append
from fedexp.store import entries
from fedexp.store.entries import NOTE, Nowhere, Store, link

KEY = "a" * 64


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def leave(store, text="content", key=KEY):
    def fill(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text(text)

    store.leave("kind", key, "what it is", fill)


def take(store, into, key=KEY):
    there = store.take("kind", key, into)
    return (into / "deep" / "file").read_text() if there else None


def test_what_was_left_is_found(store, tmp_path):
    assert take(store, tmp_path / "into") is None
    leave(store)
    assert take(store, tmp_path / "into") == "content"
    assert take(store, tmp_path / "into", key="another" * 9) is None
    (entry,) = store.entries()
    assert entry.what == "what it is"


def test_an_entry_is_never_changed(store, tmp_path):
    leave(store)
    leave(store, "other")
    assert take(store, tmp_path / "into") == "content"


def _edit(entry, **changes):
    note = {**json.loads((entry / NOTE).read_text()), **changes}
    (entry / NOTE).write_text(json.dumps(note))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: (entry / "deep" / "file").write_text("changed"),
        lambda entry: (entry / "deep" / "file").unlink(),
        lambda entry: (entry / NOTE).unlink(),
        lambda entry: (entry / NOTE).write_text("[[["),
        lambda entry: _edit(entry, key="j" * 64),
        lambda entry: _edit(entry, files={}),
        lambda entry: _edit(entry, files={"../../evil": "0" * 64}),
        lambda entry: _edit(entry, files={"/etc/passwd": "0" * 64}),
    ],
)
def test_a_broken_one_is_dropped_and_writes_nothing(store, tmp_path, spoil):
    leave(store)
    (place,) = store.folder.glob("kind-*")
    spoil(place)
    assert take(store, tmp_path / "into") is None
    assert not (tmp_path / "into").exists()
    assert list(store.entries()) == []
    leave(store, "again")
    assert take(store, tmp_path / "into") == "again"


def test_a_folder_that_no_entry_can_be_made_in_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    leave(store)
    assert take(store, tmp_path / "into") is None
    assert store.empty() == 0


def test_emptying_leaves_what_is_no_entry(tmp_path):
    run = tmp_path / "2026-11-27" / "10-00-00" / "summary.json"
    run.parent.mkdir(parents=True)
    run.write_text("{}")
    store = Store(tmp_path)
    leave(store)
    assert [entry.what for entry in store.entries()] == ["what it is"]
    assert store.empty() == 1
    assert run.read_text() == "{}"


def test_nowhere_has_nothing(tmp_path):
    leave(Nowhere())
    assert take(Nowhere(), tmp_path / "into") is None


def test_a_file_that_grows_leaves_its_second_name_as_it_was(tmp_path):
    (tmp_path / "file").write_text("a")
    link(tmp_path / "file", tmp_path / "entry" / "file")
    assert os.stat(tmp_path / "file").st_nlink == 2
    append(tmp_path / "file", b"b")
    assert (tmp_path / "file").read_text() == "ab"
    assert (tmp_path / "entry" / "file").read_text() == "a"


def _die_while_leaving(store):
    def fill(folder):
        (folder / "file").write_text("half")
        os.kill(os.getpid(), 9)

    store.leave("kind", KEY, "what", fill)


def test_a_process_killed_in_the_middle_leaves_no_entry(store, tmp_path, monkeypatch):
    process = multiprocessing.get_context("fork").Process(target=_die_while_leaving, args=(store,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert list(store.entries()) == []
    leave(store)
    assert take(store, tmp_path / "into") == "content"
    monkeypatch.setattr(entries, "LEFT_OVER", 0.0)
    assert store.empty() == 1
    assert [path.name for path in store.folder.iterdir()] == [".lock"]


def _leave_many(store, n):
    for k in range(n):
        leave(store, f"content {k % 5}", key=f"{k % 5}" * 64)


def test_two_processes_share_it(store, tmp_path):
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=_leave_many, args=(store, 40)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(store.entries())) == 5
    for k in range(5):
        assert take(store, tmp_path / f"into{k}", key=f"{k}" * 64) == f"content {k}"
    assert not list(store.folder.glob(".*.tmp"))
