"""The arrows of the house: who may import whom, read from the source.

core <- parts <- federation <- config <- commands; run_folder <- reporting. Beside them only what an
entry of ARROWS says. Imports inside functions count too.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import fedexp

ROOT = Path(fedexp.__file__).parent
# Folder of ours, or one room of it -> the folders that it may import beside itself and `core`.
# Who is not named is a part, and knows the core alone.
PARTS = {"aggregation", "attacks", "backends", "channel", "data", "detection", "models"}
PARTS |= {"partition", "pre_aggregation", "privacy", "tasks", "training"}
ARROWS = {
    "__init__": {"aggregation", "api", "core", "testing"},  # when they are first asked for
    "api": {"commands", "reporting"},
    "testing": set(),
    "types": set(),
    "cli": {"commands"},
    "backends/ray_worker": {"__init__"},  # the version: all nodes must have the same
    "privacy": {"training"},
    "channel": {"privacy"},  # a mechanism of its own
    "config/folders": set(),
    "config/origin": {"__init__"},  # the version
    "config/schema": set(),
    "config/weights": {"run_folder"},  # a model file may be anybody's, or a run's
    "config/lineage": {"run_folder"},
    "config": {"data", "federation", "observers", "partition", "privacy", "training"},
    # Attacks know what they are shown; only these rooms open a run, train, read or write.
    "leakage/victim": {"config", "federation", "run_folder"},
    "leakage/model_file": {"config"},
    "leakage/membership": {"config", "federation", "run_folder", "store"},
    "leakage/updates": {"backends", "privacy", "run_folder", "training"},
    "leakage/audit": {"federation", "privacy", "training"},
    "leakage": set(),
    "store": {"config", "run_folder"},
    "verdict": {"config", "federation", "run_folder", "store"},
    "reporting": {"leakage", "run_folder"},
    "commands": PARTS
    | {"__init__", "config", "federation", "leakage", "observers", "reporting", "run_folder"}
    | {"store", "verdict"},
    "__main__": {"commands"},
}

# Libraries that only some may import, and whether at the top of the module or in a function only.
HYDRA_AT_TOP = {"config", "commands", "run_folder"}
HYDRA_IN_FUNCTIONS = {"reporting"}
TABLES_AND_PICTURES = {"pandas", "matplotlib"}  # readers of run folders only
IN_FUNCTIONS_ONLY = {"opacus", "torchvision", "medmnist", "pooch", "sklearn", "skimage", "joblib"}
IN_FUNCTIONS_ONLY |= {"scipy", "dp_accounting", "ray", "mlflow", "wandb", "tensorboard"}

DRAWS = ("default_rng", "RandomState", "SeedSequence", "manual_seed", "np.random.")

FILES = sorted(ROOT.rglob("*.py"))


def unit_of(path):
    """The module, or the folder, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def room_of(path):
    """Folder and file, as in the keys of ARROWS that are about one file of a folder."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


def rooms_of(path):
    """The keys of ARROWS that may be about a file, the narrowest first."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]


ON_UNIX_ALONE = ("fcntl", "resource", "pwd", "grp", "termios", "pty")


@cache
def imports(path):
    """(dotted name, whether at the top of the module) for every import of a file."""
    found = []

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inside)

    visit(ast.parse(path.read_text()), top=True)
    return found


def of_ours(name):
    """The module or folder of ours behind an imported name; None for a library."""
    parts = name.split(".")
    if parts[0] != "fedexp":
        return None
    place = parts[1] if len(parts) > 1 else "__init__"
    exists = (ROOT / place).is_dir() or (ROOT / f"{place}.py").exists()
    return place if exists else "__init__"


def libraries(path):
    return [(name.partition(".")[0], top) for name, top in imports(path) if of_ours(name) is None]


def test_the_walk_sees_the_package():
    assert len(FILES) > 50
    assert {"federation", "config", "aggregation", "reporting"} <= {unit_of(path) for path in FILES}
    assert ("fedexp.commands.execution.run", False) in imports(ROOT / "commands/run.py")
    assert ("fedexp.core.checks.InputError", True) in imports(ROOT / "config/build.py")
    assert set(ARROWS) <= {name for path in FILES for name in (*rooms_of(path), unit_of(path))}


def of_all_files(wrong):
    """File -> what is wrong with it, for those where `wrong(path)` finds something.

    One test walks all files: a test a file and rule took longer to list than to carry out.
    """
    found = {room_of(path): sorted(wrong(path)) for path in FILES}
    return {room: what for room, what in found.items() if what}


def test_no_arrow_points_the_wrong_way():
    assert of_all_files(arrows_the_wrong_way) == {}


