"""What a user may get wrong: one line that names it, exit code 2, and nothing left behind."""

import gzip
import os

import pytest

from fedexp.commands.cli import run_command
from tests.support.commands import fedexp

pytestmark = pytest.mark.usefixtures("without_pictures")
LONG = "x" * 300

RUN = {
    # Keys.
    "partiton.alpha=1": "partiton.alpha=1: there is no such key; did you mean partition.alpha?",
    "training.lrr=1": "training.lrr=1: there is no such key; did you mean training.lr?",
    "training.foo=1": "training.foo=1: there is no such key; Known here: schedule, lr, ",
    "+training.lrr=1": "training.lrr=1: did you mean lr?",
    "~seed": "seed=: has no value",
    "~aggregator": "aggregator",
    # Types.
    "rounds=abc": "rounds=abc: must be a whole number",
    "rounds=1.5": "rounds=1.5: must be a whole number",
    "quiet=maybe": "quiet=maybe",
    "training.lr=abc": "training.lr=abc: must be a number",
    "aggregator=null": "aggregator=null: a choice must be named",
    "attack=nan": "attack=nan: a choice must be named",
    # Choices.
    "aggregator=mediam": "aggregator=mediam: did you mean median? Allowed: ",
    "dataset=mnits": "dataset=mnits: did you mean mnist? Allowed: ",
    # Numbers.
    "rounds=0": "rounds=0: must be a whole number, 1 or above",
    "n_clients=0": "n_clients=0: must be a whole number, 1 or above",
    "n_clients=5000": "n_clients=5000: ",
    "cohort_size=11": "cohort_size=11: ",
    "training.lr=-1": "training.lr=-1: must be a finite number above 0",
    "training.lr=1e999": "training.lr=inf: must be a finite number above 0",
    "training.batch_size=0": "training.batch_size=0: must be a whole number, 1 or above",
    "partition.alpha=0": "partition.alpha=0: must be a finite number above 0",
    "partition.alpha=nan": "partition.alpha=nan: must be a finite number above 0",
    "attack.fraction=2": "attack.fraction=2: must lie between 0 and 1",
    "attack.n_malicious=x": "attack.n_malicious=x: must be a whole number",
    # Syntax.
    "model.hidden=[1,2": "model.hidden=[1,2",
    "seed=${nope}": "'nope' not found",
    "seed=${": "seed=${",
    "seed=0,1": "seed=0,1: several values need fedexp run -m",
    "hydra.run.dir=Übung": "hydra.run.dir='Übung'",
    "hydra.run.dir=a (2)": "put the value in quotes: \"hydra.run.dir='a (2)'\"",
    "foo": "'foo': must look like key=value",
    "=5": "=5",
    "": "''",
    "seed=1\nrounds=x": "",
    # Targets.
    "model._target_=os.system": "model._target_=os.system: is no part of fedexp's",
    "model._target_=fedexp.commands.cli.os.system": "model._target_=fedexp.commands.cli.os.system: "
    "is no part for model",
    "model._target_=torch.nn.Linearr": "model._target_=torch.nn.Linearr: not found",
    "aggregator._target_=subprocess.run": "aggregator._target_=subprocess.run: is no part of",
    # Places.
    "hydra.run.dir=/proc/run": "hydra.run.dir=/proc/run: cannot be written to",
    "hydra.run.dir=/dev/null": "hydra.run.dir=/dev/null: is a file, not a folder",
    f"hydra.run.dir={LONG}": "File name too long",
    # Options.
    "--cgf": "--cgf: there is no such option; did you mean --cfg?",
    "--cfg": "expected one argument",
    "--cfg=jobb": "invalid choice: 'jobb'",
    "--config-dir=nowhere": "nowhere' not found",
}
# The same mechanisms once more.
MORE = {
    "round=3": "round=3: there is no such key; did you mean rounds?",
    "+roundss=1": "roundss=1: there is no such key; did you mean rounds?",
    "hydra.rum.dir=x": "hydra.rum",
    "~nope": "'nope' does not exist",
    "seed=null": "seed=null",
    "trust=abc": "trust=abc",
    "training.lr=[1]": "training.lr=[1]: must be a number",
    "training.batch_size=2.5": "training.batch_size=2.5: must be a whole number",
    "training=3": "training=3: a choice must be named",
    "training/schedule=cosin": "training/schedule=cosin: did you mean cosine?",
    "experiment=quikstart": "experiment=quikstart: did you mean quickstart?",
    "hydra/launcher=jobib": "hydra/launcher=jobib: did you mean joblib?",
    "device=gpu": "device=gpu: ",
    "objective=acuracy": "objective=acuracy: did you mean accuracy?",
    "aggregator.weighting=unifrom": "aggregator.weighting=unifrom: ",
    "seed=-1": "seed=-1: must be a whole number, 0 or above",
    "n_clients=-3": "n_clients=-3: must be a whole number, 1 or above",
    "cohort_size=0": "cohort_size=0: must be a whole number, 1 or above",
    "eval_every=0": "eval_every=0: must be a whole number, 1 or above, or auto",
    "eval_every=autom": "eval_every=autom: must be a whole number, 1 or above, or auto",
    "training.lr=nan": "training.lr=nan: must be a finite number above 0",
    "training.lr=inf": "training.lr=inf: must be a finite number above 0",
    "training.epochs=0": "training.epochs=0: ",
    "training.momentum=-0.1": "training.momentum=-0.1: ",
    "partition.alpha=-1": "partition.alpha=-1: must be a finite number above 0",
    "attack.n_malicious=11": "attack.n_malicious=11: must lie between 0 and 10",
    "seed=${seed}": "seed",
    "model=custom": "model._target_",
    "model._target_=3": "model._target_=3: ",
    "hydra.run.dir=/dev/null/run": "/dev/null is a file",
    "--multrun": "--multrun: there is no such option; did you mean --multirun?",
    "-x": "-x: there is no such option",
    "--config-name=nope": "nope",
}


