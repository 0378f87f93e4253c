"""Errors as they were raised, through Hydra, which would make a warning or more words of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fedexp.config.hydra_errors import one_line
from fedexp.core.checks import InputError


class PastHydra(BaseException):
    """Carries an error out of Hydra, which would make a warning or a longer message of it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(error)


@contextmanager
def past_hydra() -> Iterator[None]:
    """Have what is raised inside come out of Hydra as it is."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise PastHydra(InputError(one_line(error))) from error
    except Exception as error:
        raise PastHydra(error) from error
