"""Set up fedexp and use it, on a machine with nothing but Python: the README's two commands.

    python3 scripts/start.py run [key=value ...]    the main job; by default on embedded digits
    python3 scripts/start.py test                   lint, formatting, types, documentation and tests

Makes `.venv` beside this repository on first use (and anew after pyproject.toml has changed) and
installs the package into it. Only the standard library is used here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
BINARIES = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BINARIES / "python"
DEVICES = Path("/dev")
TESTS_FAILED = 1  # pytest's exit code
FOR_PROCESSORS = "https://download.pytorch.org/whl/cpu"  # PyTorch's index of builds without CUDA
CHOSEN = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")  # who sets one has a source
ANSWERS_WITHIN = 5.0  # seconds
NULL = subprocess.DEVNULL


def prepare(extras: str) -> None:
    """Make the environment, unless one made from this pyproject.toml with these extras is there."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamps = {name: ENVIRONMENT / f".installed{name}" for name in ("", "[dev]")}
    done = [s for s in (stamps[extras], stamps["[dev]"]) if s.is_file()]
    if any(stamp.read_text() == wanted for stamp in done):
        return
    print(f"Setting up {ENVIRONMENT} (once; torch is large, this takes a few minutes)", flush=True)
    if not PYTHON.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if needs_no_cuda():
        print(f"No NVIDIA card: torch for processors, from {FOR_PROCESSORS}", flush=True)
        subprocess.run([*pip, "--index-url", FOR_PROCESSORS, *_torch_wanted()])
        # Packages of two indexes need not fit together. The next line takes what PyPI has.
        if subprocess.run([str(PYTHON), "-c", "import torchvision"], stderr=NULL).returncode:
            subprocess.run([*pip[:3], "uninstall", "--quiet", "--yes", "torch", "torchvision"])
    subprocess.run([*pip, "--editable", f"{ROOT}{extras}"], check=True)
    stamps[extras].write_text(wanted)


def needs_no_cuda() -> bool:
    """Whether a build of torch without CUDA does, a quarter of the size, and can be had.

    PyPI's build for Linux is the one with CUDA; those for other systems are without.
    """
    if sys.platform != "linux" or any(os.environ.get(name) for name in CHOSEN):
        return False
    cards = [*DEVICES.glob("nvidia*"), *DEVICES.glob("dxg")]  # dxg: a card under Windows' Linux
    if cards or shutil.which("nvidia-smi"):
        return False
    try:
        with urllib.request.urlopen(f"{FOR_PROCESSORS}/torch/", timeout=ANSWERS_WITHIN):
            return True
    except (OSError, ValueError):  # no network, or none but a mirror of PyPI
        return False


def _torch_wanted() -> list[str]:
    """What pyproject.toml asks for of PyTorch's own packages."""
    import tomllib  # Python 3.11's; `main` has words for an older one

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [name for name in wanted if name.startswith("torch")]


def _room() -> str:
    """How much is free where pip unpacks and installs: a full disk is its commonest end."""
    places = (tempfile.gettempdir(), str(ROOT))
    free = [f"{shutil.disk_usage(place).free / 1e9:.1f} GB in {place}" for place in places]
    return f"free: {', '.join(free)}; the packages take up to 8 GB, 5 of them for CUDA"


def check() -> int:
    """Lint, formatting, types, documentation, tests; with FEDEXP_DATA_DIR those on real data too.

    Tests that fail are run again, for messages that show both sides of what was compared.
    """
    data = os.environ.get("FEDEXP_DATA_DIR", "")
    markers = "not slow and not network" + ("" if os.path.isdir(data) else " and not real_data")
    # Assertions as they stand: rewriting them for better messages costs seconds, in every process.
    tests = ["pytest", "-m", markers, *sys.argv[2:]]
    steps = [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy"],
        ["mkdocs", "build", "--quiet"],
        [*tests, "-n", "2", "--assert=plain"],
    ]
    for step in steps:
        if code := carry_out(step):
            if step is steps[-1] and code == TESTS_FAILED:
                carry_out([*tests, "--last-failed", "--last-failed-no-failures=none"])
            return code
    return 0


def carry_out(step: list[str]) -> int:
    """Run one tool of the environment, and say so; its exit code."""
    print(f"$ {' '.join(step)}", flush=True)
    of_tools = {"NO_MKDOCS_2_WARNING": "1"}  # about a successor; see docs/decisions
    return subprocess.run(
        [str(PYTHON), "-m", *step], cwd=ROOT, env={**os.environ, **of_tools}
    ).returncode


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older Python
        print("fedexp needs Python 3.11 or later, this is " + sys.version.split()[0])
        return 2
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if command == "run":
            prepare("")
            return subprocess.run([str(BINARIES / "fedexp"), "run", *sys.argv[2:]]).returncode
        if command == "test":
            prepare("[dev]")
            return check()
    except subprocess.CalledProcessError as error:
        print(f"setting up failed: {' '.join(error.cmd)}", file=sys.stderr)
        print(_room(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
