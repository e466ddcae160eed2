from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("safetensors")

from benchmark.aggregate import (
    ORDERS,
    MetricScore,
    RecipeMismatch,
    Scores,
    StoryScore,
    mean,
    merge,
    recipe_hash,
    scores_from_json,
)
from benchmark.metrics import METRICS
from benchmark.presets import metrics_of, preset
from benchmark.scoring import score
from tests.benchmark import golden


def test_orders_and_coverage():
    a = StoryScore((("1", (0.0, 1.0, 1.0)), ("2", (0.0,)), ("3", ())))
    b = StoryScore((("1", (1.0, math.nan)),))
    empty = StoryScore((("1", ()),))
    scored = MetricScore({"b": b, "a": a, "c": empty})
    assert [scored.value(order) for order in ORDERS] == pytest.approx([(1 / 3 + 1) / 2, 0.75, 0.6])
    assert scored.coverage() == ((2, 3), (3, 5), 5, 1)
    assert math.isnan(scored.per_story()["c"])
    assert math.isnan(MetricScore({}).value())
    assert math.isnan(MetricScore({}).std())
    with pytest.raises(ValueError, match="no order of aggregation"):
        scored.value("mean")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.randoms())
def test_means_do_not_depend_on_the_order(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    assert mean(values) == mean(shuffled)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_give_bit_identical_tables(shards):
    stories, table = golden.stories(), golden.table()
    whole = score(METRICS.values(), stories, table, recipe="r")
    keys = list(stories)[::-1]
    parts = [
        score(METRICS.values(), {k: stories[k] for k in keys[i::shards]}, table, recipe="r")
        for i in range(shards)
    ]
    merged = merge(parts)
    assert merged.as_json() == whole.as_json()
    for name, scored in whole.metrics.items():
        for order in ORDERS:
            a, b = scored.value(order), merged.metrics[name].value(order)
            assert a == b or (math.isnan(a) and math.isnan(b))


def test_what_does_not_merge():
    score_a = MetricScore({"a": StoryScore((("1", (1.0,)),))})
    with pytest.raises(RecipeMismatch, match="2 different recipes"):
        merge([Scores("x", {"m": score_a}, {}), Scores("y", {}, {})])
    with pytest.raises(ValueError, match="story a is in more than one part"):
        merge([Scores("x", {"m": score_a}, {})] * 2)
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([])


def test_scores_survive_a_file():
    scored = score(metrics_of(preset("memento")), golden.stories(), golden.table(), recipe="r")
    text = json.dumps(scored.as_json(), allow_nan=False)
    again = scores_from_json(json.loads(text))
    assert again.as_json() == scored.as_json()
    assert again.unavailable["flicker"] == "needs stat_flicker"


def test_hash_of_a_recipe():
    assert recipe_hash({"a": 1, "b": [2]}) == recipe_hash({"b": [2], "a": 1})
    assert recipe_hash({"a": 1}) != recipe_hash({"a": 1.5})