def arrows_the_wrong_way(path):
    unit = unit_of(path)
    named = next((ARROWS[room] for room in rooms_of(path) if room in ARROWS), set())
    allowed = named | {unit} | (set() if unit == "__init__" else {"core"})
    return {of_ours(name) for name, _ in imports(path)} - {None} - allowed


def test_hydra_ends_at_the_builder():
    assert of_all_files(hydra_past_the_builder) == {}


def hydra_past_the_builder(path):
    allowed = {True: HYDRA_AT_TOP, False: HYDRA_AT_TOP | HYDRA_IN_FUNCTIONS}
    hydra = {(name, top) for name, top in libraries(path) if name in ("hydra", "omegaconf")}
    return {name for name, top in hydra if unit_of(path) not in allowed[top]}


def test_tables_and_pictures_are_the_readers_business():
    assert of_all_files(tables_and_pictures) == {}


def tables_and_pictures(path):
    if unit_of(path) in ("reporting", "api") or room_of(path) == "run_folder/reading":
        return set()
    of_a_persons_own = {"pandas"} if unit_of(path) == "data" else set()  # CSV files
    return {name for name, _ in libraries(path)} & TABLES_AND_PICTURES - of_a_persons_own


def test_optional_and_heavy_libraries_are_imported_where_they_are_used():
    assert of_all_files(lambda path: at_top(path) & IN_FUNCTIONS_ONLY) == {}


def at_top(path):
    return {name for name, top in libraries(path) if top}


def test_parts_make_no_randomness_of_their_own():
    assert of_all_files(randomness) == {}


def randomness(path):
    # `testing` looks whether the global generators were touched.
    if room_of(path) in ("core/rng", "testing"):
        return set()
    found = {name for name, _ in libraries(path)} & {"random", "secrets"}
    source = path.read_text()
    if not any(word in source for word in DRAWS):
        return found
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            draws = node.attr in DRAWS[:4]
            of_numpy = text.startswith(DRAWS[4]) and text != "np.random.Generator"
            if draws or of_numpy:
                found.add(text)
    return found


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fedexp", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra", "omegaconf"}),
        (
            "fedexp.commands.cli",
            {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra", "omegaconf"},
        ),
        ("fedexp.config.catalogue", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra"}),
        ("fedexp.config.schema", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra"}),
        ("fedexp.commands.run", {"torch", "sklearn", "pandas", "matplotlib"}),
        ("fedexp.reporting.run_page, fedexp.reporting.report, fedexp.reporting.plots", {"torch"}),
    ],
)
def test_the_door_is_light(module, heavy):
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []


def test_an_attacked_run_waits_for_no_library_that_it_does_not_need(tmp_path):
    code = f"""
import sys
from fedexp.cli import main
sys.argv = ["fedexp", "run", "rounds=1", "attack=sign_flip", "aggregator=median", "plots=false",
            "detector=consistency", "quiet=true", "hydra.run.dir={tmp_path}/run"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
print(*sorted({{"scipy.stats", "sklearn", "opacus", "cryptography"}} & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.splitlines()[-1].strip() == ""


def test_the_library_works_without_hydra():
    code = """
import sys
sys.modules["hydra"] = sys.modules["omegaconf"] = None
import fedexp.federation.rounds, fedexp.federation.settings, fedexp.federation.sampling
import fedexp.federation.evaluation, fedexp.core.flat, fedexp.run_folder.scores
import fedexp.models, fedexp.training.sgd, fedexp.attacks.sign_flip, fedexp.aggregation.median
import fedexp.privacy.account, fedexp.channel.plain, fedexp.privacy.client_level
import fedexp.backends.auto, fedexp.partition.dirichlet, fedexp.data.digits
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_that_only_unix_has_is_imported_at_the_top():
    """So that every module can be imported on Windows."""
    assert of_all_files(lambda path: at_top(path) & {*ON_UNIX_ALONE}) == {}


@pytest.mark.parametrize(
    ("wrong", "source"),
    [
        (arrows_the_wrong_way, "from fedexp.commands import run"),
        (hydra_past_the_builder, "def f():\n    import hydra"),
        (tables_and_pictures, "import pandas as pd"),
        (lambda path: at_top(path) & IN_FUNCTIONS_ONLY, "import scipy.stats"),
        (randomness, "import random"),
        (randomness, "import numpy as np\nnp.random.rand(3)"),
        (randomness, "import torch\ntorch.manual_seed(1)"),
        (lambda path: at_top(path) & {*ON_UNIX_ALONE}, "import fcntl"),
    ],
)
def test_what_is_planted_in_a_part_is_found(wrong, source, tmp_path, monkeypatch):
    planted = tmp_path / "aggregation" / "planted.py"
    planted.parent.mkdir()
    planted.write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "commands").mkdir()
    assert wrong(planted)
