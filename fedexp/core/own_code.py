"""Errors of code that is not fedexp's, in one line that says where.

A part of the user's own that fails in the middle of a run is bad input like any other. Whose line
it was shows in the traceback: the innermost that is neither fedexp's nor a library's.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedexp.core.checks import InputError, of_its_own
from fedexp.core.default_type import default_type_kept

OURS = str(Path(__file__).parents[1])
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


@contextmanager
def own_code_named() -> Iterator[None]:
    """Of what fails in a part of the user's own, or ends the program, an error that says where.

    Raises:
        InputError: it did; nobody but the command line ends a run, which would look complete.
    """
    try:
        with default_type_kept():
            yield
    except SystemExit as end:
        reason = f"ends the program (SystemExit: {end.code}), as no part may; raise an error there"
        raise InputError(f"{_users_line(end) or 'a part'}, {reason}") from end
    except (InputError, ChildProcessError, BrokenPipeError):
        raise
    except Exception as problem:
        # What ends a generator within a generator has another name by the time it gets here.
        error = problem.__cause__ if isinstance(problem.__cause__, StopIteration) else problem
        if line := _users_line(error):
            raise InputError(f"{line}: {of_its_own(error)}") from problem
        raise


class FailedElsewhere(InputError):
    """An error of the user's own code in another process, caused by the traceback of there.

    Args:
        reason: the line.
        trace: what would be lost on the way here.
    """

    def __init__(self, reason: str, trace: str) -> None:
        super().__init__(reason)
        self._trace = trace
        self.__cause__ = RuntimeError(trace)

    def __reduce__(self) -> tuple[type[FailedElsewhere], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.reason, self._trace)


def to_be_sent(error: InputError, at: str) -> InputError:
    """What a worker process answers in the place of an error, met at a client or a part."""
    if error.__cause__ is None:  # it has all that is to be said
        return error
    return FailedElsewhere(f"{at}: {error}", traceback.format_exc())


def _users_line(error: BaseException) -> str:
    """FILE, line N; "" for an error of fedexp's own."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(OURS):
            return ""
        # Code that was compiled names its source as it lay where it was built: numpy/x.pyx.
        if os.path.isabs(frame.filename) and not frame.filename.startswith(LIBRARIES):
            return f"{frame.filename}, line {frame.lineno}"
    return ""
