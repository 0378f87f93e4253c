"""Checkpoints of older versions had a note beside them; it goes with them."""

from fedexp.run_folder.checkpoints import remove_old_checkpoints


def test_the_newest_stay_with_their_notes_and_no_note_stays_alone(tmp_path):
    for name in ("round-000002.pt", "round-000003.pt", "round-000004.pt", "best.pt"):
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".json").touch()
    (tmp_path / "round-000001.json").touch()  # its checkpoint was removed, then came the kill
    remove_old_checkpoints(tmp_path, 2)
    left = {path.name for path in tmp_path.iterdir()}
    kept = ("round-000003", "round-000004", "best")
    assert left == {f"{name}{ending}" for name in kept for ending in (".pt", ".json")}
