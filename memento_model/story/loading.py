"""From what a user names to everything a story is made with. Nothing is downloaded here.

Which checkpoints are meant: `memento_model.checkpoints.choice`. Codec and text encoder follow from the
weights: those trained on Wan's latents and umT5's rows make noise of any others, so a wrong mix is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from memento_model.checkpoints import released
from memento_model.checkpoints.choice import AUTO, NONE, ModelChoice, Sources, choose, locate
from memento_model.checkpoints.forms import EXPERTS, open_checkpoint
from memento_model.checkpoints.load import LoadedExpert, load_expert, load_transformer
from memento_model.checkpoints.tensor_files import TensorSet, fingerprint
from memento_model.config import Compat, Debug, Expert, FrameGrid, ModelConfig, debug_model
from memento_model.errors import CheckpointError
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import drop_adapters, lora_layers, merge_lora
from memento_model.nn.transformer import MementoTransformer, initialise
from memento_model.story.experts import ExpertPair, Placement, choose_placement, num_bytes, text_reader
from memento_model.story.generate import Models, QueryElection
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.loading_parts import load_codec, load_embedder, load_text
from memento_model.story.memory import Elect, Forgetful, MementoMemory, MemoryPolicy
from memento_model.story.plan import Mode
from memento_model.story.storymem import ImageEmbedder, StoryMemMemory, StoryMemRules

RANDOM_SEED = 20260617
"""Of random weights: the same on every machine."""
RANDOM_OUTPUT_STD = 0.05
"""Of the output layer of random weights; Wan's own start, zero, would leave the noise as it is."""
SMALL_BYTES = 4 << 30
"""Weights below this are computed with in fp32 if nothing is said."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to make stories.

    Attributes:
        models: as the generator takes them.
        memory: a fresh memory, one per story.
        embedder: tells how alike pictures are, for drift curves.
        facts: what was loaded, for people, in order.
        warnings: what a user should know before looking at the pictures.
        random: no trained weights at all.
        grid: the size the model was made for.
    """

    models: Models
    memory: Callable[[], MemoryPolicy]
    embedder: ImageEmbedder
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    random: bool = False
    grid: FrameGrid = field(default_factory=FrameGrid)


