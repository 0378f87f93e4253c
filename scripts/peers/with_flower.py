"""A workload by Flower's simulation engine: Ray, one core a client, as many at once as cores."""

from __future__ import annotations

import os

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, FedMedian
from flwr.simulation import run_simulation

from peers import flower_client
from peers.shared import Rounds, Workload, arguments, finish
from peers.torch_model import accuracy_of, start_model


def server_app(workload: Workload, n_rounds: int) -> ServerApp:
    """FedAvg or FedMedian, nobody evaluates."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        rounds = Rounds()

        def after(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            rounds.done() if server_round else rounds.begin()
            return None

        strategies = {"mean": FedAvg, "median": FedMedian}
        strategy = strategies[workload.rule](
            fraction_train=workload.per_round / len(workload.shards()),
            fraction_evaluate=0.0,
            min_train_nodes=workload.per_round,
            min_available_nodes=len(workload.shards()),
        )
        start = ArrayRecord(start_model(workload).state_dict())
        result = strategy.start(grid, start, num_rounds=n_rounds, evaluate_fn=after)
        model = start_model(workload)
        model.load_state_dict(result.arrays.to_torch_state_dict())
        finish(accuracy_of(model, workload), "flwr", "ray", "torch")

    return app


def main() -> None:
    given = arguments()
    os.environ |= {
        flower_client.FOLDER: str(given.workload.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    workload, cores = Workload.read(given.workload), int(os.environ["PEERS_CORES"])
    torch.set_num_threads(1)
    run_simulation(
        server_app=server_app(workload, given.rounds),
        client_app=flower_client.app,
        num_supernodes=len(workload.shards()),
        backend_config={
            "init_args": {"num_cpus": cores},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
