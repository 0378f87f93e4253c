"""What Hydra has to know of us before it composes a config: resolvers, the loader, users' folders.

All of it at import, so that a launcher's worker process, which imports the job, knows it too.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from fedexp.config import composition, schema
from fedexp.config.folders import own_conf_folder


class FoldersOfTheUser(SearchPathPlugin):
    """Lets configs in `--config-dir` come first, then those in `./conf`, then the packaged ones.

    Not where `./conf` has a `config.yaml`: that is another program's tree, or this repository's.
    """

    # Hydra makes the plugin itself, and puts the folder of `--config-dir` behind the packaged one.
    config_dir: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        if self.config_dir is not None:
            place = f"file://{self.config_dir.absolute()}"
            search_path.prepend(composition.NAMED, place, "main")
        if (own := own_conf_folder()) is not None:
            search_path.prepend(composition.OWN, f"file://{own}", "main")


schema.register()
Plugins.instance().register(FoldersOfTheUser)
composition.install()
