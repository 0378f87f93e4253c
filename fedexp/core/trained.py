"""A client's training, maybe somebody's own, held to writing to its model and to nothing else.

The model is a vector that the module's tensors are views of (`fedexp.core.flat`): the delta is read
from it. All the rest that a trainer sees, other clients see as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedexp.core.checks import InputError
from fedexp.core.examples import Split
from fedexp.core.flat import TaskModel
from fedexp.core.protocols import Model, Trainer
from fedexp.core.text import called
from fedexp.core.types import ClientTask
from fedexp.core.untouched import seen, written


@contextmanager
def held_to_its_model(
    trainer: Trainer, model: TaskModel, shard: Split, task: ClientTask
) -> Iterator[None]:
    """Look at what `trainer` leaves that is called inside, with the same arguments.

    Every client begins in training mode, whatever the model was used for before.

    Raises:
        InputError: it has not moved the model where that lies, or has written to what other
            clients are given as well: it would learn nothing, or teach them, without a word.
    """
    shown = (task.params, *shard.tensors(), *task.broadcast.values(), *task.state.values())
    before, params = written(*shown), seen(task.params)
    model.in_training()
    yield
    refuse_other_tensors(trainer, model)
    if written(*shown) != before or seen(task.params) != params:
        raise InputError(
            "changes what it is given beside the model (the task's params, state and broadcast, "
            "the examples), which others are given as well: copy it first (.clone())",
            "training",
            called(trainer),
        )


def refuse_other_tensors(trainer: Trainer, model: Model) -> None:
    """Raise InputError if `trainer` has not moved `model` where it lies, but made other tensors."""
    if not model.is_in_place():
        raise InputError(
            "puts other tensors in the place of the model's, which are what is sent: write to "
            "these (p.data.copy_(...), with no_grad: p -= ..., load_state_dict without assign)",
            "training",
            called(trainer),
        )
