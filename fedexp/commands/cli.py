"""The command `fedexp`: a thin door. Nothing heavy is imported before a command needs it.

`fedexp NAME ...` is `main(arguments) -> int` of one module of this folder, which is imported only
then.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

from fedexp import __version__
from fedexp.commands.answers import Asker, answering
from fedexp.commands.arguments import EXIT_BAD_INPUT, EXIT_OK
from fedexp.core.checks import InputError, did_you_mean
from fedexp.core.interrupt import Terminated, endings_as_interrupts, heard
from fedexp.core.library_warnings import into_the_log
from fedexp.core.preparation import over, show_preparation, wiped_away

EXIT_INTERRUPTED, EXIT_NO_READER = 130, 141

COMMANDS = (
    "run",
    "resume",
    "rerun",
    "watch",
    "report",
    "leakage",
    "detect",
    "privacy",
    "list",
    "data",
    "store",
    "schema",
)
"""Each a module of `fedexp.commands`."""

HELP = """\
fedexp: an experiment runner for federated learning

  fedexp run [key=value ...]          train; every part can be chosen and every value changed
  fedexp run -m key=a,b [...]         a sweep: every combination, one table at the end
  fedexp run --dry-run [...]          the plan: rounds, bytes, time, epsilon, what would be refused
  fedexp run from=RUN_DIR [key=value] go on from a run's last model, with other settings: a new run
  fedexp resume RUN_DIR [rounds=MORE] go on with a run that was stopped, or for more rounds
  fedexp rerun RUN_DIR [key=value]    a run once more; without key=value: does it come out the same?
  fedexp watch RUN_OR_SWEEP           follow what another process does: rounds, jobs, time left
  fedexp report RUN_OR_SWEEP ...      tables and plots of what is there, made anew
  fedexp leakage RUN_DIR leakage=NAME attack a finished run: what do its updates and models leak?
  fedexp detect fit FOLDER --out FILE learn from files what honest updates look like
  fedexp detect scan FOLDER ...       score files of updates, flag the suspicious ones
  fedexp privacy --delta D ...        on paper: epsilon of planned training, or the noise it needs
  fedexp list [GROUP [CHOICE]]        what can be chosen, one line each; of one choice everything
  fedexp list --search WORD           choices whose name or keys hold a word
  fedexp data check                   which datasets are there
  fedexp data check FOLDER            what is in your own images (or FILE: arrays, a table)
  fedexp data get NAME ...            download datasets
  fedexp store [--empty]              what sweeps have kept, so that it is not computed again
  fedexp schema [NAME]                what --json answers with, as JSON Schema
  fedexp --version

Every command takes --json: one JSON document on stdout, refusals too, and nothing else there.

fedexp run alone trains ten clients on scikit-learn's digits, without a network.
fedexp run --help shows the config groups and every default.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line, by default this process's own; the exit code."""
    of_this_process = arguments is None
    if arguments is None:
        arguments = sys.argv[1:]
        _mend_streams()
    before = len(heard)
    with answering(arguments) as (asker, words):
        try:
            with wiped_away(), endings_as_interrupts(), into_the_log():
                try:
                    command, rest = _command(words)
                    code = EXIT_OK
                    if of_this_process:
                        show_preparation(command, rest)
                    if command:
                        _refuse_lost_folder()
                        module = importlib.import_module(f"fedexp.commands.{command}")
                        if command not in ("run", "resume", "rerun"):  # which have a run to build
                            over()
                        code = module.main(rest)
                except SystemExit as end:  # argparse and Hydra end so, with a number or nothing
                    code = int(end.code or EXIT_OK)
            asker.end()  # here, where a reader that has gone is dealt with, not at the very end
            return int(code)
        except KeyboardInterrupt as end:
            asker.broken_off("interrupted")
            return end.exit_code if isinstance(end, Terminated) else EXIT_INTERRUPTED
        except BrokenPipeError:  # the reader, such as `head`, has gone
            asker.leave()
            return EXIT_NO_READER
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            return _refused(asker, InputError(f"{place}{error.strerror or error}"))
        except Exception as error:
            if len(heard) > before:  # Hydra and omegaconf make errors of their own of a Ctrl-C
                asker.broken_off("interrupted")
                return 128 + heard[-1]
            if isinstance(error, InputError):
                return _refused(asker, error)
            asker.broken_off(str(error) or type(error).__name__)
            raise


run_command = main


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """Which command is meant, and its arguments; "" for a question that is answered here."""
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        print(HELP, end="")
        return "", []
    if first == "--version":
        print(f"fedexp {__version__}")
        return "", []
    if first in COMMANDS:
        return first, arguments[1:]
    if first in ("-sc", "--shell-completion"):
        return _completion(arguments)
    if "=" in first or first.startswith("-"):
        return "run", arguments
    suggestion = did_you_mean(first, COMMANDS)
    raise InputError(f"{suggestion}Commands: {', '.join(COMMANDS)}", "command", first)


def _completion(arguments: list[str]) -> tuple[str, list[str]]:
    """Shell completion: ours, or Hydra's for what comes after `fedexp run`."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ")
    if not any(a.startswith("query=") for a in arguments):
        return "run", arguments
    if len(words) <= 2:
        print("\n".join(c for c in COMMANDS if c.startswith(words[-1])))
        return "", []
    from fedexp.commands.completion import completions, config_dir, for_hydra, is_for_hydra

    if not is_for_hydra(line):
        print("\n".join(completions(line)))
        return "", []
    os.environ["COMP_LINE"] = for_hydra(line)
    named = config_dir(line)
    return "run", [*arguments, *(["--config-dir", named] if named else [])]


def _refuse_lost_folder() -> None:
    """Raise InputError where the folder that the shell stands in was removed: torch dies of it."""
    try:
        os.getcwd()
    except OSError:
        folder = os.environ.get("PWD", ".")
        reason = "is not there any more: cd to a folder that is"
        raise InputError(reason, "current folder", folder) from None


def _mend_streams() -> None:
    """Make stdout and stderr take whatever is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream, io.TextIOWrapper):  # a C locale has no letter for every path
            stream.reconfigure(errors="backslashreplace")


def _refused(asker: Asker, reason: InputError) -> int:
    asker.refuse(reason)
    return EXIT_BAD_INPUT
