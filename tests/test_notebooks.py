"""The notebooks: stored without what a run leaves in them, and executed on digits.

`.ci/run` executes them; a plain `pytest` does not (`pytest -m documents` does).
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
SWITCH = 'DATASET = "digits"'


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def executed(path, folder, dataset):
    """The outputs of a notebook that `jupyter execute` has run in `folder`."""
    copy = folder / path.name
    copy.write_text(
        path.read_text().replace(SWITCH.replace('"', r"\""), rf"DATASET = \"{dataset}\"")
    )
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--timeout=900", str(copy)]
    here = Path(sys.executable).parent  # `!fedexp` is that of this environment
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    # Jupyter keeps its own things in the user's home, which is none of a test's business.
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        environment[f"JUPYTER_{name}"] = str(folder / "jupyter" / name.lower())
    environment["IPYTHONDIR"] = str(folder / "ipython")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(copy, as_version=4)
    assert f'DATASET = "{dataset}"' in code(notebook)[0]
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_there_is_one_for_each_question():
    assert [path.name[0] for path in NOTEBOOKS] == list("12345")


@each
def test_it_is_stored_without_what_a_run_leaves(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert not cell.metadata


@each
def test_it_begins_with_how_to_install_and_one_switch(path):
    first, second = nbformat.read(path, as_version=4).cells[:2]
    assert first.source.startswith("# ")
    assert "`%pip install " in first.source
    assert second.source.startswith(SWITCH)
    assert '"mnist"' in second.source.splitlines()[0]


@each
def test_its_links_lead_somewhere(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for link in re.findall(r"\]\((\.\./[^)#]+)", cell.source):
            assert (FOLDER / link).is_file(), link


@each
def test_it_asks_for_nothing_that_it_does_not_use(path):
    source = "\n".join(code(nbformat.read(path, as_version=4)))
    plain = re.sub(r"^( *)!.*$", r"\1pass", source, flags=re.MULTILINE)
    names = [
        alias.asname or alias.name
        for node in ast.walk(ast.parse(plain))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert names
    assert not [name for name in names if not re.search(rf"\b{name}[.(]", source)]


@pytest.mark.documents
@each
def test_it_runs_and_draws(path, tmp_path):
    pytest.importorskip("nbclient")
    outputs = executed(path, tmp_path, "digits")
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert not re.findall(r"^fedexp: .*", said, re.MULTILINE)  # a command refused
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 1


@pytest.mark.slow
@pytest.mark.real_data
@each
def test_it_runs_on_mnist(path, tmp_path):
    assert executed(path, tmp_path, "mnist")
