from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.functional.cuts import match_cuts, penalty_frames, shot_cut_accuracy

CUTS = st.lists(st.integers(0, 60), max_size=5, unique=True)


@given(CUTS, CUTS)
def test_the_matching_is_the_best_one(detected, requested):
    pairs, distance = match_cuts(detected, requested)
    few, many = sorted((detected, requested), key=len)
    best = min(
        sum(abs(a - b) for a, b in zip(few, chosen, strict=True))
        for chosen in itertools.permutations(many, len(few))
    )
    assert distance == best == sum(abs(a - b) for a, b in pairs)
    assert len(pairs) == len(few)
    assert {a for a, _ in pairs} <= set(detected)
    assert {b for _, b in pairs} <= set(requested)


def test_known_values():
    assert shot_cut_accuracy([81, 161], [81, 161], 241) == 1
    assert shot_cut_accuracy([85], [81], 200) == pytest.approx(math.exp(-4 / 200))
    assert shot_cut_accuracy([], [100], 200) == pytest.approx(math.exp(-100 / 200))
    assert shot_cut_accuracy([], [100], 200, penalty="half_mean_shot") == pytest.approx(math.exp(-0.25))
    assert shot_cut_accuracy([50, 100], [100], 200, penalty="video") == pytest.approx(math.exp(-1))
    assert shot_cut_accuracy([50, 100], [100], 200, penalty=10) == pytest.approx(math.exp(-10 / 200))
    assert shot_cut_accuracy([], [], 81) == 1
    assert math.isnan(shot_cut_accuracy([], [], 0))


def test_bad_penalties():
    with pytest.raises(ValueError, match="is no penalty"):
        penalty_frames("some", 1, 10)
    with pytest.raises(ValueError, match="zero or more"):
        penalty_frames(-1.0, 1, 10)
