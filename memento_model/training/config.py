"""What decides a training run: `memento_model.training.recipes` fill it, the command line overrides it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from memento_model.config import Compat, Expert, FrameGrid, ModelConfig, debug_model


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which samples there are.

    Attributes:
        dataset: folder that `make curate` published, or a file of the official JSON form.
        where: SQL condition over the view `sequences`, e.g. `num_shots >= 8`; None takes all.
        cache: folder of encoded latents and texts; None is `cache` beside the run's output.
        validation_share: of the films, held out by a hash of the film's id.
        on_bad_sample: `stop` names every fault before the first step and ends; `skip` leaves the samples out
            and counts them. Nothing is ever put in their place.
        max_candidates_per_clip: frames of a clip that can be remembered (4 a second, at most so many).
        cache_dtype: of cached latents and text; bf16 takes half the disk, fp32 is exact.
    """

    dataset: str = "out/demo"
    where: str | None = None
    cache: str | None = None
    validation_share: float = 0.05
    on_bad_sample: Literal["stop", "skip"] = "stop"
    max_candidates_per_clip: int = 24
    cache_dtype: Literal["bf16", "fp32"] = "bf16"


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is learned from a sample (paper 3.3, 4.1; reference trainer).

    Attributes:
        identity_weight: lambda of the reconstruction term; 0.5 in the paper, 1.0 in the published script.
        memory_weight: of the optional term on memory slots; 0 leaves it out.
        identity_probability: share of the samples that get a reconstruction slot, where an earlier clip has a
            target.
        num_identities: most reconstruction slots of a sample.
        drop_probability: of each condition, independently: shot prompt, local and global query prompt,
            identity caption.
        skip_prior_probability: of remembering the last shot alone.
        first_frame_probability: of giving the target's first frame.
        drawn_picks: while the queries train, draw their picks in proportion to the softmax over their scores
            instead of taking the best, so that a bad first pick does not stay.
        learnable_query: False takes candidates at random instead of asking `KeyframeQuery` (ablation).
        split_attention: False attends jointly (ablation without disentangled memory).
        self_forcing_probability: of taking memory frames from shots that the model generated, not the film.
        last_frames, bank_frames: candidates from the last shot, and drawn from all earlier ones.
    """

    identity_weight: float = 0.5
    memory_weight: float = 0.0
    identity_probability: float = 0.8
    num_identities: int = 1
    drop_probability: float = 0.1
    skip_prior_probability: float = 0.1
    first_frame_probability: float = 0.5
    drawn_picks: bool = False
    learnable_query: bool = True
    split_attention: bool = True
    self_forcing_probability: float = 0.0
    last_frames: int = 8
    bank_frames: int = 8


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move. Trainable weights are fp32 whatever the model computes in.

    Attributes:
        lr: learning rate after the warm-up.
        query_lr_ratio: of the queries, as a share of `lr`.
        query_steps: the queries' schedule ends after so many steps and they stay as they are then; None is
            the whole run. For sets so small that the rest comes to know them by heart: from then on the loss
            no longer tells which memory helps, and the picks would drift.
        betas, eps, weight_decay: of AdamW.
        states: `fp32`, or `8bit` (bitsandbytes) optimiser states.
        max_grad_norm: gradients are clipped to this norm.
        warmup_steps: linear from zero.
        schedule: `constant`, or `cosine` to `min_lr_ratio` x lr at the last step.
        min_lr_ratio: where the cosine ends.
        ema_decay: of a moving average of the trainable weights; None keeps none.
    """

    lr: float = 1e-5
    query_lr_ratio: float = 1.0
    query_steps: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    states: Literal["fp32", "8bit"] = "fp32"
    max_grad_norm: float = 1.0
    warmup_steps: int = 100
    schedule: Literal["constant", "cosine"] = "cosine"
    min_lr_ratio: float = 0.0
    ema_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """How the work is spread and fitted into memory.

    Attributes:
        dtype: of the frozen weights and the computation.
        accumulate: samples per process and optimiser step, one after the other.
        checkpoint_activations: recompute blocks in the backward pass.
        lean_blocks: also recompute the parts of a block one by one, the feed-forward part in pieces: the
            least memory, for one more forward pass.
        offload_activations: what checkpoints keep between blocks lies in host memory.
        offload_weights: frozen weights of blocks lie in host memory and come one block ahead of their use.
        compile: compile each block (regional).
        shard: FSDP2 over all processes.
        context_parallel: processes that share one sample's tokens (Ulysses); at most the number of heads, and
            fastest where it divides that.
        backend: `auto` takes what torchrun started, else one process; `ray` runs the same in Ray Train.
        workers: processes of Ray Train, one GPU each where there are any.
    """

    dtype: Literal["fp32", "bf16"] = "bf16"
    accumulate: int = 1
    checkpoint_activations: bool = True
    lean_blocks: bool = False
    offload_activations: bool = False
    offload_weights: bool = False
    compile: bool = False
    shard: bool = False
    context_parallel: int = 1
    backend: Literal["auto", "ray"] = "auto"
    workers: int = 1


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """What is told and kept on the way.

    Attributes:
        log_every: steps between lines.
        validate_every: steps between losses on the held-out films at fixed noise levels; 0 never.
        sample_every: steps between pictures (a shot, the reconstructed subject, picked memory); 0 never.
        save_every: steps between checkpoints.
        keep_last: checkpoints kept besides the best by validation loss.
        trackers: any of `tensorboard` and `wandb`.
    """

    log_every: int = 10
    validate_every: int = 250
    sample_every: int = 500
    save_every: int = 250
    keep_last: int = 3
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()


