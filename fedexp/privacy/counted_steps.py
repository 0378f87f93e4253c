"""The steps that DP-SGD's epsilon is for: made once, with the announced work, and counted."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, final

from fedexp.core.capabilities import called
from fedexp.core.checks import InputError
from fedexp.training.steps import StepTrainer


@final
class CountedSteps:
    """A source of steps that counts them, and makes them once: a second time has the same noise.

    Args:
        steps: the source, of one client or of a block.
        trainer: that asks for them; the account goes by its work.
    """

    def __init__(
        self, steps: Callable[..., Generator[Any, None, None]], trainer: StepTrainer
    ) -> None:
        self._steps, self._work, self._by = steps, trainer.work(), called(trainer)
        self._begun, self.made = False, 0

    def __call__(self, *given: Any, **named: Any) -> Generator[Any, None, None]:
        """The source's steps, for what it is given; the work comes last.

        Raises:
            InputError: they were made before, or are asked for with other work.
        """
        if self._begun:
            raise self._refusal("asks for its steps twice: the second time has the first's noise")
        if named.get("work", given[-1:]) not in (self._work, (self._work,)):
            raise self._refusal("asks for other steps than its work() says, which epsilon counts")
        self._begun = True
        with closing(self._steps(*given, **named)) as made:
            for step in made:
                self.made += 1
                yield step
                del step  # or the next gradients could not lie where these do

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{reason}; DP-SGD cannot train so", "training", self._by)
