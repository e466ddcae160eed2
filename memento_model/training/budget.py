"""What a run will need, estimated from shapes alone: memory per device, work per step, size of the cache.

Weights, their fp32 copies, optimiser states and gradients are counted exactly; activations are a model of
what one block and the whole forward pass keep, so the sums are estimates. Nothing is loaded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Literal

from memento_model.checkpoints.foreign_config import lora_shapes, query_shapes
from memento_model.checkpoints.forms import base_shapes
from memento_model.nn.transformer import FP32_MODULES
from memento_model.training.config import TrainConfig

GIB = 1 << 30
RESERVE_GIB = 1.5
"""What the CUDA context, NCCL and fragmentation take of a device."""


@dataclass(frozen=True)
class Machine:
    """A place to train: how many devices, and memory of each."""

    name: str
    devices: int
    gib: float


MACHINES = (Machine("1x 24 GB", 1, 24.0), Machine("1x 80 GB", 1, 80.0), Machine("8x 80 GB", 8, 80.0))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of a model and a run.

    Attributes:
        frozen, frozen_fp32: weights that do not move, and those of them kept in fp32 whatever the type.
        trained: weights that move.
        tokens: of the longest sequence.
        flops: of a step for one sample, products and attention, forward and backward.
    """

    frozen: int
    frozen_fp32: int
    trained: int
    tokens: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Estimated GiB on each device.

    Attributes:
        weights: frozen ones.
        masters: trainable ones, fp32.
        optimiser: two moments of each.
        gradients: of trainable weights.
        average: moving average.
        gathered: a block's weights while it computes, where they are shared out.
        activations: kept from the forward pass, and what one block works with.
        reserve: see `RESERVE_GIB`; 0 on a CPU.
    """

    weights: float
    masters: float
    optimiser: float
    gradients: float
    average: float
    gathered: float
    activations: float
    reserve: float

    @property
    def total(self) -> float:
        """All together."""
        return sum(vars(self).values())


@functools.lru_cache(maxsize=16)
def count(config: TrainConfig) -> Counts:
    """Numbers of weights, tokens and operations."""
    model = config.model
    base = {name: _size(shape) for name, shape in base_shapes(model).items()}
    in_fp32 = sum(n for name, n in base.items() if any(part in name.split(".") for part in FP32_MODULES))
    trained = sum(map(_size, lora_shapes(model).values())) if model.lora_rank else 0
    if config.objective.learnable_query:
        trained += sum(map(_size, query_shapes(model).values()))
    frozen = sum(base.values())
    if config.train_base:
        trained, frozen, in_fp32 = trained + frozen, 0, 0
    return Counts(
        frozen=frozen, frozen_fp32=in_fp32, trained=trained, tokens=_tokens(config), flops=step_flops(config)
    )


def _size(shape: tuple[int, ...]) -> int:
    number = 1
    for length in shape:
        number *= length
    return number


def _frames(config: TrainConfig) -> tuple[int, int, int]:
    """Longest identity, memory and target part of a sequence, latent frames."""
    identities = config.objective.num_identities if config.objective.identity_probability else 0
    return identities, config.model.bank_size, config.grid.latent_shape[1]


def _per_frame(config: TrainConfig) -> int:
    _, _, height, width = config.grid.latent_shape
    return (height // config.model.patch_size[1]) * (width // config.model.patch_size[2])


def _tokens(config: TrainConfig) -> int:
    return sum(_frames(config)) * _per_frame(config)


def step_flops(config: TrainConfig, tokens: int | None = None) -> float:
    """Operations of one sample's forward and backward pass, without what is computed twice on purpose.

    Frozen products need no gradient of their weights, so their backward pass costs as much as the forward
    pass, not twice as much. Split attention costs two smaller squares.

    Args:
        config: of the run.
        tokens: of the sequence; None is the longest.
    """
    model, length = config.model, tokens or _tokens(config)
    linear = 2 * length * model.num_layers * (4 * model.width**2 + 2 * model.width * model.ffn_width)
    linear += 2 * length * model.num_layers * 2 * model.width**2  # cross-attention's q and o
    linear += 2 * model.text_len * model.num_layers * 2 * model.width**2
    lora = 2 * length * model.num_layers * model.lora_rank * (16 * model.width + 2 * model.ffn_width)
    identity, memory, target = (n * _per_frame(config) for n in _frames(config))
    squares = float(length) ** 2
    if config.objective.split_attention:
        squares = float(identity + memory) ** 2 + float(memory + target) ** 2
    attention = 4 * model.width * model.num_layers * (squares + float(length) * model.text_len)
    return linear * (3 if config.train_base else 2) + 3 * lora + 3 * attention


def budget(config: TrainConfig, devices: int) -> Budget:
    """Estimated memory on each device, where so many share the work."""
    scale, counts = config.scale, count(config)
    bytes_each = 2 if scale.dtype == "bf16" else 4
    share = devices if scale.shard and devices > 1 else 1
    weights = (counts.frozen - counts.frozen_fp32) * bytes_each + counts.frozen_fp32 * 4
    states = 2 if config.optim.states == "8bit" else 8
    block = (counts.frozen * bytes_each + counts.trained * 4) / config.model.num_layers
    return Budget(
        weights=weights / share / GIB,
        masters=counts.trained * 4 / share / GIB,
        optimiser=counts.trained * states / share / GIB,
        gradients=counts.trained * 4 / share / GIB,
        average=counts.trained * 4 / share / GIB if config.optim.ema_decay else 0.0,
        gathered=2 * block / GIB if share > 1 else 0.0,
        activations=activations(config) / GIB,
        reserve=RESERVE_GIB if config.codec == "wan" else 0.0,
    )


def activations(config: TrainConfig) -> float:
    """Bytes kept from the forward pass: the stream between blocks, and the inside of one block or of all.

    A block keeps about: its normed inputs and the stream (fp32 norms), q, k, v, the attention's output, the
    same of cross-attention, and twice the feed-forward's hidden rows.
    """
    model, scale = config.model, config.scale
    rows = _tokens(config) / max(1, scale.context_parallel)
    each = 2 if scale.dtype == "bf16" else 4
    stream = 4 if config.compat.residual == "fp32" else 2
    between = rows * model.width * stream
    inside = rows * model.width * (3 * (stream + 4 + each) + 10 * each) + rows * model.ffn_width * 2 * each
    inside += rows * model.lora_rank * 10 * 4
    if scale.checkpoint_activations:
        return between * model.num_layers + 2 * inside
    return (between + inside) * model.num_layers


def cache_bytes(config: TrainConfig, clips: int) -> float:
    """Size of the cache for so many clips: two shots and the single frames of each, and text."""
    channels, frames, height, width = config.grid.latent_shape
    each = 2 if config.data.cache_dtype == "bf16" else 4
    singles = config.data.max_candidates_per_clip + config.objective.last_frames
    latents = channels * height * width * (2 * frames + singles) * each
    return clips * (latents + 2 * 150 * config.model.text_dim * each)


def advice(config: TrainConfig, machine: Machine) -> tuple[TrainConfig, Budget]:
    """The run as it fits a machine at the least cost in speed and precision, or leanest where nothing fits.

    Tried in this order: without recomputation, with it, a bf16 residual stream, 8-bit optimiser states (one
    device only), tokens shared by 2, 4 or 8 devices.
    """
    shard = machine.devices > 1
    tight: TrainConfig | None = None
    for context in (1, 2, 4, 8):
        if config.model.num_heads % context or machine.devices % context:
            continue
        for checkpoint, residual, states in TRIED:
            if states == "8bit" and shard:
                continue
            made = replace(
                config,
                compat=replace(config.compat, residual=residual or config.compat.residual),
                optim=replace(config.optim, states=states or config.optim.states),
                scale=replace(
                    config.scale,
                    shard=shard,
                    checkpoint_activations=checkpoint,
                    context_parallel=context,
                ),
            )
            needs = budget(made, machine.devices)
            if fits(needs, machine):
                return made, needs
            if tight is None or needs.total < budget(tight, machine.devices).total:
                tight = made
    assert tight is not None
    return tight, budget(tight, machine.devices)


TRIED: tuple[tuple[bool, Literal["fp32", "bf16"] | None, Literal["fp32", "8bit"] | None], ...] = (
    (False, None, None),
    (True, None, None),
    (True, "bf16", None),
    (True, "bf16", "8bit"),
)
"""Recompute activations; type of the residual stream; optimiser states. None is what the recipe says."""


def fits(needs: Budget, machine: Machine) -> bool:
    """Whether an estimate is below a device's memory."""
    return needs.total * GIB <= machine.gib * 1e9