COUNTS = (
    "steps", "scale.accumulate", "scale.context_parallel", "scale.workers", "watch.log_every",
    "watch.save_every", "watch.keep_last", "data.max_candidates_per_clip", "objective.num_identities",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "optim.warmup_steps", "optim.weight_decay", "optim.query_lr_ratio", "optim.query_steps",
    "watch.validate_every", "watch.sample_every", "objective.identity_weight", "objective.memory_weight",
    "objective.last_frames", "objective.bank_frames",
)  # fmt: skip
SHARES = (
    "data.validation_share", "optim.min_lr_ratio", "objective.identity_probability",
    "objective.drop_probability", "objective.skip_prior_probability", "objective.first_frame_probability",
    "objective.self_forcing_probability",
)  # fmt: skip
ABOVE_ZERO = ("optim.lr", "optim.eps", "optim.max_grad_norm")
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(COUNTS, (1, math.inf)),
    **dict.fromkeys(NOT_NEGATIVE, (0, math.inf)),
    **dict.fromkeys(SHARES, (0, 1)),
}


def _value(config: object, name: str) -> Any:
    """A field by its name with dots."""
    return functools.reduce(getattr, name.split("."), config)


def _betas(optim: OptimConfig) -> Iterator[tuple[str, float]]:
    return (("optim.betas", beta) for beta in optim.betas)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run.

    Attributes:
        name: of the recipe.
        expert: which expert is trained; both is two runs.
        base: checkpoint folder with the frozen weights (any form that `memento convert` reads); None draws
            them at random from the seed (debug).
        start_from: adapters and queries to start from (ours, Memento's or StoryMem's); None starts afresh.
        train_base: also train the base weights, for models that have none to begin with (debug).
        model: shape, where `base` is None.
        codec, text: `wan` or `dct`, `umt5` or `hashed`.
        codec_path, text_path: weights of either, where it has any.
        grid: of a shot.
        steps: optimiser steps.
        seed: of everything drawn.
        output: folder of checkpoints, logs and pictures.
    """

    name: str
    expert: Expert = "low"
    base: str | None = None
    start_from: str | None = None
    train_base: bool = False
    model: ModelConfig = field(default_factory=debug_model)
    codec: Literal["wan", "dct"] = "wan"
    text: Literal["umt5", "hashed"] = "umt5"
    codec_path: str | None = None
    text_path: str | None = None
    grid: FrameGrid = field(default_factory=FrameGrid)
    compat: Compat = field(default_factory=lambda: Compat(no_identity_attention="blend"))
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    steps: int = 6000
    seed: int = 0
    output: str = "out/train/run"

    def __post_init__(self) -> None:
        """Refuse what no run can be."""
        self._check_ranges()
        if self.optim.states == "8bit" and self.scale.shard:
            raise ValueError(
                "8-bit optimiser states cannot be sharded; set optim.states=fp32 or scale.shard=false"
            )
        self._check_memory()
        if self.model.lora_rank < 1:
            raise ValueError(f"model.lora_rank is {self.model.lora_rank}; adapters have at least rank 1")

    def _check_ranges(self) -> None:
        for name, (low, high) in RANGES.items():
            if (value := _value(self, name)) is not None and not low <= value <= high:
                raise ValueError(
                    f"{name} is {value}; it is at least {low}{f', at most {high}' * (high == 1)}"
                )
        for name in ABOVE_ZERO:
            if (value := _value(self, name)) <= 0:
                raise ValueError(f"{name} is {value}; it is above 0")
        for name, value in (("optim.ema_decay", self.optim.ema_decay or 0.0), *_betas(self.optim)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it is from 0 to below 1")
        if self.objective.last_frames + self.objective.bank_frames < 1:
            raise ValueError(
                "objective.last_frames and objective.bank_frames are 0: nothing can be remembered"
            )

    def _check_memory(self) -> None:
        scale = self.scale
        for name in ("lean_blocks", "offload_activations", "offload_weights"):
            if getattr(scale, name) and not scale.checkpoint_activations:
                raise ValueError(f"scale.{name} needs scale.checkpoint_activations=true")
        if scale.offload_weights and self.train_base:
            raise ValueError("scale.offload_weights is for frozen weights; train_base moves them")
        if scale.offload_weights and scale.shard:
            raise ValueError(
                "weights are either shared out or kept on the host; set scale.shard=false or "
                "scale.offload_weights=false"
            )
        if scale.lean_blocks and scale.compile:
            raise ValueError(
                "lean blocks are not compiled; set scale.compile=false or scale.lean_blocks=false"
            )
