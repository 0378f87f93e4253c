"""Refused: arguments and targets that no part has, and values of another kind or out of range."""

import pytest

from fedexp.config.build import build
from fedexp.config.parts import Parts
from fedexp.core.checks import InputError
from tests.support.composing import config_for
from tests.support.refusing import refusal

CUSTOM = "model=custom"

REFUSED = {
    "unknown argument": (
        ["+partition.alhpa=1"],
        "partition.alhpa=1: did you mean alpha? Known here: alpha, min_size, max_tries",
    ),
    "unknown argument of a part without any": (
        ["partition=iid", "+partition.alpha=1"],
        "partition.alpha=1: Known here: nothing; without it: ~partition.alpha",
    ),
    "unknown argument of a nested part": (
        ["training/schedule=exponential", "+training.schedule.deacy=1"],
        "training.schedule.deacy=1: did you mean decay?",
    ),
    "argument taken away": (
        ["~training.lr"],
        "training.lr=: has no value; set it with +training.lr=",
    ),
    "target taken away": (["~training._target_"], "training._target_=: has no value"),
    "settings of a study that nobody chose": (
        ["+leakage.lira.shadows=4"],
        "leakage.lira={'shadows': 4}: has settings and no _target_",
    ),
    "fraction taken away": (["~attack.fraction"], "attack.fraction=: has no value"),
    "word for a number": (["training.lr=fast"], "training.lr=fast: must be a number"),
    "truth for a number": (["training.lr=true"], "training.lr=True: must be a number"),
    "truth for a whole number": (
        ["training.batch_size=true"],
        "training.batch_size=True: must be a whole number or null",
    ),
    "fraction for a whole number": (
        ["training.batch_size=2.5"],
        "training.batch_size=2.5: must be a whole number or null",
    ),
    "null for a number": (["training.lr=null"], "training.lr=null: must be a number"),
    "list for a number": (["training.lr=[1]"], "training.lr=[1]: must be a number"),
    "number for a list": (
        ["model.hidden=200"],
        "model.hidden=200: must be a list, each item a whole number",
    ),
    "word in a list of numbers": (
        ["model.hidden=[a]"],
        "model.hidden=['a']: must be a list, each item a whole number",
    ),
    "word outside the choices": (
        ["aggregator.weighting=unifrom"],
        "aggregator.weighting=unifrom: must be one of examples, uniform",
    ),
    "word for a part": (
        ["training.schedule=cosine"],
        "training.schedule=cosine: must be a part of its own, chosen with a slash",
    ),
    "number for a part inside a part": (
        ["detector=norm", "detector.scorer=0"],
        "detector.scorer=0: must be a part of its own, with a _target_",
    ),
    "word for a part inside a part": (
        ["channel=secure_aggregation", "channel.encoder=quantiser"],
        "channel.encoder=quantiser: must be a part of its own, with a _target_",
    ),
    "null for a part inside a part": (
        ["sampler=all_but", "sampler.left_out=1", "sampler.sampler=null"],
        "sampler.sampler=null: must be a part of its own, with a _target_",
    ),
    "null for a tracker": (
        ["tracker=tensorboard", "tracker.tensorboard=null"],
        "tracker.tensorboard=null: must be a part of its own, with a _target_",
    ),
    "word for a study": (
        ["leakage=lira", "leakage.lira=online"],
        "leakage.lira=online: must be a part of its own, with a _target_",
    ),
    "word for the attack of a verdict": (
        ["verdict=hospital", "verdict.attack=sign_flip"],
        "verdict.attack=sign_flip: must be a part of its own, with a _target_",
    ),
    "null for the defences of a verdict": (
        ["verdict=hospital", "verdict.defences=null"],
        "verdict.defences=null: must be rules by name",
    ),
    "null for a defence of a verdict": (
        ["verdict=hospital", "verdict.defences.median=null"],
        "verdict.defences.median=null: must be a part of its own, with a _target_",
    ),
    "number for a schedule of attacks": (
        ["attack=sign_flip", "attack.schedule=0"],
        "attack.schedule=0: must have the keys share_of_rounds and clients_a_round",
    ),
    "unknown key of a schedule of attacks": (
        ["attack=sign_flip", "+attack.schedule.share=0.5"],
        "attack.schedule.share=0.5: is not known; did you mean share_of_rounds? Allowed: ",
    ),
    "value out of range": (["training.lr=-1"], "training.lr=-1: must be a finite number above 0"),
    "value of a nested part out of range": (
        ["training/schedule=exponential", "training.schedule.decay=-1"],
        "training.schedule.decay=-1: must be a finite number above 0",
    ),
    "epochs and steps": (
        ["training.epochs=1", "training.steps=5"],
        "training.epochs=1: give either epochs or steps, and null for the other",
    ),
    "untrusted target": (
        [CUSTOM, "model._target_=os.system"],
        "model._target_=os.system: is no part of fedexp's; the code of others is run only where "
        "its user asks for it on the command line: trust=[os.]",
    ),
    "untrusted target with a trusted beginning": (
        [CUSTOM, "model._target_=fedexperiments.model"],
        "model._target_=fedexperiments.model: is no part of fedexp's",
    ),
    "target reached through our modules": (
        [CUSTOM, "model._target_=fedexp.config.build.torch.load"],
        "model._target_=fedexp.config.build.torch.load: is no part for model; See: ",
    ),
    "builtin reached through our modules": (
        [CUSTOM, "model._target_=fedexp.config.build.Built.__subclasses__"],
        "model._target_=fedexp.config.build.Built.__subclasses__: is no part for model",
    ),
    "untrusted target inside a part": (
        ["training.schedule._target_=os.system"],
        "training.schedule._target_=os.system: is no part of fedexp's",
    ),
    "untrusted target inside a list": (
        [CUSTOM, "model._target_=torch.nn.Sequential", "+model._args_=[{_target_: os.system}]"],
        "model._args_.0._target_=os.system: is no part of fedexp's",
    ),
    "target that is not there": (
        [CUSTOM, "model._target_=fedexp.models.mpl"],
        "model._target_=fedexp.models.mpl: is no part for model; did you mean fedexp.models.mlp?",
    ),
    "module that is not there": (
        [CUSTOM, "model._target_=fedexp.nothing.here"],
        "model._target_=fedexp.nothing.here: is no part for model",
    ),
    "target that is no model": (
        [CUSTOM, "model._target_=fedexp.training.schedules.Constant"],
        "model._target_=fedexp.training.schedules.Constant: is no part for model",
    ),
    "module that is no model": (
        [CUSTOM, "model._target_=torch.nn.functional.relu"],
        "model._target_=torch.nn.functional.relu: not found among what torch has for it",
    ),
    "gadget of our own that appends to a file": (
        [CUSTOM, "model._target_=fedexp.core.files.append", "+model.path=x", "+model.content=y"],
        "model._target_=fedexp.core.files.append: is no part for model",
    ),
    "gadget of our own that starts a command": (
        [CUSTOM, "model._target_=fedexp.commands.cli.run_command", "+model.arguments=[--version]"],
        "model._target_=fedexp.commands.cli.run_command: is no part for model",
    ),
    "part of another group": (
        ["aggregator._target_=fedexp.attacks.alie.Alie"],
        "aggregator._target_=fedexp.attacks.alie.Alie: is no part for aggregator",
    ),
    "number beyond those of a model": (
        ["server_optimizer=adam", "server_optimizer.tau=1e300"],
        "server_optimizer.tau=1e+300: is more than numbers hold",
    ),
    "whole number beyond 64 bits": (
        ["attack=gaussian", "attack.std=99999999999999999999"],
        "attack.std=99999999999999999999: is more than numbers hold",
    ),
    "number in a list beyond 64 bits": (
        ["model.hidden=[99999999999999999999]"],
        "model.hidden=[99999999999999999999]: is more than numbers hold",
    ),
    "word for whether a part is made later": (
        ["training=adam", "training.optimizer._partial_=[1]"],
        "training.optimizer._partial_=[1]: must be true or false",
    ),
    "module of the user's own that is not there": (
        [CUSTOM, "model._target_=mynet.net", "trust=[mynet]"],
        "model._target_=mynet.net: not found: No module named 'mynet'; modules are looked for on "
        "PYTHONPATH",
    ),
    "trust in everything": (["trust=['']"], "trust=: must be names of packages"),
    "target that cannot be made": (
        [CUSTOM, "model._target_=torch.nn.Module", "+model.x=1"],
        "model._target_=torch.nn.Module: cannot be built",
    ),
    "a target that the optimiser does not have": (
        ["training=adam", "+training.optimizer.bogus=1"],
        "training.optimizer.bogus=1: ",
    ),
    "model that lacks what the data know": (
        [CUSTOM, "model._target_=fedexp.models.mlp"],
        "model.input_shape=: has no value; set it with +model.input_shape=..., or "
        "'+model.input_shape=${dataset.input_shape}' for that of the data",
    ),
    "rule of a verdict's that lacks an argument": (
        [
            "verdict=hospital",
            "+verdict.defences.krum._target_=fedexp.aggregation.krum.Krum",
        ],
        "verdict.defences.krum.assumed_malicious=: has no value; set it with "
        "+verdict.defences.krum.assumed_malicious=",
    ),
    "rule of a verdict's with an argument too many": (
        ["verdict=hospital", "+verdict.defences.mean.bogus=1"],
        "verdict.defences.mean.bogus=1: Known here: weighting; without it: "
        "~verdict.defences.mean.bogus",
    ),
    "attack of a verdict's that lacks an argument": (
        ["verdict=hospital", "~verdict.attack.scale"],
        "verdict.attack.scale=: has no value; set it with +verdict.attack.scale=",
    ),
    "arguments of the choice in whose place another part is": (
        ["training._target_=fedexp.training.schedules.Constant", "~training.lr"],
        "training.schedule={'_target_': 'fedexp.training.schedules.Constant'}: Known here: "
        "nothing; without them: ~training.schedule ~training.batch_size "
        "~training.epochs training.steps=0 ~training.steps ~training.momentum ",
    ),
    "an optimiser that calls the model itself": (
        ["training=adam", "training.optimizer._target_=torch.optim.LBFGS"],
        "training.optimizer._target_=torch.optim.lbfgs.LBFGS: makes no step of gradients alone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case):
    overrides, message = REFUSED[case]
    said = refusal(config_for(*overrides))
    assert said.startswith(message), said


def test_what_an_interpolation_gives_is_no_part(tmp_path):
    gadget = f"${{oc.create:{{_target_: tempfile.mkdtemp, dir: {tmp_path}}}}}"
    model = {"_target_": "torch.nn.Sequential", "_args_": [gadget]}
    with pytest.raises(InputError, match="cannot be built"):
        Parts({"model": model})("model")
    assert not list(tmp_path.iterdir())


def test_trust_opens_the_door_to_a_named_package_only():
    target = [CUSTOM, "model._target_=collections.OrderedDict"]
    assert "trust=[collections.]" in refusal(config_for(*target))
    assert "trust=[collections.]" in refusal(config_for(*target, "trust=[json.]"))
    assert "trust=[collections.]" in refusal(config_for(*target, "trust=[coll]"))
    trusted = refusal(config_for(*target, "trust=[collections.]"))
    assert trusted == "model=OrderedDict: is not a torch.nn.Module"


def test_truth_is_no_whole_number_at_the_root_either():
    assert refusal({**config_for(), "rounds": True}).startswith("rounds=True: must be a whole")


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.lr=1"],  # a whole number where a number is fine
        ["training.batch_size=null"],
        ["training.epochs=null", "training.steps=3"],
    ],
    ids=" ".join,
)
def test_accepts_what_is_close_to_a_refusal(overrides):
    build(config_for(*overrides)).experiment.backend.close()
