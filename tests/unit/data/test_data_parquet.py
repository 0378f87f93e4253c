"""A Parquet file is the same table as its CSV."""

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedexp.config.folders import conf_folder
from fedexp.data.loader import load_anew


def test_it_gives_what_the_csv_gives(tmp_path):
    rng = np.random.default_rng(0)
    n = 120
    table = pd.DataFrame(
        {
            "age": rng.integers(20, 90, n),
            "marker": rng.normal(size=n),
            "ward": rng.choice(["a", "b", "c"], n),
            "hospital": np.where(np.arange(n) % 3, "north", "south"),
            "ill": np.where(rng.random(n) < 0.5, "yes", "no"),
        }
    )
    table.loc[3, "marker"] = np.nan
    typed = table.astype({"age": "Int64", "ward": "category"})
    table.to_csv(tmp_path / "t.csv", index=False)
    typed.to_parquet(tmp_path / "t.parquet")
    node = OmegaConf.load(conf_folder() / "dataset" / "table.yaml")
    node.label, node.site = "ill", "hospital"
    datasets = []
    for name in ("t.csv", "t.parquet"):
        node.path = str(tmp_path / name)
        datasets.append(load_anew(instantiate(node), tmp_path))
    csv, parquet = datasets
    assert csv.class_names == parquet.class_names == ("no", "yes")
    assert csv.site_names == parquet.site_names == ("north", "south")
    for ours, theirs in zip(csv.parts.values(), parquet.parts.values(), strict=True):
        assert torch.allclose(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
