"""Parts of a stranger's: some honest, some with the name of one of ours and another behaviour."""

import random
import threading
from dataclasses import dataclass, replace

import numpy as np
import torch

from fedexp.aggregation.mean import Mean as TrueMean
from fedexp.channel.encoder import Encoded
from fedexp.channel.plain import Plain
from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.channel.skellam import Skellam
from fedexp.core.stateless import Stateless
from fedexp.core.types import Sent, Verdict
from fedexp.federation.algorithms.scaffold import Scaffold
from fedexp.federation.settings import Federated
from fedexp.privacy.account import NoAccount
from fedexp.privacy.client_dp import ClientDP
from fedexp.privacy.dp_sgd import DPSGD
from tests.strangers.five import Halves, OneStep


@dataclass(frozen=True)
class Mean(Stateless):
    """Called as ours, and gives a hundred times one client's row."""

    weighting: str

    def __call__(self, updates, state, rng):
        return 100 * updates.matrix[0], state


class ByWhatClientsSay(Stateless):
    """The row of whoever says that its loss is the least, or nothing."""

    def __call__(self, updates, state, rng):
        said = [metrics.get("loss", 0.0) for metrics in updates.metrics]
        best = int(np.argmin(said)) if said else 0
        return updates.matrix[best] * bool(said), state


@dataclass(frozen=True)
class Poisson:
    """Called as ours, and takes everybody."""

    cohort_size: int

    def __call__(self, n_clients, rng):
        return np.arange(n_clients)


@dataclass(frozen=True)
class SaysPoisson:
    """Says that it draws one in ten, and takes everybody."""

    cohort_size: int
    sampling = "poisson"

    def rate(self, n_clients):
        return 0.1

    def __call__(self, n_clients, rng):
        return np.arange(n_clients)


@dataclass(frozen=True)
class Favourites:
    """Says that it draws by coin, and draws the same clients in every round."""

    cohort_size: int
    sampling = "poisson"

    def rate(self, n_clients):
        return self.cohort_size / n_clients

    def __call__(self, n_clients, rng):
        return np.arange(self.cohort_size)


@dataclass(frozen=True)
class OnlyClips:
    """A mechanism that promises nothing, and takes no key of a promise."""

    clip_norm: float
    releases_every_round = False

    def refuse(self, parts):
        pass

    def protect(self, plan, bare):
        return bare


@dataclass(frozen=True)
class HalfTheMean(Stateless):
    """A linear rule: all it looks at is the sum."""

    needs_only_the_sum = True

    def __call__(self, updates, state, rng):
        return updates.matrix.mean(dim=0) / 2, state


@dataclass(frozen=True)
class BoundedMean(Stateless):
    """A rule that knows how far one client moves it: half of what it moves the mean."""

    def sensitivity(self, clip_norm, n):
        return clip_norm / 2

    def __call__(self, updates, state, rng):
        step, state = TrueMean("uniform")(updates, state, rng)
        return step / 2, state


class SharesWithFriends:
    """A setting of one's own in which models travel."""

    communicates = True
    shares_one_model = True

    def __init__(self):
        self._as = Federated()

    def __getattr__(self, name):
        return getattr(self._as, name)


class SharesItsExamples(SharesWithFriends):
    """The same, in which every client also trains on everybody's examples."""

    def shards(self, partition):
        everything = np.sort(np.concatenate(partition.shards))
        return (everything,) * len(partition.shards)


class KeepsToItself(SharesWithFriends):
    """The same without a word about what travels."""

    communicates = None
    shares_one_model = None


@dataclass(frozen=True)
class SendsLengths:
    """An algorithm that sends a second tensor, and says nothing more about it."""

    sends = (Sent("length", numbers=1),)

    def init(self, d):
        return {}

    def client_init(self, d):
        return {}

    def broadcast(self, state):
        return {}

    def local(self, trainer):
        return _WithLength(trainer, type(self).sends)

    def server_step(self, step, state, share):
        return step[:-1], state


