"""Help, lists, completion, and where configs are looked for."""

import subprocess
import sys

import pytest

from fedexp import __version__
from fedexp.commands.cli import COMMANDS, run_command

MEAN = "# {}\n_target_: fedexp.aggregation.mean.Mean\nweighting: {}\n"


# How long it takes depends on who else is at work; how much is loaded does not. Python itself
# loads some 60 modules, pandas 700 and torch 1,500.
AT_ONCE = 250
LOADED = "import sys; print(len(sys.modules), file=sys.stderr)"


def modules_of(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True
    )
    return int(done.stderr)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "model"], ["--version"]])
def test_answers_at_once(here, arguments):
    code = "import contextlib\nfrom fedexp.commands.cli import main\n"
    code += f"with contextlib.suppress(SystemExit):\n    main({arguments})"
    assert modules_of(code) < AT_ONCE


def test_the_package_is_imported_at_once(here):
    assert modules_of("import fedexp; fedexp.InputError") < AT_ONCE


def test_a_library_would_be_noticed():
    assert modules_of("import pandas") > AT_ONCE


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["list"], ["--version"], ["nonsense"], ["resume", "--help"]),
        *(["detect", "fit", "--help"], ["leakage", "--help"], ["data", "--help"], ["report"]),
    ],
)
def test_nothing_heavy_is_imported_for_it(here, arguments):
    code = (
        "import sys; from fedexp.commands.cli import run_command\n"
        f"run_command({arguments!r})\n"
        "heavy = {'torch', 'numpy', 'pandas', 'hydra', 'omegaconf', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(here, capfd):
    assert run_command(["--version"]) == 0
    assert capfd.readouterr() == (f"fedexp {__version__}\n", "")


def test_help_names_the_commands(here, capfd):
    assert run_command(["--help"]) == 0
    said = capfd.readouterr().out
    for command in ("run", "run -m", "resume", "report", "list", "data check", "data get"):
        assert f"fedexp {command}" in said


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "run"])
def test_every_command_has_help(here, capfd, command):
    assert run_command([command, "--help"]) == 0
    said, errors = capfd.readouterr()
    assert said.startswith(f"usage: fedexp {command} ")
    assert errors == ""


def test_help_of_run_shows_groups_and_keys_with_their_comments(here, capfd):
    assert run_command(["run", "--help"]) == 0
    said, errors = capfd.readouterr()
    assert errors == ""
    assert "\naggregator: " in said
    assert " mean*, " in said
    assert ", trimmed_mean" in said
    assert "training.lr=0.1 learning rate of the first round" in " ".join(said.split())
    assert "  seed=0 " in said
    assert "hydra." not in said.replace("hydra.run", "")
    assert 'eval "$(fedexp -sc install=bash)"' in said


def test_help_of_run_follows_what_is_chosen(here, capfd):
    assert run_command(["run", "aggregator=krum", "rounds=3", "--help"]) == 0
    said = capfd.readouterr().out
    assert "aggregator.selected=1 m: rows to average" in " ".join(said.split())
    assert run_command(["run", "--help", "aggregator=krm"]) == 2
    assert "aggregator=krm: did you mean krum?" in capfd.readouterr().err


def test_the_config_can_be_looked_at(here, capfd):
    assert run_command(["run", "--cfg", "job", "rounds=3", "aggregator=median"]) == 0
    said = capfd.readouterr().out
    assert "\nrounds: 3\n" in said
    assert "fedexp.aggregation.median.Median" in said
    assert list(here.iterdir()) == []


def test_the_search_path_can_be_looked_at(here, capfd):
    (here / "conf").mkdir()
    (here / "more").mkdir()
    assert run_command(["run", "--info", "searchpath", "--config-dir", "more"]) == 0
    said = capfd.readouterr().out
    places = [said.index(f"file://{here / name}") for name in ("more", "conf")]
    assert places == sorted(places)
    assert places[1] < said.index("| main")


def test_the_nearer_config_wins(here, capfd):
    """The command line, then `--config-dir`, then ./conf, which takes no name of ours."""
    _write(here / "conf", "mine", "Mine", "uniform")
    _write(here / "more", "mean", "--config-dir", "of more")
    show = ["run", "--cfg", "job", "--package", "aggregator"]
    assert "weighting: examples" in _said(capfd, *show)
    assert "weighting: uniform" in _said(capfd, *show, "aggregator=mine")
    assert "weighting: of more" in _said(capfd, *show, "--config-dir", "more")
    assert "weighting: x" in _said(capfd, *show, "--config-dir=more", "aggregator.weighting=x")
    assert "weighting: examples" in _said(capfd, *show)  # and nothing stays from the calls before
    assert "weighting: examples" in _said(capfd, *show)


