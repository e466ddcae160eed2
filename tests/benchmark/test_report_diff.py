from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.aggregate import RecipeMismatch
from benchmark.report.data import report_data
from benchmark.report.diff import OTHER_RECIPE, NothingCommon, diff, lines
from tests.benchmark import evaluations, made

STORIES = {f"s{i}": made.story(f"s{i}", (3, 2)) for i in range(4)}
METHODS = {"a": {"spread": 0.3}, "b": {"spread": 0.6}}


@pytest.fixture(scope="module")
def evaluated():
    return evaluations.evaluation(STORIES, METHODS)


@pytest.fixture(scope="module")
def first(evaluated):
    return report_data(evaluated, pictures=False)


def other(evaluated, **methods):
    """The evaluation with other methods under the same recipe."""
    chosen = {"chosen": evaluated.preset, "made": evaluated.recipe}
    made_ = tuple(evaluations.result(name, STORIES, **chosen, **of) for name, of in methods.items())
    return report_data(replace(evaluated, methods=made_), pictures=False)


def test_the_same_evaluation_has_no_difference(first):
    found = diff(first, first)
    assert found.moved == []
    assert found.changes == []
    assert found.same_recipe
    assert lines(found) == [f"none of {len(found.cells)} numbers moved", "nothing else differs"]


def test_moved_numbers_come_with_their_interval(evaluated, first):
    second = other(evaluated, a={"spread": 0.3}, b={"spread": 0.9})
    found = diff(first, second)
    assert {cell.method for cell in found.moved} == {"b"}
    cell = next(c for c in found.moved if c.metric.name == "inter_shot_viclip_adjacent")
    assert cell.shift == cell.second.value - cell.first.value < 0
    assert cell.paired.value == pytest.approx(cell.shift)
    assert cell.paired.low <= cell.shift <= cell.paired.high < 0
    assert cell.beyond
    assert not any(c.metric.name == "motion" for c in found.moved)
    told = lines(found)
    assert told[0] == f"{len(found.moved)} of {len(found.cells)} numbers moved"
    assert told.count("nothing that is recorded explains these:") == 1
    assert sum(line.startswith("    b, ") for line in told) == len(found.moved)


def test_videos_that_changed_or_are_missing_explain_their_method_only(evaluated, first):
    absent = {"absent": ("s1/01_02",), "spread": 0.3}
    second = other(evaluated, a=absent, b={"spread": 0.6})
    found = diff(first, second)
    cause = "1 shot of a is missing now: s1/01_02"
    assert cause in [change.text for change in found.changes]
    assert sum(cause in line for line in lines(found)) == 1
    assert {cell.method for cell in found.moved} == {"a"}
    assert all("missing now" in cell.why[0] for cell in found.moved)
    back = diff(second, first)
    assert any("1 shot of a is new" in change.text for change in back.changes)
    method = evaluated.methods[0]
    shots = dict(method.submission.clips["s0"])
    key = next(iter(shots))
    shots[key] = replace(shots[key], facts=evaluations.facts("rendered again", frames=17))
    clips = {**method.submission.clips, "s0": shots}
    again = replace(method, submission=replace(method.submission, clips=clips))
    changed = report_data(replace(evaluated, methods=(again, evaluated.methods[1])), pictures=False)
    assert "1 video of a changed: s0/01_01" in [c.text for c in diff(first, changed).changes]


def test_other_recipes_are_refused_unless_asked_for(first):
    second = report_data(
        evaluations.evaluation(STORIES, METHODS, viclip_pixels="vbench-crop-clip"), pictures=False
    )
    with pytest.raises(RecipeMismatch, match="choice viclip_pixels: 'squash-imagenet' became") as error:
        diff(first, second)
    assert "\n" not in str(error.value)
    found = diff(first, second, across_recipes=True)
    assert not found.same_recipe
    assert all(cell.note == OTHER_RECIPE for cell in found.cells)
    assert lines(found).count(OTHER_RECIPE) == 1
    assert lines(found)[0] == OTHER_RECIPE


