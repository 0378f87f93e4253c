"""The launchers of other people that docs/cluster.md tells of: same jobs, same figures.

There is no Slurm here: stand-ins for its commands run the jobs of an array on this machine, from
the script that submitit writes for the real ones.
"""

import importlib.util
import os

import pandas as pd
import pytest

from tests.support.commands import fedexp

SWEEP = ("run", "-m", "seed=0,1", "rounds=2", "train_examples=200", "plots=false", "quiet=true")

STAND_INS = {
    "sbatch": """\
jobs=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
export SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here SLURM_NTASKS=1
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_ARRAY_JOB_ID=12
for job in $(seq 0 "$jobs"); do
  SLURM_JOB_ID=$((13 + job)) SLURM_ARRAY_TASK_ID=$job sh "$1" >/dev/null 2>&1 &
done
echo "Submitted batch job 12"
""",
    "srun": """\
while :; do
  case "$1" in
    --output|--error) shift 2 ;;
    --*) shift ;;
    *) break ;;
  esac
done
exec "$@"
""",
    "sacct": """\
echo 'JobID|State|NodeList'
echo '12_0|RUNNING|here'
echo '12_1|RUNNING|here'
""",
}


def needs(plugin):
    name = f"hydra_plugins.{plugin}"
    missing = importlib.util.find_spec("hydra_plugins") is None or (
        importlib.util.find_spec(name) is None
    )
    return pytest.mark.skipif(missing, reason=f"{plugin} is not installed")


def figures(folder):
    return {
        path.parent.name: pd.read_csv(path).to_csv()
        for path in sorted(folder.glob("*/metrics.csv"))
    }


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic") / "sweep"
    ended = fedexp(*SWEEP, "backend=in_process", f"hydra.sweep.dir={folder}")
    assert ended.returncode == 0, ended.stderr
    assert len(figures(folder)) == 2
    return figures(folder)


def launched(folder, launcher, *overrides, env=None):
    chosen = (f"hydra/launcher={launcher}", "backend=in_process", f"hydra.sweep.dir={folder}")
    ended = fedexp(*SWEEP, *chosen, *overrides, env=env)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "table.md").is_file()
    return figures(folder)


@pytest.mark.slow
@needs("hydra_submitit_launcher")
def test_submitit_on_this_machine(tmp_path, one_after_the_other):
    assert launched(tmp_path / "sweep", "submitit_local") == one_after_the_other


@pytest.mark.slow
@needs("hydra_submitit_launcher")
def test_submitit_on_what_looks_like_slurm(tmp_path, one_after_the_other):
    for name, script in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    asked = ("hydra.launcher.partition=cpu", "hydra.launcher.mem_gb=4")
    found = launched(
        tmp_path / "sweep", "submitit_slurm", *asked, env={"PATH": path, "USER": "somebody"}
    )
    assert found == one_after_the_other
    (script,) = (tmp_path / "sweep").rglob("*_submission.sh")
    assert "#SBATCH --partition=cpu\n" in script.read_text()
    assert "#SBATCH --mem=4GB\n" in script.read_text()


@needs("hydra_submitit_launcher")
def test_without_slurm_its_launcher_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "sweep"
    chosen = ("hydra/launcher=submitit_slurm", f"hydra.sweep.dir={folder}")
    ended = fedexp(*SWEEP, *chosen, env={"PATH": str(tmp_path)})
    reason = "needs Slurm, and there is no sbatch here; submitit_local does without"
    assert ended.stderr == f"fedexp: hydra/launcher=submitit_slurm: {reason}\n"
    assert ended.returncode == 2
    assert not folder.exists()


@pytest.mark.slow
@needs("hydra_ray_launcher")
def test_hydras_launcher_for_ray(tmp_path, one_after_the_other):
    small = ("+hydra.launcher.ray.init.num_cpus=1", "+hydra.launcher.ray.init.log_to_driver=false")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    assert launched(tmp_path / "sweep", "ray", *small, env=quiet) == one_after_the_other
