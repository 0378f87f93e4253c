"""A workload by ByzFL: the FedAvg of its benchmark (`byzfl.benchmark.train`), nobody malicious."""

from __future__ import annotations

import math
from typing import Any

import byzfl
import numpy as np
import torch
from byzfl.fed_framework import models
from torch.utils.data import DataLoader, TensorDataset

from peers.shared import Rounds, Workload, arguments, finish
from peers.torch_model import start_model


def main() -> None:
    given = arguments()
    workload = Workload.read(given.workload)
    # ByzFL takes a model by its name in this module.
    models.workload = lambda: start_model(workload)
    sets = [TensorDataset(*map(torch.from_numpy, own)) for own in all_clients(workload)]
    clients = [
        byzfl.Client(
            common(workload)
            | {
                "loss_name": "CrossEntropyLoss",
                "LabelFlipping": False,
                "nb_labels": 10,
                "momentum": 0.0,
                "training_dataloader": DataLoader(own, workload.batch_size, shuffle=True),
                "store_per_client_metrics": False,
            }
        )
        for own in sets
    ]
    test = (torch.from_numpy(workload.array(name).copy()) for name in ("x_test", "y_test"))
    rules = {"median": "Median", "mean": "Average"}
    server = byzfl.Server(
        common(workload)
        | {
            "test_loader": DataLoader(TensorDataset(*test), 200),
            "aggregator_info": {"name": rules[workload.rule], "parameters": {}},
            "pre_agg_list": [],
        }
    )
    steps = math.ceil(len(sets[0]) / workload.batch_size)  # one epoch
    for client in clients:
        client.set_model_state(server.get_dict_parameters())
    rounds = Rounds()
    rounds.begin()
    draw = np.random.default_rng(0)
    for _ in range(given.rounds):
        weights = []
        for k in draw.choice(len(clients), workload.per_round, replace=False):
            clients[k].compute_model_update(steps)
            weights.append(clients[k].get_flat_parameters())
        server.update_model_with_weights(weights)
        for client in clients:
            client.set_model_state(server.get_dict_parameters())
        rounds.done()
    finish(server.compute_test_accuracy(), "byzfl", "torch")


def common(workload: Workload) -> dict[str, Any]:
    """What clients and the server are both told."""
    return {
        "model_name": "workload",
        "device": "cpu",
        "optimizer_name": "SGD",
        "learning_rate": workload.lr,
        "weight_decay": 0.0,
        "milestones": [],
        "learning_rate_decay": 1.0,
    }


def all_clients(workload: Workload) -> list[tuple[Any, Any]]:
    """Everybody's rows."""
    return [workload.client(k) for k in range(len(workload.shards()))]


if __name__ == "__main__":
    main()
