from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.extraction.plan import joined_id, make_plan, sources, unit_clips, unit_texts
from benchmark.metrics import METRICS
from benchmark.presets import all_readings, metrics_of, preset
from benchmark.prompts import windows
from benchmark.stories import SHOT_MARKER, ShotKey
from benchmark.submission import Clip, Submission, VideoFacts
from tests.benchmark import made

FACTS = {"fps": 16.0, "height": 90, "width": 160, "codec": "h264", "pix_fmt": "yuv420p"}
STORY = {"tale": made.story(overview="all of it")}
MEMENTO = preset("memento")


def clip(name, frames=20, **of):
    facts = VideoFacts(
        sha256=name, frames=of.pop("total", frames), bitrate=1, duration_s=1, matrix="", **{**FACTS, **of}
    )
    return Clip(path=Path(name), end=frames, facts=facts)


def submission(stories=STORY, frames=20, without=()):
    return Submission(
        method="m",
        clips={
            key: {s.key: clip(f"{key}{s.key.stem}", frames) for s in story.shots if s.key.stem not in without}
            for key, story in stories.items()
        },
    )


def planned(*names, stories=STORY, of=None, chosen=MEMENTO):
    metrics = [METRICS[name] for name in names] or None
    return make_plan(stories, of or submission(stories), chosen, str.split, metrics)


def frames_of(plan, kind):
    return {shot.stem: plan.frames["tale", shot][kind].tolist() for _, shot in plan.frames}


def test_intervals_run_on_through_the_shots_of_a_scene():
    plan = planned("background")
    assert frames_of(plan, "clip_b32") == {
        "01_01": [0, 8, 16],
        "01_02": [4, 12],  # joined frames 24 and 32
        "01_03": [0, 8, 16],  # 40, 48, 56
        "02_01": [0, 8, 16],
        "02_02": [4, 12],
    }
    assert plan.units == {}
    assert plan.texts == {}


def test_readings_are_planned_together():
    both = planned("subject_intra_shot_scene_level", "subject_intra_shot_true_shot")
    assert frames_of(both, "dino_b14")["01_02"] == [0, 4, 8, 12, 16]
    everything = planned()
    assert {kind: len(f) for kind, f in everything.frames["tale", ShotKey(1, 1)].items()} == {
        "clip_b32": 20,  # a reading of the background looks at every frame
        "clip_l14": 20,
        "dino_b14": 3,
    }
    assert {m.name for m in metrics_of(MEMENTO)} < {m.name for m in all_readings(MEMENTO)}


def test_aesthetic_frames_follow_the_stride():
    plan = planned(chosen=preset("memento", aesthetic_stride=4))
    assert plan.frames["tale", ShotKey(1, 2)]["clip_l14"].tolist() == [0, 4, 8, 12, 16]


