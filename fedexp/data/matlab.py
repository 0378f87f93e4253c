"""Plain arrays from a MATLAB file of version 5, by SciPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fedexp.core.checks import InputError
from fedexp.data.download import damaged


def matlab_arrays(path: Path, names: tuple[str, ...], dataset: str) -> tuple[np.ndarray, ...]:
    """The arrays of these names; `a.b.c` is the field c of the field b of the structure a.

    Args:
        path: of the file.
        names: which, in the order of the answer.
        dataset: the collection's name, for the message.

    Raises:
        InputError: it cannot be read, is no such file, or lacks one of them.
    """
    from scipy.io import loadmat

    try:
        with open(path, "rb") as file:
            tops = sorted({name.partition(".")[0] for name in names})
            content = loadmat(file, simplify_cells=True, variable_names=tops)
        return tuple(_found(content, name) for name in names)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a broken file makes its reader raise
        reason = f"expected a MATLAB file with {', '.join(names)} ({type(error).__name__}: {error})"
        raise damaged(path, reason, dataset) from error


def _found(content: Any, name: str) -> np.ndarray:
    for part in name.split("."):
        content = content[part]
    return np.asarray(content)