def load(choice: ModelChoice, mode: Mode, compat: Mapping[str, Any] | None = None) -> Loaded:
    """Load everything.

    Args:
        choice: what the user says.
        mode: decides the memory, and with it what the weights must have.
        compat: switches that the user sets; others are the mode's and the weights' own.

    Raises:
        CheckpointError: wrong or partial weights, or parts that do not go together.
        WeightsMissing: named weights that are not here, with the command that gets them.
    """
    if mode == "wan" and choice.adapter is not None:
        raise CheckpointError(
            "mode wan is the plain base model; leave --adapter out, or use mode memento or storymem"
        )
    device = pick_device(choice.device)
    sources = choose(choice.model, choice.adapter, choice.trained)
    switches = make_compat(sources, mode, compat or {})
    experts, config, marks = _experts(sources, choice, switches)
    if mode == "memento" and not any(one.keyframe_query for one in experts.values()):
        raise CheckpointError(
            f"{sources.shown}: has no queries (KeyframeQuery), which mode memento needs; add --adapter "
            "memento, or use --mode storymem or --mode wan"
        )
    t2v, t2v_marks = _first_shot(choice, sources, config, switches)
    pairs = place([experts, t2v], choice.placement, device)
    codec = load_codec(choice, sources, config, device)
    text = load_text(choice, sources, config, device)
    embedder = load_embedder(choice, device)
    memory, memory_marks = _memory(mode, experts, config, switches, embedder, device)
    models = Models(
        experts=pairs[0],
        first_shot=pairs[1] if t2v else None,
        codec=codec,
        text=text,
        config=config,
        compat=switches,
        revision=digest([marks, t2v_marks, memory_marks]),
        device=device,
    )
    facts = _facts(choice, sources, models, pairs[0].placement, embedder)
    return Loaded(
        models=models,
        memory=memory,
        embedder=embedder,
        facts=facts,
        warnings=tuple(_warnings(sources, mode, embedder, has_t2v=bool(t2v))),
        random=sources.random,
        grid=_grid(sources),
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
    if mode == "storymem":
        made |= {"memory_positions": "storymem", "drop_repeated_first_frame": True}
    return Compat(**{**made, **asked})


def digest(marks: Any) -> str:
    """A short name of everything that was loaded: 16 hexadecimal digits over JSON values."""
    return hashlib.sha256(json.dumps(marks, sort_keys=True, default=str).encode()).hexdigest()[:16]


# -- experts ------------------------------------------------------------------------------------------


def _experts(
    sources: Sources, choice: ModelChoice, compat: Compat
) -> tuple[dict[Expert, LoadedExpert], ModelConfig, Any]:
    """Both experts on the CPU, their sizes, and what tells them from other weights."""
    if sources.random:
        config = debug_model()
        marks: Any = ["random", RANDOM_SEED, asdict(config)]
        return {e: random_expert(config, compat, i) for i, e in enumerate(EXPERTS)}, config, marks
    made: dict[Expert, LoadedExpert] = {}
    files: dict[str, Any] = {}
    for expert in EXPERTS:
        from_ = sources.stand_in or expert
        if expert != from_:
            continue
        tensors, config = sources.base[expert].base(expert)
        if not config.has_condition:
            raise CheckpointError(
                f"{sources.base[expert].path}: Wan's T2V form, which has no room for memory; --model takes "
                "the I2V form, --t2v takes this one"
            )
        dtype = _dtype(choice, stored_bytes(tensors))
        trainable = sources.trainable.get(expert)
        files[expert] = [fingerprint(tensors.files), str(dtype), choice.merge]
        if trainable is not None:
            files[expert].append(fingerprint(trainable.trainable(expert)[0].files))
        made[expert] = _prepared(
            load_expert(sources.base[expert], expert, trainable, dtype=dtype, compat=compat), choice.merge
        )
    for expert in EXPERTS:
        made.setdefault(expert, next(iter(made.values())))
    first, second = (made[expert].config for expert in EXPERTS)
    if replace(first, lora_rank=0, lora_alpha=0) != replace(second, lora_rank=0, lora_alpha=0):
        raise CheckpointError(f"{sources.shown}: the two experts are of different sizes")
    return made, made["low"].config, files


def _prepared(loaded: LoadedExpert, merge: bool) -> LoadedExpert:
    loaded.transformer.requires_grad_(False)
    if merge and lora_layers(loaded.transformer):
        merge_lora(loaded.transformer, keep_originals=False)
        drop_adapters(loaded.transformer)
    return loaded


def random_expert(config: ModelConfig, compat: Compat, number: int) -> LoadedExpert:
    """Untrained weights, the same everywhere: everything acts, nothing means anything."""
    transformer = MementoTransformer.from_config(config, compat=compat)
    initialise(transformer, RANDOM_SEED + number)
    generator = torch.Generator().manual_seed(RANDOM_SEED + number)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        transformer.proj_out.weight.normal_(0, RANDOM_OUTPUT_STD, generator=generator)
        torch.manual_seed(RANDOM_SEED + number)
        query = KeyframeQuery(config)
    return LoadedExpert(transformer.eval().requires_grad_(False), query.eval().requires_grad_(False), config)


def _first_shot(
    choice: ModelChoice, sources: Sources, config: ModelConfig, compat: Compat
) -> tuple[dict[Expert, LoadedExpert], Any]:
    """Wan's T2V experts; empty where the model makes first shots itself."""
    asked = choice.t2v
    if asked is None:
        if not sources.foreign:
            return {}, None
        if released.find("wan22_t2v_a14b") is None:
            raise released.WeightsMissing(
                "first shots are made by Wan2.2-T2V, which is not on this machine; get it with: "
                f"{released.command('wan22_t2v_a14b')}; or name its folder with --t2v; or let the model "
                "itself make them, which it was not trained for, with --t2v none"
            )
        asked = "wan22_t2v_a14b"
    if asked == NONE:
        return {}, None
    checkpoint = open_checkpoint(locate(asked))
    made: dict[Expert, LoadedExpert] = {}
    marks: list[Any] = []
    for expert in EXPERTS:
        tensors, found = checkpoint.base(expert)
        if found.has_condition:
            raise CheckpointError(f"{checkpoint.path}: Wan's I2V form; --t2v takes the T2V form")
        if (found.text_dim, found.text_len) != (config.text_dim, config.text_len):
            raise CheckpointError(f"{checkpoint.path}: reads another text encoder than {sources.shown}")
        dtype = _dtype(choice, stored_bytes(tensors))
        marks += [fingerprint(tensors.files), str(dtype)]
        transformer, _ = load_transformer(checkpoint, expert, dtype=dtype, compat=compat)
        made[expert] = LoadedExpert(transformer.requires_grad_(False), None, found)
    return made, marks


def stored_bytes(tensors: TensorSet) -> int:
    """Bytes of all tensors in their files."""
    return sum(entry.dtype.itemsize * math.prod(entry.shape) for entry in tensors.values())


def _dtype(choice: ModelChoice, size: int) -> torch.dtype:
    if choice.dtype != AUTO:
        return DTYPES[choice.dtype]
    return torch.float32 if size < SMALL_BYTES else torch.bfloat16


def place(
    models: list[dict[Expert, LoadedExpert]], placement: Placement, device: torch.device
) -> list[ExpertPair]:
    """Pairs of experts on one device, which they share."""
    transformers = [{e: one.transformer for e, one in model.items()} for model in models]
    if placement == AUTO:
        placement = "both"
        if device.type == "cuda":
            distinct = {id(t): t for pair in transformers for t in pair.values()}
            free, _ = torch.cuda.mem_get_info(device)
            placement = choose_placement([num_bytes(t) for t in distinct.values()], free)
    pairs = [ExpertPair(pair, device, placement) for pair in transformers]
    for pair in pairs:
        pair.rivals = tuple(other for other in pairs if other is not pair)
    return pairs


# -- memory -------------------------------------------------------------------------------------------


def _memory(
    mode: Mode,
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
    choice: ModelChoice, sources: Sources, models: Models, placement: str, embedder: ImageEmbedder
) -> dict[str, str]:
    config = models.config
    size = (
        f"{config.num_layers} layers, width {config.width}, bank of {config.bank_size} frames, "
        f"LoRA {'merged' if choice.merge else 'apart'}"
    )
    return {
        "model": sources.shown,
        "size": size,
        "first shots": choice.t2v or ("Wan2.2-T2V" if models.first_shot else "the model itself"),
        "codec": f"{models.codec.name} {models.codec.revision}",
        "text encoder": f"{models.text.name} {models.text.revision}",
        "likeness by": embedder.name,
        "computes on": f"{models.device}, {placement}",
        "revision": models.revision,
    }


def _warnings(sources: Sources, mode: Mode, embedder: ImageEmbedder, *, has_t2v: bool) -> list[str]:
    made: list[str] = []
    if sources.random:
        made.append(
            "random weights: no trained model was named or found under out/train, so the pictures are noise; "
            "make train makes one in minutes"
        )
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
            "keyframes are chosen by thumbnails, not by CLIP as StoryMem does; "
            f"{released.command('clip_vit_b32')}"
        )
    if sources.foreign and not has_t2v:
        made.append("first shots are made by the I2V model without a picture, which it was not trained for")
    return made
