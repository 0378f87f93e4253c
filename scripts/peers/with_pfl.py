"""A workload by pfl (pfl-research): one process a core, as its guide to fast simulations has it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from peers.shared import Rounds, Workload, arguments, finish

RANK, ADDRESSES = "PFL_WORKER_RANK", "PFL_WORKER_ADDRESSES"


def run(workload: Workload, n_rounds: int) -> None:
    """Train, in this process's share of every round."""
    # pfl joins the other processes while it is imported: the two variables must be there.
    import numpy as np
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.metrics import Metrics, Weighted
    from pfl.model.pytorch import PyTorchModel
    from torch import Tensor, nn

    from peers.torch_model import accuracy_of, start_model

    class Net(nn.Module):
        """What pfl asks of a torch module."""

        def __init__(self) -> None:
            super().__init__()
            self.body = start_model(workload)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(self(x), y)

        @torch.no_grad()
        def metrics(self, x: Tensor, y: Tensor) -> dict[str, Weighted]:
            return {"loss": Weighted(self.loss(x, y).item() * len(y), len(y))}

    class Watch(TrainingProcessCallback):
        """Tells of rounds, in the first process."""

        def __init__(self) -> None:
            self.rounds = Rounds()

        def on_train_begin(self, *, model: PyTorchModel) -> Metrics:
            self.rounds.begin()
            return Metrics()

        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            if os.environ[RANK] == "0":
                self.rounds.done()
            return False, Metrics()

    torch.set_num_threads(1)
    np.random.seed(0)  # every process must draw the same clients
    ids = range(len(workload.shards()))
    users = {k: tuple(map(torch.from_numpy, workload.client(k))) for k in ids}
    sampler = get_user_sampler("minimize_reuse", list(users))
    sizes = {k: len(y) for k, (_, y) in users.items()}
    train = FederatedDataset(lambda k: Dataset(users[k], user_id=k), sampler, sizes)
    net = Net()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=n_rounds,
            evaluation_frequency=n_rounds + 1,  # the round of warming up alone
            train_cohort_size=workload.per_round,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(train, train, postprocessors=[WeightByDatapoints()]),
        model=PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0)),
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=workload.lr,
            local_batch_size=workload.batch_size,
        ),
        callbacks=[Watch()],
    )
    if os.environ[RANK] == "0":
        finish(accuracy_of(net, workload), "pfl", "torch")


def main() -> None:
    given = arguments()
    if RANK in os.environ:
        run(Workload.read(given.workload), given.rounds)
        return
    workers = int(os.environ["PEERS_CORES"])
    ports = [free_port() for _ in range(workers)]
    addresses = ",".join(f"localhost:{port}" for port in ports)
    command = [sys.executable, "-m", "peers.with_pfl", *sys.argv[1:]]
    started = [
        subprocess.Popen(command, env=os.environ | {ADDRESSES: addresses, RANK: str(rank)})
        for rank in range(workers)
    ]
    sys.exit(max(abs(worker.wait()) for worker in started))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
