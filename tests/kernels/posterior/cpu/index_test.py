"""The search structure of a data set: every sample has a place, and is what its bytes and what they lack add up to."""

import numpy as np

from kernels.posterior.cpu.bounds import LEAF
from kernels.posterior.cpu.index import beyond
from kernels.posterior.cpu.query_tables import QueryTables
from tests.kernels.posterior.cpu.adversaries import DATA, N, host, index, index_of, keys, queries


@keys
def test_every_sample_has_one_place_in_a_leaf_of_its_class(key):
    n = len(DATA[key])
    own = index_of(DATA[key], labels=np.sort(np.arange(n) % 7).astype(np.int32))
    np.testing.assert_array_equal(np.sort(own.row[own.row >= 0]), np.arange(n))
    for rows in own.classes.values():
        leaves = own.leaves_of(rows)
        mine = own.row[leaves.start * LEAF : leaves.stop * LEAF]
        np.testing.assert_array_equal(np.sort(mine[mine >= 0]), np.arange(rows.start, rows.stop))


@keys
def test_bytes_and_remainders_add_up_to_the_samples(key):
    """Samples are their bytes and what is left; so are directions, of 16 bits; coordinates are those of an orthonormal basis."""
    own, tile = index(key), host(*queries(DATA[key], 1))
    query_tables, table = QueryTables.at(own, tile.x, tile.alpha, tile.sigma), own.table
    g = (tile.alpha / tile.sigma**2)[:, None] * (tile.x - tile.alpha[:, None] * own.center)
    np.testing.assert_allclose(query_tables.g, g, rtol=1e-9, atol=1e-9 * np.abs(g).max())
    lost = np.linalg.norm(g * own.step - query_tables.whole.bits * query_tables.whole.step[:, None], axis=1)
    assert (lost <= query_tables.whole.lost * (1 + 1e-6)).all()
    assert (np.linalg.norm(g, axis=1) <= query_tables.whole.length).all()
    there = own.row >= 0
    samples = DATA[key][own.row[there]].astype(np.float64)
    left = np.linalg.norm(samples - (own.origin + own.step * table.whole.digits[there]), axis=1)
    assert (left <= table.whole.left[there] + 1e-12 * np.abs(DATA[key]).max()).all()
    assert (np.linalg.norm(table.whole.digits.astype(np.float64), axis=1) <= table.whole.lengths).all()
    basis = own.basis.astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
    z = (samples - own.center) @ basis
    others = beyond(z, len(own.middle_step))
    digits = table.middle.digits.transpose(0, 2, 1, 3).reshape(len(there), -1)[there]
    away = np.linalg.norm(others - own.middle_step * digits, axis=1)
    assert (away <= table.middle.left.ravel()[there] + 2 * own.rounding * np.sqrt(table.norms[there])).all()
    np.testing.assert_array_equal(own.square_norms[own.row[there]], table.norms[there])


def test_bytes_hold_images_without_remainder():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 30)).astype(np.uint8)
    for rows, whole in ((images, True), (images / np.float32(127.5) - 1, True), (rng.standard_normal((40, 30)).astype(np.float32), False)):
        own = index_of(rows)
        assert (own.table.whole.left.max() < 1e-5) == whole


def test_each_class_has_its_own_samples():
    data, labels = DATA["falling spectrum"], (np.arange(N) % 5).astype(np.int32)
    own = index_of(data, labels)
    assert {key: part.stop - part.start for key, part in own.classes.items()} == dict.fromkeys(range(5), N // 5)
