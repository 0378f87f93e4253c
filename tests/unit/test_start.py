"""The README's two commands: which build of torch they take."""

import importlib.util
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "start.py"


class Answers(BaseHTTPRequestHandler):
    """An index that has torch."""

    def do_GET(self):
        self.send_response(200 if self.path == "/torch/" else 404)
        self.end_headers()

    def log_message(self, *said):
        pass


@pytest.fixture
def index():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def start(monkeypatch, index, tmp_path):
    """The script on a Linux machine without a card, whose network has the index."""
    spec = importlib.util.spec_from_file_location("start", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FOR_PROCESSORS", index)
    monkeypatch.setattr(script, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(script, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(script, "DEVICES", tmp_path)
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr(script.sys, "platform", "linux")
    for name in (*script.CHOSEN, "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return script


def test_without_a_card_torch_comes_without_cuda(start):
    assert start.needs_no_cuda()


def test_a_card_a_chosen_index_another_system_and_no_network_take_what_pip_takes(
    start, monkeypatch, tmp_path
):
    with monkeypatch.context() as patch:
        patch.setenv("PIP_EXTRA_INDEX_URL", "https://mirror.example")
        assert not start.needs_no_cuda()
    with monkeypatch.context() as patch:
        patch.setattr(start.sys, "platform", "darwin")
        assert not start.needs_no_cuda()
    with monkeypatch.context() as patch:
        patch.setattr(start.shutil, "which", lambda name: f"/usr/bin/{name}")
        assert not start.needs_no_cuda()
    with monkeypatch.context() as patch:
        patch.setattr(start, "FOR_PROCESSORS", "http://127.0.0.1:9")  # nobody listens there
        assert not start.needs_no_cuda()
    (tmp_path / "nvidia0").touch()
    assert not start.needs_no_cuda()


@pytest.fixture
def commands(start, monkeypatch):
    """What `prepare` has run; `torchvision` can be imported or not."""
    done, state = [], SimpleNamespace(fits=True)

    def run(command, check=False, **streams):
        done.append((command[1:], check))
        return SimpleNamespace(returncode=int("-c" in command and not state.fits))

    monkeypatch.setattr(subprocess, "run", run)
    return SimpleNamespace(done=done, state=state)


def test_torch_alone_comes_from_its_own_index(start, commands, tmp_path, index):
    start.prepare("[dev]")
    (first, may_fail), (tried, _), (second, has_to_succeed) = commands.done
    at = first.index("--index-url")
    assert first[at + 1] == index
    assert [name.partition(">")[0] for name in first[at + 2 :]] == ["torch", "torchvision"]
    assert tried == ["-c", "import torchvision"]
    assert second[-1].endswith("[dev]")
    assert (may_fail, has_to_succeed) == (False, True)
    assert (tmp_path / ".installed[dev]").is_file()


def test_what_does_not_fit_together_is_taken_away_again(start, commands):
    commands.state.fits = False
    start.prepare("")
    (_, _, (taken_away, _), (last, has_to_succeed)) = commands.done
    assert taken_away[:3] == ["-m", "pip", "uninstall"]
    assert taken_away[-2:] == ["torch", "torchvision"]
    assert "install" in last
    assert has_to_succeed