def test_a_conf_folder_of_another_program_is_left_alone(here, capfd):
    _write(here / "conf", "mean", "./conf", "uniform")
    (here / "conf" / "config.yaml").write_text("a: 1\n")
    show = ["run", "--cfg", "job", "--package", "aggregator"]
    assert "weighting: examples" in _said(capfd, *show)


def test_list_shows_own_configs_too(here, capfd):
    _write(here / "conf", "mean", "My mean", "uniform")
    _write(here / "conf", "mine", "All mine", "uniform")
    said = _said(capfd, "list", "aggregator")
    assert "  mine" in said
    assert "All mine\n" in said
    assert "My mean\n" in said
    assert "  median" in said


def _write(folder, name, title, weighting):
    path = folder / "aggregator" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MEAN.format(title, weighting))


def _said(capfd, *arguments):
    assert run_command(arguments) == 0
    return capfd.readouterr().out


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("fedexp re", {"resume", "rerun", "report"}),
        ("fedexp ", set(COMMANDS)),
        ("fedexp run aggregator=med", {"aggregator=median"}),
        ("fedexp run rounds=3 sampler=f", {"sampler=full"}),
        ("fedexp run training.b", {"training.batch_size="}),
        ("fedexp resume aggregator=me", set()),
        ("fedexp list aggr", {"aggregator"}),
        ("fedexp list aggregator med", {"median"}),
        ("fedexp list aggregator median ", set()),
        ("fedexp data ", {"check", "get"}),
        ("fedexp data get fash", {"fashion_mnist"}),
        ("fedexp data check ru", {"runs/"}),
        ("fedexp leakage runs/", {"runs/one", "runs/more/"}),
        ("fedexp leakage runs/one leakage=gei", {"leakage=geiping"}),
        ("fedexp watch ru", {"runs/"}),
        ("fedexp rerun nowhere/", set()),
        ("fedexp detect s", {"scan"}),
        ("fedexp detect scan runs/o", {"runs/one"}),
        ("fedexp schema sw", {"sweep"}),
        ("fedexp privacy ", set()),
        ("fedexp run aggregator=mean,med", {"aggregator=mean,median"}),
        ("fedexp run -m model=mlp,cnn,l", {"model=mlp,cnn,lenet", "model=mlp,cnn,logistic"}),
        ("fedexp run leakage=[dlg,gei", {"leakage=[dlg,geiping"}),
        ("fedexp run -m seed=0,", set()),
        ("fedexp run -m seed=0,1 sampler=f", {"sampler=full"}),
        ("fedexp run --config-dir ru", {"runs/"}),
        ("fedexp run --config-dir named aggregator=my_", {"aggregator=my_mean"}),
        ("fedexp run --config-dir=named/ aggregator=krum,my", {"aggregator=krum,my_mean"}),
        ("fedexp run --config-dir nowhere sampler=f", {"sampler=full"}),
        ("fedexp list -cd named aggregator my", {"my_mean"}),
        ("fedexp run --confi", {"--config-dir"}),
        ("fedexp run -m --d", {"--dry-run"}),
        ("fedexp run --cfg j", {"job"}),
        ("fedexp run --cfg job sampler=f", {"sampler=full"}),
        ("fedexp run --dry-run --json sampler=f", {"sampler=full"}),
        ("fedexp run --confi sampler=f", {"sampler=full"}),
    ],
)
def test_completion(here, capfd, monkeypatch, line, completions):
    for name in ("one", "more", ".hidden"):
        (here / "runs" / name).mkdir(parents=True)
    (here / "runs" / "one" / "summary.json").write_text("{}")
    _write(here / "named", "my_mean", "mine", "uniform")
    monkeypatch.setenv("COMP_LINE", line)
    said = _said(capfd, "-sc", "query=bash")
    assert set(said.split()) == completions


def test_completion_of_groups(here, capfd, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "fedexp run aggr")
    assert "aggregator=" in _said(capfd, "-sc", "query=bash").split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(here, capfd, shell):
    assert "fedexp" in _said(capfd, "-sc", f"install={shell}")


def test_an_environment_of_the_first_edition_still_starts():
    """Its script imports `fedexp.cli`, and nobody installs anew after a `git pull`."""
    code = "import sys; from fedexp.cli import main; sys.exit(main(['--version']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fedexp ")


def test_a_search_goes_through_everything(here, capfd):
    assert run_command(["list", "aggregator", "--search", "krum"]) == 2
    assert capfd.readouterr() == (
        "",
        "fedexp: --search=krum: searches everything: leave out GROUP and CHOICE\n",
    )
