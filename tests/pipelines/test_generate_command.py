"""`memento generate`: scripts to films and pages; stopped anywhere, the same bytes; a mistake is one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("ftfy")

import av
from rich.console import Console
from typer.testing import CliRunner

from curation.config import SettingsError
from curation.engine.stage import StopRun
from memento_model.config import Compat, FrameGrid
from pipelines import generate_command
from pipelines.cli import app
from pipelines.generate_command import Order
from pipelines.generate_inputs import read_references, story_files
from pipelines.generate_progress import clock
from pipelines.generate_settings import compat_of, parse_settings, settings_of
from tests.pipelines.dying import TINY, in_a_process
from tests.support import REPOSITORY

DEMO = REPOSITORY / "memento_model" / "story" / "scripts" / "demo.json"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No weights of this machine, one thread."""
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def script(path, shots=3, form="memento", name="A dive", **change):
    look = "[Person A]: a diver in a red suit"
    prompts = [f"The diver swims, {i}." for i in range(shots)]
    if form == "memento":
        prompts = [f"global caption: {look}; shot caption: [Person A] swims, {i}." for i in range(shots)]
    cuts = [str(i % 3 != 1) for i in range(shots)]  # the public files have strings
    value = {
        "story_name": name,
        "story_overview": "Somebody dives.",
        **({"reconstruct_target": look.replace(":", "")} if form == "memento" else {}),
        "scenes": [{"scene_num": 1, "video_prompts": prompts, "cut": cuts, "first_frame_prompt": prompts}],
        **change,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def run(*stories, output="out", **order):
    """(films, what was printed) of the debug model at its smallest."""
    from pathlib import Path

    console = Console(file=io.StringIO(), soft_wrap=True)
    asked = Order(stories=list(stories), output=Path(output), **{**TINY, **order})
    films = generate_command.main(asked, {"model": "debug", "device": "cpu"}, console)
    return films, console.file.getvalue()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def num_frames(film):
    with av.open(str(film)) as container:
        return sum(1 for _ in container.decode(video=0))


# -- the way through ------------------------------------------------------------------------------------


def test_both_public_forms_and_a_folder_of_stories(tmp_path):
    script(tmp_path / "stories/dive.json")
    script(tmp_path / "stories/swim.json", form="storymem", shots=2)
    films, said = run(tmp_path / "stories")
    assert [str(film) for film in films] == ["out/dive/story.mp4", "out/swim/story.mp4"]
    assert [num_frames(film) for film in films] == [15, 10]
    folder = tmp_path / "out/dive"
    names = {path.name for path in folder.iterdir()} - {"state", "stills"}
    shots = {f"01_0{n}.{ending}" for n in (1, 2, 3) for ending in ("mp4", "json")}
    subjects = {"01_02_subject.png", "01_03_subject.png"}
    assert names == shots | subjects | {".lock", "index.html", "run.json", "story.json", "story.mp4"}
    assert not list((tmp_path / "out/swim").glob("*_subject.png"))
    assert "random weights" in said
    assert "random weights" in (folder / "index.html").read_text()
    assert "random weights" in json.loads((folder / "run.json").read_text())["warnings"][0]
    assert "2/3 01_02 TMI2V: " in said
    assert " left\n" in said


def test_a_second_run_changes_nothing_and_another_setting_puts_aside(tmp_path):
    story = script(tmp_path / "dive.json", 2)
    run(story)
    before = contents(tmp_path / "out/dive")
    _, said = run(story)
    assert said.count("done before") == 2
    assert contents(tmp_path / "out/dive") == before
    _, said = run(story, seed=1)
    assert "2 shots made otherwise were put aside, into out/dive/earlier" in said
    kept = contents(next((tmp_path / "out/dive/earlier").iterdir()))
    assert kept["01_01.mp4"] == before["01_01.mp4"]
    assert contents(tmp_path / "out/dive")["01_01.mp4"] != before["01_01.mp4"]


def test_the_command_line_end_to_end(tmp_path):
    story = script(tmp_path / "dive.json", 3)
    options = ["--steps", "1", "--size", "32x48", "--frames", "5", "--shots", "2", "--set", "queries=low"]
    done = CliRunner().invoke(app, ["generate", str(story), "-o", "here", "--model", "debug", *options])
    assert done.exit_code == 0, done.output
    assert num_frames("here/dive/story.mp4") == 10
    page = (tmp_path / "here/dive/index.html").read_text()
    assert "switch queries" in page
    assert "the script has 1 more" in page


@pytest.mark.parametrize("mode", ["storymem", "wan"])
def test_the_other_modes(tmp_path, mode):
    films, said = run(script(tmp_path / "dive.json", 2), mode=mode)
    assert num_frames(films[0]) == (9 if mode == "storymem" else 10)  # StoryMem drops the repeated frame
    assert ("thumbnails" in said) == (mode == "storymem")


def test_reference_pictures_are_remembered(tmp_path):
    Image.new("RGB", (100, 40), (200, 30, 30)).save(tmp_path / "a.png")
    Image.new("L", (30, 90), 128).save(tmp_path / "b.jpg")
    run(script(tmp_path / "dive.json", 2), references=[tmp_path / "a.png", tmp_path / "b.jpg"])
    record = json.loads((tmp_path / "out/dive/01_01.json").read_text())
    assert record["task"] == "MR2V"
    assert record["memory"]["low"]["frames"] == [["", 0], ["", 1]]
    with Image.open(tmp_path / "out/dive/references/00.png") as first:
        assert first.size == (48, 32)
        assert first.getpixel((0, 0)) == (200, 30, 30)
    assert "references/01.png" in (tmp_path / "out/dive/index.html").read_text()


# -- killed, and run again ------------------------------------------------------------------------------


def killed_and_run_again(tmp_path, shots, moments):
    story = script(tmp_path / "dive.json", shots)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert in_a_process(story, whole) == 0
    for moment in moments:
        assert in_a_process(story, broken, moment) == -9, moment
        assert not (broken / "dive/story.mp4").exists()
    assert in_a_process(story, broken) == 0
    assert contents(broken) == contents(whole)


def test_killed_in_every_shot_the_bytes_are_the_same(tmp_path):
    killed_and_run_again(tmp_path, 3, [("step", "01_01", 2), ("file", "01_02", 3), ("step", "01_03", 3)])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twelve_shots_killed_in_each_at_different_moments(tmp_path):
    moments = []
    for n in range(1, 13):
        stem = f"01_{n:02d}"
        moments += [("step", stem, 1 + n % 3), ("file", stem, 1 + n % 8)]  # every file of a shot has its turn
    killed_and_run_again(tmp_path, 12, moments)


# -- what a user gets wrong -----------------------------------------------------------------------------


def test_a_bad_script_ends_before_anything_is_made(tmp_path):
    good = script(tmp_path / "good.json")
    bad = script(
        tmp_path / "bad.json", scenes=[{"scene_num": 1, "video_prompts": ["x", ""], "cut": ["maybe"]}]
    )
    done = CliRunner().invoke(app, ["generate", str(good), str(bad), "-o", "out", "--model", "debug"])
    assert done.exit_code == 2
    lines = done.output.strip().splitlines()
    assert len([line for line in lines if str(bad) in line]) >= 2  # a line for each fault
    assert lines[-1] == "memento: 1 of 2 stories cannot be used; nothing was generated"
    assert not (tmp_path / "out").exists()


def test_warnings_are_shown_and_the_story_is_made(tmp_path):
    story = script(tmp_path / "dive.json", 1)
    value = json.loads(story.read_text())
    value["scenes"][0]["video_prompts"][0] += " [Person B] waves."
    story.write_text(json.dumps(value))
    films, said = run(story)
    assert "warning" in said
    assert "[Person B]" in said
    assert films[0].is_file()


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"mode": "magic"}, "--mode magic: there are memento, storymem, wan"),
        ({"mode": "wan", "references": ["x.png"]}, "mode wan has no memory"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"frames": 6}, "num_frames must be 4n\\+1, not 6"),
        ({"size": "big"}, "expected HEIGHTxWIDTH"),
        ({"size": "30x48"}, "multiples of 16"),
        ({"shots": 0}, "--shots 0: at least 1"),
        ({"settings": {"querys": "low"}}, "--set querys: no such setting; did you mean 'queries'"),
        ({"settings": {"queries": "high"}}, "queries"),
        ({"settings": {"seed": 3}}, "--set seed: use --seed"),
        ({"settings": {"continuation_frames": 3}}, "continuation_frames is 1 or 5"),
        ({"references": ["nowhere.png"]}, "--reference nowhere.png: no picture"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, order, says):
    with pytest.raises((SettingsError, StopRun), match=says) as caught:
        run(script(tmp_path / "dive.json"), **order)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_set_reads_switches_and_settings():
    asked = parse_settings(["queries=low", "tm2v_cfg_bonus=0", "drop_repeated_first_frame=true", "crf=18"])
    order = Order(settings=asked)
    assert Compat(**compat_of(order)) == Compat(
        queries="low", tm2v_cfg_bonus=0.0, drop_repeated_first_frame=True
    )
    assert settings_of(order, None).crf == 18
    assert settings_of(Order(size="96x160", frames=17), None).grid == FrameGrid(
        num_frames=17, height=96, width=160
    )
    with pytest.raises(SettingsError, match="expected name=value"):
        parse_settings(["queries"])
    for name, value in (("query_gradient", "all"), ("timestep", "bf16_legacy")):
        with pytest.raises(SettingsError, match=f"--set {name}: changes training alone, as compat.{name}"):
            settings_of(Order(settings={name: value}), None)