@dataclass(frozen=True)
class TrainsTwice(SendsLengths):
    """An algorithm whose clients train twice a round, and send the delta alone."""

    sends = ()

    def local(self, trainer):
        return _Again(trainer)

    def server_step(self, step, state, share):
        return step, state


@dataclass(frozen=True)
class GoesByHowMany(TrainsTwice):
    """An algorithm whose server goes by how many clients were there: its step is all that."""

    def local(self, trainer):
        return trainer

    def server_step(self, step, state, share):
        return torch.full_like(step, share), state


@dataclass(frozen=True)
class _Again:
    trainer: object

    def spread(self, n_clients, cohort_size):
        return self

    def __call__(self, model, shard, task):
        self.trainer(model, shard, task)
        return self.trainer(model, shard, task)


@dataclass(frozen=True)
class SendsLengthsClipped(SendsLengths):
    """The same, declaring that the tensor may be clipped and noised together with the delta."""

    sends = (Sent("length", numbers=1, clipped_with_the_delta=True),)


@dataclass(frozen=True)
class _WithLength:
    trainer: object
    sends: tuple

    def spread(self, n_clients, cohort_size):
        return self

    def __call__(self, model, shard, task):
        report = self.trainer(model, shard, task)
        length = torch.linalg.vector_norm(model.vector - task.params)
        return replace(report, sent={"length": length[None]})


class MixesNeighbours:
    """A channel that says it brings rows, and adds half of every client's to the next one's."""

    sums = False

    def rows(self, n):
        return n

    def check(self, n, d):
        pass

    def transmit(self, updates, rng):
        mixed = updates.matrix + updates.matrix.roll(1, dims=0) / 2
        return Plain().transmit(updates.with_matrix(mixed), rng)


class KeepsRowsApart(MixesNeighbours):
    """One that says so, and does."""

    a_client_a_row = True

    def transmit(self, updates, rng):
        return Plain().transmit(updates, rng)


class MeanOfCohort:
    """A worker momentum that would send the cohort's mean in the place of every row."""

    def __call__(self, updates, kept, d):
        rows = updates.matrix.mean(dim=0, keepdim=True).expand_as(updates.matrix).clone()
        return updates.with_matrix(rows), [{} for _ in kept]


class NamesNobody(Halves):
    """A channel that does not say whose rows it brings."""

    a_client_a_row = True

    def transmit(self, updates, rng):
        return replace(super().transmit(updates, rng), members=((),) * len(updates))


@dataclass(frozen=True)
class DrawsTwice:
    """A sampler with a client that is there twice."""

    cohort_size: int

    def __call__(self, n_clients, rng):
        return np.array([0, 0, 1])


@dataclass(frozen=True)
class NoLongerThanOthers:
    """A validation that goes by how long the others' rows are: one client decides about another."""

    norm_cap: float | None  # of the config that it takes the place of

    def __call__(self, updates, d):
        norms = torch.linalg.vector_norm(updates.matrix, dim=1)
        return ["too long" if norm > norms.min() else "" for norm in norms]


class DrawsGlobally(Stateless):
    """A rule that draws a row by NumPy's global generator."""

    def __call__(self, updates, state, rng):
        return updates.matrix[np.random.randint(len(updates))].clone(), state


@dataclass(frozen=True)
class TrainsOnADraw:
    """A trainer that draws its examples by three global generators."""

    lr: float

    def spread(self, n_clients, cohort_size):
        return self

    def __call__(self, model, shard, task):
        drawn = [random.randrange(len(shard)), np.random.randint(len(shard))]
        part = shard.rows(torch.cat([torch.tensor(drawn), torch.randperm(len(shard))[:8]]))
        return OneStep(self.lr)(model, part, task)


class TrustsTheShortest(Stateless):
    """A detector that says that it does nothing, and drops all rows but the shortest."""

    does_nothing = True

    def __call__(self, updates, state, rng):
        norms = torch.linalg.vector_norm(updates.matrix, dim=1)
        trust = (norms == norms.min()).double()
        return replace(Verdict.no_opinion(len(updates)), trust=trust), state


