"""Every metric against values computed by hand from the papers' definitions."""

from __future__ import annotations

import pytest

pytest.importorskip("safetensors")

from benchmark.features import StoryFeatures
from benchmark.functional.consistency import most_alike_pairs
from benchmark.metrics import METRICS
from benchmark.scoring import score
from tests.benchmark import golden

EXPECTED = golden.values("expected.json")
LEVELS = {"per_scene": "scene", "per_shot": "shot", "per_group": "character", "per_story_value": "story"}


def check(name, expected, strict):
    metric = METRICS[name]
    scored = score([metric], golden.stories(), golden.table(), recipe="r", strict=strict).metrics[name]
    (level,) = [level for level in LEVELS if level in expected]
    assert metric.group == LEVELS[level]
    for story, wanted in expected[level].items():
        groups = scored.stories[story].per_group()
        assert list(groups.values()) == pytest.approx([golden.nan(v) for v in wanted], abs=1e-9, nan_ok=True)
        if "group_order" in expected:
            assert list(groups) == expected["group_order"][story]
    for key, order in (("per_story", "macro"), ("per_story_pooled", "story_pooled")):
        wanted = {story: golden.nan(v) for story, v in expected[key].items()}
        assert scored.per_story(order) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    for key, order in (("macro", "macro"), ("macro_story_pooled", "story_pooled"), ("micro", "micro")):
        assert scored.value(order) == pytest.approx(golden.nan(expected[key]), abs=1e-9, nan_ok=True)
    coverage = scored.coverage()
    wanted = dict(expected["coverage"])
    assert list(coverage.stories) == wanted.pop("stories")
    assert coverage.units == wanted.pop("units")
    assert coverage.undefined_units == 0
    assert [list(coverage.groups)] == list(wanted.values())
    return scored


@pytest.mark.parametrize("name", EXPECTED["metrics"])
def test_metric(name):
    expected = EXPECTED["metrics"][name]
    scored = check(name, expected, strict=False)
    if "micro_std_population" in expected:
        assert scored.std() == pytest.approx(expected["micro_std_population"], abs=1e-9)
        raw = score([METRICS["aesthetic_mlp_raw"]], golden.stories(), golden.table(), recipe="r")
        raw_mean = raw.metrics["aesthetic_mlp_raw"].value("micro")
        assert raw_mean == pytest.approx(expected["micro_raw_mean"], abs=1e-9)


@pytest.mark.parametrize("name", EXPECTED["strict_missing"])
def test_metric_where_a_lacking_shot_voids_what_it_is_part_of(name):
    check(name, EXPECTED["strict_missing"][name], strict=True)


def test_pairs_with_the_most_alike_prompts():
    for story, pairs in EXPECTED["metrics"]["storymem_cross_shot_top10"]["chosen_pairs"].items():
        view = StoryFeatures(golden.stories()[story], golden.table())
        wanted = [(golden.key(a), golden.key(b)) for a, b in pairs]
        assert most_alike_pairs(view, kind="viclip_8") == wanted


def test_character_groups():
    for story, groups in EXPECTED["character_groups"].items():
        wanted = {name: tuple(map(golden.key, stems)) for name, stems in groups.items()}
        assert golden.stories()[story].characters() == wanted