def test_names_never_lead_out_of_the_folder(tmp_path):
    story = script(tmp_path / "in/..%2f..%2fetc.json", 1, name="../../../escaped")
    films, _ = run(story, output="deep/out")
    assert films[0].resolve().is_relative_to(tmp_path / "deep/out")
    assert {path.name for path in tmp_path.iterdir()} == {"in", "deep"}
    one = script(tmp_path / "a/same.json", 1)
    other = script(tmp_path / "b/same.json", 1)
    with pytest.raises(StopRun, match="would share the folder 'same'"):
        run(one, other)


def test_folders_of_others_are_left_alone(tmp_path):
    story = script(tmp_path / "dive.json", 1)
    (tmp_path / "out/dive").mkdir(parents=True)
    (tmp_path / "out/dive/01_01.mp4").write_text("mine")
    with pytest.raises(StopRun, match="not empty and not made by this tool"):
        run(story)
    assert (tmp_path / "out/dive/01_01.mp4").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(StopRun, match=r"file.*(Not a directory|is a file)"):
        run(story, output="file")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    story = script(tmp_path / "dive.json", 1)
    real = os.replace

    def refuse(source, target):
        if str(target).endswith("01_01.mp4"):
            raise PermissionError(13, "Permission denied", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(
        StopRun, match=r"01_01.mp4: Permission denied; .* run the same command again"
    ) as caught:
        run(story)
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_disk_is_one_line_and_costs_only_the_shot(tmp_path):
    """A limit on file sizes is the kernel's own full disk: every write beyond it fails."""
    story = script(tmp_path / "dive.json", 2)
    run(story, output=tmp_path / "whole")
    assert in_a_process(story, tmp_path / "full", ("full", "01_02", 2000), told=tmp_path / "said") == 2
    said = (tmp_path / "said").read_text()
    assert said.startswith(f"disk full: no space left under {tmp_path / 'full/dive'}")
    assert len(said.splitlines()) == 1
    assert (tmp_path / "full/dive/01_01.mp4").is_file()
    assert not (tmp_path / "full/dive/01_02.json").exists()
    _, again = run(story, output=tmp_path / "full")
    assert again.count("done before") == 1
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_two_runs_at_once_are_refused(tmp_path):
    story = script(tmp_path / "dive.json", 1)
    (tmp_path / "out/dive").mkdir(parents=True)
    with (
        generate_command.only_run(tmp_path / "out/dive"),
        pytest.raises(StopRun, match="another run is at work here"),
    ):
        run(story)


def test_stories_are_found(tmp_path):
    assert list(story_files([])) == [DEMO]
    script(tmp_path / "s/b.json")
    script(tmp_path / "s/a.json5")
    (tmp_path / "s/notes.txt").write_text("")
    assert [path.name for path in story_files([tmp_path / "s"])] == ["a.json5", "b.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(StopRun, match="no story scripts"):
        list(story_files([tmp_path / "empty"]))


def test_times_are_for_people():
    assert [clock(s) for s in (1.44, 42, 200, 7500)] == ["1.4 s", "42 s", "3 min 20 s", "2 h 5 min"]


def test_references_may_be_a_folder(tmp_path):
    (tmp_path / "looks").mkdir()
    settings = settings_of(Order(size="32x48", frames=5), None)
    with pytest.raises(StopRun, match=r"looks: no pictures \(.png, .jpg"):
        read_references([tmp_path / "looks"], settings)
    for number, name in enumerate(("b.JPG", "a.png", "note.txt")):
        Image.new("RGB", (48, 32), (100 * number, 0, 0)).save(tmp_path / "looks" / name, format="PNG")
    reds = read_references([tmp_path / "looks", tmp_path / "looks/b.JPG"], settings)[:, 0, 0, 0]
    assert [round(float(red) * 127.5 + 127.5) for red in reds] == [100, 0, 0]


def test_references_cover_the_shot(tmp_path):
    Image.new("RGB", (640, 100), (0, 0, 255)).save(tmp_path / "wide.png")
    made = read_references([tmp_path / "wide.png"], settings_of(Order(size="32x48", frames=5), None))
    assert tuple(made.shape) == (1, 3, 32, 48)
    assert (made.min(), made.max()) == (-1, 1)
    assert read_references([], settings_of(Order(), None)) is None


# -- several processes ----------------------------------------------------------------------------------


def torchrun(*arguments):
    """`memento generate` in two processes that torchrun starts."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    order = ["-m", "pipelines.cli", "generate", *arguments, "--model", "debug", "--device", "cpu"]
    size = ["--steps", "3", "--size", "32x48", "--frames", "5"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *order, *size], capture_output=True, text=True, env=environment, timeout=280
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_torchrun_make_the_story_of_one(tmp_path):
    story = script(tmp_path / "dive.json", 4)
    run(story, output=tmp_path / "one")
    done = torchrun(str(story), "-o", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4/4 01_04") == 1  # one process speaks
    assert "2 processes together" in done.stdout
    for number in range(1, 5):
        one, two = (
            json.loads((tmp_path / place / f"dive/01_{number:02d}.json").read_text())
            for place in ("one", "two")
        )
        assert one["key"] == two["key"]
        for expert in ("high", "low"):
            assert one["memory"][expert]["frames"] == two["memory"][expert]["frames"]
    _, said = run(story, output=tmp_path / "two")
    assert said.count("done before") == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_mistake_under_torchrun_is_told_once(tmp_path):
    done = torchrun(str(tmp_path / "nowhere.json"), "-o", "two")
    assert done.returncode != 0
    assert done.stderr.count("memento: ") == 1
    assert not (tmp_path / "two").exists()


def test_a_device_of_its_own_is_refused_where_several_compute(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StopRun, match="--device cuda:1: 2 processes take a device each; use cuda or cpu"):
        generate_command.main(
            Order(stories=[script(tmp_path / "dive.json", 1)], output=tmp_path / "out"),
            {"model": "debug", "device": "cuda:1"},
            Console(file=io.StringIO()),
        )
