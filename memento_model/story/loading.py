"""From what a user names to everything a story is made with. Nothing is downloaded here.

Which checkpoints are meant: `memento_model.checkpoints.choice`. Codec and text encoder follow from the
weights: those trained on Wan's latents and umT5's rows make noise of any others, so a wrong mix is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from memento_model.checkpoints import released
from memento_model.checkpoints.choice import AUTO, ModelChoice, Sources, choose
from memento_model.checkpoints.forms import EXPERTS
from memento_model.checkpoints.load import LoadedExpert
from memento_model.config import Compat, Debug, Expert, FrameGrid, ModelConfig
from memento_model.distributed.launch import World
from memento_model.errors import CheckpointError, LaunchError
from memento_model.story.experts import ExpertPair, place, text_reader
from memento_model.story.generate import Models, QueryElection
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.loading_experts import experts_of, first_shot_of
from memento_model.story.loading_parts import load_codec, load_embedder, load_text
from memento_model.story.memory import DrawnElection, Elect, Forgetful, MementoMemory, MemoryPolicy
from memento_model.story.plan import Mode
from memento_model.story.storymem import ImageEmbedder, StoryMemMemory, StoryMemRules
from memento_model.story.trained import Trained, how_trained, retelling, training_told, what_to_expect


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to make stories.

    Attributes:
        models: as the generator takes them.
        memory: a fresh memory, one per story.
        embedder: tells how alike pictures are, for drift curves.
        mode: that was asked for, or that the weights were trained for.
        trained: how they were trained.
        facts: what was loaded, for people, in order.
        warnings: what a user should know before looking at the pictures.
        random: no trained weights at all.
        retelling: (script, reference pictures) that the training left of its data.
        grid: the size the model was made for.
    """

    models: Models
    memory: Callable[[], MemoryPolicy]
    embedder: ImageEmbedder
    mode: Mode
    trained: Trained
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    random: bool = False
    retelling: tuple[Path, Path] | None = None
    grid: FrameGrid = field(default_factory=FrameGrid)


@dataclass(frozen=True, kw_only=True)
class Transformers:
    """The experts, wherever they are, and what they came from.

    Attributes:
        sources: checkpoints.
        trained: how the weights were trained.
        mode: of the run.
        compat: switches of the run.
        config: of the experts with memory.
        experts, first_shot: on the device; `first_shot` is None where the model makes first shots itself.
        memory: a fresh memory; None on processes that only sample along.
        marks: tell these weights from others.
    """

    sources: Sources
    trained: Trained
    mode: Mode
    compat: Compat
    config: ModelConfig
    experts: ExpertPair
    first_shot: ExpertPair | None
    memory: Callable[[], MemoryPolicy] | None
    marks: Any


def load(
    choice: ModelChoice,
    mode: Mode | None,
    compat: Mapping[str, Any] | None = None,
    world: World | None = None,
) -> Loaded:
    """Load everything; of several processes the first one calls it, the others `load_transformers`.

    Args:
        choice: what the user says.
        mode: decides the memory, and with it what the weights must have; None is what they were trained for.
        compat: switches that the user sets; others are the mode's and the weights' own.
        world: the processes; None is this one alone.

    Raises:
        CheckpointError: wrong or partial weights, or parts that do not go together.
        WeightsMissing: named weights that are not here, with the command that gets them.
        LaunchError: the processes do not fit the model, or one was lost.
    """
    device = pick_device(choice.device) if world is None else world.device
    embedder = load_embedder(choice, device)
    made = load_transformers(choice, mode, compat, world, embedder)
    codec = load_codec(choice, made.sources, made.config, device)
    text = load_text(choice, made.sources, made.config, device)
    models = Models(
        experts=made.experts,
        first_shot=made.first_shot,
        codec=codec,
        text=text,
        config=made.config,
        compat=made.compat,
        revision=digest(made.marks),
        device=device,
        world=world,
    )
    assert made.memory is not None, "asked for with the embedder"
    return Loaded(
        models=models,
        memory=made.memory,
        embedder=embedder,
        mode=made.mode,
        trained=made.trained,
        facts=_facts(choice, made, models, embedder),
        warnings=tuple(_warnings(made.sources, made.mode, embedder, has_t2v=made.first_shot is not None)),
        random=made.sources.random,
        retelling=retelling(made.sources),
        grid=_grid(made.sources),
    )


def load_transformers(
    choice: ModelChoice,
    mode: Mode | None,
    compat: Mapping[str, Any] | None,
    world: World | None,
    embedder: ImageEmbedder | None = None,
) -> Transformers:
    """The experts on the device, and the memory if `embedder` is given; see `load`."""
    if mode == "wan" and choice.adapter is not None:
        raise CheckpointError(
            "mode wan is the plain base model; leave --adapter out, or use mode memento or storymem"
        )
    device = pick_device(choice.device) if world is None else world.device
    sources = choose(choice.model, choice.adapter, choice.trained)
    trained = how_trained(sources)
    mode = mode or trained.mode
    switches = make_compat(sources, mode, compat or {})
    experts, config, marks = experts_of(sources, choice, switches)
    drawn = trained.memory == "drawn"
    if mode == "memento" and not drawn and not any(one.keyframe_query for one in experts.values()):
        raise CheckpointError(
            f"{sources.shown}: has no queries (KeyframeQuery), which mode memento needs; add --adapter "
            "memento, or use --mode storymem or --mode wan"
        )
    t2v, t2v_marks = first_shot_of(choice, sources, config, switches)
    memory, memory_marks = None, None
    if embedder is not None:
        memory, memory_marks = _memory(mode, trained, experts, config, switches, embedder, device)
    weights = [marks, t2v_marks]
    _agree(world, digest(weights))
    kernels = [choice.attention, choice.compile]
    pairs = place(
        [{e: one.transformer for e, one in model.items()} for model in (experts, t2v)],
        choice.placement,
        device,
        world,
        attention=choice.attention,
        compiled=choice.compile,
    )
    return Transformers(
        sources=sources,
        trained=trained,
        mode=mode,
        compat=switches,
        config=config,
        experts=pairs[0],
        first_shot=pairs[1] if t2v else None,
        memory=memory,
        marks=[*weights, memory_marks, *([kernels] if kernels != ["auto", False] else [])],
    )


