"""How much memory a run on many images takes, and how soon it begins.

    python scripts/large_images.py FOLDER [IMAGES]

Makes 100,000 PNGs of 64x64x3 in FOLDER (kept for the next time), then runs `fedexp` on them twice,
each in a process of its own: cold (they are decoded) and warm. Says for each the peak of the
resident memory of that process over the bytes of the images as uint8, and the seconds from its
start to the first client's work. Exits with 1 where the warm run breaks the promise.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, CLASSES, SITES = 64, 4, 5
MOST_MEMORY, MOST_SECONDS = 1.3, 10.0


def make(folder: Path, n: int) -> None:
    """SITE/CLASS/*.png: blocks of colour, brighter in one corner, which is the class."""
    if (folder / f"made_{n}").exists():
        return
    for site in range(SITES):
        for label in range(CLASSES):
            (folder / "images" / f"site{site}" / f"class{label}").mkdir(parents=True, exist_ok=True)

    def one(k: int) -> None:
        rng = np.random.default_rng(k)
        site, label = k % SITES, (k // SITES) % CLASSES
        blocks = rng.integers(0, 160, (8, 8, 3), dtype=np.uint8)
        corner = (
            slice(4 * (label // 2), 4 * (label // 2) + 4),
            slice(4 * (label % 2), 4 * (label % 2) + 4),
        )
        blocks[corner] += 60
        place = folder / "images" / f"site{site}" / f"class{label}" / f"{k}.png"
        Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))).save(place, compress_level=1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, range(n), chunksize=100):
            pass
    (folder / f"made_{n}").touch()


def measured(folder: Path, name: str, backend: str) -> tuple[float, float, float]:
    """Peak of resident memory in bytes; seconds to the first round, by the clock and of the CPU."""
    run = folder / "runs" / f"{name}-{time.time_ns()}"
    command = [
        *[sys.executable, "-m", "fedexp", "run", "dataset=images", "dataset.channels=3"],
        *[f"dataset.path={folder / 'images'}", f"dataset.size={SIZE}", "model=logistic"],
        *["n_clients=10", "rounds=2", "training.epochs=0.2", "partition=iid", "plots=false"],
        *[f"backend={backend}", f"hydra.run.dir={run}"],
    ]
    env = {**os.environ, "FEDEXP_DATA_DIR": str(folder / "data")}
    began = time.time()
    process = subprocess.Popen(command, env=env)
    worked = 0.0
    while process.poll() is None and not (run / "config.yaml").exists():
        worked = cpu_seconds(process.pid) or worked
        time.sleep(0.05)  # it is written when everything is built and the first round begins
    seconds = time.time() - began
    if process.returncode is not None:
        sys.exit(f"the {name} run failed")
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the {name} run failed")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), seconds, worked


def cpu_seconds(process: int) -> float:
    """What a process has used of the CPU, where the system says so: others may be at work too."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    folder = Path(sys.argv[1]).absolute()
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    make(folder, n)
    stored = n * 3 * SIZE * SIZE
    kept = True
    for name in ("cold", "warm"):
        memory, seconds, worked = measured(folder, name, "in_process")
        print(
            f"{name}: {memory / 1e6:.0f} MB at most, {memory / stored:.2f} of the "
            f"{stored / 1e6:.0f} MB of pixels; the first round began after {seconds:.1f} s, "
            f"of which {worked:.1f} s were its own work",
            flush=True,
        )
        kept = memory < MOST_MEMORY * stored and seconds < MOST_SECONDS
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
