"""What every setting of conf/setting must keep, in real rounds over a tiny federation."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedexp.aggregation.mean import Mean
from fedexp.aggregation.server_optimizers import SGD
from fedexp.attacks.none import NoAttack
from fedexp.backends.in_process import InProcess
from fedexp.channel.plain import Plain
from fedexp.core.attack_schedule import AttackSchedule
from fedexp.core.examples import Split
from fedexp.core.flat import vector_of
from fedexp.core.partition import Partition
from fedexp.core.workload import Workload
from fedexp.detection.none import NoDetector
from fedexp.federation.algorithms.fedavg import FedAvg
from fedexp.federation.evaluation import ModelEvaluator
from fedexp.federation.rounds import Experiment, initial_state, run_rounds
from fedexp.federation.sampling import Poisson, Uniform
from fedexp.federation.server import Server
from fedexp.federation.update_validation import NoValidation
from fedexp.federation.worker_momentum import NoMomentum
from fedexp.models import mlp
from fedexp.privacy.account import NoAccount
from fedexp.privacy.none import NoPrivacy
from fedexp.tasks.multiclass import Multiclass
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD
from tests.support.composing import choices, part

CHOICES = choices("setting")
UNEVEN = (3, 11, 25, 41)
EVEN = (20, 20, 20, 20, 20)


@pytest.fixture(params=CHOICES)
def setting(request):
    return part("setting", request.param)


def trainer(**changes):
    options = {
        "lr": 0.1,
        "batch_size": 10,
        "epochs": 1,
        "steps": None,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "schedule": Constant(),
    }
    return LocalSGD(**{**options, **changes})


def experiment(setting, sizes, sampler, train, rounds=2, labels_of=None):
    """A federation of clients with `sizes` examples; `labels_of` shifts one client's labels."""
    g = torch.Generator().manual_seed(0)
    n, n_clients = sum(sizes), len(sizes)
    x, y = torch.randn(n, 1, 4, 4, generator=g), torch.randint(0, 3, (n,), generator=g)
    edges = np.cumsum((0, *sizes))
    partition = Partition(
        Split(x, y), tuple(np.arange(edges[k], edges[k + 1]) for k in range(n_clients))
    )
    if labels_of is not None:
        own = torch.from_numpy(partition.shards[labels_of])
        y[own] = (y[own] + 1) % 3
    shards = setting.shards(partition)
    test = Split(torch.randn(30, 1, 4, 4, generator=g), torch.arange(30) % 3)
    torch.manual_seed(0)
    model = mlp((1, 4, 4), 3, hidden=(5,))
    workload = Workload(
        model,
        partition.train,
        shards,
        {"test": test},
        len(shards),
        torch.device("cpu"),
        Multiclass(),
    )
    cohort_size = sampler.cohort_size
    exp = Experiment(
        seed=0,
        rounds=rounds,
        eval_every=rounds,
        max_failed_rounds=20,
        n_clients=len(shards),
        schedule=AttackSchedule(),
        worker_momentum=NoMomentum(),
        malicious=np.zeros(len(shards), dtype=bool),
        setting=setting,
        sampler=setting.sampler(sampler),
        trainer=setting.trainer(train, n_clients, cohort_size),
        backend=InProcess(workload),
        attack=NoAttack(),
        channel=Plain(),
        account=NoAccount(),
        server=Server(
            n_clients=len(shards),
            algorithm=FedAvg(),
            update_validation=NoValidation(),
            privacy=NoPrivacy(),
            detector=NoDetector(),
            pre_aggregation=(),
            aggregator=setting.aggregator(Mean("examples"), n_clients),
            optimizer=SGD(1.0),
            min_clients=1,
        ),
        evaluator=ModelEvaluator(Multiclass(), {"test": test}, np.full((n_clients, 3), 1 / 3)),
    )
    return exp, initial_state(exp, vector_of(model))


def go(exp, state):
    """The last state, the processed examples of every round, and the last record."""
    states, records = zip(*run_rounds(exp, state), strict=True)
    examples = [m.value for r in records for m in r.metrics if m.metric == "examples"]
    return states[-1], examples, records[-1]


def test_the_configs_were_found():
    assert {"federated", "centralised", "local_only"} <= set(CHOICES)


@pytest.mark.parametrize(
    ("sizes", "cohort_size", "options"),
    [
        (UNEVEN, 4, {"epochs": 1}),
        (UNEVEN, 4, {"epochs": 3, "momentum": 0.9}),
        (UNEVEN, 4, {"batch_size": None}),
        (EVEN, 2, {"epochs": 1}),
        (EVEN, 3, {"epochs": 2, "batch_size": 5}),
        (EVEN, 5, {"epochs": 0.5}),
        (EVEN, 2, {"epochs": None, "steps": 3}),
        (EVEN, 5, {"epochs": None, "steps": 1}),
        ((7,), 1, {"epochs": 2}),
    ],
)
def test_a_round_is_the_same_work_in_every_setting(sizes, cohort_size, options):
    work = {}
    for choice in CHOICES:
        setting = part("setting", choice)
        exp, state = experiment(setting, sizes, Uniform(cohort_size), trainer(**options))
        work[choice] = go(exp, state)[1]
    assert work["federated"][0] > 0
    assert all(examples == work["federated"] for examples in work.values()), work


