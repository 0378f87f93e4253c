"""Nothing is decided by a name: what a part does not promise, is not promised for it."""

import pytest
import torch

from fedexp.config.build import build
from fedexp.core.checks import InputError
from fedexp.core.flat import vector_of
from fedexp.federation.rounds import initial_state, run_rounds
from tests.support.composing import config_for
from tests.support.refusing import refusal

OWN = "tests.strangers.parts"
TRUST = ("trust=[tests.]", "model.hidden=[8]", "rounds=3", "training.epochs=1")
CLIENT_DP = ("privacy=client_dp", "privacy.delta=1e-3", "privacy.accountant=rdp")
SKELLAM = "channel=secure_skellam"
SECURE = "channel=secure_aggregation"
DP_SGD = ("privacy=dp_sgd", "privacy.delta=1e-4", "privacy.accountant=rdp")


def own(group, name):
    return f"{group}._target_={OWN}.{name}"


def said(*overrides):
    return refusal(config_for(*TRUST, *overrides))


def epsilon(*overrides):
    """What a run of these overrides claims after all its rounds."""
    exp = build(config_for(*TRUST, *overrides)).experiment
    state = exp.account.init()
    for _ in range(exp.rounds):
        state = exp.account.ledger.charge(state, exp.account.charges.at_most(range(exp.n_clients)))
    return exp.account.epsilon(state)


def trained(*overrides):
    built = build(config_for(*TRUST, "backend=in_process", *overrides))
    state = initial_state(built.experiment, vector_of(built.model))
    records = [record for _, record in run_rounds(built.experiment, state)]
    return built.experiment, records


def test_a_rule_called_mean_is_no_mean():
    line = said(*CLIENT_DP, own("aggregator", "Mean"))
    assert line.startswith(f"aggregator={OWN}.Mean: no bound is known for how far one client moves")


def test_a_rule_called_mean_is_not_taken_for_a_sum_either():
    assert said(SECURE, own("aggregator", "Mean")).startswith(
        f"aggregator={OWN}.Mean: the channel brings the server one sum"
    )


def test_a_rule_that_declares_its_bound_gets_noise_for_that_bound():
    config = config_for(
        *TRUST, *CLIENT_DP, own("aggregator", "BoundedMean"), "~aggregator.weighting"
    )
    privacy = build(config).experiment.server.privacy
    assert privacy.sensitivity(3.0) == 1.5
    assert build(config_for(*TRUST, *CLIENT_DP)).experiment.server.privacy.sensitivity(3.0) == 3.0


@pytest.mark.parametrize("promise", ["privacy=none", *CLIENT_DP[:1]])
def test_a_sampler_that_draws_a_client_twice_is_refused(promise):
    line = said(promise, own("sampler", "DrawsTwice"))
    assert line.startswith(f"sampler={OWN}.DrawsTwice: must draw client numbers from 0 to 9 in asc")


@pytest.mark.parametrize(("promise", "dropped"), [((), 9), (CLIENT_DP, 0)])
def test_noise_on_a_sum_is_for_rows_that_are_validated_each_by_itself(promise, dropped):
    """Else one client, by coming or staying away, would move the sum by the rows of all others."""
    _, records = trained(*promise, own("update_validation", "NoLongerThanOthers"))
    (said,) = (m.value for m in records[0].metrics if (m.scope, m.metric) == ("round", "dropped"))
    assert said == dropped


def test_a_channel_that_does_not_say_whose_its_rows_are_is_no_ground_for_central_noise():
    line = said(*CLIENT_DP, own("channel", "MixesNeighbours"))
    assert line.startswith(f"channel={OWN}.MixesNeighbours: does not say that every row is of one")
    build(config_for(*TRUST, *CLIENT_DP, own("channel", "KeepsRowsApart")))


@pytest.mark.parametrize(("promise", "all_alike"), [((), False), (CLIENT_DP, True)])
def test_no_algorithm_is_told_how_many_clients_there_were_where_noise_hides_it(promise, all_alike):
    drawn = ("sampler=poisson", "n_clients=20", "cohort_size=5", "rounds=6")
    _, records = trained(*promise, *drawn, own("algorithm", "GoesByHowMany"))
    steps = [m.value for r in records for m in r.metrics if m.metric == "step_norm"]
    assert (len(set(steps)) == 1) == all_alike