class TrainsTwiceUnsaid(TrainsTwice):
    """An algorithm that says that it does nothing, whose clients train once more by themselves."""

    does_nothing = True


class NothingClaimed(ClientDP):
    """A mechanism that says that it does nothing, and makes a promise."""

    does_nothing = True


class ComesLater:
    """A sampler that goes by how often it was asked: one client in many rounds, later on."""

    def __init__(self, cohort_size):
        self.asked = 0

    def __call__(self, n_clients, rng):
        self.asked += 1
        return np.array([0 if self.asked > 8 else self.asked % n_clients])


class OneForAll:
    """A worker momentum that keeps one average in itself, for whoever comes next."""

    def __init__(self):
        self.mean = 0.0

    def __call__(self, updates, kept, d):
        self.mean = 0.9 * self.mean + 0.1 * updates.matrix
        return updates.with_matrix(self.mean.clone()), [{} for _ in kept]


@dataclass
class NoLongerThanBefore:
    """A validation that goes by the shortest row so far."""

    norm_cap: float | None  # of the config that it takes the place of
    shortest: float = float("inf")

    def __call__(self, updates, d):
        norms = torch.linalg.vector_norm(updates.matrix, dim=1)
        self.shortest = min(self.shortest, float(norms.min()))
        return ["too long" if norm > self.shortest else "" for norm in norms]


class Unprotected:
    """A mechanism that makes something else than a protection, or one without what it needs."""

    def __init__(self, made):
        self.made = made

    def refuse(self, parts):
        pass

    def protect(self, plan, bare):
        account = object() if self.made == "account" else _Says(self.made)
        return None if self.made == "nothing" else replace(bare, account=account)


class _Says(NoAccount):
    def __init__(self, made):
        object.__setattr__(self, "made", made)

    def statement(self, state):
        return {"epsilon": torch.tensor(3.0)} if self.made == "tensor" else {"epsilon": 3.0}


class SharesItsMean(MixesNeighbours):
    """A channel that says that its rows are of one client each, and delivers means."""

    a_client_a_row = True

    def transmit(self, updates, rng):
        mean = updates.matrix.mean(dim=0, keepdim=True).expand_as(updates.matrix)
        return Plain().transmit(updates.with_matrix(mean), rng)


class BringsTheLastRound(KeepsRowsApart):
    """One that adds to every row what the first client sent a round before."""

    def __init__(self):
        self.before = 0.0

    def transmit(self, updates, rng):
        late = updates.matrix + self.before
        self.before = updates.matrix[0].clone()
        return Plain().transmit(updates.with_matrix(late), rng)


class HalfTheNoise(ClientDP):
    """A mechanism that adds half of the noise that it is accounted for."""

    def _runtime(self, z, m, sensitivity):
        return super()._runtime(z / 2, m, sensitivity)


class SkipsTheMasks(SecureAggregation):
    """Secure aggregation in the clear."""

    def transmit(self, updates, rng):
        return Plain().transmit(updates, rng)


class CarriesRows(SecureAggregation):
    """Secure aggregation that is asked for something else, which it has beside it."""

    def carried(self, updates, kept, rng):
        return Plain().transmit(updates, rng), [{} for _ in kept]


