"""What a user names becomes a model, or one line that says what is missing and how to get it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from curation.weights import WeightsMissing
from memento_model.checkpoints.choice import ModelChoice
from memento_model.checkpoints.load import save_expert
from memento_model.config import Compat, FrameGrid, debug_model
from memento_model.errors import CheckpointError
from memento_model.nn.lora import inject_lora, lora_layers, trainable_tensors
from memento_model.story.experts import choose_placement
from memento_model.story.generate import StoryGenerator
from memento_model.story.loading import load
from memento_model.story.loading_experts import random_expert
from memento_model.story.plan import GenerateSettings
from tests.memento_model.tiny import story
from tests.memento_model.wan_folders import CONFIG, T2V, adapters, wan_folder
from tests.memento_model.weights import random_trainable

GRID = FrameGrid(num_frames=5, height=32, width=48)
UNTOLD = "debug model: it shows how the parts work, not what the method can do"


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("wan")
    wan_folder(root / "i2v")
    wan_folder(root / "t2v", T2V, seed=5)
    adapters(root / "memento")
    adapters(root / "storymem", queries=False)
    return root


def choice(folders, adapter="memento", **more):
    named = {"model": str(folders / "i2v"), "t2v": str(folders / "t2v"), "device": "cpu"}
    return ModelChoice(**{**named, "adapter": str(folders / adapter) if adapter else None, **more})


def film(loaded, folder, mode="memento", shots=3):
    settings = GenerateSettings(mode=mode, steps=2, grid=GRID)
    StoryGenerator(loaded.models, loaded.memory(), settings, folder).run(story(shots))
    return [(folder / f"01_{n + 1:02d}.mp4").read_bytes() for n in range(shots)]


def trained(folder: Path, experts=("high", "low"), notes=None, seed=0, base=True):
    """A checkpoint such as `make train` leaves."""
    config = debug_model()
    for expert in experts:
        made = random_expert(config, Compat(), seed + 10)
        state = {k: v.clone() for k, v in made.transformer.state_dict().items()}
        inject_lora(made.transformer, config, Compat())
        save_expert(
            folder, expert, config, base=state if base else None, notes=notes,
            trainable=trainable_tensors(made.transformer, made.keyframe_query),
        )  # fmt: skip
    return folder


# -- nothing named --------------------------------------------------------------------------------------


def test_without_weights_the_model_is_random_the_same_everywhere_and_says_so():
    first, second = load(ModelChoice(device="cpu"), "memento"), load(ModelChoice(device="cpu"), "wan")
    assert first.random
    assert first.warnings[0].startswith("random weights")
    assert (first.models.codec.name, first.models.text.name) == ("dct", "hashed")
    left, right = (one.models.experts("low").state_dict() for one in (first, second))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert not torch.equal(left["proj_out.weight"], first.models.experts("high").proj_out.weight)


def test_the_newest_of_our_own_checkpoints_is_taken(tmp_path):
    trained(tmp_path / "out/train/old/step_1", seed=1)
    trained(tmp_path / "out/train/new/step_2", notes={"grid": {"num_frames": 9, "height": 32, "width": 48}})
    os.utime(tmp_path / "out/train/old/step_1/config.json", (1, 1))
    loaded = load(ModelChoice(device="cpu"), "memento")
    assert loaded.facts["model"] == "out/train/new/step_2"
    assert not loaded.random
    assert loaded.warnings == (UNTOLD,)
    assert loaded.grid == FrameGrid(num_frames=9, height=32, width=48)
    assert load(ModelChoice(model="debug", device="cpu"), "memento").random


def test_two_runs_of_one_expert_each_are_one_model(tmp_path):
    trained(tmp_path / "out/train/low", experts=["low"])
    loaded = load(ModelChoice(device="cpu"), "memento")
    assert "only the low-noise expert was trained" in loaded.warnings[1]
    assert loaded.models.experts("high") is loaded.models.experts("low")
    trained(tmp_path / "out/train/high", experts=["high"], seed=3)
    loaded = load(ModelChoice(device="cpu"), "memento")
    assert loaded.warnings == (UNTOLD,)
    assert loaded.models.experts("high") is not loaded.models.experts("low")


def test_training_tells_generation_its_switches_and_parts(tmp_path, folders):
    notes = {"step": 7, "config": {"codec": "dct", "text": "hashed", "compat": {"queries": "low"}}}
    trained(tmp_path / "ours", notes=notes)
    named = ModelChoice(model=str(tmp_path / "ours"), device="cpu")
    assert load(named, "memento").models.compat.queries == "low"
    assert load(named, "memento", {"queries": "per_expert"}).models.compat.queries == "per_expert"
    with pytest.raises(CheckpointError, match="trained on latents of the dct codec"):
        load(replace(named, codec="wan"), "memento")


def test_adapters_alone_name_their_base(tmp_path):
    trained(tmp_path / "lora", base=False)
    with pytest.raises(CheckpointError, match=r"--model BASE --adapter .*lora"):
        load(ModelChoice(model=str(tmp_path / "lora"), device="cpu"), "memento")


# -- published weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "adapter"), [("memento", "memento"), ("storymem", "storymem"), ("wan", None)]
)
def test_published_folders_make_stories(tmp_path, folders, mode, adapter):
    loaded = load(choice(folders, adapter), mode)
    assert (loaded.models.codec.name, loaded.models.text.name) == ("wan", "umt5")
    assert loaded.models.config.text_dim == CONFIG.text_dim
    assert loaded.models.first_shot is not None
    assert not loaded.random
    assert not lora_layers(loaded.models.experts("high"))  # merged, wrappers gone
    shots = film(loaded, tmp_path / "story", mode)
    assert len(set(shots)) == 3
    assert json.loads((tmp_path / "story/01_01.json").read_text())["task"] == "T2V"


def test_placement_and_merging_change_where_not_what(tmp_path, folders):
    films = {
        place: film(load(choice(folders, placement=place), "memento"), tmp_path / place)
        for place in ("both", "one", "layers")
    }
    assert films["both"] == films["one"] == films["layers"]
    apart = load(choice(folders, merge=False), "memento")
    assert lora_layers(apart.models.experts("low"))
    assert apart.models.revision != load(choice(folders), "memento").models.revision


def test_one_expert_of_all_is_on_the_device_at_a_time(folders, monkeypatch):
    loaded = load(choice(folders, placement="one"), "memento")
    here, first = loaded.models.experts, loaded.models.first_shot
    moved = []

    def watched(name, expert, transformer):
        def to(device):
            moved.append((name, expert, str(device)))
            return transformer

        monkeypatch.setattr(transformer, "to", to)

    for name, pair in (("m", here), ("t", first)):
        for expert, transformer in pair._transformers.items():
            watched(name, expert, transformer)
    for pair, expert in ((first, "high"), (first, "low"), (here, "high"), (here, "high"), (here, "low")):
        pair(expert)
    assert moved == [
        ("t", "high", "cpu"), ("t", "high", "cpu"), ("t", "low", "cpu"), ("t", "low", "cpu"),
        ("m", "high", "cpu"), ("m", "high", "cpu"), ("m", "low", "cpu"),
    ]  # fmt: skip


def test_the_fastest_placement_that_leaves_room():
    gigabyte = 1 << 30
    sizes = [28 * gigabyte] * 4
    assert choose_placement(sizes, 180 * gigabyte) == "both"
    assert choose_placement(sizes, 79 * gigabyte) == "one"
    assert choose_placement(sizes, 23 * gigabyte) == "layers"


def test_other_weights_are_another_revision(tmp_path, folders):
    revisions = {
        load(choice(folders), "memento").models.revision,
        load(choice(folders, "storymem"), "storymem").models.revision,
        load(choice(folders, None), "wan").models.revision,
        load(choice(folders, t2v="none"), "memento").models.revision,
        load(choice(folders, dtype="bf16"), "memento").models.revision,
        load(ModelChoice(device="cpu"), "memento").models.revision,
    }
    assert len(revisions) == 6


@pytest.mark.parametrize(
    ("more", "mode", "error", "says"),
    [
        ({"adapter": "storymem"}, "memento", CheckpointError, "no queries.*--adapter memento"),
        ({"adapter": None}, "memento", CheckpointError, "no queries"),
        ({"adapter": "memento"}, "wan", CheckpointError, "leave --adapter out"),
        ({"codec": "dct"}, "memento", CheckpointError, "trained on latents of the wan codec"),
        ({"text": "hashed"}, "memento", CheckpointError, "rows of the umt5 text encoder"),
        ({"model": "t2v"}, "memento", CheckpointError, "T2V form.*--t2v"),
        ({"t2v": "i2v"}, "memento", CheckpointError, "I2V form; --t2v takes the T2V form"),
        ({"model": "memento", "adapter": None}, "memento", CheckpointError, "no base weights.*--adapter"),
        ({"t2v": None}, "memento", WeightsMissing, "memento weights pull wan22_t2v_a14b.*--t2v none"),
        ({"device": "cuda:77"}, "memento", CheckpointError, "--device cuda:77: not usable here"),
        ({"device": "warp"}, "memento", CheckpointError, "--device warp: not usable here"),
        ({"clip": "i2v"}, "memento", CheckpointError, "no CLIP model"),
    ],
)
def test_what_does_not_go_together_is_one_line(folders, more, mode, error, says):
    named = {k: str(folders / v) if v and (folders / v).exists() else v for k, v in more.items()}
    with pytest.raises(error, match=says) as caught:
        load(
            choice(folders, **{"adapter": None, **named}) if "adapter" in more else choice(folders, **named),
            mode,
        )
    assert len(str(caught.value).splitlines()) == 1


def test_missing_weights_come_with_their_command(tmp_path):
    bare = wan_folder(tmp_path / "bare", parts=False)
    adapter = adapters(tmp_path / "lora")
    named = ModelChoice(model=str(bare), adapter=str(adapter), t2v="none", device="cpu")
    for asked, says in (
        (named, "--codec PATH, or get it with: memento weights pull wan22_i2v_a14b"),
        (ModelChoice(adapter=str(adapter)), "memento weights pull wan22_i2v_a14b"),
        (ModelChoice(model="memento"), "memento weights pull memento"),
    ):
        with pytest.raises(WeightsMissing, match=says):
            load(asked, "memento")
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder, and no name of weights"):
        load(ModelChoice(model="nowhere"), "memento")


def test_parts_are_found_by_name_and_in_the_cache(tmp_path, folders):
    bare = wan_folder(tmp_path / "bare", parts=False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/wan22_i2v_a14b").symlink_to(folders / "i2v")
    (tmp_path / "weights/wan22_t2v_a14b").symlink_to(folders / "t2v")
    (tmp_path / "weights/memento").symlink_to(folders / "memento")
    loaded = load(ModelChoice(adapter="memento", device="cpu"), "memento")
    assert loaded.facts["model"] == "wan22_i2v_a14b + memento"
    assert loaded.models.first_shot is not None
    other = load(ModelChoice(model=str(bare), adapter="memento", device="cpu"), "memento")
    assert other.models.codec.revision == loaded.models.codec.revision


def test_a_checkpoint_on_its_way_is_left_alone(tmp_path):
    trained(tmp_path / "out/train/run/step-000001", seed=1)
    trained(tmp_path / "out/train/run/.step-000002.part")
    assert load(ModelChoice(device="cpu"), "memento").facts["model"] == "out/train/run/step-000001"


def test_adapters_of_one_expert_go_on_their_base(tmp_path, folders):
    state = dict.fromkeys(("codec", "text"), None) | {"base": str(folders / "i2v")}
    for name, value in random_trainable(3, CONFIG).items():
        state.setdefault("tensors", {})[name] = value * 0.05
    save_expert(tmp_path / "ours", "low", CONFIG, trainable=state.pop("tensors"), notes=state)
    named = ModelChoice(model=str(tmp_path / "ours"), t2v=str(folders / "t2v"), device="cpu")
    loaded = load(named, "memento")
    assert loaded.warnings == ("the high-noise expert has no adapters: only the other one was trained",)
    assert (loaded.models.codec.name, loaded.models.text.name) == ("wan", "umt5")
    film(loaded, tmp_path / "story")
