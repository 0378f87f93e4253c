"""Keys, the ring, masks and who masks with whom."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from fedexp.channel import masks
from fedexp.channel.graph import complete_graph, neighbour_graph
from fedexp.channel.keys import KeyPair, seal, unseal
from fedexp.channel.masks import CHUNK_BYTES, WORTH_A_THREAD, add_masks, pair_sign
from fedexp.channel.ring import Ring
from fedexp.channel.violations import ProtocolError
from fedexp.core.checks import InputError

KEY = bytes(range(32))
RFC_7748 = (  # section 6.1: private and public keys of Alice and of Bob
    "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
)


def rng(seed=0):
    return np.random.default_rng(seed)


# Keys.


def test_the_key_pairs_of_rfc_7748():
    alice, alice_public, bob, bob_public = map(bytes.fromhex, RFC_7748)
    assert KeyPair(alice).public == alice_public
    assert KeyPair(bob).public == bob_public
    assert KeyPair(alice).agree(bob_public, b"") == KeyPair(bob).agree(alice_public, b"")


def test_a_pair_is_made_again_from_its_private_half():
    pair, other = KeyPair(), KeyPair()
    again = KeyPair(pair.private)
    assert again.public == pair.public
    assert again.agree(other.public, b"x") == other.agree(pair.public, b"x")


def test_agreed_keys_differ_by_pair_and_purpose():
    a, b, c = KeyPair(), KeyPair(), KeyPair()
    keys = {a.agree(b.public, b"x"), a.agree(b.public, b"y"), a.agree(c.public, b"x")}
    assert len(keys) == 3


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_points_of_small_order_are_refused(public):
    with pytest.raises(ProtocolError, match="not a usable"):
        KeyPair().agree(public, b"x")


def test_boxes_open_with_their_key_and_envelope_only():
    box = seal(KEY, b"share", b"1 to 2")
    assert unseal(KEY, box, b"1 to 2") == b"share"
    assert box != seal(KEY, b"share", b"1 to 2")  # equal shares look different
    tampered = box[:20] + bytes([box[20] ^ 1]) + box[21:]
    for key, what, envelope in [
        (KEY, tampered, b"1 to 2"),
        (KEY, box, b"2 to 1"),
        (bytes(32), box, b"1 to 2"),
        (KEY, box[:-1], b"1 to 2"),
    ]:
        with pytest.raises(ProtocolError, match="tampered"):
            unseal(key, what, envelope)


# The ring.


@pytest.mark.parametrize("bits", [16, 24, 32, 40, 48, 56, 64])
def test_numbers_come_back_from_the_ring_and_from_the_wire(bits):
    ring, top = Ring(bits), 2 ** (bits - 1)
    values = np.array([0, 1, -1, top - 1, -top, 12345, -12345], dtype=np.int64)
    numbers = ring.from_signed(values)
    wire = ring.encode(numbers)
    assert len(wire) == len(values) * bits // 8
    assert ring.to_signed(numbers).tolist() == values.tolist()
    assert ring.to_signed(ring.decode(wire, len(values))).tolist() == values.tolist()


def test_sums_wrap_around():
    ring = Ring(16)
    total = ring.from_signed(np.array([2**15 - 1])) + ring.from_signed(np.array([1]))
    assert ring.to_signed(total).tolist() == [-(2**15)]


def test_the_smallest_ring_that_holds_a_sum():
    sizes = {1: 16, 2**15 - 1: 16, 2**15: 24, 2**39 - 1: 40, 2**63 - 1: 64}
    assert {largest: Ring.that_holds(largest).bits for largest in sizes} == sizes
    with pytest.raises(InputError, match=r"ring_bits=64: too small: .* 65 bits are needed"):
        Ring.that_holds(2**63)
    with pytest.raises(InputError, match=r"sums reach 2147483648, and 2\^31 or above wraps"):
        Ring(32).checked(2**31)
    with pytest.raises(InputError, match="ring_bits=33"):
        Ring(33)


def test_bytes_of_the_wrong_length_are_refused():
    with pytest.raises(ProtocolError, match="11 bytes for 3 numbers of 4"):
        Ring(32).decode(bytes(11), 3)


# Masks.


def test_the_keystream_of_aes_256():
    # A block of zeros under a key of zeros: NIST's AESAVS, appendix D.3 and elsewhere.
    row = np.zeros(4, np.uint32)
    add_masks(row, [(bytes(32), 1)])
    assert row.tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("extra", [-1, 0, 1, 50_000])
def test_a_mask_is_one_stream_across_chunks_and_goes_again(dtype, extra):
    d = CHUNK_BYTES // np.dtype(dtype).itemsize + extra
    row = np.arange(d, dtype=dtype)
    add_masks(row, [(KEY, 1)])
    longer = np.zeros(d + 10, dtype)
    add_masks(longer, [(KEY, 1)])
    assert np.array_equal(row - np.arange(d, dtype=dtype), longer[:d])
    assert len(np.unique(row)) > 0.99 * d  # no chunk repeats another
    add_masks(row, [(KEY, -1)])
    assert np.array_equal(row, np.arange(d, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_the_masks_of_two_clients_cancel(dtype):
    a, b = KeyPair(), KeyPair()
    rows = {3: rng(1).integers(0, 1000, 5000), 8: rng(2).integers(0, 1000, 5000)}
    masked = {c: row.astype(dtype) for c, row in rows.items()}
    add_masks(masked[3], [(a.agree(b.public, b"m"), pair_sign(3, 8))])
    add_masks(masked[8], [(b.agree(a.public, b"m"), pair_sign(8, 3))])
    assert not np.array_equal(masked[3], rows[3])
    assert np.array_equal(masked[3] + masked[8], (rows[3] + rows[8]).astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_the_cores_do_not_change_a_number(monkeypatch, dtype):
    listed = [(bytes([i]) * 32, 1 if i % 3 else -1) for i in range(8)]
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(masks, "cores_to_spare", lambda threads=threads: threads)
        row = np.arange(WORTH_A_THREAD // 8, dtype=dtype)
        add_masks(row, listed)
        found.append(row)
    assert np.array_equal(*found)
    assert uniformity(found[0]) > 1e-6


def uniformity(row):
    """p-value of the bytes of a row being uniform."""
    return chisquare(np.bincount(row.view(np.uint8), minlength=256)).pvalue


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_a_masked_row_is_uniform_and_an_unmasked_one_is_not(dtype):
    row = (rng().normal(0, 1000, 100_000).astype(np.int64)).astype(dtype)
    assert uniformity(row) < 1e-12
    add_masks(row, [(KEY, 1)])
    assert uniformity(row) > 1e-6


# Graphs.


def test_complete():
    assert complete_graph([5, 1, 3]) == dict.fromkeys((5, 1, 3), (1, 3, 5))


@pytest.mark.parametrize(("n", "k"), [(5, 2), (10, 4), (100, 20), (7, 4)])
def test_neighbours_are_mutual_connected_and_as_many_as_asked(n, k):
    graph = neighbour_graph(range(10, 10 + n), k, rng())
    for client, among in graph.items():
        assert len(set(among)) == k + 1
        assert client in among
        assert list(among) == sorted(among)
        assert all(client in graph[other] for other in among)
    reached, border = {10}, {10}
    while border:
        border = {v for u in border for v in graph[u]} - reached
        reached |= border
    assert reached == set(graph)


def test_who_is_whose_neighbour_is_drawn_anew():
    pairs = Counter(
        other for seed in range(2000) for other in neighbour_graph(range(9), 2, rng(seed))[0]
    )
    del pairs[0]
    assert chisquare([pairs[c] for c in range(1, 9)]).pvalue > 1e-4


def test_few_clients_are_all_neighbours_and_odd_numbers_are_refused():
    assert neighbour_graph([1, 2, 3], 2, rng()) == complete_graph([1, 2, 3])
    for k in (0, 1, 3):
        with pytest.raises(InputError, match=f"neighbours={k}: must be an even number"):
            neighbour_graph(range(9), k, rng())
