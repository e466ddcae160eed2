"""Stories of a tiny model: the same bytes whatever happens on the way, and never yesterday's memory."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import av
from diffusers.models.attention_dispatch import attention_backend

from memento_model.config import Compat
from memento_model.story.generate import StoryGenerator
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.memory import Forgetful
from memento_model.story.plan import GenerateSettings, plan_story
from memento_model.story.storymem import StoryMemMemory
from tests.memento_model.tiny import GRID, memento_memory, models, story

SETTINGS = GenerateSettings(steps=3, grid=GRID, batch_guidance=True)


class Stopped(Exception):
    """Stands for a killed process."""


class StopsAt:
    """Dies at a step of a shot; notes what it was told."""

    def __init__(self, stem=None, number=None):
        self.stem, self.number = stem, number
        self.steps, self.shots, self.previews, self.aside = [], [], [], []

    def story(self, plans, aside):
        self.aside = list(aside)

    def begin(self, plan):
        self.steps.append((plan.stem, 0))

    def step(self, plan, number, steps, preview):
        self.steps.append((plan.stem, number))
        if (plan.stem, number) == (self.stem, self.number):
            raise Stopped
        if number == 1:
            self.previews.append(preview())

    def shot(self, plan, record, *, reused):
        self.shots.append((plan.stem, reused))


def generate(folder, script, settings=SETTINGS, watcher=None, memory=None, **more):
    made = models(more.pop("compat", None))
    memory = memory or memento_memory(made)
    return StoryGenerator(made, memory, settings, folder, watcher).run(script, **more)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_story_killed_in_every_shot_has_the_same_bytes(tmp_path):
    script = story(5)
    generate(tmp_path / "whole", script)
    for number in range(1, 6):
        with pytest.raises(Stopped):
            generate(tmp_path / "killed", script, watcher=StopsAt(f"01_{number:02d}", 2))
    watcher = StopsAt()
    generate(tmp_path / "killed", script, watcher=watcher)
    assert [reused for _, reused in watcher.shots] == [True] * 4 + [False]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_kernels_chosen_for_other_models_change_nothing(tmp_path):
    generate(tmp_path / "alone", story(2))
    with attention_backend("_native_math"):  # as diffusers leaves it behind when any model chooses
        generate(tmp_path / "beside", story(2))
    assert contents(tmp_path / "beside") == contents(tmp_path / "alone")


def test_a_second_run_makes_nothing(tmp_path):
    generate(tmp_path, story(3))
    before = contents(tmp_path)
    watcher = StopsAt()
    generate(tmp_path, story(3), watcher=watcher)
    assert watcher.steps == []
    assert contents(tmp_path) == before


def test_memory_is_never_stale(tmp_path):
    generate(tmp_path / "a", story(4))
    other = story(4, memento=False)
    generate(tmp_path / "b", other)
    watcher = StopsAt()
    generate(tmp_path / "a", other, watcher=watcher)  # another story in the same folder
    assert [reused for _, reused in watcher.shots] == [
        True,
        False,
        False,
        False,
    ]  # shot 1 has no subject slot
    assert watcher.aside == ["01_02", "01_03", "01_04"]
    left, right = contents(tmp_path / "a"), contents(tmp_path / "b")
    kept = {name for name in left if name.startswith("earlier/")}
    assert {name: left[name] for name in left.keys() - kept} == right
    group = json.loads(next((tmp_path / "a/earlier").glob("*/01_02.json")).read_text())
    assert {f"earlier/{group['key'][:12]}/{name}" for name in group["files"]} <= kept


def test_finished_shots_outlive_a_shorter_run(tmp_path):
    generate(tmp_path, story(4))
    before = contents(tmp_path)
    watcher = StopsAt()
    made = models()
    generator = StoryGenerator(made, memento_memory(made), SETTINGS, tmp_path, watcher)
    generator.run(story(4), num_shots=2)
    assert watcher.shots == [("01_01", True), ("01_02", True)]
    assert contents(tmp_path).keys() == before.keys()
    generate(tmp_path, story(4))
    assert contents(tmp_path) == before


def test_what_a_stopped_run_left_is_cleared(tmp_path):
    generate(tmp_path / "whole", story(2))
    folder = tmp_path / "other"
    generate(folder, story(3), GenerateSettings(steps=2, grid=GRID))
    for record in folder.glob("*.json"):
        record.unlink()  # as if every shot had been stopped between its files
    (folder / ".part-01_03").mkdir()
    (folder / "mine.txt").write_text("not a shot's")
    generate(folder, story(2))
    (folder / "mine.txt").unlink()
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_damaged_file_is_made_again_with_all_that_follows(tmp_path):
    generate(tmp_path, story(4))
    before = contents(tmp_path)
    (tmp_path / "01_03.mp4").write_bytes(b"damaged")
    watcher = StopsAt()
    generate(tmp_path, story(4), watcher=watcher)
    assert [reused for _, reused in watcher.shots] == [True, True, False, False]
    assert contents(tmp_path) == before


def test_the_record_says_what_was_seen(tmp_path):
    generate(tmp_path, story(4))
    first, *_, last = (json.loads((tmp_path / f"01_{n:02d}.json").read_text()) for n in range(1, 5))
    assert first["task"] == "T2V"
    assert first["memory"]["low"] == {"frames": []}
    assert last["memory"]["low"]["num_local"] == 6
    assert len(last["memory"]["low"]["frames"]) == 8
    assert {shot for shot, _ in last["memory"]["high"]["candidates"]} >= {"01_03"}
    stills = {f"stills/01_04_{frame:03d}.jpg" for frame in last["stills"]}
    assert set(last["files"]) == {"01_04.mp4", "01_04_subject.png", "state/01_04.safetensors"} | stills
    seen = {f"stills/{shot}_{frame:03d}.jpg" for shot, frame in last["memory"]["low"]["candidates"]}
    assert all((tmp_path / name).is_file() for name in seen)


@pytest.mark.parametrize("memory", [Forgetful(), StoryMemMemory(ThumbnailEmbedder()), None])
def test_every_mode_makes_a_film_of_all_its_frames(tmp_path, memory):
    name = memory.name if memory else "memento"
    settings = GenerateSettings(mode=name, steps=2, grid=GRID, continuation_frames=5)
    compat = Compat(memory_positions="storymem" if name == "storymem" else "time")
    film = generate(tmp_path, story(4), settings, memory=memory, compat=compat)
    with av.open(str(film)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert len(times) == 4 * 9
    assert [float(t) for t in times] == pytest.approx([i / 16 for i in range(36)])
    tasks = [json.loads((tmp_path / f"01_{n:02d}.json").read_text())["task"] for n in range(1, 5)]
    assert tasks == ["T2V", "MM2V", "T2V" if name == "wan" else "TM2V", "T2V" if name == "wan" else "TM2V"]


def test_a_repeated_frame_is_dropped_on_request(tmp_path):
    compat = Compat(drop_repeated_first_frame=True)
    film = generate(tmp_path, story(3, [True, False, True]), compat=compat)
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9 + 8 + 9
    assert json.loads((tmp_path / "01_03.json").read_text())["start_frame"] == 17


def test_references_are_remembered_before_the_story(tmp_path):
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    generate(tmp_path, story(2), references_nchw=pictures)
    record = json.loads((tmp_path / "01_01.json").read_text())
    assert record["task"] == "MR2V"
    assert record["memory"]["high"]["frames"] == [["", 0], ["", 1]]
    watcher = StopsAt()
    generate(tmp_path, story(2), watcher=watcher, references_nchw=pictures.flip(0))
    assert [reused for _, reused in watcher.shots] == [False, False]


def test_guidance_seeds_and_times_of_a_plan():
    plans = plan_story(story(4, [True, False, True, True]), SETTINGS, Compat())
    assert [p.guidance for p in plans] == [3.5, 3.5, 5.0, 5.0]
    assert [p.start_frame for p in plans] == [0, 9, 18, 27]
    assert len({p.seed for p in plans}) == 4
    assert [p.identity_prompt for p in plans] == [None] + ["[Person A] a diver in a red suit"] * 3
    assert plans[0].global_prompt == "[Person A]: a diver"
    wan = plan_story(story(2), GenerateSettings(mode="wan"), Compat())
    assert [p.guidance for p in wan] == [3.5, 3.5]
    with pytest.raises(ValueError, match="1 or 5"):
        GenerateSettings(continuation_frames=3)