def test_the_work_is_the_same_on_average_where_clients_are_drawn():
    rounds, work = 60, {}
    for choice in CHOICES:
        exp, state = experiment(
            part("setting", choice), UNEVEN, Poisson(2), trainer(), rounds=rounds
        )
        work[choice] = np.mean(go(exp, state)[1])
    # Half of the 80 examples in expectation; a client's part in a round has deviation 25.
    assert work["centralised"] == 40
    assert work["federated"] == work["local_only"] == pytest.approx(40, abs=4 * 25 / rounds**0.5)


def test_the_first_models_are_all_the_given_one(setting):
    params = torch.randn(9, generator=torch.Generator().manual_seed(0))
    before = params.clone()
    start = setting.init(params, 4)
    assert all(torch.equal(model, before) for model in setting.models(start))
    assert all(torch.equal(setting.start(start, client), before) for client in range(4))
    assert torch.equal(params, before)


def test_every_example_that_was_dealt_is_trained_on_once(setting):
    shards = (np.array([1, 4]), np.array([0, 7, 9]), np.array([3]))
    partition = Partition(Split(torch.zeros(10, 1, 2, 2), torch.zeros(10).long()), shards)
    given = setting.shards(partition)
    assert all((np.diff(shard) > 0).all() for shard in given)
    assert sorted(np.concatenate(given).tolist()) == [0, 1, 3, 4, 7, 9]


def test_the_run_can_be_repeated_and_the_models_move(setting):
    first, again = (
        go(*experiment(setting, UNEVEN, Uniform(4), trainer()))[0].params for _ in range(2)
    )
    assert torch.equal(first, again)
    _, start = experiment(setting, UNEVEN, Uniform(4), trainer())
    assert not torch.equal(first, start.params)


def test_a_run_of_each_setting_is_measured(setting):
    _, _, record = go(*experiment(setting, UNEVEN, Uniform(4), trainer()))
    shared = {m.client for m in record.metrics if m.scope == "test" and m.metric == "loss"}
    assert shared in ({"all"}, {"mean", "std", "min", "max"})
    own = {m.client for m in record.metrics if m.metric == "own_mix_accuracy"}
    recalls = {m.metric for m in record.metrics if m.scope == "recall"}
    assert (recalls == {"0", "1", "2"}) != ({"0", "1", "2", "3"} <= own)
    assert (record.predictions is None) == (shared != {"all"})


def test_alone_a_clients_model_depends_on_its_own_data_only():
    setting = part("setting", "local_only")
    before = go(*experiment(setting, UNEVEN, Uniform(4), trainer(), rounds=3))[0].params
    after = go(*experiment(setting, UNEVEN, Uniform(4), trainer(), rounds=3, labels_of=1))[0]
    assert before.shape[0] == 4
    for client in range(4):
        assert torch.equal(before[client], after.params[client]) == (client != 1)


def test_alone_who_is_not_drawn_stays_where_it_was():
    class OnlyTheSecond:
        cohort_size = 1

        def __call__(self, n_clients, rng):
            return np.array([1])

    exp, state = experiment(part("setting", "local_only"), UNEVEN, OnlyTheSecond(), trainer())
    after, _, _ = go(exp, state)
    moved = [not torch.equal(a, b) for a, b in zip(after.params, state.params, strict=True)]
    assert moved == [False, True, False, False]


def test_centralised_is_training_on_the_union_of_the_shards():
    pooled, state = experiment(part("setting", "centralised"), UNEVEN, Uniform(4), trainer())
    single, _ = experiment(part("setting", "federated"), (sum(UNEVEN),), Uniform(1), trainer())
    assert pooled.n_clients == 1
    assert torch.equal(go(pooled, state)[0].params, go(single, state)[0].params)


def test_a_federation_of_one_is_centralised_and_alone():
    params = [
        go(*experiment(part("setting", choice), (30,), Uniform(1), trainer()))[0].params.flatten()
        for choice in CHOICES
    ]
    for other in params[1:]:
        torch.testing.assert_close(other, params[0], rtol=0, atol=1e-7)


def test_federated_models_differ_from_every_client_alone():
    shared = go(*experiment(part("setting", "federated"), UNEVEN, Uniform(4), trainer()))[0]
    alone = go(*experiment(part("setting", "local_only"), UNEVEN, Uniform(4), trainer(), rounds=1))
    weights = torch.tensor(UNEVEN) / sum(UNEVEN)
    exp, state = experiment(part("setting", "federated"), UNEVEN, Uniform(4), trainer(), rounds=1)
    # After one round from one start, FedAvg is the weighted mean of the models of all alone.
    torch.testing.assert_close(
        go(exp, state)[0].params, weights @ alone[0].params, rtol=1e-5, atol=1e-6
    )
    assert not torch.equal(shared.params, alone[0].params[0])


def test_the_experiment_is_not_changed_by_its_rounds(setting):
    exp, state = experiment(setting, UNEVEN, Uniform(4), trainer())
    before = replace(state, params=state.params.clone())
    go(exp, state)
    assert torch.equal(state.params, before.params)
    assert state.round == 0
