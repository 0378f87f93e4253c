"""The model that a run starts from: made, tried on examples, and given its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedexp.config.construction import Chosen
from fedexp.config.parts import Config
from fedexp.config.weights import Start
from fedexp.core.capabilities import ChecksTheModel, is_linear
from fedexp.core.checks import InputError, one_of
from fedexp.core.examples import Dataset
from fedexp.core.flat import vector_of
from fedexp.core.protocols import ServerOptimizer
from fedexp.core.rng import seed_for, seeded
from fedexp.training.rehearsal import made_up, refuse_what_moves


def initial_model(
    chosen: Chosen, config: Config, dataset: Dataset, start: Start
) -> tuple[nn.Module, list[str]]:
    """The initial model, and sentences about where its weights are from.

    Raises:
        InputError: it is no model, or not one for these data, or for a part that looks into it.
    """
    with seeded(seed_for(config["seed"], "model"), torch.device("cpu")):
        model = chosen.make("model")
        name = type(model).__name__
        if not isinstance(model, nn.Module):
            raise InputError("is not a torch.nn.Module", "model", name)
        averaged = _buffers_are_averaged(config["buffers"], chosen.combination.server_optimizer)
        kind = "images" if dataset.train.are_images else "rows"
        try:
            with torch.no_grad():  # lazy layers draw their weights here
                shape = tuple(model.eval()(torch.zeros(2, *dataset.input_shape)).shape)
        except Exception as error:
            size = "x".join(map(str, dataset.input_shape))
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot take {kind} of {size}: {reason}", "model", name) from error
    expected = (2, dataset.num_classes)
    if shape != expected:
        raise InputError(f"gives {shape} for 2 {kind}, not {expected}", "model", name)
    said = start.prepare(model)
    vector_of(model)  # refuses a module that has nothing to train
    if wrong := [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]:
        reason = f"its initial {wrong[0]} holds NaN or infinite numbers (was it filled?)"
        raise InputError(reason, "model", name)
    x = made_up(dataset.input_shape)
    y = dataset.train.y[torch.arange(len(x)) % len(dataset.train)]
    for part in (chosen.combination.privacy, chosen.combination.detector, *chosen.studies.values()):
        if not isinstance(part, ChecksTheModel):
            continue
        try:
            part.check_model(model, chosen.task, x, y)
        except InputError:
            raise
        except Exception as error:  # what a model answers in training need not be logits
            reason = f"a step of training on {len(x)} examples fails: {str(error).splitlines()[0]}"
            raise InputError(reason, "model", name) from error
    refuse_what_moves(model, chosen.task, x, y, averaged)
    return model, [*said, *_of_probabilities(model, x)]


def _of_probabilities(model: nn.Module, x: Tensor) -> list[str]:
    """A softmax of a softmax has hardly a gradient where an answer is wrong and sure of itself."""
    with torch.no_grad():
        answers = model.eval()(x)
    sums_to_one = torch.allclose(answers.sum(dim=1), torch.ones(len(x)), atol=1e-4)
    if not sums_to_one or bool((answers < 0).any()):
        return []
    return [
        "the model's answers are probabilities already (not negative, their sum is 1), and the "
        "loss makes probabilities of what it is given: it learns better without its last softmax"
    ]


def _buffers_are_averaged(buffers: str, server_optimizer: ServerOptimizer) -> bool:
    one_of(("refuse", "average"), buffers=buffers)
    if buffers == "average" and not is_linear(server_optimizer):
        raise InputError(
            "an adaptive server optimiser can make running variances negative; use "
            "server_optimizer=sgd or buffers=refuse",
            "buffers",
            buffers,
        )
    return buffers == "average"
