"""What enemies' update files may do to their reader."""

import io
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save
from torch import nn

from fedexp.run_folder.untrusted import NotUsable, read_bytes, tensors_in
from tests.support.updates_on_disk import TENSORS, pth, read_all, write


class Bomb:
    """Runs a command of its author's when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.system, (f"touch {self.target}",))


def compressed(content):
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return out.getvalue()


def script():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), buffer)
    return buffer.getvalue()


def with_nan(value):
    return {**TENSORS, "bias": torch.tensor([0.0, value])}


def one_bit_off(content):
    """A file whose first number is another, in the middle of what torch reads without looking."""
    at = content.index(TENSORS["weight"].numpy().tobytes())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


LEGACY = pth(TENSORS, _use_new_zipfile_serialization=False)

BAD = {
    "empty": (".pth", b"", "is empty"),
    "empty safetensors": (".safetensors", b"", "is empty"),
    "truncated": (".pth", pth(TENSORS)[:-100], "is broken or no such file: "),
    "truncated old format": (".pth", LEGACY[:-5], "is broken or no such file: "),
    "truncated safetensors": (".safetensors", save(TENSORS)[:-5], "is broken or no such file: "),
    "text": (".pth", b"hello world\n", "is broken or no such file: "),
    "text safetensors": (".safetensors", b"hello world, hello", "is broken or no such file: "),
    "zip": (".pth", compressed(pth({}))[:-22] + b"PK\5\6" + bytes(18), "is broken or no such"),
    "one bit off": (".pth", one_bit_off(pth(TENSORS)), "is damaged: its archive/data/0 is not"),
    "module": (".pth", pth(nn.Linear(3, 2)), "holds something else than tensors (torch.nn."),
    "script": (".pt", script(), "holds a program (TorchScript), and was not loaded"),
    "tensor": (".pth", pth(torch.ones(8)), "holds a Tensor, not a state dict"),
    "list": (".pth", pth([torch.ones(8)]), "holds a list, not a state dict"),
    "nothing": (".pth", pth({}), "holds no tensor of floating-point numbers"),
    "counts only": (".pth", pth({"a": torch.tensor(1)}), "holds no tensor of floating-point"),
    "nested": (".pth", pth({"net": TENSORS}), "holds a dict under 'net'; a state dict, or one "),
    "twice nested": (".pth", pth({"state_dict": {"state_dict": TENSORS}}), "holds a dict under"),
    "numbered": (".pth", pth({0: torch.ones(8)}), "names a tensor 0, which is no text"),
    "nan": (".pth", pth(with_nan(torch.nan)), "its 'bias' holds NaN or infinite numbers"),
    "infinity": (".safetensors", save(with_nan(torch.inf)), "its 'bias' holds NaN or infinite"),
    "too large for float32": (
        ".pth",
        pth({**TENSORS, "bias": torch.tensor([0, 1e300]).double()}),
        "its 'bias' holds NaN or infinite numbers",
    ),
    "sparse": (".pth", pth({"a": torch.eye(3).to_sparse()}), "its 'a' is not an ordinary dense"),
    "no numbers": (
        ".pth",
        pth({"a": torch.ones(3, device="meta")}),
        "its 'a' is not an ordinary dense tensor",
    ),
    "complex": (".pth", pth({"a": torch.ones(3).cfloat()}), "holds no tensor of floating-point"),
    "other model": (
        ".pth",
        pth({"weight": torch.ones(9, 9)}),
        "holds 81 numbers, not 8: its 'weight' is 9 x 9, not 2 x 3",
    ),
    "a stretched tensor": (
        ".pth",
        pth({"a": torch.ones(1).expand(10**13)}),
        "its tensors take 40,000,000,000,000 bytes; at most 4,294,967,296 are read",
    ),
    "a name that clears the screen": (
        ".pth",
        pth({**TENSORS, "\x1b[2J\nbias": torch.ones(2)}),
        r"holds 10 numbers, not 8: has '\x1b[2J\nbias', which is not expected",
    ),
    "a name without end": (
        ".pth",
        pth({"x" * 10_000: torch.ones(8), "weight": torch.ones(2, 3)}),
        "holds 14 numbers, not 8: lacks 'bias'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_and_the_rest_is_read(tmp_path, case):
    suffix, content, reason = BAD[case]
    write(tmp_path, f"bad{suffix}", content)
    write(tmp_path, "good.pth", pth(TENSORS))
    rows, unusable, _ = read_all(tmp_path)
    assert list(rows) == ["good.pth"]
    assert list(unusable) == [f"bad{suffix}"]
    said = unusable[f"bad{suffix}"]
    assert said.startswith(reason)
    assert said.isprintable()
    assert len(said) <= 160


@pytest.mark.parametrize("how", ["saved", "plain", "old protocol", "in a tensor's place"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, how):
    fuse = tmp_path / "went-off"
    bomb = Bomb(fuse)
    content = {
        "saved": pth({"weight": bomb}),
        "plain": pickle.dumps({"weight": bomb}),
        "old protocol": pickle.dumps(bomb, protocol=0),
        "in a tensor's place": pth({**TENSORS, "state_dict": {"weight": bomb}}),
    }[how]
    write(tmp_path, "bomb.pth", content)
    _, unusable, _ = read_all(tmp_path)
    assert "it could run code, and was not loaded" in unusable["bomb.pth"]
    assert "weights_only" not in unusable["bomb.pth"]
    assert not fuse.exists()
    if how == "plain":  # the bomb is a bomb
        pickle.loads(content)
        assert fuse.exists()


def test_sizes_are_checked_before_loading(tmp_path):
    limit = 100_000
    large = write(tmp_path, "large.pth", bytes(limit + 1))
    with pytest.raises(NotUsable, match="has 100,001 bytes; at most 100,000 are read"):
        read_bytes(large, limit)
    packed = compressed(pth({"a": torch.zeros(1_000_000)}))
    assert len(packed) < limit
    with pytest.raises(NotUsable, match=r"unpacks to 4,00.* bytes; at most 100,000 are read"):
        tensors_in(packed, ".pth", limit)
    assert torch.equal(tensors_in(packed, ".pth")["a"], torch.zeros(1_000_000))


def test_things_that_are_no_files(tmp_path):
    write(tmp_path, "good.pth", pth(TENSORS))
    write(tmp_path, "folder.pth/inside.pth", pth(TENSORS))
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "round-1").symlink_to(".", target_is_directory=True)
    (tmp_path / "nowhere.safetensors").symlink_to("missing")
    (tmp_path / "device.pth").symlink_to("/dev/zero")
    (tmp_path / "linked.pth").symlink_to("good.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    rows, unusable, _ = read_all(tmp_path)
    assert set(rows) == {"good.pth", "folder.pth/inside.pth", "linked.pth"}
    assert {name: reason.partition(":")[0] for name, reason in unusable.items()} == {
        "folder.pth": "is a folder",
        "loop.pth": "cannot be opened",
        "round-1": "is a link to a folder, which is not followed",
        "nowhere.safetensors": "cannot be opened",
        "device.pth": "is not a regular file",
        "pipe.pth": "is not a regular file",
    }
    # Loops also beside files that are to be left out, whose real paths are looked up.
    assert set(read_all(tmp_path, without=[tmp_path / "good.pth"])[0]) == {"folder.pth/inside.pth"}


def test_what_may_not_be_read(tmp_path, monkeypatch):
    write(tmp_path, "good.pth", pth(TENSORS))
    secret = write(tmp_path, "secret.pth", pth(TENSORS))
    write(tmp_path, "closed/a.pth", pth(TENSORS))
    secret.chmod(0)
    (tmp_path / "closed").chmod(0)
    if os.geteuid() == 0:  # whom no permission stops
        _stop(monkeypatch, [secret, tmp_path / "closed"])
    try:
        rows, unusable, _ = read_all(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert list(rows) == ["good.pth"]
    denied = "cannot be opened: Permission denied"
    assert unusable == {"secret.pth": denied, "closed": denied}


def _stop(monkeypatch, paths):
    """`open` and `os.scandir` as a user without permissions has them."""
    forbidden = {str(path) for path in paths}
    true_open, true_scandir = open, os.scandir

    def checked(function, path, *arguments, **more):
        if str(path) in forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *arguments, **more)

    monkeypatch.setattr("builtins.open", lambda *a, **k: checked(true_open, *a, **k))
    monkeypatch.setattr(os, "scandir", lambda *a, **k: checked(true_scandir, *a, **k))


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9\x1b[2J.pth")
    write(tmp_path, name, pth(TENSORS))
    write(tmp_path, "naïve.pth", b"")
    rows, unusable, _ = read_all(tmp_path)
    assert list(rows) == [r"caf\udce9\x1b[2J.pth"]
    assert unusable == {"naïve.pth": "is empty"}


def _deep():
    head, tail = b"\x80\x02}", b"K\x01s."
    return {
        "tuples": head + b")" + b"\x85" * 1_000_000 + tail,
        "lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
        "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
        "one tuple of 2^60": head
        + b"K\x01q\x00"
        + b"".join(b"h%ch%c\x86q%c" % (k, k, k + 1) for k in range(60))
        + tail,
    }


@pytest.mark.parametrize("name", _deep())
@pytest.mark.parametrize("archive", [False, True])
def test_what_nests_as_no_state_dict_does_is_not_loaded(name, archive, monkeypatch):
    content = _deep()[name]
    if archive:
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as file:
            file.writestr("a/data.pkl", content)
            file.writestr("a/version", "3\n")
        content = whole.getvalue()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(NotUsable, match="nests"):
        tensors_in(content, ".pth")


@pytest.mark.parametrize("archive", [False, True])
def test_a_large_state_dict_is_no_deep_one(archive):
    layers = {f"layers.{k}.weight": torch.zeros(1) for k in range(3000)}
    content = io.BytesIO()
    torch.save({"state_dict": layers}, content, _use_new_zipfile_serialization=archive)
    assert list(tensors_in(content.getvalue(), ".pth")) == list(layers)
