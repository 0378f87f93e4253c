"""`./conf` of the current folder, which nobody has named: it adds choices, and that is all."""

import json

import pytest
import yaml

from fedexp.commands.cli import run_command

pytestmark = pytest.mark.usefixtures("without_pictures")

MEAN = "_target_: fedexp.aggregation.mean.Mean\nweighting: uniform\n"
SMALL = ("run", "debug=fast", "quiet=true", "hydra.run.dir=run")
GLOBAL = "# @package _global_\n"


@pytest.fixture
def write(here):
    def written(name, content):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)

    return written


@pytest.fixture
def refused(here, capfd):
    def line(*arguments):
        assert run_command([*SMALL, *arguments]) == 2
        said, error = capfd.readouterr()
        assert (said, error.count("\n")) == ("", 1), error
        assert sorted(path.name for path in here.iterdir()) == ["conf"]
        return error

    return line


@pytest.mark.parametrize(
    "name",
    ["aggregator/mean", "schema", "training/schedule/constant"],
)
def test_a_name_of_ours_is_not_taken(write, refused, name):
    write(f"conf/{name}.yaml", MEAN)
    assert f"conf/{name}.yaml: would take the place of fedexp's own" in refused()


def test_a_name_of_ours_is_no_harm_where_it_is_not_chosen(here, write):
    write("conf/aggregator/krum.yaml", MEAN)
    assert run_command(list(SMALL)) == 0


HYDRAS = {
    "a callback": "callbacks: {theirs: {_target_: pathlib.Path.touch, self: mark}}",
    "a log file": "job_logging: {handlers: {x: {class: logging.FileHandler, filename: mark}}}",
    "a factory": "hydra_logging: {handlers: {x: {(): tests.support.gadgets.run}}}",
    "the environment": "job: {env_set: {LD_PRELOAD: theirs.so}}",
    "a plugin": "sweeper: {_target_: tests.support.gadgets.run}",
    "a job's trust": 'sweeper: {params: {trust: "[tests.]"}}',
    "a job's callback": "sweeper: {params: {hydra.job_logging.x: 1}}",
}


@pytest.mark.parametrize("name", HYDRAS)
def test_hydra_runs_nothing_of_it(write, refused, name):
    write("conf/experiment/theirs.yaml", f"{GLOBAL}hydra:\n  {HYDRAS[name]}\n")
    assert "comes from a config in ./conf, and could run code" in refused("experiment=theirs")


def test_hydra_runs_nothing_of_it_in_the_jobs_of_a_sweep_either(write, here, capfd):
    write("conf/experiment/theirs.yaml", f"{GLOBAL}hydra: {{{HYDRAS['a log file']}}}\n")
    assert run_command(["run", "-m", "experiment=theirs,null", "hydra.sweep.dir=s"]) == 2
    assert "hydra.job_logging=" in capfd.readouterr().err
    assert not (here / "mark").exists()


def test_it_gives_no_trust(write, refused):
    write("conf/experiment/theirs.yaml", f"{GLOBAL}trust: [tests.]\n")
    assert "trust=['tests.']: comes from a config in ./conf" in refused("experiment=theirs")


def test_a_study_is_given_trust_on_the_command_line_beside_it(here, write):
    write("conf/aggregator/own.yaml", MEAN)
    assert run_command([*SMALL, "trust=[tests.]"]) == 0
    assert run_command(["leakage", "run", "leakage=loss_threshold", "trust=[tests.]"]) == 0


def test_the_folders_that_were_used_are_recorded(here, write, capfd):
    write("conf/aggregator/mine.yaml", MEAN)
    write("conf/local/default.yaml", f"{GLOBAL}seed: 7\n")
    write("more/aggregator/mean.yaml", MEAN)
    assert run_command([*SMALL, "--config-dir", "more"]) == 0
    config = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert config["config_folders"] == [str(here / "more"), str(here / "conf")]
    assert config["choices"]["aggregator"] == f"mean of {here / 'more'}"
    assert config["seed"] == 7
    notes = json.loads((here / "run" / "summary.json").read_text())["remarks"]
    assert set(notes) >= {
        f"local is not fedexp's own: it is of {here / 'conf'}",
        f"aggregator is not fedexp's own: it is of {here / 'more'}",
    }
    assert run_command(["resume", "run"]) == 0
    report = (here / "run" / "report.md").read_text()
    assert f"aggregator mean of {here / 'more'}" in report
    assert f"    fedexp rerun --config-dir {here / 'more'} run\n" in report


def test_a_run_with_names_of_a_folder_that_was_named_goes_on_and_is_repeated(here, write, capfd):
    write("more/aggregator/mine.yaml", MEAN)
    start = ("run", "--config-dir", "more", "aggregator=mine", *SMALL[1:])
    assert run_command(list(start)) == 0
    capfd.readouterr()
    assert run_command(["resume", "run", "rounds=3"]) == 2
    assert "aggregator=mine" in capfd.readouterr().err
    assert run_command(["resume", "run", "rounds=3", "--config-dir", "more"]) == 0
    assert json.loads((here / "run" / "summary.json").read_text())["rounds"] == 3
    report = (here / "run" / "report.md").read_text()
    command = f"fedexp run --config-dir {here / 'more'} aggregator=mine debug=fast quiet=true"
    assert f"    {command} rounds=3\n" in report
