from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmark.functional.similarity import adjacent, cosine, matrix, pairs, pool, unit, with_first

ROWS = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.floats(-1e3, 1e3))


@given(ROWS)
def test_units_have_length_one_or_are_undefined(rows):
    lengths = np.linalg.norm(unit(rows), axis=-1)
    assert np.allclose(lengths[(rows != 0).any(axis=1)], 1)
    assert np.isnan(lengths[(rows == 0).all(axis=1)]).all()


def test_lengths_of_any_size():
    assert unit(np.asarray([1e-300, 0, 0])).tolist() == [1, 0, 0]
    assert unit(np.asarray([3e300, 4e300])) == pytest.approx([0.6, 0.8])
    assert np.isnan(cosine(np.zeros(3), np.ones(3)))
    assert np.isnan(unit(np.asarray([np.inf, 1]))).all()


def test_pool_is_not_the_mean_of_raw_features():
    rows = np.asarray([[10.0, 0], [0, 1]])
    assert pool(rows) == pytest.approx([0.5**0.5] * 2)
    assert pool(rows[0]) == pytest.approx([1, 0])
    assert np.isnan(pool(np.zeros((0, 3)))).all()


def test_pairs_rows_and_neighbours():
    rows = np.random.default_rng(0).normal(size=(4, 3))
    full = matrix(rows)
    assert pairs(rows) == pytest.approx(full[np.triu_indices(4, 1)])
    assert adjacent(rows) == pytest.approx([full[0, 1], full[1, 2], full[2, 3]])
    assert with_first(rows) == pytest.approx(full[0, 1:])
    assert len(pairs(rows[:1])) == len(adjacent(rows[:1])) == len(with_first(rows[:1])) == 0
