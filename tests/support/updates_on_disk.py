"""Update files, written and read."""

import io

import torch

from fedexp.run_folder.update_files import Layout
from fedexp.run_folder.update_folder import batches, find_updates, reader
from tests.support.updates import updates

LAYOUT = Layout(("weight", "bias"), ((2, 3), (2,)))


def random_updates(n=3, first_client=0, seed=0):
    matrix = torch.randn(n, LAYOUT.d, generator=torch.Generator().manual_seed(seed))
    return updates(matrix, client_ids=range(first_client, first_client + n))


def pth(document, **how):
    buffer = io.BytesIO()
    torch.save(document, buffer, **how)
    return buffer.getvalue()


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_all(folder, layout=LAYOUT, baseline=None, **kwargs):
    """({file: row}, {file: reason}, what was found)"""
    found = find_updates(folder, **kwargs)
    rows = {
        file.name: row
        for batch in batches(found, layout, reader(baseline))
        for file, row in zip(batch.files, batch.matrix, strict=True)
    }
    return rows, {u.path: u.reason for u in found.unusable}, found


ROW = torch.arange(8.0)
TENSORS = LAYOUT.split(ROW)
