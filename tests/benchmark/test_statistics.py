from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark import statistics
from benchmark.aggregate import MetricScore, StoryScore
from benchmark.statistics import (
    average_ranks,
    cell_interval,
    common_stories,
    compare,
    detectable_difference,
    holm,
    mean_interval,
    metric_agreement,
    rank_probabilities,
    sign_flip_p,
    small_sample_line,
    spearman,
    wilcoxon_p,
)


def by_story(values):
    return {f"s{i:02d}": float(v) for i, v in enumerate(values)}


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(by_story(rng.normal(size=30)), count=500)[1:3]
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_an_interval_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).gamma(2, size=25)
    ours = mean_interval(by_story(values))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.08)
    assert ours.value == pytest.approx(values.mean())


def test_edges_of_intervals():
    assert mean_interval(by_story([0.5] * 4))[:3] == (0.5, 0.5, 0.5)
    one = mean_interval(by_story([0.5, math.nan]))
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert one.stories == 1
    assert math.isnan(mean_interval({}).value)


def test_micro_intervals_draw_whole_stories():
    score = MetricScore({f"s{i}": StoryScore((("1", (float(i),) * (i + 1)),)) for i in range(6)})
    cell = cell_interval(score, "micro", count=2000)
    assert cell.value == score.value("micro")
    assert cell.low < cell.value < cell.high
    assert cell_interval(score, count=2000).value == 2.5


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_sign_flips_are_exact_for_few_stories(n):
    assert sign_flip_p(np.ones(n)) == 2 / 2**n


def test_sign_flips_of_many_stories():
    rng = np.random.default_rng(3)
    assert sign_flip_p(rng.normal(0, 1, 30) + 2) < 0.001
    assert sign_flip_p(np.asarray([1.0, -1.0] * 15)) == 1
    p = [sign_flip_p(rng.normal(size=20), count=400) for _ in range(200)]
    assert 0.01 <= np.mean(np.asarray(p) < 0.05) <= 0.1
    assert math.isnan(sign_flip_p(np.zeros(0)))
    values = rng.normal(0.5, 1, 14)
    assert sign_flip_p(values) == pytest.approx(sign_flip_p(np.r_[values, 0.0]), abs=0.02)


def test_wilcoxon():
    pytest.importorskip("scipy.stats")
    assert wilcoxon_p(np.arange(1.0, 9)) == 2 / 2**8
    assert wilcoxon_p(np.zeros(3)) == 1
    assert math.isnan(wilcoxon_p(np.zeros(0)))


def test_holm():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_a_comparison_uses_shared_stories():
    first = by_story([0.9, 0.8, 0.7, math.nan, 0.5])
    second = {**by_story([0.8, 0.7, 0.6, 0.5, 0.5]), "other": 1.0}
    found = compare(first, second)
    assert common_stories([first, second]) == ["s00", "s01", "s02", "s04"]
    assert found.difference.value == pytest.approx(0.075)
    assert found.difference.stories == 4
    assert found.wins == 3.5
    assert found.p == 0.25
    assert math.isnan(found.p_wilcoxon)


def test_the_detectable_difference_is_detected_four_times_in_five():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    sizes = rng.normal(0, 1, 15)
    sizes = (sizes - sizes.mean()) / sizes.std(ddof=1)
    effect = detectable_difference(sizes)
    samples = rng.normal(effect, 1, (4000, 15))
    power = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)
    assert statistics._t(0.975, 14) == pytest.approx(stats.t.ppf(0.975, 14), abs=1e-3)
    assert math.isnan(detectable_difference(np.ones(2)))
    assert "15 stories" in small_sample_line(15)
    assert small_sample_line(30) == ""


def test_rank_probabilities():
    rng = np.random.default_rng(5)
    base = rng.normal(size=20)
    methods = {"best": by_story(base + 1), "worst": by_story(base - 1), "middle": by_story(base)}
    assert rank_probabilities(methods) == {"best": [1, 0, 0], "middle": [0, 1, 0], "worst": [0, 0, 1]}
    assert rank_probabilities(methods, higher_is_better=False)["worst"] == [1, 0, 0]
    tied = rank_probabilities({"a": by_story(base), "b": by_story(base)})
    assert tied == {"a": [0.5, 0.5], "b": [0.5, 0.5]}
    assert math.isnan(rank_probabilities({"a": {}, "b": {}})["a"][0])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=3), st.integers(0, 99))
def test_rank_probabilities_sum_to_one(shifts, seed):
    rng = np.random.default_rng(seed)
    methods = {f"m{i}": by_story(rng.normal(shift, 1, 6)) for i, shift in enumerate(shifts)}
    table = np.asarray(list(rank_probabilities(methods, count=200).values()))
    assert table.sum(axis=0) == pytest.approx(1)
    assert table.sum(axis=1) == pytest.approx(1)


def test_agreement_of_metrics():
    assert average_ranks(np.asarray([3.0, 1.0, 3.0])).tolist() == [2.5, 1, 2.5]
    assert spearman(np.arange(5), -np.arange(5)) == pytest.approx(-1)
    assert math.isnan(spearman(np.ones(4), np.arange(4)))
    rng = np.random.default_rng(6)
    easy, quality = rng.normal(size=(1, 10)) * 9, rng.normal(size=(3, 10))
    cells = {f"m{i}": by_story(row) for i, row in enumerate(quality + easy)}
    other = {f"m{i}": by_story(row) for i, row in enumerate(-quality + easy)}
    found = metric_agreement({"a": cells, "b": cells, "c": other})
    assert found["a", "b"] == (pytest.approx(1), 30)
    assert found["a", "c"][0] == pytest.approx(-1)