def test_clips_of_shots_scenes_and_the_story():
    plan = planned("semantic_shot", "storymem_single_shot", "inter_scene", "storymem_global")
    count = {(unit, kind): len(clips) for (_, unit, kind), clips in plan.units.items()}
    assert count[(1, 1), "viclip_24"] == count[(1,), "viclip_24"] == 3
    assert count[(1, 1), "viclip_8"] == count[(), "viclip_8"] == 1
    scene = plan.units["tale", (1,), "viclip_24"]
    taken = [source for clip in scene for source in sources(clip.parts, clip.frames)]
    joined = [(60 * i // 24 + 60 * (i + 1) // 24 - 1) // 2 for i in range(24)]
    assert taken == [(f"tale01_0{1 + i // 20}", i % 20) for i in joined]


def test_equal_clips_are_one_whatever_unit_they_are_of():
    """24 frames of three shots of one length are 8 of each."""
    plan = planned("inter_scene", "storymem_single_shot", "storymem_global_24_frames")
    scene = plan.units["tale", (1,), "viclip_24"]
    shots = [plan.units["tale", (1, n), "viclip_8"][0] for n in (1, 2, 3)]
    assert [clip.id for clip in scene] == [clip.id for clip in shots]
    assert all((a.frames == b.frames).all() for a, b in zip(scene, shots, strict=True))
    story = plan.units["tale", (), "viclip_24"]
    assert [len(clip.parts) for clip in story] == [2, 3, 2]
    assert sources(story[1].parts, story[1].frames[[0, -1]]) == [("tale01_02", 14), ("tale02_01", 3)]


def test_missing_shots_shorten_what_is_joined():
    plan = planned("background", "inter_scene", of=submission(without=("01_02",)))
    assert frames_of(plan, "clip_b32")["01_03"] == [4, 12]
    middle = plan.units["tale", (1,), "viclip_24"][1]
    assert [c.id for c in middle.parts] == ["tale01_01", "tale01_03"]
    whole_scene = planned("background", of=submission(without=("02_01", "02_02")))
    assert ("tale", ShotKey(2, 1)) not in whole_scene.frames
    strict = planned(
        "background", of=submission(without=("01_02",)), chosen=preset("memento", strict_missing=True)
    )
    assert {shot.scene for _, shot in strict.frames} == {2}


def test_a_joined_unit_is_known_by_its_content():
    a, b = clip("a"), clip("b")
    assert joined_id((a,)) == "a"
    assert len({joined_id(parts) for parts in [(a, b), (b, a), (a, b, b), (a, clip("b", 19, total=20))]}) == 4
    part = Clip(path=Path("a"), start=5, end=9, facts=a.facts)
    assert joined_id((part,)) == "a:5-9"
    assert sources((part, b), np.asarray([0, 3, 4])) == [("a", 5), ("a", 8), ("b", 0)]


def test_one_frame_fills_every_clip():
    clips = unit_clips((clip("a", 1),), 24, "mid")
    assert [c.frames.tolist() for c in clips] == [[0] * 8] * 3


@pytest.mark.parametrize("sampler", ["mid", "lin", "step"])
def test_the_preset_names_the_sampler(sampler):
    plan = planned("semantic_shot_8_frames", chosen=preset("memento", sampler=sampler))
    first = plan.units["tale", (1, 1), "viclip_8"][0].frames[0]
    assert first == {"mid": 0, "lin": 0, "step": 0}[sampler]
    last = plan.units["tale", (1, 1), "viclip_8"][0].frames[-1]
    assert last == {"mid": 18, "lin": 19, "step": 14}[sampler]


def test_texts_by_mode():
    prompts = [f"global caption: [Person A] in red. {SHOT_MARKER} {w} runs." for w in ("he", "she", "it")]
    story = made.story("tale", (2, 1), prompts=prompts, overview="They run.")

    def texts(unit, **choices):
        return unit_texts(story, unit, preset("memento", **choices), str.split)

    assert texts((1, 1)) == (prompts[0],)
    assert texts((1,)) == (f"{prompts[0]} {prompts[1]}",)
    assert texts((1,), scene_joiner="\n") == (f"{prompts[0]}\n{prompts[1]}",)
    assert texts(()) == ("They run.",)
    assert texts((1, 2), text_mode="shot-part") == ("she runs.",)
    assert texts((1,), text_mode="shot-part") == ("he runs. she runs.",)
    long = made.story("tale", (1,), prompts=["one two. " * 20])
    assert unit_texts(long, (1, 1), preset("memento", text_mode="windows"), str.split) == tuple(
        windows(long.shots[0].prompt, str.split)
    )
    assert unit_texts(made.story(), (), MEMENTO, str.split) == ()


def test_without_a_text_tower_there_are_no_texts():
    assert make_plan(STORY, submission(), MEMENTO).texts == {}


def test_weight_free_metrics_need_no_encoder():
    plan = planned("cut_accuracy", "holocine_sca")
    assert (plan.frames, plan.units, plan.texts) == ({}, {}, {})
    assert len(plan.clips) == 5
