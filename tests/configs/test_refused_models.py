"""Refused: models that do not fit the images, and layers that cannot be averaged."""

import pytest

from fedexp.config.build import build
from tests.support.composing import config_for
from tests.support.refusing import refusal

CUSTOM = "model=custom"
NOTHING_TO_TRAIN = (
    "+model._args_=[{_target_: torch.nn.Flatten},"
    "{_target_: torch.nn.AdaptiveAvgPool1d, output_size: 10}]"
)

NORMED = [
    *[CUSTOM, "model._target_=torch.nn.Sequential"],
    "+model._args_=[{_target_: torch.nn.Flatten},"
    "{_target_: torch.nn.BatchNorm1d, num_features: 64},"
    "{_target_: torch.nn.Linear, in_features: 64, out_features: 10}]",
]

REFUSED = {
    "model for another shape": (
        ["model.input_shape=[1,28,28]"],
        "model=Sequential: cannot take images of 1x8x8: ",
    ),
    "model for colour": (
        ["model=small_cnn", "model.input_shape=[3,8,8]"],
        "model=Sequential: cannot take images of 1x8x8",
    ),
    "model for other classes": (
        ["model.num_classes=7"],
        "model=Sequential: gives (2, 7) for 2 images, not (2, 10)",
    ),
    "images too small for the model": (
        ["model=cnn", "model.input_shape=[1,3,3]"],
        "model.input_shape=[1, 3, 3]: needs images (channels, height, width) of at least 4x4",
    ),
    "a table for a model of images": (
        ["dataset=breast_cancer", "model=small_cnn"],
        "model.input_shape=[30]: needs images (channels, height, width) of at least 4x4 pixels; "
        "model=mlp takes examples of any shape",
    ),
    "a table for a model of images of any size": (
        ["dataset=breast_cancer", "model=resnet18"],
        "model.input_shape=[30]: needs images (channels, height, width); model=mlp takes examples",
    ),
    "model with BatchNorm": (
        NORMED,
        "model=Sequential: layer 1 (BatchNorm1d) keeps running statistics (training moves its "
        "buffer running_mean): use a layer without (GroupNorm for BatchNorm), or buffers=average "
        "to average them over the clients",
    ),
    "running statistics under an adaptive server": (
        [*NORMED, "buffers=average", "server_optimizer=adam"],
        "buffers=average: an adaptive server optimiser can make running variances negative",
    ),
    "a word that is no buffers policy": (
        ["buffers=keep"],
        "buffers=keep: Allowed: refuse, average",
    ),
    "model with nothing to train": (
        [CUSTOM, "model._target_=torch.nn.Sequential", NOTHING_TO_TRAIN],
        "model=Sequential: has no trainable parameters",
    ),
    "another number of classes": (
        ["dataset.num_classes=7"],
        "dataset.num_classes=7: digits has 10 classes",
    ),
    "another shape of images": (
        ["dataset.input_shape=[1,28,28]"],
        "dataset.input_shape=[1, 28, 28]: the images of digits are [1, 8, 8]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    overrides, message = REFUSED[case]
    said = refusal(config_for(*overrides))
    assert said.startswith(message), said


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.hidden=[]"],
        [
            CUSTOM,
            "model._target_=torch.nn.Sequential",
            "+model._args_=[{_target_: torch.nn.Flatten},"
            "{_target_: torch.nn.Linear, in_features: 64, out_features: 10}]",
        ],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
