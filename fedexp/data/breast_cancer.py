"""Breast cancer: 569 patients, 30 numbers each, which come with scikit-learn: no file, no network.

Source: W. Wolberg, O. Mangasarian, N. Street and W. Street, "Breast Cancer Wisconsin (Diagnostic)",
UCI Machine Learning Repository, 1993, as `sklearn.datasets.load_breast_cancer` ships it: what was
computed from the outlines of cell nuclei in an image of a fine needle aspirate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import torch

from fedexp.core.examples import Dataset
from fedexp.data.check import checked
from fedexp.data.division import Division
from fedexp.data.download import RemoteFile
from fedexp.data.own import dataset_of, in_order
from fedexp.data.records import Records
from fedexp.data.table import prepared


@final
@dataclass(frozen=True)
class BreastCancer:
    """The embedded table, split by class, standardised by the training rows.

    Args:
        name: the name in the config.
        input_shape: (features,) of a row.
        num_classes: how many classes there are.
        validation_share: of the patients.
        test_share: the same.
        split_seed: decides who goes where; apart from the run's seed.

    >>> table = BreastCancer("breast_cancer", (30,), 2, 0.15, 0.25, split_seed=0)
    >>> dataset = table(Path())
    >>> len(dataset.train), len(dataset.validation), len(dataset.test), dataset.class_names
    (342, 85, 142, ('malignant', 'benign'))
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    validation_share: float
    test_share: float
    split_seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        _ = self._division  # which refuses what cannot be

    def __call__(self, data_dir: Path) -> Dataset:
        """The dataset; `data_dir` is not looked at."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        n = len(bunch.target)
        records = Records(
            places=np.array([f"row {row}" for row in range(n)], dtype=object),
            y=bunch.target.astype(np.int64),
            class_names=tuple(map(str, bunch.target_names)),
            site=None,
            site_names=(),
            subject=np.arange(n),
            subject_names=tuple(map(str, range(n))),
            part=None,
        )
        parts = self._division(records)
        values = pd.DataFrame(bunch.data, columns=list(bunch.feature_names))
        features = prepared(values, records, parts)[0]
        order = in_order(records, parts)
        x = torch.from_numpy(features[order])
        dataset = dataset_of(self.name, x, 1.0, records.rows(order), parts[order], ())
        return checked(dataset, self.name, self.input_shape, self.num_classes)

    def files(self, data_dir: Path) -> tuple[RemoteFile, ...]:
        """None: scikit-learn brings the table along."""
        return ()

    @cached_property
    def _division(self) -> Division:
        return Division("patient", self.validation_share, self.test_share, self.split_seed)