def test_a_sampler_called_poisson_amplifies_nothing():
    many = ("n_clients=20", "cohort_size=2", *CLIENT_DP)
    amplified = epsilon("sampler=poisson", *many)
    everybody = epsilon("n_clients=20", "sampler=full", *CLIENT_DP)
    assert epsilon("sampler=poisson", own("sampler", "Poisson"), *many) == everybody > amplified


@pytest.mark.parametrize("name", ["SaysPoisson", "Favourites"])
def test_a_sampler_that_draws_otherwise_than_it_says_is_refused(name):
    many = ("rounds=20", "n_clients=20", "cohort_size=2")
    line = said("sampler=poisson", own("sampler", name), *many, *CLIENT_DP)
    assert line.startswith(f"sampler={name}: says that it draws every client with prob")


def test_amplification_that_the_sampler_does_not_speak_of_is_refused():
    line = said(
        "sampler=poisson", own("sampler", "Poisson"), *CLIENT_DP, "privacy.sampling=poisson"
    )
    assert line.startswith("privacy.sampling=poisson: this is not how sampler=poisson says")


def test_the_rate_is_that_of_the_sampler_that_runs():
    many = ("n_clients=20", "cohort_size=2", *CLIENT_DP)
    all_of_them = epsilon("sampler=poisson", "sampler.cohort_size=20", *many)
    assert all_of_them == pytest.approx(
        epsilon("n_clients=20", "sampler=full", *CLIENT_DP), rel=1e-6
    )


def test_a_promise_that_no_mechanism_takes_is_refused():
    config = config_for(*TRUST)
    config["privacy"] = {"_target_": f"{OWN}.OnlyClips", "clip_norm": 1.0, "max_epsilon": 0.5}
    assert refusal(config).startswith("privacy.max_epsilon=0.5: Known here: clip_norm")


def test_a_linear_rule_goes_behind_one_secure_sum():
    exp, records = trained(SECURE, own("aggregator", "HalfTheMean"), "~aggregator.weighting")
    assert exp.channel.rows(10) == 1
    assert len(records) == 3
    assert not any("moved nothing" in note for record in records for note in record.notes)


def test_a_setting_that_communicates_takes_an_attack():
    _, records = trained(own("setting", "SharesWithFriends"), "attack=sign_flip")
    malicious = {m.value for r in records for m in r.metrics if m.metric == "malicious"}
    assert max(malicious) == 2  # of ten clients


def test_a_setting_that_does_not_say_that_it_communicates_takes_none():
    line = said(own("setting", "KeepsToItself"), "attack=sign_flip")
    assert line.startswith("attack.n_malicious=2: needs setting=federated")


SENT_IN_THE_CLEAR = [
    "privacy=client_dp",
    "privacy=local_gaussian",
    "privacy=local_laplace",
    "privacy=dp_sgd",
    "channel=secure_skellam",
]


@pytest.mark.parametrize("protection", SENT_IN_THE_CLEAR)
def test_a_second_tensor_is_refused_by_its_name_behind_a_promise(protection):
    line = said(protection, own("algorithm", "SendsLengths"))
    assert line.startswith(f"algorithm={OWN}.SendsLengths: 'length' leaves the clients beside the")


@pytest.mark.parametrize("promise", ["privacy=dp_sgd", SKELLAM])
def test_a_setting_that_gives_an_example_to_several_clients_has_no_account(promise):
    line = said(promise, own("setting", "SharesItsExamples"))
    assert line.startswith(f"setting={OWN}.SharesItsExamples: gives row 0 to more than one client")
    build(config_for(*TRUST, own("setting", "SharesItsExamples")))


def test_no_worker_momentum_is_shown_the_rows_of_others():
    """Noise in the clients, or on a sum of clipped rows, is for one row a client."""
    _, records = trained(own("worker_momentum", "MeanOfCohort"))
    rows = records[0].received.matrix
    assert len(rows.unique(dim=0)) == len(rows)


def test_a_channel_that_does_not_say_whose_rows_it_brings_is_refused():
    with pytest.raises(InputError, match="does not name the clients in every row"):
        trained(*CLIENT_DP, own("channel", "NamesNobody"))


def test_no_rule_goes_by_what_clients_say_of_their_training():
    """No mechanism protects it; the record has it all the same."""
    _, records = trained(
        "privacy=dp_sgd", own("aggregator", "ByWhatClientsSay"), "~aggregator.weighting"
    )
    assert all("loss" in metrics for metrics in records[0].received.metrics)
    (step,) = (m.value for m in records[0].metrics if m.metric == "step_norm")
    assert step == 0


