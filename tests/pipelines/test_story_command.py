"""`memento story` as a user meets it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from curation.stories.script import read_story
from pipelines.cli import app
from tests.curation import scripted_server as scripted
from tests.curation.test_story_script import one, story, write
from tests.curation.test_story_writer import answer, plain_answer


def memento(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_check_says_what_is_wrong_and_whether_it_can_be_used(tmp_path):
    good, short, bad = (
        write(tmp_path, value, name)
        for name, value in (("good", story()), ("short", one(cut=[True])), ("bad", story(scenes=[])))
    )
    run = memento("story", "check", good)
    assert (run.exit_code, run.output) == (0, f"{good}: memento form, 2 scenes, 4 shots; no faults\n")
    run = memento("story", "check", good, short)
    assert run.exit_code == 0
    assert run.output.splitlines()[1:] == [
        f"{short}: warning: scene 1: cut has 1 entries for 2 shots: shot 2 begins with a cut",
        f"{short}: memento form, 1 scene, 2 shots; 1 warning",
    ]
    run = memento("story", "check", "--strict", short)
    assert run.exit_code == 1
    assert "refused as --strict" in run.output
    run = memento("story", "check", bad, good, tmp_path / "none.json")
    assert run.exit_code == 1
    assert f"{bad}: error: has 0 shots: give at least one scene" in run.output
    assert f"{bad}: cannot be used; 1 error" in run.output
    assert f"{good}: memento form" in run.output  # the others are checked too
    assert "cannot be read (No such file" in run.output


def test_check_prints_hostile_text_as_text(tmp_path):
    path = write(tmp_path, one(cut=["\x1b[31m\u202e[bold]x", True]), "a\u202eb\x1b[31m.json")
    output = memento("story", "check", path).output
    assert output.replace("\n", "").isprintable()
    assert "a?b?[31m.json: error: scene 1, shot 1: cut is '\\x1b[3" in output


def test_write_asks_a_server_and_keeps_a_valid_story(tmp_path):
    pytest.importorskip("openai")
    for form, said in (("memento", answer()), ("storymem", plain_answer())):
        path = tmp_path / f"{form}.json"
        with scripted.ScriptedServer(lambda seen, ordinal, said=said: scripted.answer(said)) as server:
            run = memento(
                "story", "write", "A keeper finds a bottle", "--shots", 3, "--scenes", 2, "--form", form,
                "--endpoint", server.url, "-o", path,
            )  # fmt: skip
        assert run.exit_code == 0, run.output
        assert "The Bottle: 2 scenes, 3 shots" in run.output
        assert f"{form} form; ok, 20 tokens by {scripted.MODEL}" in run.output
        assert read_story(path).form == form
        assert "A keeper finds a bottle" in server.seen[0].texts[0]
        assert memento("story", "check", "--strict", path).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a cat"], "no model to ask: "),
        (["  "], "the concept is empty"),
        (["a cat", "--shots", "1"], "3 scenes with 1 shots"),
        (["a cat", "--form", "html"], "'html' is no form of story script"),
        (["a cat", "--endpoint", "localhost"], "url 'localhost' must look like http://host:8000/v1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr("curation.models.vllm_client.obstacle", lambda settings: "vLLM is not installed")
    run = memento("story", "write", *arguments, "-o", tmp_path / "x.json")
    assert run.exit_code == 2
    assert len(run.output.splitlines()) == 1
    assert message in run.output
    assert list(tmp_path.iterdir()) == []


def test_a_failed_story_leaves_no_file_and_an_old_one_as_it_was(tmp_path):
    pytest.importorskip("openai")
    path = tmp_path / "story.json"
    with scripted.ScriptedServer(lambda seen, ordinal: scripted.answer("no story")) as server:
        run = memento("story", "write", "a cat", "--endpoint", server.url, "-o", path)
        assert run.exit_code == 2
        assert run.output.startswith("memento: no story was written: asked twice")
        assert list(tmp_path.iterdir()) == []
        path.write_text(json.dumps(story()), encoding="utf-8")
        run = memento("story", "write", "a cat", "--endpoint", server.url, "-o", path)
        assert "exists: name another file" in run.output
    assert len(server.seen) == 2
    assert json.loads(path.read_text(encoding="utf-8")) == story()
    assert "is a folder" in memento("story", "write", "a cat", "-o", tmp_path).output