def test_a_map_that_says_what_the_tags_say_is_named_and_explains_no_other_recipe(evaluated, first):
    mapped = {
        key: replace(story, cast={"Person A": (story.shots[0].key,)}, reviewer="")
        for key, story in STORIES.items()
    }
    both = [
        replace(report_data(replace(evaluated, stories=stories), pictures=False), recipe=recipe * 64)
        for stories, recipe in ((mapped, "a"), (mapped, "b"))
    ]
    tags = [replace(story, characters_from="tags of the prompts") for story in both[0].stories]
    found = diff(replace(both[0], stories=tags), replace(both[1], recipe=both[0].recipe))
    told = "tags of the prompts became map that nobody reviewed, which says the same"
    assert [told in change.text for change in found.changes] == [True]
    assert not found.moved
    with pytest.raises(RecipeMismatch, match="nothing that the reports record"):
        diff(replace(both[0], stories=tags), both[1])
    with pytest.raises(RecipeMismatch, match="nothing that the reports record"):
        diff(*both)
    missing = [replace(e, missing="no weights") for e in first.encoders]
    with pytest.raises(RecipeMismatch, match="encoder clip-b32 is missing now"):
        diff(first, replace(first, recipe="c" * 64, encoders=missing))


def test_strangers_are_told_in_a_line(evaluated, first):
    """Not `0 of 0 numbers moved`: there is nothing that could have."""
    strangers = other(evaluated, c={}, d={})
    with pytest.raises(NothingCommon, match="the first has a, b, the second c, d") as error:
        diff(first, strangers)
    assert "\n" not in str(error.value)
    assert diff(first, other(evaluated, b={"spread": 0.6}, d={})).cells


def test_causes_are_told_once_and_those_that_moved_nothing_apart(evaluated, first):
    second = other(
        evaluated, a={"spread": 0.3, "absent": ("s1/01_02",)}, b={"spread": 0.9, "absent": ("s2/02_01",)}
    )
    again = replace(second, encoders=[replace(e, sha256="c" * 64) for e in second.encoders])
    told = lines(diff(first, again))
    for shot in ("shot of a is missing now", "shot of b is missing now"):
        assert 0 < sum(shot in line for line in told) < len([x for x in told if x.startswith("    ")])
    same = replace(first, environment={**first.environment, "numpy": "0.1"})
    told = lines(diff(first, same))
    assert told[:2] == [f"0 of {len(diff(first, same).cells)} numbers moved", ""]
    assert told[2] == "differs too, and can have moved none of these:"


def test_only_what_can_have_moved_a_number_is_named(evaluated, first):
    encoders = tuple(
        replace(fact, sha256="b" * 64) if fact.name == "dinov2-b14" else fact for fact in evaluated.encoders
    )
    second = report_data(
        replace(
            evaluations.evaluation(STORIES, {"a": {"spread": 0.5}, "b": {"spread": 0.6}}), encoders=encoders
        ),
        pictures=False,
    )
    found = {cell.metric.name: cell.why for cell in diff(first, second).moved}
    assert found["subject_intra_shot_scene_level"] == ["encoder dinov2-b14, sha256: none became bbbbbbbbbbbb"]
    assert found["background"] == []


def test_prompts_stories_presets_and_environments_are_compared(evaluated, first):
    fewer = {key: story for key, story in STORIES.items() if key != "s3"}
    fewer["s0"] = made.story("s0", (3, 2), prompts=[f"other {n}" for n in range(5)])
    second = evaluations.evaluation(fewer, {"a": METHODS["a"], "c": {}})
    second = replace(second, environment={**second.environment, "numpy": "0.1"})
    found = diff(first, report_data(second, pictures=False), across_recipes=True)
    told = [change.text for change in found.changes]
    assert "1 fewer story: s3" in told
    assert "prompts or cuts of the script differ in s0" in told
    assert any(text.startswith("environment, numpy:") for text in told)
    assert found.only[:2] == ["method b is only in the first", "method c is only in the second"]
    storymem = report_data(evaluations.evaluation(STORIES, METHODS, name="storymem"), pictures=False)
    across = diff(first, storymem, across_recipes=True)
    assert "preset memento became storymem" in [change.text for change in across.changes]
    assert "metric inter_scene is only in the first" in across.only


def test_numbers_that_appear_or_go_have_no_shift(evaluated, first):
    without = report_data(evaluations.evaluation(STORIES, METHODS, weights=False), pictures=False)
    found = diff(without, first, across_recipes=True)
    cell = next(c for c in found.moved if c.metric.name == "background")
    assert cell.first.value is None
    assert cell.shift is None
    assert not cell.beyond
    assert "encoder clip-b32 is there now" in cell.why
    assert any("Background (background): - to 0.9" in line for line in lines(found))
