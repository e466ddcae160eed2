"""How weights were trained, so that they are sampled that way: which memory, which attention, which slots.

Our own checkpoints carry the settings of their training; released files are known by what they hold. What a
user asks for instead is done where it can be done, and said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memento_model.checkpoints.choice import Sources, trained_as
from memento_model.checkpoints.forms import EXPERTS
from memento_model.config import Compat
from memento_model.errors import CheckpointError
from memento_model.nn.attention import AttentionForm
from memento_model.story.plan import GenerateSettings, Mode

MODEL_SWITCHES = (
    "lora_scale", "no_identity_attention", "clamp_memory_before_target", "memory_positions",
    "storymem_offset",
)  # fmt: skip
"""Of `Compat`: what the weights learned with. The others choose among ways of sampling or of rounding."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What sampling follows.

    Attributes:
        memory: `queries` elect it; `drawn`: taken at random from the candidates (the ablation without
            queries); `storymem`: keyframes at fixed positions; None where nothing is known.
        num_drawn: frames of a drawn memory.
        attention: None where the training does not tell.
        reconstructs: whether a reconstruction slot was trained.
        compat: switches that the training tells.
    """

    memory: Literal["queries", "drawn", "storymem"] | None = None
    num_drawn: int = 8
    attention: AttentionForm | None = None
    reconstructs: bool = True
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
        return Trained(memory=None if not queries else "queries" if any(queries) else "storymem")
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
        compat=compat,
    )


def _has_queries(sources: Sources, expert: Any) -> bool:
    return any(name.startswith("keyframe_query.") for name in sources.trainable[expert].trainable(expert)[0])


def differences(settings: GenerateSettings, compat: Compat, trained: Trained) -> list[str]:
    """A line for everything in which a run differs from the training of its weights."""
    made = []
    mode = settings.mode
    if trained.memory is not None and mode == "wan":
        made.append("the weights were trained with memory; mode wan gives them none")
    elif trained.memory is not None and mode != trained.mode:
        made.append(
            f"the weights were trained for mode {trained.mode}; mode {mode} shows them memory that is chosen "
            "and placed otherwise"
        )
    if trained.attention not in (None, settings.attention_form):
        made.append(
            f"the weights were trained with {trained.attention} attention; "
            f"{settings.attention_form} was asked for"
        )
    if mode == "memento" and settings.reconstruct and not trained.reconstructs:
        made.append("the weights were trained without a reconstruction slot; reconstruct=true gives them one")
    for name, told in (trained.compat or {}).items():
        now = getattr(compat, name, told)
        by_mode = name == "memory_positions" and mode != trained.mode  # said above
        if name in MODEL_SWITCHES and now != told and not by_mode:
            made.append(f"the weights were trained with {name}={_yaml(told)}; it is {_yaml(now)} here")
    return made


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
