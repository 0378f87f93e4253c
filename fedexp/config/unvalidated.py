"""A run that trains on all there is: no validation part, and nothing that would choose by it.

Published settings train on the whole official training part (`dataset.validation_size=0`). Then no
round is the best, no training is ended early, no threshold is chosen, and no sweeper has a figure
to go by: figures on test must choose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedexp.config.parts import Config
from fedexp.core.capabilities import TriesTheServer, ends_no_run
from fedexp.core.checks import InputError
from fedexp.core.examples import Dataset
from fedexp.core.text import called


def without_validation(
    dataset: Dataset, config: Config, observers: Sequence[object], attack: object
) -> tuple[str, ...]:
    """What a person should know of a dataset without a validation part; nothing of others.

    Args:
        dataset: as loaded.
        config: of the run.
        observers: of the run.
        attack: of the run.

    Raises:
        InputError: something is to be chosen by validation; it names the key.
    """
    if len(dataset.validation):
        return ()
    none_left = "and there is no validation part (dataset.validation_size=0)"
    if not all(map(ends_no_run, observers)):
        patience = config["early_stopping"].get("patience")
        raise InputError(
            f"ends a run by its validation metric, {none_left}; use null",
            "early_stopping.patience",
            patience,
        )
    if isinstance(attack, TriesTheServer):
        raise InputError(f"tries rows on validation, {none_left}", "attack", called(attack))
    if verdict := config["verdict"]:
        raise InputError(
            f"chooses thresholds on validation, {none_left}", "verdict", verdict.get("_target_")
        )
    return (
        "there is no validation part (dataset.validation_size=0): no round is called the best, and "
        f"objective={config['objective']} gives a sweeper nothing to go by",
    )
