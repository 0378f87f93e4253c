"""Settings, by hand: what each makes of shards, rows and models."""

import numpy as np
import torch

from fedexp.aggregation.mean import Mean
from fedexp.core.examples import Split
from fedexp.core.partition import Partition
from fedexp.federation.sampling import Uniform
from fedexp.federation.settings import Centralised, Federated, LocalOnly
from fedexp.training.schedules import Constant
from fedexp.training.sgd import LocalSGD
from tests.support.updates import updates

SHARDS = (np.array([2, 5]), np.array([0, 1, 9]), np.array([4]))
PARTITION = Partition(Split(torch.zeros(10, 1, 1, 1), torch.zeros(10).long()), SHARDS)
TRAINER = LocalSGD(0.1, 10, 2, None, 0.0, 0.0, 0.0, Constant())
SAMPLER, RULE = Uniform(2), Mean("uniform")


def test_federated_changes_nothing():
    setting = Federated()
    assert setting.shards(PARTITION) is SHARDS
    assert setting.sampler(SAMPLER) is SAMPLER
    assert setting.trainer(TRAINER, 3, 2) is TRAINER
    assert setting.aggregator(RULE, 3) is RULE
    params = torch.tensor([1.0, 2.0])
    assert setting.start(setting.init(params, 3), 2) is params
    assert [model.tolist() for model in setting.models(params)] == [[1.0, 2.0]]


def test_centralised_is_one_client_with_everything():
    setting = Centralised()
    (everything,) = setting.shards(PARTITION)
    assert everything.tolist() == [0, 1, 2, 4, 5, 9]
    assert setting.sampler(SAMPLER)(1, np.random.default_rng(0)).tolist() == [0]
    # 2 of 3 clients, two epochs each: two thirds of two epochs over everything.
    assert setting.trainer(TRAINER, 3, 2).epochs == 4 / 3
    rule = setting.aggregator(RULE, 3)
    step, state = rule(updates([[3.0, -1.0]], client_ids=(0,)), rule.init(2), None)
    assert step.tolist() == [3.0, -1.0]
    assert state == {}


def test_alone_every_row_goes_back_to_its_client():
    setting = LocalOnly()
    assert setting.shards(PARTITION) is SHARDS
    assert setting.sampler(SAMPLER) is SAMPLER
    assert setting.trainer(TRAINER, 3, 2) is TRAINER
    rule = setting.aggregator(RULE, 3)
    step, state = rule(updates([[1.0, 2.0], [3.0, 4.0]], client_ids=(2, 0)), rule.init(2), None)
    assert step.tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert state == {}


def test_alone_every_client_has_a_copy_of_the_first_model():
    setting = LocalOnly()
    params = torch.tensor([1.0, 2.0])
    models = setting.init(params, 3)
    assert models.tolist() == [[1.0, 2.0]] * 3
    models[1] += 1
    assert params.tolist() == [1.0, 2.0]
    assert setting.start(models, 0).tolist() == [1.0, 2.0]
    assert [model.tolist() for model in setting.models(models)] == [[1, 2], [2, 3], [1, 2]]
