"""The sketch of long rows: signed sums of disjoint columns."""

import pytest
import torch

from fedexp.detection.sketch import BLOCK_COLUMNS, count_sketch
from tests.support.detecting import rows


def test_a_sketch_holds_the_signed_sums_of_disjoint_columns():
    # The sketch of the unit vectors is the whole linear map: one sign a column, buckets even.
    image = count_sketch(torch.eye(60), 10, seed=3)
    assert ((image != 0).sum(dim=1) == 1).all()
    assert set(image[image != 0].tolist()) == {-1.0, 1.0}
    assert ((image != 0).sum(dim=0) == 6).all()
    x = rows(4, 60)
    torch.testing.assert_close(count_sketch(x, 10, 3), x.double() @ image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [1, 9, 10, 11, 64, BLOCK_COLUMNS + 7, 2 * BLOCK_COLUMNS])
def test_no_column_is_lost_where_blocks_end(d):
    one_each = count_sketch(torch.eye(d)[[0, d // 2, d - 1]] if d < 100 else _ends(d), 10, 0)
    assert (one_each.abs().sum(dim=1) == 1).all()


def _ends(d):
    x = torch.zeros(3, d)
    x[0, 0] = x[1, d // 2] = x[2, d - 1] = 1
    return x


def test_inner_products_are_right_on_average_and_as_close_as_promised():
    a, b = rows(2, 500)
    b = b + a
    products = torch.tensor(
        [float(s[0] @ s[1]) for s in (count_sketch(torch.stack([a, b]), 50, k) for k in range(400))]
    )
    error = float(a.norm() * b.norm()) / 50**0.5
    assert abs(float(products.mean()) - float(a @ b)) < 4 * error / 400**0.5
    assert 0.5 * error < float(products.std()) < 2 * error


def test_a_sketch_depends_on_its_seed_alone():
    x = rows(70, 300)  # more rows than are sketched at a time
    assert torch.equal(count_sketch(x, 16, 5), count_sketch(x, 16, 5))
    assert not torch.equal(count_sketch(x, 16, 5), count_sketch(x, 16, 6))
    assert torch.equal(count_sketch(x[66:], 16, 5), count_sketch(x, 16, 5)[66:])
