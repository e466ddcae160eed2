"""Weights are sampled the way they were trained: the checkpoint says how, and what differs is said."""

from __future__ import annotations

import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from rich.console import Console
from safetensors.torch import load_file, save_file

from curation.config import SettingsError
from curation.engine.stage import StopRun
from curation.stories.script import write_story
from memento_model.checkpoints.choice import ModelChoice, Sources
from memento_model.checkpoints.convert import convert
from memento_model.checkpoints.forms import EXPERTS, Checkpoint, open_checkpoint
from memento_model.config import Compat
from memento_model.errors import CheckpointError
from memento_model.nn.transformer import MementoTransformer
from memento_model.story.generate import StoryGenerator
from memento_model.story.loading import load
from memento_model.story.memory import ComingShot, DrawnElection, Memory
from memento_model.story.plan import GenerateSettings
from memento_model.story.trained import Trained, contradictions, differences, training_told, what_to_expect
from memento_model.training.recipes import RECIPES, smaller
from memento_model.training.state import snapshot
from memento_model.training.trainer import train_step
from pipelines import generate_command
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
    assert differences(settings, loaded.trained) == []
    assert contradictions(settings, loaded.models.compat, loaded.trained) == []
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


def test_another_mode_is_done_and_said():
    trained("ablation_query")
    loaded, settings = ready("storymem")
    [line] = differences(settings, loaded.trained)
    assert line.startswith("the weights were trained for mode memento; mode storymem shows them")
    assert contradictions(settings, loaded.models.compat, loaded.trained) == []
    loaded, settings = ready("wan")
    [line] = differences(settings, loaded.trained)
    assert line == "the weights were trained with memory; mode wan gives them none"


def test_what_contradicts_the_training_is_refused_unless_asked_for_twice(tmp_path):
    trained("ablation_query")
    asked = {"attention": "split", "reconstruct": True, "storymem_offset": 9}
    loaded, settings = ready(settings=asked)
    assert (settings.attention, settings.reconstruct) == ("split", True)
    lines = [
        "the weights were trained with joint attention, not with attention=split",
        "the weights were trained without a reconstruction slot, not with reconstruct=true",
        "the weights were trained with storymem_offset=5, not 9",
    ]
    assert contradictions(settings, loaded.models.compat, loaded.trained) == lines
    write_story(story(1), tmp_path / "dive.json", form="memento")
    order = Order(stories=[tmp_path / "dive.json"], steps=1, settings=asked)
    quiet = Console(quiet=True)
    with pytest.raises(StopRun) as refused:
        generate_command.main(order, {"device": "cpu"}, quiet)
    assert str(refused.value) == (
        f"{'; '.join(lines)}: leave that --set out, or add --set against_training=true to see what it makes"
    )
    assert not (tmp_path / "out/generate").exists()
    order = dataclasses.replace(order, settings={**asked, "against_training": True})
    generate_command.main(order, {"device": "cpu"}, quiet)
    page = (tmp_path / "out/generate/dive/index.html").read_text()
    assert all(f'<div class="warning">{line}</div>' in page for line in lines)
    order = dataclasses.replace(order, settings={"against_training": 3})
    with pytest.raises(SettingsError, match="against_training=3: is true or false"):
        generate_command.main(order, {"device": "cpu"}, quiet)


@pytest.mark.parametrize("recipe", ["ablation_baseline", "ablation_query", "storymem_480p"])
def test_exported_files_are_sampled_as_they_were_trained(tmp_path, recipe):
    adapter, base = exported(tmp_path, recipe)
    choice = ModelChoice(model=str(base), adapter=str(adapter), t2v="none", device="cpu")
    loaded = load(choice, None)
    settings = settings_of(Order(), loaded)
    mode, attention, reconstruct, memory = WAYS[recipe]
    assert (settings.mode, settings.attention, settings.reconstruct) == (mode, attention, reconstruct)
    assert loaded.trained.memory == memory
    assert (loaded.models.codec.name, loaded.models.config) == ("dct", in_memory.MODEL)
    assert loaded.grid == in_memory.GRID
    assert loaded.facts["training"] == "tiny, 1 of 4 steps"
    assert contradictions(settings, loaded.models.compat, loaded.trained) == []
    with pytest.raises(CheckpointError, match="trained on latents of the dct codec"):
        load(dataclasses.replace(choice, codec="wan"), None)


def test_without_their_settings_exported_files_are_known_by_what_they_hold(tmp_path):
    adapter, base = exported(tmp_path, "ablation_baseline")
    for file in adapter.iterdir():  # as a tool would write them that copies tensors alone
        save_file(load_file(file), file)
    choice = ModelChoice(model=str(base), adapter=str(adapter), t2v="none", codec="dct", device="cpu")
    with pytest.raises(CheckpointError, match="trained on latents of the wan codec"):
        load(choice, None)  # nothing says otherwise
    assert open_checkpoint(adapter).notes == {}


def exported(folder, recipe):
    """(the released two files of a recipe, its base weights as a native folder)."""
    for expert in EXPERTS:
        trained(recipe, expert)
        [place] = (folder / "out/train" / recipe / expert).glob("step-*")
        convert(place, folder / f"base_{expert}", "native")
        convert(place, folder / f"part_{expert}", "official")
        for kind, into in (("base", "base"), ("part", "files")):
            (folder / into).mkdir(exist_ok=True)
            for made in (folder / f"{kind}_{expert}").iterdir():
                made.rename(folder / into / made.name)
    return folder / "files", folder / "base"


def test_weights_without_queries_are_not_asked_to_elect():
    trained("storymem_480p")
    with pytest.raises(CheckpointError, match=r"has no queries .* use --mode storymem"):
        ready("memento")


def test_experts_of_different_trainings_do_not_make_one_film():
    trained("ablation_query", "low", "out/train/a")
    trained("ablation_disentangled", "high", "out/train/b")
    loaded, _ = ready()  # the newest, and the other one is no partner for it
    assert "only the high-noise expert was trained" in loaded.warnings[1]
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
    for told in (Trained(memory="queries"), Trained()):
        assert differences(plain, told) == contradictions(plain, Compat(), told) == []


# -- how long -----------------------------------------------------------------------------------------


def told(step, steps=3000, name="debug", expert="low", **more):
    notes = {expert: {"step": step, "config": {"name": name, "steps": steps}}}
    return Checkpoint(path=None, kind="ours", experts={}, settings={"notes": notes}, **more)


def test_it_says_how_long_the_weights_were_trained_and_what_to_expect():
    both = {"high": told(60, expert="high"), "low": told(60)}
    few = Sources(shown="x", base=both, trainable=both)
    assert training_told(few) == "debug, 60 of 3000 steps"
    assert what_to_expect(few).startswith("debug model, 60 steps of training: expect noise; it shows how the")
    uneven = Sources(shown="x", base={"high": told(60, expert="high"), "low": told(3000)})
    assert training_told(uneven) == (
        "high-noise expert debug, 60 of 3000 steps; low-noise expert debug, 3000 of 3000 steps"
    )
    assert "60 steps of training: expect noise" in what_to_expect(uneven)
    whole = Sources(shown="x", base={"high": told(3000, expert="high"), "low": told(3000)})
    assert "noise" not in what_to_expect(whole)
    assert "3000 steps of training" in what_to_expect(whole)
    foreign = Sources(shown="x", base=both, trainable=both, foreign=True)  # adapters on Wan's own weights
    assert what_to_expect(foreign) is None
    nothing = Sources(shown="random weights")
    assert (what_to_expect(nothing), training_told(nothing)) == (None, "")  # said in other words