def test_an_algorithm_that_does_not_say_how_often_it_trains_is_refused_behind_dp_sgd():
    line = said("privacy=dp_sgd", own("algorithm", "TrainsTwice"))
    assert line.startswith(f"algorithm={OWN}.TrainsTwice: does not say that clients look at their")


def test_scaffold_is_refused_where_its_control_variates_would_be_in_the_clear():
    line = said(*CLIENT_DP, "algorithm=scaffold")
    assert "'control' leaves the clients beside the delta" in line
    build(config_for(*TRUST, "algorithm=scaffold", "privacy=dp_sgd"))  # a function of the delta


def test_a_second_tensor_that_is_clipped_and_noised_together_with_the_delta_is_covered():
    exp, records = trained(*CLIENT_DP, own("algorithm", "SendsLengthsClipped"))
    d = len(vector_of(build(config_for(*TRUST)).model))
    received = records[-1].received.matrix
    assert received.shape[1] == d + 1
    assert torch.linalg.vector_norm(received, dim=1).max() <= exp.server.privacy.clip_norm
    up = [m.value for r in records for m in r.metrics if m.metric == "bytes_up"]
    assert up == [10 * 4 * (d + 1)] * 3


def test_the_refusals_above_are_not_those_of_ours():
    for choice in ("mean", "sampler=poisson"):
        overrides = ("sampler=poisson", "cohort_size=5") if "sampler" in choice else ()
        build(config_for(*TRUST, *CLIENT_DP, *overrides))
    with pytest.raises(InputError):
        build(config_for(*TRUST, *CLIENT_DP, "aggregator=median"))


def test_parts_that_draw_from_global_generators_draw_the_same_for_the_same_seed():
    """On any backend: a pool's clients leave this process's generators alone."""
    config = config_for(*TRUST, own("aggregator", "DrawsGlobally"), "~aggregator.weighting")
    config["training"] = {"_target_": f"{OWN}.TrainsOnADraw", "lr": 0.1}

    def steps(backend, **keys):
        config["backend"] = {"_target_": f"fedexp.backends.{backend}", **keys}
        built = build(config)
        try:
            state = initial_state(built.experiment, vector_of(built.model))
            return [state.params for state, _ in run_rounds(built.experiment, state)]
        finally:
            built.experiment.backend.close()

    first, again = steps("in_process.InProcess"), steps("in_process.InProcess")
    pool = steps("process_pool.ProcessPool", workers=2)
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, first, pool))


def test_a_detector_that_says_that_it_does_nothing_and_drops_rows_is_refused():
    """Noise on a sum goes with detector=none alone: one client's row decided about the others."""
    with pytest.raises(InputError, match="and takes trust from an update") as refused:
        trained(*CLIENT_DP, own("detector", "TrustsTheShortest"))
    assert refused.value.key == "detector"


@pytest.mark.parametrize(
    ("group", "name", "promise"),
    [
        ("algorithm", "TrainsTwiceUnsaid", ("privacy=dp_sgd", "privacy.accountant=rdp")),
        ("privacy", "NothingClaimed", (*CLIENT_DP, "attack=alie", "attack.n_malicious=1")),
    ],
)
def test_what_says_that_it_does_nothing_and_does_something_is_refused(group, name, promise):
    line = said(*promise, own(group, name))
    assert line.startswith(f"{group}={OWN}.{name}: says that it does nothing (does_nothing), and")


@pytest.mark.parametrize(
    "promise",
    [
        ("privacy=client_dp", "privacy.target_epsilon=3"),
        ("privacy=dp_sgd", "privacy.target_epsilon=3", "model=logistic"),
        ("privacy=local_laplace", "privacy.target_epsilon=30"),
    ],
)
def test_no_target_counts_on_a_sampler_that_goes_by_earlier_draws(promise):
    """Noise was for the rounds in which a client would take part, and it took part in more."""
    line = refusal(config_for("trust=[tests.]", "rounds=6", *promise, own("sampler", "ComesLater")))
    assert line.startswith(f"sampler={OWN}.ComesLater: draws another cohort from the same stream")


@pytest.mark.parametrize(
    ("group", "name"),
    [("worker_momentum", "OneForAll"), ("update_validation", "NoLongerThanBefore")],
)
def test_noise_for_one_row_a_client_is_for_parts_that_keep_nothing_of_others(group, name):
    line = said(*CLIENT_DP, own(group, name))
    assert line.startswith(f"{group}={OWN}.{name}: keeps something of one client in itself")


