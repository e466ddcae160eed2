"""Weights are sampled the way they were trained: the checkpoint says how, and what differs is said."""

from __future__ import annotations

import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.checkpoints.choice import ModelChoice
from memento_model.config import Compat
from memento_model.errors import CheckpointError
from memento_model.nn.transformer import MementoTransformer
from memento_model.story.generate import StoryGenerator
from memento_model.story.loading import load
from memento_model.story.memory import ComingShot, DrawnElection, Memory
from memento_model.story.plan import GenerateSettings
from memento_model.story.trained import Trained, differences
from memento_model.training.recipes import RECIPES, smaller
from memento_model.training.state import snapshot
from memento_model.training.trainer import train_step
from pipelines.generate_command import Order
from pipelines.generate_settings import compat_of, settings_of
from tests.memento_model import in_memory
from tests.memento_model.in_memory import run_of
from tests.memento_model.tiny import story

WAYS = {  # recipe: mode, attention, reconstruction slot, memory
    "ablation_baseline": ("memento", "joint", False, "drawn"),
    "ablation_query": ("memento", "joint", False, "queries"),
    "ablation_recon": ("memento", "joint", True, "queries"),
    "ablation_disentangled": ("memento", "split", True, "queries"),
    "storymem_480p": ("storymem", "joint", False, "storymem"),
}


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def trained(recipe, expert="low", output=None):
    """The checkpoint that one step of a recipe leaves, at the smallest size."""
    small = smaller(RECIPES[recipe]())
    output = output or f"out/train/{recipe}"
    tiny = dataclasses.replace(
        in_memory.config(output=output),
        expert=expert,
        compat=small.compat,
        objective=dataclasses.replace(small.objective, bank_frames=3, last_frames=3),
    )
    run = run_of(tiny)
    train_step(run)
    from pathlib import Path

    snapshot(run).write(Path(output) / expert)


def ready(mode=None, **order):
    asked = Order(mode=mode, **order)
    loaded = load(ModelChoice(device="cpu"), mode, compat_of(asked))
    return loaded, settings_of(asked, loaded)


@pytest.mark.parametrize("recipe", WAYS)
def test_every_ablation_is_sampled_as_it_was_trained(tmp_path, monkeypatch, recipe):
    trained(recipe, "high")
    trained(recipe, "low")
    loaded, settings = ready(steps=1)
    mode, attention, reconstruct, memory = WAYS[recipe]
    assert (settings.mode, settings.attention, settings.reconstruct) == (mode, attention, reconstruct)
    assert loaded.trained.memory == memory
    assert differences(settings, loaded.models.compat, loaded.trained) == []
    assert loaded.models.compat.no_identity_attention == "blend"
    told, forward = [], MementoTransformer.forward

    def listens(self, *args, **named):
        told.append((named["attention"], named["layout"].identity_frames))
        return forward(self, *args, **named)

    monkeypatch.setattr(MementoTransformer, "forward", listens)
    StoryGenerator(loaded.models, loaded.memory(), settings, tmp_path / "film").run(story(3))
    assert {form for form, _ in told} == {attention}
    assert max(slots for _, slots in told) == int(reconstruct)
    last = json.loads((tmp_path / "film/01_03.json").read_text())["memory"]["low"]
    assert last.get("drawn", False) == (memory == "drawn")
    assert ("local_scores" in last) == (memory == "queries")
    if memory != "storymem":
        assert len(last["frames"]) == 3  # of the bank


def test_what_is_asked_for_otherwise_is_done_and_said():
    trained("ablation_query")
    loaded, settings = ready(settings={"attention": "split", "reconstruct": True, "storymem_offset": 9})
    assert (settings.attention, settings.reconstruct) == ("split", True)
    assert differences(settings, loaded.models.compat, loaded.trained) == [
        "the weights were trained with joint attention; split was asked for",
        "the weights were trained without a reconstruction slot; reconstruct=true gives them one",
        "the weights were trained with storymem_offset=5; it is 9 here",
    ]
    loaded, settings = ready("storymem")
    [line] = differences(settings, loaded.models.compat, loaded.trained)
    assert line.startswith("the weights were trained for mode memento; mode storymem shows them")
    loaded, settings = ready("wan")
    [line] = differences(settings, loaded.models.compat, loaded.trained)
    assert line == "the weights were trained with memory; mode wan gives them none"


def test_weights_without_queries_are_not_asked_to_elect():
    trained("storymem_480p")
    with pytest.raises(CheckpointError, match=r"has no queries .* use --mode storymem"):
        ready("memento")


def test_experts_of_different_trainings_do_not_make_one_film():
    trained("ablation_query", "low", "out/train/a")
    trained("ablation_disentangled", "high", "out/train/b")
    loaded, _ = ready()  # the newest, and the other one is no partner for it
    assert "only the high-noise expert was trained" in loaded.warnings[0]
    assert loaded.trained.attention == "split"
    trained("ablation_query", "high", "out/train/c")
    trained("ablation_disentangled", "low", "out/train/c")
    folder = next(place for place in _steps("out/train/c") if "high" in place)
    mixed = next(place for place in _steps("out/train/c") if "low" in place)
    _merge(folder, mixed)
    with pytest.raises(CheckpointError, match=r"trained in different ways \(split_attention"):
        load(ModelChoice(model=folder, device="cpu"), None)


def _steps(output):
    from pathlib import Path

    return [str(path.parent) for path in Path(output).rglob("config.json")]


def _merge(target, other):
    """One folder with the experts of both."""
    import shutil
    from pathlib import Path

    shutil.copytree(Path(other) / "low", Path(target) / "low")
    settings, more = (json.loads((Path(place) / "config.json").read_text()) for place in (target, other))
    for name in ("experts", "notes"):
        settings[name] |= more[name]
    (Path(target) / "config.json").write_text(json.dumps(settings))


def test_a_draw_is_the_same_for_the_same_moment():
    memory = Memory(latents_cmhw=torch.zeros(1, 12, 1, 1), times=tuple(range(12)))

    def drawn(start_frame):
        coming = ComingShot(start_frame=start_frame, text_td=torch.zeros(1), global_text_td=torch.zeros(1))
        return DrawnElection(5)(memory, range(12), coming)

    picked, facts = drawn(34)
    assert drawn(34) == (picked, facts) == (picked, {"drawn": True})
    assert len(set(picked)) == 5
    assert any(drawn(start)[0] != picked for start in (51, 68))


def test_released_files_are_known_by_what_they_hold():
    plain = GenerateSettings()
    assert Trained(memory="storymem").mode == "storymem"
    assert differences(plain, Compat(), Trained(memory="queries")) == []
    assert differences(plain, Compat(), Trained()) == []
