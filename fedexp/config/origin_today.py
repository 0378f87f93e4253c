"""What a run that is complete would be made of now: at the cost of its data, not of its model."""

from __future__ import annotations

from fedexp.config.clients import clients_of, partitioned
from fedexp.config.construction import construct
from fedexp.config.declared import buildable
from fedexp.config.loading import load_data
from fedexp.config.origin import DECIDES_NOTHING, machine, own_sources, users_targets
from fedexp.config.parts import Config
from fedexp.config.weights import starting_point
from fedexp.core.capabilities import root_examples
from fedexp.core.checks import NotThere
from fedexp.core.origin import Origin
from fedexp.data.download import present
from fedexp.data.folder import data_folder


def origin_today(config: Config) -> Origin:
    """The origin that a run would have now, without its model and without the device.

    Args:
        config: the resolved config.

    Raises:
        NotThere: data, or a file, that it is made of is missing; nothing is downloaded.
        InputError: something that it is made of cannot be used.
    """
    chosen = construct({**config, "leakage": {}, "verdict": {}, "tracker": {}})
    for group, node in config.items():  # the model's code is to be loaded too
        for target in () if group in DECIDES_NOTHING else users_targets(node):
            buildable(target, group, config["trust"])
    for file in chosen.loader.files(data_folder(config["paths"]["data_dir"])):
        if not present(file.path):
            raise NotThere(f"{file.path} is missing")
    data, parts = load_data(config, chosen), chosen.combination
    rule = parts.setting.aggregator(parts.aggregator, parts.n_clients)
    dealt = partitioned(config, chosen, data.dataset)
    clients = clients_of(config, dealt, parts.n_clients, root_examples(rule))
    return Origin(
        data=data.as_loaded.digest,
        partition=clients.partition.hash,
        sources=own_sources(config),
        weights=starting_point(config).digest,
        machine=machine(),
    )
