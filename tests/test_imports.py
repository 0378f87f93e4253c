"""The arrows of the house: who may import whom, read from the source.

types <- protocols <- components <- build <- run <- launch <- cli; beside them only what an entry of
ARROWS says. Imports inside functions count too.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedexp

ROOT = Path(fedexp.__file__).parent
CORE = {"types", "protocols", "rng", "flat", "checks", "geometry", "norms", "stateless"}

# An audit repeats a run's own mechanism with canaries in it.
AUDIT = CORE | {"channel", "memory", "privacy", "protection", "rounds", "sampling", "training"}

# Module or folder of ours, or one room of a folder -> the modules and folders of ours that it may
# import beside its own folder. Who is not named here is a component, and may import CORE.
ARROWS = {
    "__init__": set(),
    "types": set(),
    "rng": set(),
    "checks": set(),
    "interrupt": set(),
    "protocols": {"types"},
    "flat": {"checks"},
    "geometry": set(),
    "stateless": {"types"},
    "norms": {"geometry"},
    "scores": {"types"},
    "server": {"types", "protocols", "checks"},
    "describe": {"types", "server"},
    "rounds": {"types", "protocols", "rng", "checks", "server", "describe"},
    "progress": set(),
    "config": {"checks"},
    "catalogue": {"checks"},
    "datasets": {"checks", "complaints", "data", "parts"},
    "files": {"checks"},
    "checkpoints": {"types", "checks", "files"},
    "record": {"types", "checks", "flat", "scores", "files", "checkpoints", "update_files"},
    "untrusted": set(),
    "update_files": {"checks", "files", "types", "untrusted"},
    "update_folder": {"checks", "untrusted", "update_files"},
    "privacy_command": {"checks", "privacy"},
    "detect": {"checks", "config", "detection", "files", "reporting", "types"}
    | {"untrusted", "update_files", "update_folder"},
    "reporting": {"checks", "files", "leakage"},
    "reporting/leakage": {"leakage", "rng"},
    "parts": {"checks"},
    "refusals": {"checks"},
    "protection": CORE | {"channel", "parts", "privacy", "refusals", "training"},
    "build": CORE
    | {"rounds", "server", "memory", "evaluation", "data", "parts"}
    | {"privacy", "protection", "refusals", "training"},
    # Attacks know what they are shown (CORE); only these rooms open a run, train, read or write.
    "leakage/victim": CORE | {"build", "checkpoints", "config", "record", "rounds"},
    "leakage/shadows": CORE | {"build", "files", "record", "rounds"},
    "leakage/exposure": CORE | {"backends", "training"},
    "leakage/recorded": CORE | {"training", "update_files", "update_folder"},
    "leakage/audit": AUDIT,
    "leakage/audit_clients": AUDIT,
    "leakage/audit_examples": AUDIT,
    "leakage/canaries": AUDIT,
    "leakage/findings_files": {"checks", "files"},
    "leakage/parallel": {"config"},
    "leak": {"checks", "complaints", "config", "files", "leakage", "parts", "record", "reporting"},
    "run": CORE
    | {"__init__", "build", "interrupt", "rounds", "evaluation", "partition", "progress", "record"}
    | {"files", "leak", "reporting"},
    "resume": {"checks", "config", "files", "record", "reporting", "run"},
    "complaints": {"checks", "config"},
    "launch": {"checks", "complaints", "config", "build", "record", "reporting", "run"},
    "cli": {
        "__init__",
        "interrupt",
        "checks",
        "config",
        "catalogue",
        "datasets",
        "detect",
        "launch",
        "leak",
        "privacy_command",
        "reporting",
        "resume",
    },
    "__main__": {"cli"},
}

# Libraries that only some may import, and whether at the top of the module or in a function only.
HYDRA_AT_TOP = {"complaints", "parts", "launch", "datasets", "config", "resume", "record"} | {
    "detect",
    "leak",
}
HYDRA_IN_FUNCTIONS = {"cli", "reporting"}
TABLES_AND_PICTURES = {"pandas", "matplotlib"}  # readers of run folders only
IN_FUNCTIONS_ONLY = {
    "opacus",
    "torchvision",
    "medmnist",
    "pooch",
    "sklearn",
    "skimage",
    "joblib",
    "ray",
} | {
    "scipy",
    "dp_accounting",
}

FILES = sorted(ROOT.rglob("*.py"))


def unit_of(path):
    """The module, or the folder, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def room_of(path):
    """Folder and file, as in the keys of ARROWS that are about one file of a folder."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


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
    assert {"rounds", "build", "aggregation", "reporting"} <= {unit_of(path) for path in FILES}
    assert ("fedexp.build.build", False) in imports(ROOT / "launch.py")
    assert ("fedexp.checks.InputError", True) in imports(ROOT / "build.py")
    assert set(ARROWS) <= {name(path) for path in FILES for name in (unit_of, room_of)}


each_file = pytest.mark.parametrize("path", FILES, ids=room_of)


@each_file
def test_no_arrow_points_the_wrong_way(path):
    unit = unit_of(path)
    allowed = ARROWS.get(room_of(path), ARROWS.get(unit, CORE)) | {unit}
    ours = {of_ours(name) for name, _ in imports(path)} - {None}
    assert ours <= allowed, f"{path.name} imports {sorted(ours - allowed)}"


@each_file
def test_hydra_ends_at_the_builder(path):
    unit = unit_of(path)
    for name, top in libraries(path):
        if name in ("hydra", "omegaconf"):
            assert unit in (HYDRA_AT_TOP if top else HYDRA_AT_TOP | HYDRA_IN_FUNCTIONS), name


@each_file
def test_tables_and_pictures_are_the_readers_business(path):
    for name, _ in libraries(path):
        assert name not in TABLES_AND_PICTURES or unit_of(path) == "reporting", name


@each_file
def test_optional_and_heavy_libraries_are_imported_where_they_are_used(path):
    at_top = {name for name, top in libraries(path) if top}
    assert not at_top & IN_FUNCTIONS_ONLY


@each_file
def test_parts_make_no_randomness_of_their_own(path):
    if unit_of(path) == "rng":
        return
    names = {name for name, _ in libraries(path)}
    assert not names & {"random", "secrets"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            assert node.attr not in ("default_rng", "RandomState", "SeedSequence"), text
            assert node.attr != "manual_seed" or unit_of(path) == "build", text
            assert not text.startswith("np.random.") or text == "np.random.Generator", text


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fedexp.cli", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra", "omegaconf"}),
        ("fedexp.catalogue", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra"}),
        ("fedexp.config", {"torch", "numpy", "sklearn", "pandas", "matplotlib", "hydra"}),
        ("fedexp.launch", {"torch", "sklearn", "pandas", "matplotlib"}),
    ],
)
def test_the_door_is_light(module, heavy):
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []


def test_the_library_works_without_hydra():
    code = """
import sys
sys.modules["hydra"] = sys.modules["omegaconf"] = None
import fedexp.rounds, fedexp.settings, fedexp.sampling, fedexp.evaluation, fedexp.flat
import fedexp.models, fedexp.training.sgd, fedexp.attacks.sign_flip, fedexp.aggregation.median
import fedexp.privacy.account, fedexp.channel.plain, fedexp.privacy.client_level
import fedexp.backends.auto, fedexp.partition.dirichlet, fedexp.data.digits, fedexp.scores
"""
    subprocess.run([sys.executable, "-c", code], check=True)
