"""Against a real server on this machine, with transfers that break off."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedexp.core.checks import InputError
from fedexp.data.download import RemoteFile, fetch, read

CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    half_sent = threading.Event()
    release = threading.Event()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/good":
            self.wfile.write(CONTENT)
        elif self.path == "/wrong":
            self.wfile.write(b"<html>Please sign in</html>".ljust(len(CONTENT)))
        else:
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        if self.path == "/stalls":
            self.wfile.flush()
            self.half_sent.set()
            self.release.wait(20)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Handler.half_sent.clear()
    Handler.release.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        Handler.release.set()
        server.shutdown()
        thread.join()


def url(server: ThreadingHTTPServer, page: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{page}"


def remote(folder: Path, *urls: str) -> RemoteFile:
    return RemoteFile(folder / "deep" / "toy.bin", urls, MD5, "toy")


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_fetches_once(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    file = remote(tmp_path, url(server, "good"))
    fetch(file, progress=False)
    fetch(file, progress=False)
    assert server.asked == ["/good"]
    assert file.path.read_bytes() == CONTENT
    assert left_behind(tmp_path) == [file.path]
    assert file.path.stat().st_mode & 0o444 == 0o444


def test_tries_the_next_mirror(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    pages = ["absent", "breaks", "wrong", "good"]
    file = remote(tmp_path, *(url(server, page) for page in pages))
    assert read(file) == CONTENT
    assert server.asked == [f"/{page}" for page in pages]
    assert left_behind(tmp_path) == [file.path]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("absent", "HTTP status 404"),
        ("breaks", "the transfer broke off"),
        ("unannounced", "does not have the published MD5"),
        ("wrong", "does not have the published MD5"),
    ],
)
def test_a_failed_transfer_leaves_nothing(
    server: ThreadingHTTPServer, tmp_path: Path, page: str, reason: str
) -> None:
    file = remote(tmp_path, url(server, page))
    with pytest.raises(InputError) as caught:
        fetch(file, progress=False)
    message = str(caught.value)
    for part in (str(file.path), MD5, url(server, page), reason):
        assert part in message
    assert "\n" not in message
    assert left_behind(tmp_path) == []


def test_ctrl_c_leaves_nothing(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from fedexp.data.download import RemoteFile, fetch;"
        "fetch(RemoteFile(Path(sys.argv[1]), (sys.argv[2],), sys.argv[3], 'toy'), progress=True)"
    )
    path = tmp_path / "toy.bin"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), url(server, "stalls"), MD5],
        stderr=subprocess.PIPE,
    )
    assert Handler.half_sent.wait(30)
    # Half of it is on its way: wait until some of it is on the disk, under another name.
    while not any(part.stat().st_size for part in left_behind(tmp_path)):
        assert process.poll() is None
    assert not path.exists()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    assert left_behind(tmp_path) == []


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    file = remote(tmp_path / "new" / "folders", "http://127.0.0.1:1/toy.bin")
    with pytest.raises(InputError) as caught:
        fetch(file, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value) == (
        f"{file.path} is missing and could not be downloaded: "
        f"http://127.0.0.1:1/toy.bin (no connection); put the file with MD5 {MD5} there by hand"
    )


def test_a_folder_that_cannot_be_made(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=f"cannot be written: .*MD5 {MD5}"):
        fetch(remote(tmp_path, url(server, "good")), progress=False)
    assert server.asked == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_permission(
    server: ThreadingHTTPServer, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "deep").mkdir(mode=mode)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        fetch(remote(tmp_path, url(server, "good")), progress=False)
    assert server.asked == []


def test_a_present_file_is_checked_and_never_replaced(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    file = remote(tmp_path, url(server, "good"))
    file.path.parent.mkdir()
    page = b"<html>Please sign in</html>"
    file.path.write_bytes(page)
    fetch(file, progress=False)
    with pytest.raises(InputError) as caught:
        read(file)
    assert str(caught.value) == (
        f"{file.path} is damaged: expected MD5 {MD5}, found {hashlib.md5(page).hexdigest()} "
        "in 27 bytes; delete it and run `fedexp data get toy`"
    )
    assert server.asked == []
    assert file.path.read_bytes() == page


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    file = remote(tmp_path)
    file.path.mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        read(file)


def test_progress_is_said_on_stderr_only_if_asked_for(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from fedexp.data.download import RemoteFile, fetch;"
        "file = RemoteFile(Path(sys.argv[1]), (sys.argv[2],), sys.argv[3], 'toy');"
        "fetch(file, progress=len(sys.argv) > 4)"
    )

    def said(name: str, *more: str) -> tuple[str, str]:
        arguments = [str(tmp_path / name), url(server, "good"), MD5, *more]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout, done.stderr

    assert said("quiet.bin") == ("", "")
    stdout, stderr = said("loud.bin", "aloud")
    assert stdout == ""
    assert "100%" in stderr
    assert url(server, "good") in stderr
