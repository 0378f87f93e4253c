"""What the clients of a round sent, put together and taken apart."""

import torch

from fedexp.core.types import ClientReport, ClientTask, Updates


def sent(*clients):
    tasks = [ClientTask(c, torch.zeros(2), 0, seed=c) for c in clients]
    reports = [
        ClientReport(c + 1, 10 * c, {"loss": c / 4}, state={"drift": torch.tensor([float(c)])})
        for c in clients
    ]
    return Updates.of(torch.tensor([[float(c), -1.0] for c in clients]), tasks, reports)


def test_two_parts_of_a_cohort_are_the_cohort():
    whole = sent(3, 1, 2)
    both = sent(3, 1).followed_by(sent(2), whole.matrix)
    assert both.client_ids == whole.client_ids == (3, 1, 2)
    assert torch.equal(both.matrix, whole.matrix)
    assert both.num_examples.tolist() == whole.num_examples.tolist() == [4, 2, 3]
    assert both.processed == whole.processed == 60
    assert both.metrics == whole.metrics
    assert [state["drift"].item() for state in both.kept] == [3, 1, 2]
