"""A workload by FedJAX's federated averaging, with Haiku models of the same weights."""

from __future__ import annotations

import fedjax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from peers.shared import Rounds, Workload, arguments, finish

Params = dict[str, dict[str, np.ndarray]]


def mlp(batch: dict[str, jax.Array]) -> jax.Array:
    """784-200-200-10."""
    hidden = hk.Flatten()(batch["x"])
    for width in (200, 200):
        hidden = jax.nn.relu(hk.Linear(width)(hidden))
    return hk.Linear(10)(hidden)


def cnn(batch: dict[str, jax.Array]) -> jax.Array:
    """The FedAvg paper's; `[n, 28, 28, 1]`, the layout that XLA and Haiku prefer."""
    hidden = batch["x"]
    for channels in (32, 64):
        hidden = jax.nn.relu(hk.Conv2D(channels, 5, padding="SAME")(hidden))
        hidden = hk.MaxPool(2, 2, padding="VALID", channel_axis=-1)(hidden)
    hidden = jax.nn.relu(hk.Linear(512)(hk.Flatten()(hidden)))
    return hk.Linear(10)(hidden)


def model_of(workload: Workload) -> fedjax.Model:
    """As FedJAX wants it."""
    forward = {"mlp": mlp, "cnn": cnn}[workload.model]

    def loss(batch: dict[str, jax.Array], outputs: jax.Array) -> jax.Array:
        rows = jnp.arange(len(batch["y"]))
        return -jax.nn.log_softmax(outputs)[rows, batch["y"]]

    return fedjax.create_model_from_haiku(
        transformed_forward_pass=hk.transform(forward),
        sample_batch={"x": np.zeros((1, 28, 28, 1), np.float32), "y": np.zeros(1, np.int32)},
        train_loss=loss,
        eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
    )


def in_haikus_layout(start: dict[str, np.ndarray], like: Params) -> Params:
    """Torch's tensors, two a layer, as Haiku has them.

    A torch Linear is `[out, in]`, a Conv2d `[out, in, height, width]`; the first Linear after a
    convolution reads channel by channel in torch and pixel by pixel here.
    """
    pairs = list(start.values())
    weights: Params = {}
    channels = 0
    for layer, weight, bias in zip(like, pairs[::2], pairs[1::2], strict=True):
        if weight.ndim == 4:
            w, channels = weight.transpose(2, 3, 1, 0), len(weight)
        elif channels:
            side = round((weight.shape[1] / channels) ** 0.5)
            w = weight.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
            w, channels = w.reshape(weight.shape[1], -1), 0
        else:
            w = weight.T
        weights[layer] = {"w": jnp.asarray(w), "b": jnp.asarray(bias)}
    return weights


def main() -> None:
    given = arguments()
    workload = Workload.read(given.workload)
    x, y = workload.array("x").reshape(-1, 28, 28, 1), workload.array("y")
    clients = {
        b"%06d" % k: {"x": np.array(x[rows]), "y": np.array(y[rows], np.int32)}
        for k, rows in enumerate(workload.shards())
    }
    data = fedjax.InMemoryFederatedData(clients)
    sampler = fedjax.client_samplers.UniformGetClientSampler(data, workload.per_round, seed=0)
    model = model_of(workload)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        grad_fn=fedjax.model_grad(model),
        client_optimizer=fedjax.optimizers.sgd(workload.lr),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(
            batch_size=workload.batch_size, num_epochs=1
        ),
    )
    like = model.init(jax.random.PRNGKey(0))
    state, rounds = algorithm.init(in_haikus_layout(workload.start(), like)), Rounds()
    rounds.begin()
    for number in range(given.rounds):
        sampler.set_round_num(number)
        state, _ = algorithm.apply(state, sampler.sample())
        jax.block_until_ready(state.params)
        rounds.done()
    test = fedjax.ClientDataset(
        {
            "x": workload.array("x_test").reshape(-1, 28, 28, 1),
            "y": np.array(workload.array("y_test"), np.int32),
        }
    )
    found = fedjax.evaluate_model(model, state.params, test.padded_batch(batch_size=200))
    finish(float(found["accuracy"]), "fedjax", "jax")


if __name__ == "__main__":
    main()
