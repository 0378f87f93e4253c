"""An environment of its own for every peer, with the versions that were compared.

Those who train with torch see the packages of the Python that sets them up, and install only what
is not among them: there is one torch, everybody has the same kernels, and nothing large is
downloaded twice. FedJAX stands alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """What pip installs, and whether it sees our packages."""

    requirements: tuple[str, ...]
    sees_ours: bool = True


PEERS: Mapping[str, Peer] = {
    "pfl": Peer(("pfl==0.6.0",)),
    "flower": Peer(("flwr[simulation]==1.42.0",)),
    # FedJAX calls jax.tree_map, which later releases of JAX have not.
    "fedjax": Peer(
        (
            "fedjax==0.0.17",
            "jax[cpu]==0.4.25",
            "dm-haiku==0.0.12",
            "optax==0.2.2",
            "numpy==1.26.4",
            "scipy<1.18",
        ),
        sees_ours=False,
    ),
    "byzfl": Peer(("byzfl==0.0.11",)),
    "opacus": Peer(("opacus==1.6.0",)),
}
DEFAULT_FOLDER = Path("outputs/peers/environments")


@dataclass(frozen=True)
class Environments:
    """The peers' environments in one folder."""

    folder: Path

    def python(self, peer: str) -> Path | None:
        """The interpreter of an environment; None: it was not set up, or not to the end."""
        return self._python(peer) if self._stamp(peer).is_file() else None

    def how_to_install(self, peer: str) -> str:
        """The command."""
        elsewhere = "" if self.folder == DEFAULT_FOLDER else f" --environments {self.folder}"
        return f"{Path(sys.executable).name} scripts/peers/compare.py --setup {peer}{elsewhere}"

    def install(self, peer: str) -> None:
        """Make the environment; one that is there is completed."""
        needs, home = PEERS[peer], self.folder / peer
        if not self._python(peer).exists():
            venv.create(home, with_pip=True)
        python = str(self._python(peer))
        if needs.sees_ours:
            ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
            place = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
            line = sysconfig.get_path("purelib") + "\n"
            (Path(place.stdout.strip()) / "packages_of_fedexp.pth").write_text(line)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *needs.requirements], check=True)
        self._stamp(peer).write_text("\n".join(needs.requirements) + "\n")

    def _python(self, peer: str) -> Path:
        return self.folder / peer / ("Scripts" if os.name == "nt" else "bin") / "python"

    def _stamp(self, peer: str) -> Path:
        return self.folder / peer / "installed.txt"