def test_parts_that_see_a_client_alone_are_believed():
    build(config_for(*TRUST, *CLIENT_DP, "worker_momentum=momentum"))
    build(config_for(*TRUST, own("update_validation", "NoLongerThanBefore")))  # nobody's promise


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ("nothing", "must return a Protection (protect), and returned a NoneType"),
        ("account", "must open an account, and that has no init, charge, "),
        ("tensor", "makes a statement that cannot be written down (Object of type Tensor"),
        ("epsilon", "makes a statement without mechanism, unit, adjacency, delta, accountant"),
    ],
)
def test_a_mechanism_whose_promise_no_summary_could_hold_is_refused_before_the_run(made, reason):
    """It was a traceback, or a summary that no command read."""
    line = said(own("privacy", "Unprotected"), f"+privacy.made={made}")
    assert line.startswith(f"privacy={OWN}.Unprotected: {reason}")


@pytest.mark.parametrize(
    "name",
    [
        "SharesItsMean",
        "BringsTheLastRound",
        "BringsWhatWasBefore",
        "DropsTheLongest",
        "WaitsForAll",
        "WeighsByAll",
        "MixesManyClients",
        "MixesManyNumbers",
        "CallsThemSums",
    ],
)
def test_a_channel_whose_rows_are_not_of_one_client_alone_is_found_out(name):
    line = said(*CLIENT_DP, own("channel", name))
    assert line.startswith(f"channel={OWN}.{name}: says that every row is of one client alone")
    build(config_for(*TRUST, own("channel", name)))  # where nothing is promised of it
    build(config_for(*TRUST, *DP_SGD, own("channel", name)))  # or what it is given has its noise


@pytest.mark.parametrize("name", ["SharesItsBand", "TakesTheFirstFive"])
def test_who_takes_part_may_not_show_in_others_rows_where_that_is_hidden(name):
    poisson = ("sampler=poisson", "sampler.cohort_size=8")
    line = said(*CLIENT_DP, *poisson, own("channel", name))
    assert "and whether one client takes part changes what arrives of another" in line
    build(config_for(*TRUST, *CLIENT_DP, own("channel", name)))  # each client zero, or as it is


@pytest.mark.parametrize("name", ["LosesAtRandom", "MadeForTheModel", "KeepsRowsApart"])
def test_a_channel_that_keeps_rows_apart_is_believed(name):
    """Global draws, and what is prepared for the run's rows, were taken for a mixture."""
    build(config_for(*TRUST, *CLIENT_DP, "sampler=poisson", own("channel", name)))


def test_a_channel_that_cannot_be_copied_is_refused_in_one_line():
    """It was a traceback."""
    line = said(*CLIENT_DP, own("channel", "HoldsALock"))
    assert line.startswith(f"channel={OWN}.HoldsALock: cannot be copied, to be tried before the")
    build(config_for(*TRUST, own("channel", "HoldsALock")))


@pytest.mark.parametrize(
    ("group", "name", "promise", "parts"),
    [
        (
            "privacy",
            "HalfTheNoise",
            "protect) from a class of which it changes _runtime",
            CLIENT_DP,
        ),
        (
            "channel",
            "SkipsTheMasks",
            "hides_rows) from a class of which it changes transmit",
            ("channel=secure_aggregation",),
        ),
        (
            "channel",
            "CarriesRows",
            "hides_rows) from a class of which it changes carried",
            (SECURE,),
        ),
        (
            "channel",
            "MasksNothing",
            "hides_rows) from a class of which it changes transmit",
            (SECURE,),
        ),
        (
            "channel",
            "HandsOn",
            "hides_rows) from a class of which it changes __getattr__, transmit",
            (SECURE,),
        ),
        (
            "channel.encoder",
            "WithoutNoise",
            "epsilon) from a class of which it changes encode",
            (SKELLAM,),
        ),
        (
            "privacy",
            "MixesExamples",
            "protect) from a class of which it changes perturbed",
            DP_SGD,
        ),
        (
            "algorithm",
            "LooksTwice",
            "trains_once) from a class of which it changes local",
            (*DP_SGD, "algorithm=scaffold"),
        ),
    ],
)
def test_no_promise_is_inherited_by_code_that_it_was_not_made_of(group, name, promise, parts):
    line = said(*parts, own(group, name))
    assert line.startswith(f"{group}={OWN}.{name}: inherits its promise ({promise}")
