"""Adversaries by name, so that no figure stands without saying who could get it.

outsider                              holds the final model
server                                sees the row of every client in every round
server behind secure aggregation of 5 sees sums over so many clients, and no row
server, means of 5                    the same, where nothing but good manners hides the rows
other client                          sees the model that the server sends out in every round
auditor                               may train again, to check a claim
"""

from __future__ import annotations

from fedexp.core.capabilities import hides_rows
from fedexp.leakage.victim import Victim

OUTSIDER = "outsider"
OTHER_CLIENT = "other client"
AUDITOR = "auditor"


def server_of(victim: Victim) -> str:
    """The run's server, by what its channel lets it see."""
    channel, cohort = victim.experiment.channel, int(victim.config["cohort_size"])
    if not channel.sums:
        return "server"
    size = -(-cohort // channel.rows(cohort))
    if hides_rows(channel):
        return f"server behind secure aggregation of {size}"
    return f"server, means of {size}"