@pytest.mark.parametrize("argument", RUN)
def test_run(here, capfd, argument):
    _assert_refused(here, capfd, ["run", argument], RUN[argument])


@pytest.mark.slow
@pytest.mark.parametrize("argument", MORE)
def test_run_with_other_arguments(here, capfd, argument):
    _assert_refused(here, capfd, ["run", argument], MORE[argument])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], None),
        (["rnu"], "command=rnu: did you mean run?"),
        (["resum", "x"], "did you mean resume?"),
        (["--foo"], "--foo: there is no such option"),
        (["run", "aggregator=trimmed_mean", "assumed_malicious=5"], "assumed_malicious=5"),
        (["run", "model=custom", "model._target_=torch.nn.ReLU"], "model"),
        (["run", "store=null"], "store=null: must be a word, and not null"),
        (["run", "rounds=null"], "rounds=null: must be a whole number, and not null"),
        (["run", "quiet=maybe"], "quiet=maybe: must be true or false"),
        (["run", "dataset=[1,2]"], "dataset=[1,2]: a choice must be named; see: fedexp list dat"),
        (["run", "leakage=[dlg,3]"], "leakage=[dlg,3]: a choice must be named"),
        (["run", "setting=centralised", "attack=sign_flip"], "needs setting=federated"),
        (["run", "-m", "--cfg", "job"], "Only one of"),
        (["run", "--resolve"], "--resolve"),
        (["run", "--experimental-rerun", "x.pickle"], "--experimental-rerun=x.pickle: is a pickle"),
        (["run", "-m", "seed=0,a"], "seed=a: must be a whole number"),
        (["run", "-m", "aggregator=mean,mediam"], "did you mean median?"),
        (["run", "-m", "nope=1,2"], "nope=1,2: there is no such key"),
        (
            ["run", "-m", "detector=norm,pca", "detector.warm_up_rounds=3"],
            "detector.warm_up_rounds=3: there is no such key; it is looked for before "
            "detector=norm,pca is chosen; ++detector.warm_up_rounds=... sets it in every job",
        ),
        (["run", "-m", "seed=range(0)"], "the sweep has no jobs"),
        (["run", "-m", "seed=range(0,3"], "seed=range(0,3"),
        (["run", "-m", "seed=0,1", "hydra.sweep.dir=/proc/x"], "hydra.sweep.dir=/proc/x"),
        (["run", "-m", "seed=0,1", f"hydra.sweep.dir={LONG}"], "File name too long"),
        (
            ["run", "-m", "seed=0,1", "hydra.sweep.subdir=all"],
            "hydra.sweep.subdir=all: is the same for every job",
        ),
        (
            ["run", "-m", "seed=0,1", "rounds=1,2", "hydra.sweep.subdir='${seed}'"],
            "hydra.sweep.subdir=${seed}: is '0' for two jobs: seed=0 rounds=1 and seed=0 rounds=2",
        ),
        (
            ["run", "-m", "seed=0,1", "hydra.sweeper.max_batch_size=0"],
            "hydra.sweeper.max_batch_size=0: must be a whole number, 1 or above",
        ),
        (
            ["run", "detector={_target_: fedexp.detection.norm.Norm}"],
            "detector=fedexp.detection.norm.Norm: is no detector: it has no init(...), __call__",
        ),
        (
            ["run", "detector=norm", "+detector.scorer._partial_=true"],
            "must be a part of its own, with a _target_",
        ),
        (
            ["run", "-m", "seed=0,1", "hydra.launcher.workers=0"],
            "hydra.launcher.workers=0: must be a whole number, 1 or above",
        ),
        (["resume"], "required: RUN_DIR"),
        (["resume", "nowhere"], "RUN_DIR=nowhere: there is no such folder"),
        (["resume", "/dev/null"], "RUN_DIR=/dev/null: is a file, not a folder"),
        (["report"], "required: RUN_OR_SWEEP"),
        (["report", "nowhere"], "nowhere"),
        (["report", "."], "no run lies here"),
        (["report", ".", "--out", "/proc/pages"], "--out=/proc/pages: cannot be written to"),
        (["report", ".", "--out", "/dev/null"], "--out=/dev/null: is a file, not a folder"),
        (["list", "agregator"], "GROUP=agregator: did you mean aggregator?"),
        (["list", "--long"], "unrecognized arguments: --long"),
        (["data"], "required: {check,get}"),
        (["data", "got", "mnist"], "invalid choice: 'got'"),
        (["data", "get"], "required: NAME"),
        (["data", "get", "mnits"], "NAME=mnits: did you mean mnist?"),
        (["data", "check", "nope"], "NAME=nope: "),
        (
            ["run", "channel=plain", "channel.bits=3"],
            "channel.bits=3: there is no such key; Known here: nothing\n",
        ),
        (
            ["run", "channel._target_=mine.Channel", "channel.bits=3"],
            "Known here: nothing; as an argument of the part in channel._target_: "
            "+channel.bits=...\n",
        ),
        (["report", "/dev/null"], "path=/dev/null: is a file, not a folder"),
        (["watch", "/dev/null"], "RUN_OR_SWEEP=/dev/null: is a file, not a folder"),
        (["list", "--config-dir", "/dev/null"], "--config-dir=/dev/null: is a file, not a folder"),
        (["resume", "."], "RUN_DIR=.: is not a run folder (it has no config.yaml)"),
        (["store", "nowhere"], "store=nowhere: there is no such folder"),
        (["store", "nowhere", "--empty"], "store=nowhere: there is no such folder"),
        (["store", "/dev/null"], "store=/dev/null: is a file, not a folder"),
        (
            ["run", "-m", "seed=0,1", "+hydra.sweeper.direction=up"],
            "hydra.sweeper.direction=up: Allowed: maximize, minimize",
        ),
        (["run", "trust=mine"], "trust=mine: must be a list, as in [a,b]"),
    ],
)
def test_command_lines(here, capfd, arguments, words):
    if words is None:  # no command at all is a question
        assert run_command(arguments) == 0
        return
    _assert_refused(here, capfd, arguments, words)


