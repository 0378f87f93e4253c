"""`.hydra/` in a run's folder: what Hydra composed, and of what."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fedexp.core.files import write_atomically


def write_hydra_documents(cfg: DictConfig, folder: Path) -> None:
    """`.hydra/`, as Hydra writes it; but Hydra would before anybody knows whose the folder is."""
    of_hydra = HydraConfig.get()
    documents = {
        "config": cfg,
        "hydra": OmegaConf.create({"hydra": of_hydra}),
        "overrides": of_hydra.overrides.task,
    }
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, document in documents.items():
        write_atomically(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(document).encode())
