"""No code outside a part's own file asks for the class of a part, or for a class's name.

Read from the syntax trees. What a part promises is asked of the part (`fedexp.core.capabilities`);
protocols may be asked for with isinstance, classes of parts may not.
"""

import ast
from pathlib import Path

import pytest

import fedexp

ROOT = Path(fedexp.__file__).parent
PARTS = [
    *["aggregation", "attacks", "backends", "channel", "data", "detection", "models", "observers"],
    *["partition", "pre_aggregation", "privacy", "tasks", "training", "federation"],
]
# What these hold is no part but data that travels, or tells what went wrong.
NO_PARTS = {"federation/rounds", "privacy/accounting", "channel/messages", "channel/violations"}
FILES = sorted(ROOT.rglob("*.py"))


def room_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def is_protocol(node):
    return any("Protocol" in ast.unparse(base) for base in node.bases)


def classes_of(path):
    if not room_of(path).startswith(tuple(f"{p}/" for p in PARTS)) or room_of(path) in NO_PARTS:
        return set()
    tree = ast.parse(path.read_text())
    return {n.name for n in tree.body if isinstance(n, ast.ClassDef) and not is_protocol(n)}


OF_PARTS = {name: room_of(path) for path in FILES for name in classes_of(path)}


def asks_for_a_name(node):
    """`x.__name__`, `x["_target_"]`: fine to print, not to compare."""
    text = ast.unparse(node)
    places = ("['_target_']", "get('_target_'")
    return "__name__" in text or "__qualname__" in text or any(place in text for place in places)


def switches(source, room):
    """Where a file decides by a part's class or name, as lines of its code."""
    found = []
    foreign = {name for name, place in OF_PARTS.items() if place != room}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            attributes = {n.attr for n in ast.walk(node.args[1]) if isinstance(n, ast.Attribute)}
            if (names | attributes) & foreign:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = {n.value for s in sides for n in ast.walk(s) if isinstance(n, ast.Constant)}
            named = {n.id for s in sides for n in ast.walk(s) if isinstance(n, ast.Name)}
            by_class = "type(" in ast.unparse(node) and named & foreign
            if by_class or words & foreign or any(map(asks_for_a_name, sides)):
                found.append(ast.unparse(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            cuts = node.func.attr in ("endswith", "startswith", "rpartition", "rsplit", "split")
            if cuts and (asks_for_a_name(node) or words_of(node) & foreign):
                found.append(ast.unparse(node))
        if isinstance(node, ast.MatchClass) and ast.unparse(node.cls).split(".")[-1] in foreign:
            found.append(ast.unparse(node))
    return found


def words_of(node):
    """The words in a call's arguments, without the dots before a class's name."""
    constants = [n.value for a in node.args for n in ast.walk(a) if isinstance(n, ast.Constant)]
    return {str(value).rpartition(".")[2] for value in constants if isinstance(value, str)}


# The door itself: which `_target_` may be built, and what it is called in a table.
ALLOWED = {
    "__main__": {"__name__ == '__main__'"},
    "run_folder/findings": {"str(node.get('_target_', '')).rpartition('.')"},
    "commands/comparison": {"str(node.get('_target_', '')).rpartition('.')"},
}


def test_nothing_is_decided_by_a_class_or_its_name():
    rooms = {room_of(path): path.read_text() for path in FILES}
    found = {r: set(switches(text, r)) - ALLOWED.get(r, set()) for r, text in rooms.items()}
    assert {room: lines for room, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'if type(rule).__name__ == "Mean": pass',
        "isinstance(rule, Mean)",
        "isinstance(rule, (Median, mean.Mean))",
        "isinstance(privacy, ClientLevel | LocalGaussian)",
        'config["aggregator"]["_target_"].endswith(".Mean")',
        'str(config["privacy"]["_target_"]).rpartition(".")[2] in names',
        'part_of(config, "aggregator") == "Mean"',
        "type(rule) is Mean",
        'target.endswith(".Poisson")',
        "match rule:\n    case Mean(): pass",
    ],
)
def test_a_switch_that_is_planted_is_found(planted):
    assert {"Mean", "Median", "ClientLevel", "LocalGaussian", "Poisson"} <= set(OF_PARTS)
    assert switches(planted, "config/build")


@pytest.mark.parametrize(
    "honest",
    [
        "isinstance(rule, BoundsOneClient)",
        "does_nothing(rule)",
        'raise InputError("no", "aggregator", type(rule).__name__)',
        '"_target_" in node',
        'weighting == "examples"',
    ],
)
def test_what_a_part_says_of_itself_may_be_asked(honest):
    assert not switches(honest, "config/build")
