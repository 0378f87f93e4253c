"""Which protection a run needs."""

from __future__ import annotations

from fedexp.channel.secure_aggregation import SecureAggregation
from fedexp.channel.skellam import Skellam
from fedexp.config.parts import Config, prefixed
from fedexp.core.protocols import Channel, Privacy, Trainer
from fedexp.privacy.account import NoAccount
from fedexp.privacy.client_level import ClientLevel
from fedexp.privacy.dp_sgd import PrivateSteps, PrivateTraining
from fedexp.privacy.local import LocalGaussian, LocalLaplace
from fedexp.protection.central import clients_in_the_sum
from fedexp.protection.distributed import clients_by_skellam
from fedexp.protection.examples import examples
from fedexp.protection.local import clients_by_gauss, clients_by_laplace
from fedexp.protection.plan import Plan, Protection


def protect(
    config: Config,
    mechanism: Privacy | PrivateSteps,
    channel: Channel,
    trainer: Trainer,
    plan: Plan,
) -> Protection:
    """Calibrate the noise, and open the account.

    Args:
        config: the resolved config.
        mechanism: the part of the group `privacy`.
        channel: the part of the group `channel`.
        trainer: local training without privacy.
        plan: of the run.

    Raises:
        InputError: the promise cannot be made, or not even one round would keep it.
    """
    if isinstance(mechanism, PrivateSteps):
        private = PrivateTraining(trainer, mechanism)
        with prefixed("privacy"):
            return examples(config["privacy"], private, channel, plan)
    unprotected = Protection(trainer, mechanism, channel, NoAccount(), ())
    with prefixed("privacy"):
        if isinstance(mechanism, ClientLevel):
            return clients_in_the_sum(config["privacy"], mechanism, unprotected, plan)
        if isinstance(mechanism, LocalGaussian):
            return clients_by_gauss(config["privacy"], mechanism, unprotected, plan)
        if isinstance(mechanism, LocalLaplace):
            return clients_by_laplace(config["privacy"], mechanism, unprotected, plan)
    if isinstance(channel, SecureAggregation) and isinstance(channel.encoder, Skellam):
        with prefixed("channel"):
            return clients_by_skellam(config["channel"], channel, unprotected, plan)
    return unprotected