class MasksNothing(SecureAggregation):
    """The same by a function that the object has of its own."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        object.__setattr__(self, "transmit", Plain().transmit)


class HandsOn:
    """A wrapper that lets another say what it promises, and carries rows itself."""

    def __init__(self, **arguments):
        self.inner = SecureAggregation(**arguments)

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    def transmit(self, updates, rng):
        return Plain().transmit(updates, rng)


class WithoutNoise(Skellam):
    """An encoder that only rounds, and says what it takes for noise to cost."""

    def encode(self, row, survivors, rng):
        return Encoded(np.rint(self.scale * row).astype(np.int64), clipped=0)


class MixesExamples(DPSGD):
    """DP-SGD on examples that are each made of two."""

    def perturbed(self, part, rng):
        return replace(part, x=(part.x + part.x.flip(0)) / 2)


class LooksTwice(Scaffold):
    """An algorithm that changes how clients train, and inherits that they train once."""

    def local(self, trainer):
        return super().local(trainer)


class BringsWhatWasBefore(KeepsRowsApart):
    """One that begins in its third round."""

    def __init__(self):
        self.means = [0.0, 0.0]

    def transmit(self, updates, rng):
        self.means.append(updates.matrix.mean(dim=0))
        return Plain().transmit(updates.with_matrix(updates.matrix + self.means[-3]), rng)


class DropsTheLongest(KeepsRowsApart):
    """One that goes by the median length."""

    def transmit(self, updates, rng):
        norms = torch.linalg.vector_norm(updates.matrix, dim=1)
        return Plain().transmit(updates.select(norms <= 3 * norms.median()), rng)


class WaitsForAll(KeepsRowsApart):
    """One that brings nothing where a row is not finite."""

    def transmit(self, updates, rng):
        whole = torch.full((len(updates),), bool(updates.matrix.isfinite().all()))
        return Plain().transmit(updates.select(whole), rng)


class WeighsByAll(KeepsRowsApart):
    """One that multiplies by a client's share of all examples."""

    def transmit(self, updates, rng):
        shares = (updates.num_examples / updates.num_examples.sum()).float()
        return Plain().transmit(updates.with_matrix(shares[:, None] * updates.matrix), rng)


class MixesManyClients(KeepsRowsApart):
    """One that is honest with a few clients."""

    def transmit(self, updates, rng):
        mixed = updates.matrix + updates.matrix.mean(dim=0) * (len(updates) > 8)
        return Plain().transmit(updates.with_matrix(mixed), rng)


class MixesManyNumbers(KeepsRowsApart):
    """One that is honest with other rows than the run's, which have 618 numbers."""

    def transmit(self, updates, rng):
        mixed = updates.matrix + updates.matrix.mean(dim=0) * (updates.matrix.shape[1] > 600)
        return Plain().transmit(updates.with_matrix(mixed), rng)


class CallsThemSums(KeepsRowsApart):
    """One whose rows are of everybody, and all have one number."""

    def transmit(self, updates, rng):
        n = len(updates)
        rows = updates.matrix.mean(dim=0).expand_as(updates.matrix).clone()
        rows[-1] = 0
        sums = replace(updates, matrix=rows, client_ids=(-1,) * n)
        members = (updates.client_ids,) * n
        return replace(Plain().transmit(updates, rng), updates=sums, members=members)


class SharesItsBand(KeepsRowsApart):
    """One that brings less of each client, the more there are."""

    def transmit(self, updates, rng):
        n = max(1, len(updates))
        return Plain().transmit(updates.with_matrix(updates.matrix / n), rng)


class TakesTheFirstFive(KeepsRowsApart):
    """One that has no room for more."""

    def transmit(self, updates, rng):
        return Plain().transmit(updates.select(torch.arange(len(updates)) < 5), rng)


class LosesAtRandom(KeepsRowsApart):
    """One that draws by NumPy's global generator whom it loses."""

    def transmit(self, updates, rng):
        lost = torch.from_numpy(np.random.rand(len(updates)) < 0.2)
        return Plain().transmit(updates.select(~lost), rng)


class MadeForTheModel(KeepsRowsApart):
    """One that is prepared for rows of the run's size."""

    def check(self, n, d):
        self.factors = torch.ones(d)

    def transmit(self, updates, rng):
        return Plain().transmit(updates.with_matrix(self.factors * updates.matrix), rng)


class HoldsALock(KeepsRowsApart):
    """One that no copy can be made of."""

    def __init__(self):
        self.lock = threading.Lock()
