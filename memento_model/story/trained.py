"""How weights were trained, so that they are sampled that way: which memory, which attention, which slots.

Our own checkpoints, and the files exported from them, carry the settings of their training; released files of
others are known by what they hold. Another mode than that of the training is done, and said; a setting that
contradicts it is refused, unless the user wants to see just that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memento_model.checkpoints.choice import Sources, trained_as
from memento_model.checkpoints.forms import EXPERTS
from memento_model.config import Compat
from memento_model.errors import CheckpointError
from memento_model.nn.attention import AttentionForm
from memento_model.story.plan import GenerateSettings, Mode
from memento_model.training.retell import FOLDER, REFERENCES, SCRIPT

MODEL_SWITCHES = (
    "lora_scale", "no_identity_attention", "clamp_memory_before_target", "memory_positions",
    "storymem_offset",
)  # fmt: skip
"""Of `Compat`: what the weights learned with. The others choose among ways of sampling or of rounding."""

TRAINING_ONLY = ("query_gradient", "timestep")
"""Of `Compat`: what changes nothing in sampling."""
PARTS_ONLY = "it shows how the parts work, not what the method can do"
LOOKS = (
    (500, "noise"),
    (2000, "patches of colour"),
    (float("inf"), "patches of the films that it was trained on, whose words alone it knows"),
)
"""What stories in words of their own look like below so many steps; judged by eye at 60, 300, 1000, 3000."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What sampling follows.

    Attributes:
        memory: `queries` elect it; `drawn`: taken at random from the candidates (the ablation without
            queries); `storymem`: keyframes at fixed positions; None where nothing is known.
        num_drawn: frames of a drawn memory.
        attention: None where the training does not tell.
        reconstructs: whether a reconstruction slot was trained.
        guided: whether guidance has something to lead away from: random weights, and those that were
            trained from nothing, have never seen Wan's negative prompt, and guidance makes their pictures
            dark or glaring.
        compat: switches that the training tells.
    """

    memory: Literal["queries", "drawn", "storymem"] | None = None
    num_drawn: int = 8
    attention: AttentionForm | None = None
    reconstructs: bool = True
    guided: bool = True
    compat: Mapping[str, Any] | None = None

    @property
    def mode(self) -> Mode:
        """The mode that shows the weights what they were trained on."""
        return "storymem" if self.memory == "storymem" else "memento"


def how_trained(sources: Sources) -> Trained:
    """What the checkpoints say or show of their training; reads no values.

    Raises:
        CheckpointError: the two experts were trained in different ways.
    """
    told = {e: said for e, one in sources.trainable.items() if (said := trained_as(one).get(e))}
    if not told:
        queries = [_has_queries(sources, expert) for expert in EXPERTS if expert in sources.trainable]
        return Trained(
            memory=None if not queries else "queries" if any(queries) else "storymem",
            guided=not sources.random,
        )
    first, *others = told.values()
    for other in others:
        if differing := [name for name in first if first[name] != other.get(name)]:
            raise CheckpointError(
                f"{sources.shown}: the two experts were trained in different ways "
                f"({', '.join(differing)}) and cannot make one film; name a checkpoint with --model"
            )
    compat = first["compat"]
    storymem = compat.get("memory_positions") == "storymem"
    return Trained(
        memory="queries" if first["learnable_query"] else "storymem" if storymem else "drawn",
        num_drawn=first.get("bank_frames") or Trained.num_drawn,
        attention="split" if first["split_attention"] else "joint",
        reconstructs=bool(first["identity_probability"]),
        guided=not sources.told.get("train_base"),
        compat=compat,
    )


def _has_queries(sources: Sources, expert: Any) -> bool:
    return any(name.startswith("keyframe_query.") for name in sources.trainable[expert].trainable(expert)[0])


def differences(settings: GenerateSettings, trained: Trained) -> list[str]:
    """What to say where a run's mode differs from the training of its weights."""
    mode = settings.mode
    if trained.memory is None or mode == trained.mode:
        return []
    if mode == "wan":
        return ["the weights were trained with memory; mode wan gives them none"]
    return [
        f"the weights were trained for mode {trained.mode}; mode {mode} shows them memory that is chosen "
        "and placed otherwise"
    ]


def contradictions(settings: GenerateSettings, compat: Compat, trained: Trained) -> list[str]:
    """A line for each setting against which the weights were trained; only what a user set can be one."""
    made, mode = [], settings.mode
    if trained.attention not in (None, settings.attention_form):
        made.append(
            f"the weights were trained with {trained.attention} attention, not with "
            f"attention={settings.attention_form}"
        )
    if mode == "memento" and settings.reconstruct and not trained.reconstructs:
        made.append("the weights were trained without a reconstruction slot, not with reconstruct=true")
    for name, told in (trained.compat or {}).items():
        now = getattr(compat, name, told)
        by_mode = name == "memory_positions" and mode != trained.mode
        if name in MODEL_SWITCHES and now != told and not by_mode:
            made.append(f"the weights were trained with {name}={_yaml(told)}, not {_yaml(now)}")
    return made


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- how long -----------------------------------------------------------------------------------------


def training_told(sources: Sources) -> str:
    """How far the training went, for people; empty for weights of others.

    `debug, 3000 of 3000 steps`; with `high-noise expert ...; low-noise expert ...` where they differ.
    """
    told: dict[str, list[str]] = {}
    for expert, (name, step, steps) in _lengths(sources).items():
        told.setdefault(f"{name}, {step} of {steps} steps" if steps else f"{step} steps", []).append(expert)
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{' and '.join(experts)}-noise expert {line}" for line, experts in told.items())


def what_to_expect(sources: Sources) -> str | None:
    """A line on what pictures of a model that was trained from nothing look like; None for all others."""
    if sources.random or sources.foreign:
        return None
    lengths = [step for _, step, _ in _lengths(sources).values()]
    if not lengths:
        return f"debug model: {PARTS_ONLY}"
    looks = next(words for most, words in LOOKS if min(lengths) < most)
    return f"debug model, {min(lengths)} steps of training: expect {looks}; {PARTS_ONLY}"


def retelling(sources: Sources) -> tuple[Path, Path] | None:
    """(script, folder of reference pictures) that the training left of its data, if they are still there."""
    output = sources.told.get("output")
    if not isinstance(output, str):
        return None
    folder = Path(output) / FOLDER
    there = (folder / SCRIPT).is_file() and (folder / REFERENCES).is_dir()
    return (folder / SCRIPT, folder / REFERENCES) if there else None


def _lengths(sources: Sources) -> dict[str, tuple[str, int, int | None]]:
    """Of each expert whose training tells: recipe, steps done, steps meant."""
    made: dict[str, tuple[str, int, int | None]] = {}
    for expert in EXPERTS:
        one = sources.trainable.get(expert) or sources.base.get(expert)
        said = one.notes.get(expert) if one is not None else None
        if said is None or not isinstance(said.get("step"), int):
            continue
        config = said.get("config")
        config = config if isinstance(config, Mapping) else {}
        steps = config.get("steps")
        name = str(config.get("name", "training"))
        made[expert] = name, said["step"], steps if isinstance(steps, int) else None
    return made
