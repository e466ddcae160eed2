"""`memento weights pull` with several names: each is accounted for, and a failure keeps none from coming."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.encoders import weights as encoders
from curation import repositories, weights
from curation.weights import WeightsMissing
from memento_model.checkpoints import released
from pipelines.cli import app
from pipelines.weights_command import models


def pull(*arguments):
    return CliRunner().invoke(app, ["weights", "pull", *arguments])


@pytest.fixture
def asked(monkeypatch):
    """What was fetched, in order; `clip-b32` cannot be."""
    found = []

    def fetch(name, revision=""):
        found.append(f"{name}@{revision}" if revision else name)
        if name == "clip-b32":
            raise WeightsMissing("clip-b32: cannot download model.safetensors (no network)")
        return Path("/somewhere") / name

    for table in (weights, repositories, released, encoders):
        monkeypatch.setattr(table, "pull", fetch)
    return found


def test_several_names_of_any_table_come_in_one_command(asked):
    said = pull("yolox_nano", "dinov2-b14", "memento", "owner/name@v1", "yolox_nano")
    assert said.exit_code == 0, said.output
    assert asked == ["yolox_nano", "dinov2-b14", "memento", "owner/name@v1"]
    assert said.output.splitlines() == [
        "yolox_nano: /somewhere/yolox_nano",
        "dinov2-b14: /somewhere/dinov2-b14",
        "memento: /somewhere/memento",
        "owner/name@v1: /somewhere/owner/name",
    ]


def test_one_that_fails_keeps_none_from_coming_and_the_rest_is_named(asked):
    said = pull("clip-b32", "clip-l14")
    assert said.exit_code == 1
    assert asked == ["clip-b32", "clip-l14"]
    assert said.output.splitlines() == [
        "clip-b32: cannot download model.safetensors (no network)",
        "clip-l14: /somewhere/clip-l14",
        "1 of 2 are here; try the rest again: memento weights pull clip-b32",
    ]


def test_the_only_one_that_fails_is_one_line(asked):
    said = pull("clip-b32")
    assert said.exit_code == 2
    assert said.output == "memento: clip-b32: cannot download model.safetensors (no network)\n"


def test_a_preset_brings_the_encoders_it_needs(asked, monkeypatch):
    assert pull("--eval", "storymem").exit_code == 0
    assert "viclip-l14" in asked
    assert "viclip-b16" not in asked
    assert set(asked) <= encoders.TABLE.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dinov2-b14", "clip-l41"], "no model is called 'clip-l41'; did you mean 'clip-l14'"),
        (["--eval", "storymen"], "did you mean 'storymem'"),
        ([], "name one or more models"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_fetched(arguments, message, asked):
    said = pull(*arguments)
    assert said.exit_code == 2
    assert message in said.output
    assert len(said.output.splitlines()) == 1
    assert asked == []


def test_what_is_in_two_tables_says_what_each_is_for_and_that_it_is_one_file():
    told = {model.name: model.what for model in models()}
    assert told["clip-b32"].startswith("memento eval: ")
    assert told["clip_vit_b32"].startswith("memento generate: ")
    assert told["clip_vit_b32"].endswith("; the same file as clip-b32, which the hub keeps once")
    assert "the same file" not in told["memento"]
