"""The page of a story: everything is there, hostile text stays text, the same story gives the same bytes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import numpy as np

from curation.stories.script import parse_story
from memento_model.config import Compat
from memento_model.story.drift import Drift, chart
from memento_model.story.generate import StoryGenerator
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.memory import EXPERTS, DrawnElection, MementoMemory
from memento_model.story.page import Alive, PageFacts, StoryPage, told_settings
from memento_model.story.plan import GenerateSettings
from memento_model.story.storymem import StoryMemMemory
from memento_model.story.video import write_picture
from tests.memento_model.tiny import GRID, memento_memory, models, story

HOSTILE = "</title><script>alert(1)</script>\"'>{{ 7 * 7 }}<img src=x onerror=alert(2)>\u202e\x1b[31m"
SETTINGS = GenerateSettings(steps=2, grid=GRID)


class Keeps:
    """A watcher that keeps plans and records."""

    def __init__(self):
        self.plans, self.records = [], {}

    def story(self, plans, aside):
        self.plans = list(plans)

    def begin(self, plan):
        pass

    def step(self, plan, number, steps, preview):
        pass

    def shot(self, plan, record, *, reused):
        self.records[plan.stem] = record


class Read(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.files, self.text = [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        named = dict(attributes)
        self.files |= {named[key] for key in ("src", "href", "poster") if key in named}
        assert not any(key.startswith("on") for key in named)

    def handle_data(self, data):
        self.text += data


def made(folder, script, settings=SETTINGS, memory=None, references=None, **facts):
    models_, watcher = models(), Keeps()
    generator = StoryGenerator(models_, memory or memento_memory(models_), settings, folder, watcher)
    generator.run(script, references)
    shown = PageFacts(settings=settings, compat=Compat(), model={"model": "tiny"}, **facts)
    page = StoryPage(folder, script, shown, Drift(ThumbnailEmbedder()))
    return page, watcher


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    pictures = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    page, watcher = made(folder, story(4), references=pictures, warnings=["random weights"])
    page.write(watcher.plans, watcher.records)
    return folder, page, watcher


def test_the_page_shows_every_shot_and_only_files_that_are_there(whole):
    folder, _, watcher = whole
    text = (folder / "index.html").read_text(encoding="utf-8")
    read = Read(text)
    local = {name for name in read.files if not name.startswith("#")}
    assert {f"{plan.stem}.mp4" for plan in watcher.plans} | {"story.mp4"} <= local
    assert {"references/00.png", "references/01.png", "01_04_subject.png"} <= local
    assert all((folder / name).is_file() for name in local)
    assert {name[1:] for name in read.files if name.startswith("#")} <= set(re.findall(r'id="([^"]+)"', text))
    assert "http" not in text.replace("http-equiv", "")
    assert "script" not in read.tags
    assert "link" not in read.tags
    assert "svg" in read.tags


def test_it_says_what_was_remembered_and_why(whole):
    folder, _, watcher = whole
    read = Read((folder / "index.html").read_text(encoding="utf-8"))
    seen = watcher.records["01_04"]["memory"]["low"]
    assert f"{len(seen['frames'])} frames of {len(seen['candidates'])} candidates" in read.text
    assert "the 6 best by the local score" in read.text
    assert "then the 2 best of the rest by the global score" in read.text
    assert "the reference pictures, all of them" in read.text  # of the first shot
    for shot, frame in seen["frames"]:
        assert (f"stills/{shot}_{frame:03d}.jpg" if shot else f"references/{frame:02d}.png") in read.files
    assert f"local {seen['local_scores'][0]:.3g}" in read.text
    for words in (
        "local 6",
        "global 2",
        "random weights",
        "MR2V: from reference pictures",
        "tiny",
        "memento",
    ):
        assert words in read.text
    assert "not elected, now forgotten" in read.text


def test_the_same_story_gives_the_same_page(whole, tmp_path):
    folder, page, watcher = whole
    before = (folder / "index.html").read_bytes()
    page.write(watcher.plans, watcher.records)
    assert (folder / "index.html").read_bytes() == before


def test_a_page_on_its_way_renews_itself_and_shows_the_preview(whole):
    folder, page, watcher = whole
    before = (folder / "index.html").read_bytes()
    preview = folder / "preview/01_03.jpg"
    preview.parent.mkdir()
    write_picture(preview, np.zeros((8, 8, 3), np.uint8))
    done = {"01_01", "01_02"}
    page.write(watcher.plans, done, preview)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text
    assert "preview/01_03.jpg" in Read(text).files
    assert "2 of 4 shots" in text
    assert text.count("not made yet") == 1
    page.write(watcher.plans, watcher.records)
    assert (folder / "index.html").read_bytes() == before


def test_a_page_of_a_run_at_work_tells_when_to_stop_waiting_for_it(whole):
    """A run that is killed cannot say so: the page has to."""
    folder, page, watcher = whole
    at = datetime(2026, 3, 1, 14, 3, 10, tzinfo=timezone(timedelta(hours=2), "CEST"))

    def written(done, **more):
        page.write(watcher.plans, done, **more)
        return (folder / "index.html").read_text(encoding="utf-8")

    text = written({"01_01"}, alive=Alive(at=at, shot_s=400.0))
    read = Read(text)
    assert "in work, last updated 14:03 on 01 March 2026 (CEST); this page renews itself" in read.text
    assert (
        "If that time has not changed for 13 minutes (a shot takes about 7 minutes), the run has ended "
        "without a word: run the same command again to go on; finished shots are kept."
    ) in read.text
    assert 'datetime="2026-03-01T12:03:10+00:00"' in text
    assert 'data-patience="800"' in text
    assert read.tags.count("script") == 1
    assert "for 3 minutes, the run" in written({"01_01"}, alive=Alive(at=at)), (
        "what a shot takes is not known"
    )
    assert "last updated" not in written({"01_01"}, alive=Alive(at=at), stopped=True)
    whole_page = written(watcher.records, alive=Alive(at=at))
    assert whole_page == written(watcher.records), "a film's page does not depend on when it was made"


def test_hostile_text_stays_text(tmp_path):
    prompt = f"global caption: [Person A]: {HOSTILE}; shot caption: [Person A] {HOSTILE}"
    value = {
        "story_name": HOSTILE, "story_overview": HOSTILE,
        "reconstruct_target": f"[Person A] {HOSTILE}",
        "scenes": [{"scene_num": 1, "cut": [True, True], "video_prompts": [prompt, prompt]}],
    }  # fmt: skip
    script, faults = parse_story(value, "x")
    assert script is not None, faults
    page, watcher = made(tmp_path, script, warnings=[HOSTILE])
    page.write(watcher.plans, watcher.records)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    read = Read(text)
    assert "script" not in read.tags
    assert all(name != "x" for name in read.files)
    assert "alert(1)" in read.text
    assert "{{ 7 * 7 }}" in read.text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert 'class="l l0">[Person A]' in text


@pytest.mark.parametrize("mode", ["storymem", "wan"])
def test_modes_without_elections_have_pages_too(tmp_path, mode):
    from memento_model.story.memory import Forgetful

    memory = StoryMemMemory(ThumbnailEmbedder()) if mode == "storymem" else Forgetful()
    page, watcher = made(tmp_path, story(3), GenerateSettings(mode=mode, steps=1, grid=GRID), memory)
    page.write(watcher.plans, watcher.records)
    read = Read((tmp_path / "index.html").read_text(encoding="utf-8"))
    if mode == "wan":
        assert read.text.count("Nothing is remembered: mode wan has no memory.") == 3
        assert "TMI2V: goes on from the last frame before" in read.text
        assert "with memory" not in read.text
    else:
        assert read.text.count("Nothing is remembered: there is no shot before this one.") == 1
        assert read.text.count("keyframes that looked new when they were made") == 2
    assert "candidates" not in read.text


def test_a_drawn_memory_and_a_small_one_say_so(tmp_path):
    drawn = MementoMemory(dict.fromkeys(EXPERTS, DrawnElection(8)), 8, Compat())
    page, watcher = made(tmp_path, story(3), SETTINGS, drawn)
    page.write(watcher.plans, watcher.records)
    read = Read((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "all candidates there are: they fit into the memory, so none had to be left out" in read.text
    assert "8 of 16 candidates, drawn at random, as these weights were trained" in read.text
    assert "8 candidates not elected, now forgotten" in read.text
    assert "margin" not in read.text.split("Storyboard")[1].split("01_01")[1]


def test_drift_is_the_likeness_of_pictures(tmp_path):
    shots = []
    for name, colour in (("a", (250, 10, 10)), ("b", (250, 10, 10)), ("c", (10, 10, 250))):
        path = tmp_path / f"{name}.png"
        write_picture(path, np.full((24, 40, 3), colour, np.uint8))
        shots.append((name, name, [path]))
    first, same, other = Drift(ThumbnailEmbedder()).measure(shots)
    assert (first.to_first, first.to_previous) == (None, None)
    assert same.to_first == same.to_previous == pytest.approx(1, abs=1e-3)
    assert other.to_first < 0.5
    drawn = chart([first, same, other])
    assert [stem for _, _, _, stem in drawn["lines"]["to_first"]] == ["b", "c"]
    assert drawn["lines"]["to_first"][0][1] < drawn["lines"]["to_first"][1][1]  # likelier is higher up
    assert chart([first]) is None
    assert chart([first, same]) is None


def test_two_shots_have_a_line_for_their_likeness_and_no_empty_chart(tmp_path):
    page, watcher = made(tmp_path, story(2))
    page.write(watcher.plans, watcher.records)
    read = Read((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "01_02 is like 01_01 by" in read.text
    assert "svg" not in read.tags


def test_switches_that_differ_are_told():
    plain = told_settings(SETTINGS, Compat())
    assert not any(name.startswith("switch") for name in plain)
    assert told_settings(SETTINGS, Compat(queries="low"))["switch queries"] == "low"
    assert (
        told_settings(SETTINGS, Compat(query_gradient="all", timestep="bf16_legacy")) == plain
    )  # of training
