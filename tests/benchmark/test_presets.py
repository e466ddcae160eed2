from __future__ import annotations

import pytest

from benchmark.metrics import METRICS
from benchmark.presets import CHOICES, PRESETS, WEIGHT_FREE, metrics_of, open_choices, preset, recipe
from benchmark.sampling import Every


def names(chosen):
    return [metric.name for metric in metrics_of(chosen, weight_free=False)]


def test_the_papers_tables():
    assert names(preset("memento")) == [
        *("aesthetic", "semantic_story", "semantic_shot", "background", "subject_intra_shot_scene_level"),
        *("inter_shot_viclip_adjacent", "inter_scene"),
    ]
    assert names(preset("storymem")) == [
        *("storymem_aesthetic_videos", "storymem_global", "storymem_single_shot"),
        *("storymem_cross_shot_overall", "storymem_cross_shot_top10"),
    ]
    assert preset("storymem").viclip == "viclip-l14"
    for chosen in PRESETS.values():
        assert [m.name for m in metrics_of(chosen)][-len(WEIGHT_FREE) :] == list(WEIGHT_FREE)


def test_choices_change_the_numbers_and_the_hash():
    base = preset("memento")
    changed = preset("memento", inter_shot="inter_shot_dino_adjacent", interval="0.5s", aesthetic_stride=4)
    by_name = {m.name: m for m in metrics_of(changed)}
    assert by_name["inter_shot_dino_adjacent"].options["every"] == Every(seconds=0.5)
    assert by_name["aesthetic"].options["stride"] == 4
    assert METRICS["aesthetic"].options["stride"] == 1
    hashes = {recipe(c) for c in PRESETS.values()} | {recipe(changed)}
    assert len(hashes) == len(PRESETS) + 1
    assert recipe(base) == recipe(preset("memento", order="micro"))
    assert recipe(base) != recipe(base, weights={"clip-b32": "00"})
    assert recipe(base, prompts=["a", "b"]) != recipe(base, prompts=["b", "a"])


def test_every_open_choice_is_a_field_with_a_source():
    assert {name for name, *_ in open_choices(preset("ours"))} == set(CHOICES)
    assert all(choice.source and choice.about in ("metric", "encoder") for choice in CHOICES.values())
    for choice in CHOICES.values():
        named = [v for v in choice.admissible if isinstance(v, str) and v in METRICS]
        assert not named or len(named) == len(choice.admissible)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"background": "foreground"}, "background cannot be 'foreground'"),
        ({"colour": 1}, "has no choice colour"),
        ({"interval": "often"}, "interval 'often'"),
        ({"interval": "-1s"}, "interval '-1s'"),
        ({"aesthetic_stride": 0}, "at least 1"),
    ],
)
def test_bad_choices_are_one_line(changes, line):
    with pytest.raises(ValueError, match=line):
        preset("memento", **changes)


def test_no_such_preset():
    with pytest.raises(ValueError, match="is no preset: use memento"):
        preset("momento")
