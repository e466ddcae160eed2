"""Every published story, and the one that comes along, becomes a plan in every mode."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import memento_model
from curation.stories.script import check_story, read_story
from memento_model.config import Compat, FrameGrid
from memento_model.story.plan import GenerateSettings, plan_story
from tests.support import REPOSITORY, shared

GRID = FrameGrid(num_frames=81, height=480, width=832)
DEMO = REPOSITORY / "memento_model" / "story" / "scripts" / "demo.json"


def check(story, mode):
    settings = GenerateSettings(mode=mode, grid=GRID)
    plans = plan_story(story, settings, Compat())
    assert [plan.stem for plan in plans] == [shot.stem for shot in story.shots]
    assert len({plan.stem for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)
    assert [plan.start_frame for plan in plans] == [81 * i for i in range(len(plans))]
    assert plans[0].task == "T2V"
    cut = "T2V" if mode == "wan" else "TM2V"
    assert [p.task for p in plans[1:]] == [cut if s.cut else "TMI2V" for s in story.shots[1:]]
    slots = [plan.identity_prompt for plan in plans[1:]]
    assert all(slots) if mode == "memento" and story.reconstruct_target else not any(slots)
    for plan, shot in zip(plans, story.shots, strict=True):
        assert plan.prompt == shot.prompt
        assert plan.global_prompt in plan.prompt  # empty in a shot without subjects


@pytest.mark.parametrize("mode", ["memento", "storymem", "wan"])
@pytest.mark.parametrize("form", ["memento", "storymem"])
def test_every_published_story_can_be_planned(form, mode):
    files = sorted(shared(f"stbench/{form}").glob("*.json"))
    assert len(files) == {"memento": 15, "storymem": 30}[form]
    for file in files:
        check(read_story(file), mode)


def test_the_story_that_comes_along_is_sound():
    assert Path(memento_model.__file__).parent == DEMO.parents[2]
    assert [fault for fault in check_story(DEMO) if fault.level != "note"] == []
    story = read_story(DEMO)
    assert story.form == "memento"
    assert 6 <= len(story.shots) <= 8
    assert {label for label, _ in story.cast} == {"[Person A]", "[Animal A]", "[Object A]"}
    assert [shot.cut for shot in story.shots].count(False) == 2
    check(story, "memento")
