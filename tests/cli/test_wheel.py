"""What is installed from a wheel works from any folder, and an index would take what is built."""

import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import summary_of

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which comes before what is installed
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"fedexp/conf/config.yaml", "fedexp/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "conf/"))]

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The libraries are this environment's; fedexp is not: the .pth file of an editable install
    # is read in site-packages only.
    (packages,) = (tmp_path / "env").glob("lib/python3*/site-packages")
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = [str(python), "-c", "import fedexp; fedexp.testing; print(fedexp.__file__)"]
    answer = subprocess.run(where, cwd=elsewhere, check=True, capture_output=True, text=True)
    assert answer.stdout.startswith(str(packages))

    command = [str(tmp_path / "env" / "bin" / "fedexp")]
    done = subprocess.run(
        [*command, "run", "rounds=1", "hydra.run.dir=run"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert summary_of(elsewhere / "run")["status"] == "complete"
    assert summary_of(elsewhere / "run")["git_commit"] is None
    listed = subprocess.run(
        [*command, "list", "aggregator"], cwd=elsewhere, check=True, capture_output=True, text=True
    )
    assert "  median" in listed.stdout


@pytest.mark.slow
def test_an_index_would_take_the_wheel_and_the_source(tmp_path):
    pytest.importorskip("build")
    pytest.importorskip("twine")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    built = sorted(tmp_path.iterdir())
    assert [path.name.split("-")[0] for path in built] == ["fedexp", "fedexp"]
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    here = {"LICENSE", "CITATION.cff", "conf/config.yaml", "docs/index.md", "tests/conftest.py"}
    assert here <= names
