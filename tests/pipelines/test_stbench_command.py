"""`memento stbench`: how to get the scripts, what is here, who is in which shot."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from curation.optional import available
from pipelines.cli import app
from pipelines.stbench_command import STORIES
from tests.pipelines.benchmark_files import script, write_scripts
from tests.support import shared


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def memento(*arguments, code=0):
    result = CliRunner().invoke(app, ["stbench", *(str(a) for a in arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_alone_it_says_how_to_get_the_scripts_and_what_is_here(tmp_path):
    text = memento()
    assert "git clone --depth 1 https://github.com/Kevin-thu/StoryMem" in text
    assert "not for commercial use" in text
    assert "1 stories" not in text
    write_scripts(tmp_path / "stbench", ("robinson",))
    assert "1 story, 2 scenes, 3 shots, 1 change of scene, 0 cuts and 1 continuation in scenes" in memento()


def test_show_counts_and_names_what_is_missing(tmp_path):
    write_scripts(tmp_path / "s", ("robinson", "queen"), layout=(3, 2))
    text = memento("show", "s")
    (tmp_path / "s" / "characters.json").write_text('{"format": "memento-characters/1", "stories": {}}')
    assert "2 of 2 files can be used" in memento("check", "s")
    assert "2 stories, 4 scenes, 10 shots, 2 changes of scene, 0 cuts and 6 continuations in scenes" in text
    assert "Of ST-Bench's thirty 2 are here; not here: artist" in text
    assert len(STORIES) == 30


def test_check_says_each_fault_and_fails_only_for_files_that_cannot_be_used(tmp_path):
    write_scripts(tmp_path / "s", rewritten=True)
    assert "1 of 1 file can be used; 0 faults" in memento("check", "s")
    short = script("short")
    short["scenes"][0]["cut"] = [True]
    (tmp_path / "s" / "short.json").write_text(json.dumps(short))
    assert "short.json: warning: scene 1: cut has 1 entries for 2 shots" in memento("check", "s")
    (tmp_path / "s" / "bad.json").write_text("{")
    assert "2 of 3 files can be used" in memento("check", "s", code=1)


def test_a_character_map_is_written_reviewed_and_checked(tmp_path):
    write_scripts(tmp_path / "s", rewritten=True)
    assert "map.json: 1 story," in memento("characters", "s", "-o", "map.json")
    assert "tale: Person A (3); reviewed by nobody yet" in memento("characters", "s", "--map", "map.json")
    assert "map.json exists" in memento("characters", "s", "-o", "map.json", code=2)
    value = json.loads((tmp_path / "map.json").read_text())
    value["stories"]["tale"]["reviewer"] = "AB"
    value["stories"]["tale"]["characters"]["Person A"] = ["01_01", "09_09"]
    (tmp_path / "map.json").write_text(json.dumps(value))
    text = memento("characters", "s", "--map", "map.json", code=2)
    assert "tale, Person A: the script has no shot 09_09" in text
    value["stories"]["tale"]["characters"]["Person A"] = ["01_01"]
    (tmp_path / "map.json").write_text(json.dumps(value))
    assert "reviewed by AB" in memento("characters", "s", "--map", "map.json")


@pytest.mark.parametrize("command", ["show", "check", "characters", "audit"])
def test_a_folder_that_is_not_there_is_one_line(command):
    text = memento(command, "nowhere", code=2)
    assert "nowhere: no such file or folder" in text
    assert text.count("\n") == 1
    assert "no folder stbench here" in memento(command, code=2)


def test_audit_tells_what_a_text_tower_reads(tmp_path):
    if not available("open_clip"):
        pytest.skip("open_clip, which carries the vocabulary, is not installed")
    long = script("long", layout=(2,), rewritten=True)
    looks = "global caption: [Person A]: " + "a very tall woman in a long red coat with a hat " * 4
    long["scenes"][0]["video_prompts"] = [f"{looks}; shot caption: [Person A] {w}." for w in ("runs", "eats")]
    (tmp_path / "long.json").write_text(json.dumps(long))
    text = memento("audit", "long.json")
    assert "long: no word of the shot caption is read in 01_01, 01_02" in text
    assert "1 of 2" in text


def test_the_real_scripts_have_the_published_counts():
    text = memento("show", shared("stbench/storymem"))
    assert "30 stories, 95 scenes, 300 shots, 65 changes of scene, 81 cuts and 124 continuations" in text
    assert "not here" not in text
    text = memento("show", shared("stbench/memento"))
    assert "15 stories, 44 scenes, 150 shots, 29 changes of scene, 42 cuts and 62 continuations" in text
