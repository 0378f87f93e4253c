"""`fedexp run --help`: the groups, what is chosen of each, and every key with its comment.

Read from the YAMLs as text, so that it answers at once and says what they say.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedexp.config.catalogue import groups
from fedexp.config.explanation import keys_in
from fedexp.config.folders import conf_folder
from fedexp.core.checks import InputError, did_you_mean

WORDS = ("-h", "--help")
HEAD = """\
fedexp run [options] [key=value ...]: one federated experiment, or with -m a sweep of them

  -m, --multirun      key=a,b makes a job of each: fedexp run -m seed=0,1,2 aggregator=mean,median
  --dry-run           the plan, and nothing else: rounds, bytes, memory, time, epsilon
  --json              one JSON document on stdout (fedexp schema)
  --config-dir DIR    a folder of configs of your own, before all others
  --cfg job           the whole config as it is with these overrides
  --hydra-help        Hydra's own options
"""
TAIL = """\
Of another choice: fedexp run aggregator=krum --help, or fedexp list aggregator krum.
Tab completion: eval "$(fedexp -sc install=bash)"
"""
WIDEST = 46  # of a key with its value, beside which its comment stands


def run_help(folders: Sequence[Path], overrides: Sequence[str]) -> str:
    """The text, with the choices that the overrides make.

    Raises:
        InputError: a group has no such choice.
    """
    everything = groups(list(folders))
    root = (conf_folder() / "config.yaml").read_text(encoding="utf-8")
    chosen = _chosen(root) | _said(overrides, everything)
    lines = [HEAD, "Choose with group=choice (* is chosen):", ""]
    for group, choices in everything.items():
        names = [f"{name}*" if chosen.get(group) == name else name for name in choices]
        lines += textwrap.wrap(
            f"{group}: {', '.join(names)}", 98, subsequent_indent="  ", break_on_hyphens=False
        )
    lines += ["", "Change with key=value:", ""]
    lines += [line for k in keys_in(root) if not k[0].startswith("hydra.") for line in _line(*k)]
    for group, choice in chosen.items():
        if choice not in everything.get(group, ()):
            continue
        path = next(p for f in folders if (p := f / group / f"{choice}.yaml").is_file())
        keys = keys_in(path.read_text(encoding="utf-8-sig", errors="replace"))
        lines += ["", f"{group}={choice}: {everything[group][choice]}"]
        dotted = group.replace("/", ".")
        lines += [line for name, *rest in keys for line in _line(f"{dotted}.{name}", *rest)]
    return "\n".join([*lines, "", TAIL])


def _chosen(root: str) -> dict[str, str]:
    """What the defaults list of the root config chooses, and its lists of none."""
    return dict(re.findall(r"^  - (\w[\w/]*): (\w+)", root, re.MULTILINE))


def _said(overrides: Sequence[str], everything: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    said = {}
    for override in overrides:
        group, _, choice = override.partition("=")
        if group not in everything:
            continue
        if choice not in everything[group]:
            known = everything[group]
            reason = f"{did_you_mean(choice, known)}Allowed: {', '.join(known)}"
            raise InputError(reason, group, choice)
        said[group] = choice
    return said


def _line(name: str, default: str, comment: str) -> list[str]:
    """A key, and its comment beside it, or below where it is long."""
    key = f"  {name}={default}"
    if not comment:
        return [key]
    margin = " " * (WIDEST + 2)
    said = textwrap.wrap(comment, 98, initial_indent=margin, subsequent_indent=margin)
    if len(key) > WIDEST:
        return [key, *said]
    return [f"{key:<{WIDEST}}  {said[0].strip()}", *said[1:]]