def _assert_refused(here, capfd, arguments, words):
    assert run_command(arguments) == 2
    said, error = capfd.readouterr()
    assert said == ""
    assert error.startswith("fedexp: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    assert words in error
    assert os.listdir(here) == []


def test_a_key_given_twice_has_the_last_value(here, capfd):
    """As in Hydra: scripts put their defaults first and the user's own arguments behind them."""
    twice = ["rounds=3", "aggregator=mean", "rounds=4", "aggregator=median"]
    assert run_command(["run", "--cfg", "job", *twice]) == 0
    said = capfd.readouterr().out
    assert "rounds: 4\n" in said
    assert "fedexp.aggregation.median.Median" in said


def test_as_seen_from_a_shell(here):
    done = fedexp("run", "training.lr=-1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "fedexp: training.lr=-1: must be a finite number above 0\n"
    assert os.listdir(here) == []


# Data.


@pytest.fixture
def without_a_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def test_missing_data_says_what_goes_where(here, capfd, without_a_network):
    data = here.parent / "data"
    _assert_refused(here, capfd, ["run", "dataset=mnist", f"paths.data_dir={data}"], str(data))


@pytest.mark.parametrize(
    "content",
    [b"", b"not an archive", gzip.compress(b"an archive of something else")],
    ids=["empty", "no archive", "another archive"],
)
def test_a_damaged_archive_is_named(here, capfd, content, without_a_network):
    raw = here.parent / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(content)
    arguments = ["run", "dataset=mnist", f"paths.data_dir={raw.parent.parent}"]
    _assert_refused(here, capfd, arguments, "train-images-idx3-ubyte.gz")


def test_a_data_folder_that_is_a_file(here, capfd):
    arguments = ["run", "dataset=mnist", "paths.data_dir=/dev/null"]
    _assert_refused(here, capfd, arguments, "/dev/null")


# The user's own configs.

MEAN = "# Mine\n_target_: fedexp.aggregation.mean.Mean\nweighting: uniform\n"
BAD = {
    "": "aggregator._target_",
    "just words\n": "aggregator._target_",
    "- 1\n": "aggregator._target_",
    "a: [1\n": "aggregator/mine.yaml, line 2",
    MEAN + "weighting: examples\n": "mine.yaml, line 4: found duplicate key weighting",
    MEAN + "wheighting: examples\n": "did you mean weighting?",
    "\0\1\2": "not allowed",
    b"\xff\xfe\x80": "not text",
}


@pytest.mark.parametrize("content", BAD)
def test_a_broken_yaml(here, capfd, content):
    _write(here, "aggregator/mine.yaml", content)
    assert run_command(["run", "aggregator=mine"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert error.startswith("fedexp: ")
    assert BAD[content] in error
    assert os.listdir(here) == ["conf"]
    assert run_command(["list", "aggregator"]) == 0  # which shows it all the same
    assert "mine" in capfd.readouterr().out


@pytest.mark.parametrize("content", [MEAN.replace("\n", "\r\n"), "\ufeff" + MEAN])
def test_a_yaml_from_another_editor(here, capfd, content):
    _write(here, "aggregator/mine.yaml", content.encode())
    arguments = ["run", "aggregator=mine", "debug=fast", "quiet=true", "hydra.run.dir=run"]
    assert run_command(arguments) == 0
    assert run_command(["list", "aggregator"]) == 0
    assert "Mine\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("roundz: 3", "experiment/mine.yaml: roundz: there is no such key; did you mean rounds?"),
        ("rounds: abc", "experiment/mine.yaml: rounds: Value 'abc'"),
        ("training:\n  lrr: 3", "training.lrr=3: did you mean lr?"),
        ("defaults:\n  - override /aggregator: mediam", "did you mean median?"),
    ],
)
def test_a_preset_with_a_slip(here, capfd, lines, words):
    _write(here, "experiment/mine.yaml", f"# @package _global_\n# Mine\n{lines}\n")
    assert run_command(["run", "experiment=mine"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert words in error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "mine.yaml has no _target_"),
        ("a: [1\n", "mine.yaml, line 2: "),
        (b"\xff\xfe\x80", "not text"),
        ("_target_: os.getcwd\n", "mine._target_=os.getcwd: is no part of fedexp's"),
        ("_target_: fedexp.data.digits.Digits\nnme: x\n", "mine.nme=x: did you mean name?"),
    ],
)
@pytest.mark.parametrize("action", ["check", "get"])
def test_a_dataset_that_is_none(here, capfd, action, content, words):
    _write(here, "dataset/mine.yaml", content)
    assert run_command(["data", action, "mine"]) == 2
    said, error = capfd.readouterr()
    assert (said, error.count("\n")) == ("", 1)
    assert words in error
    assert run_command(["data", action, "digits"]) == 0  # the others are none the worse


def _write(here, name, content):
    path = here / "conf" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
