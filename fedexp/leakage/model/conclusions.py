"""What a study of model inversion says in sentences, made from its figures."""

from __future__ import annotations

from collections.abc import Mapping

from fedexp.leakage.intervals import Interval
from fedexp.leakage.model.bench import Verdict

TARGETS = 50  # pictures in all, where their number is not given
INVERSION, UNTRAINED = "inversion", "untrained model"
CONTROLS = ("class mean", "noise", "held-out image")


def conclusions(
    verdicts: Mapping[tuple[str, int], Verdict],
    last: int,
    test_accuracy: float,
    judge_accuracy: float,
    more: Interval,
) -> list[str]:
    """Sentences made from the figures; `more`: recognised beyond the untrained model's pictures."""
    inverted, untrained = verdicts[INVERSION, last], verdicts[UNTRAINED, 0]
    controls = {name: verdicts[name, last] for name in CONTROLS}
    others = {"the untrained model": untrained} | controls

    def beside(metric: str) -> str:
        return ", ".join(f"{n} {v.intervals[metric].mean:.2f}" for n, v in others.items())

    recognised = inverted.intervals["evaluation_accuracy"]
    targets = len(inverted.scores["evaluation_accuracy"])
    sentences = [
        f"The model of round {last} is right on {test_accuracy:.2f} of the test images. Another "
        f"classifier, itself right on {judge_accuracy:.2f} of held-out images, recognises the "
        f"class in {recognised} of {targets} inverted pictures ({beside('evaluation_accuracy')})."
    ]
    if more.low > 0:
        sentences.append(
            f"That is {more} above the untrained model: the weights show what classes look like."
        )
    elif more.holds(0):
        sentences.append("That is no more than from an untrained model, as far as can be told.")
    else:
        sentences.append(f"That is less than from an untrained model, by {more}.")
    sentences.append(
        f"SSIM to the mean image of the class: {inverted.intervals['ssim_to_class_mean']} "
        f"({beside('ssim_to_class_mean')})."
    )
    sentences.append(on_memorisation(inverted, controls["held-out image"]))
    sentences.append(
        "These intervals are of one model; models of other seeds may differ by more. Those of the "
        "accuracy and of the SSIM are over pictures, that of the gap over which images of a class "
        "were trained on."
    )
    if targets < TARGETS:
        sentences.append(f"Only {targets} pictures were judged; {TARGETS} are usual.")
    return sentences


def on_memorisation(inverted: Verdict, real: Verdict) -> str:
    """What the gap of the inverted pictures says, beside that of real images held out."""
    gap, control = inverted.intervals["memorisation_gap"], real.intervals["memorisation_gap"]
    nearest, elsewhere = (
        float(verdict.scores["max_ssim_trained_on"].nanmean()) for verdict in (inverted, real)
    )
    measured = (
        f"SSIM to the nearest image trained on is {nearest:.2f} (of real images held out "
        f"{elsewhere:.2f}), which is {gap} above that to the nearest of as many held out"
    )
    if gap.holds(0):
        return f"{measured}: nothing shows that single training examples were recovered."
    if not control.holds(0):
        return (
            f"{measured}, but for real images held out the gap is {control}: the two sets differ, "
            "and it does not show memorisation."
        )
    if gap.low > 0:
        return f"{measured}: something of the examples trained on shows, beyond their class."
    return f"{measured}: nearer to images held out, which memorisation does not explain."
