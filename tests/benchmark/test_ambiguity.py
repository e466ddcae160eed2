from __future__ import annotations

import pytest

from benchmark.aggregate import MetricScore, RecipeMismatch, Scores, StoryScore
from benchmark.ambiguity import ambiguity

COLUMN = "Memento: Semantic, shot"


def scores(recipe="r", **metrics):
    table = {
        name: MetricScore({s: StoryScore((("1", tuple(u)),)) for s, u in stories.items()})
        for name, stories in metrics.items()
    }
    return Scores(recipe, table, {})


def test_a_ranking_that_survives():
    a = scores(semantic_shot={"x": [0.9], "y": [0.8]}, semantic_shot_8_frames={"x": [0.7], "y": [0.6]})
    b = scores(semantic_shot={"x": [0.3], "y": [0.2]}, semantic_shot_8_frames={"x": [0.2], "y": [0.1]})
    found = ambiguity(COLUMN, {"b": b, "a": a})
    assert (found.survives, found.winner_survives) == (True, True)
    assert [(r.metric, r.order) for r in found.readings][:2] == [
        ("semantic_shot", "macro"),
        ("semantic_shot", "story_pooled"),
    ]
    assert len(found.readings) == 6
    assert found.spread["a"] == pytest.approx(0.2)


def test_a_ranking_that_does_not():
    # story x has many units, so that it decides the micro mean
    a = scores(semantic_shot={"x": [0.1] * 9, "y": [0.9]})
    b = scores(semantic_shot={"x": [0.3] * 9, "y": [0.5], "z": [0.0]})
    with pytest.raises(ValueError, match="no reading of it has been scored"):
        ambiguity("Memento: Background", {"a": a, "b": b})
    found = ambiguity(COLUMN, {"a": a, "b": b})
    assert not found.survives
    assert not found.winner_survives
    default, _, micro = found.readings
    assert default.ranking == ("a", "b")
    assert default.values["b"] == pytest.approx(0.4)  # z is no story of a
    assert micro.ranking == ("b", "a")
    assert micro.flipped == (("a", "b"),)


def test_what_cannot_be_compared():
    with pytest.raises(RecipeMismatch, match="different recipes"):
        ambiguity(COLUMN, {"a": scores("r"), "b": scores("q")})
    with pytest.raises(ValueError, match="is no column of a paper"):
        ambiguity("Beauty", {"a": scores()})
