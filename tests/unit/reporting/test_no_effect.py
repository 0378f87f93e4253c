"""What was swept and made no difference is said."""

import shutil

from fedexp.reporting.no_effect import no_effect
from fedexp.reporting.sweep_report import report_sweep
from tests.support.run_folders import write_run
from tests.support.sweep_folders import load


def write(folder, name, overrides, like=None, **changes):
    path = write_run(folder / name, config={"overrides": overrides}, **changes)
    if like is not None:
        shutil.copy(folder / like / "metrics.csv", path / "metrics.csv")


def test_a_key_without_effect_is_named(tmp_path):
    write(tmp_path, "a", ["attack.scale=1", "seed=0"], seed=0)
    write(tmp_path, "b", ["attack.scale=4", "seed=0"], like="a", seed=0)
    write(tmp_path, "c", ["attack.scale=1", "seed=1"], seed=1)
    write(tmp_path, "d", ["attack.scale=4", "seed=1"], like="c", seed=1)
    sentence = (
        "attack.scale had no effect: runs that differ in it alone (1, 4) measured the same to the "
        "last digit"
    )
    assert no_effect(load(tmp_path)) == [sentence]
    assert sentence in report_sweep([tmp_path], tmp_path)
    assert "## Without effect" in (tmp_path / "table.md").read_text()


def test_one_difference_is_an_effect(tmp_path):
    write(tmp_path, "a", ["attack.scale=1", "seed=0"], seed=0)
    write(tmp_path, "b", ["attack.scale=4", "seed=0"], like="a", seed=0)
    write(tmp_path, "c", ["attack.scale=1", "seed=1"], seed=1)
    write(tmp_path, "d", ["attack.scale=4", "seed=1"], seed=1, reach=0.5)
    assert no_effect(load(tmp_path)) == []


def test_a_key_that_was_never_varied_alone_is_not_judged(tmp_path):
    write(tmp_path, "a", ["model=mlp", "seed=0"], seed=0)
    write(tmp_path, "b", ["model=cnn", "seed=1"], like="a", seed=1)
    assert no_effect(load(tmp_path)) == []