def _agree(world: World | None, weights: str) -> None:
    """All processes have found the same weights, on whatever machine they are."""
    if world is not None and world.share(weights) != weights:
        raise LaunchError(
            f"process {world.rank} found other weights than the first process; name the same ones on all "
            "machines with --model"
        )


def pick_device(asked: str) -> torch.device:
    """The device to compute on.

    Raises:
        CheckpointError: there is none of that name.
    """
    if asked == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"--device {asked}: not usable here ({first}); try cpu") from error
    return device


def make_compat(sources: Sources, mode: Mode, asked: Mapping[str, Any]) -> Compat:
    """Switches: what our training used, over it what the mode is, over it what the user sets."""
    told = sources.told.get("compat")
    names = {f.name for f in dataclasses.fields(Compat)}
    made = {k: v for k, v in told.items() if k in names} if isinstance(told, Mapping) else {}
    if sources.random or sources.told.get("train_base"):
        made["tm2v_cfg_bonus"] = 0.0  # see `Trained.guided`
    if mode == "storymem":
        made |= {"memory_positions": "storymem", "drop_repeated_first_frame": True}
    return Compat(**{**made, **asked})


def digest(marks: Any) -> str:
    """A short name of everything that was loaded: 16 hexadecimal digits over JSON values."""
    return hashlib.sha256(json.dumps(marks, sort_keys=True, default=str).encode()).hexdigest()[:16]


# -- memory -------------------------------------------------------------------------------------------


def _memory(
    mode: Mode,
    trained: Trained,
    experts: Mapping[Expert, LoadedExpert],
    config: ModelConfig,
    compat: Compat,
    embedder: ImageEmbedder,
    device: torch.device,
) -> tuple[Callable[[], MemoryPolicy], Any]:
    """What makes a memory of the mode, and what tells it from others."""
    if mode == "wan":
        return Forgetful, None
    if mode == "storymem":
        rules = StoryMemRules()
        return lambda: StoryMemMemory(embedder, rules), [embedder.name, asdict(rules)]
    if trained.memory == "drawn":
        drawn: dict[Expert, Elect] = dict.fromkeys(EXPERTS, DrawnElection(trained.num_drawn))
        return lambda: MementoMemory(drawn, trained.num_drawn, compat), ["drawn", trained.num_drawn]
    elect: dict[Expert, Elect] = {}
    for expert in EXPERTS:
        other: Expert = "low" if expert == "high" else "high"
        from_ = experts[expert if experts[expert].keyframe_query is not None else other]
        assert from_.keyframe_query is not None, "checked when the experts were loaded"
        query = from_.keyframe_query.to(device).requires_grad_(False)
        elect[expert] = QueryElection(query, text_reader(from_.transformer, device))
    return lambda: MementoMemory(elect, config.bank_size, compat), None


# -- what people are told -----------------------------------------------------------------------------


def _grid(sources: Sources) -> FrameGrid:
    told = sources.told.get("grid")
    if isinstance(told, Mapping):
        names = {f.name for f in dataclasses.fields(FrameGrid)}
        return FrameGrid(**{k: v for k, v in told.items() if k in names})
    return FrameGrid() if sources.foreign else Debug().grid


def _facts(
    choice: ModelChoice, made: Transformers, models: Models, embedder: ImageEmbedder
) -> dict[str, str]:
    config, size = models.config, 1 if models.world is None else models.world.size
    shape = f"{config.num_layers} layers, width {config.width}, bank of {config.bank_size} frames"
    if made.sources.trainable:
        shape += f", LoRA {'merged' if choice.merge else 'apart'}"
    together = f", {size} processes together" if size > 1 else ""
    training = training_told(made.sources)
    return {
        "model": made.sources.shown,
        **({"training": training} if training else {}),
        "size": shape,
        "first shots": choice.t2v or ("Wan2.2-T2V" if models.first_shot else "the model itself"),
        "codec": f"{models.codec.name} {models.codec.revision}",
        "text encoder": f"{models.text.name} {models.text.revision}",
        "likeness by": embedder.name,
        "computes on": f"{models.device}, {made.experts.placement}{together}",
        "revision": models.revision,
    }


def _warnings(sources: Sources, mode: Mode, embedder: ImageEmbedder, *, has_t2v: bool) -> list[str]:
    made: list[str] = []
    if sources.random:
        made.append(
            "random weights: the pictures are noise; make train makes a model in minutes, which is found "
            "by itself"
        )
    if expected := what_to_expect(sources):
        made.append(expected)
    if sources.stand_in is not None:
        made.append(
            f"only the {sources.stand_in}-noise expert was trained; it stands in for the other one, whose "
            "noise levels it has not seen"
        )
    bare = [e for e in EXPERTS if e not in sources.trainable]
    if sources.trainable and sources.stand_in is None and bare:
        made.append(f"the {bare[0]}-noise expert has no adapters: only the other one was trained")
    if mode == "storymem" and embedder.name == ThumbnailEmbedder.name:
        made.append(
            "keyframes are chosen by thumbnails, not by CLIP as StoryMem does; get it with: "
            f"{released.command('clip_vit_b32')}"
        )
    if sources.foreign and not has_t2v:
        made.append("first shots are made by the I2V model without a picture, which it was not trained for")
    return made
