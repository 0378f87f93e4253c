"""What a client of Flower does; a module of its own, which the workers of Ray import."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from peers.shared import Workload
from peers.torch_model import start_model

FOLDER = "PEERS_WORKLOAD"  # the variable that tells the workers
app = ClientApp()


@cache
def the_workload() -> Workload:
    """Of this process: a worker of Ray serves many clients."""
    return Workload.read(Path(os.environ[FOLDER]))


@cache
def the_model() -> nn.Module:
    """The worker's one model, whose weights every message replaces."""
    return start_model(the_workload())


@app.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of SGD on the client's rows, as in Flower's quickstart for PyTorch."""
    workload, model = the_workload(), the_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.train()
    x, y = workload.client(int(context.node_config["partition-id"]))
    rows = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.lr)
    for images, labels in DataLoader(rows, workload.batch_size, shuffle=True):
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({"num-examples": len(rows)}),
    }
    return Message(content=RecordDict(content), reply_to=message)
