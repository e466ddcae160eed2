"""What a run will need, estimated from shapes alone: memory per device, work per step, size of the cache.

Weights, their fp32 copies, optimiser states and gradients are counted exactly. Activations are a model whose
numbers were fitted to an account of all tensors of real steps, at small size and (without data) at full size;
tests hold it to 15 %. Nothing is loaded.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

from memento_model.checkpoints.foreign_config import lora_shapes, query_shapes
from memento_model.checkpoints.forms import base_shapes
from memento_model.config import ModelConfig
from memento_model.distributed.offload import SLOTS
from memento_model.nn.transformer import FP32_MODULES
from memento_model.training.config import TrainConfig

GIB = 1 << 30
RESERVE_GIB = 1.5
"""What the CUDA context, NCCL and fragmentation take of a device."""
MARGIN = 0.05
"""Share of a device's memory that an estimate must leave free to be called fitting."""
EXCHANGED = 4
"""Values of a row that Ulysses exchanges for heads: q, k, v and the result."""


@dataclass(frozen=True)
class Machine:
    """A place to train: how many devices, and memory of each."""

    name: str
    devices: int
    gib: float


MACHINES = (Machine("1x24gb", 1, 24.0), Machine("1x80gb", 1, 80.0), Machine("8x80gb", 8, 80.0))
"""By the names of `memento train --memory`."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of a model and a run.

    Attributes:
        frozen, frozen_fp32: weights that do not move, and those of them kept in fp32 whatever the type.
        in_blocks, in_blocks_fp32: of these, those in blocks.
        trained: weights that move.
        tokens: of the longest sequence.
        flops: of a step for one sample, products and attention, forward and backward.
    """

    frozen: int
    frozen_fp32: int
    in_blocks: int
    in_blocks_fp32: int
    trained: int
    tokens: int
    flops: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Estimated GiB on each device.

    Attributes:
        weights: frozen ones on the device.
        masters: trainable ones, fp32.
        optimiser: two moments of each.
        gradients: of trainable weights.
        average: moving average.
        gathered: a block's weights while it computes, where they are shared out.
        activations: kept from the forward pass, and what one block works with.
        reserve: see `RESERVE_GIB`; 0 on a CPU.
        host: of host memory for what is kept there; no part of the total.
    """

    weights: float
    masters: float
    optimiser: float
    gradients: float
    average: float
    gathered: float
    activations: float
    reserve: float
    host: float = 0.0

    @property
    def total(self) -> float:
        """All together on the device."""
        return sum(vars(self).values()) - self.host


@functools.lru_cache(maxsize=16)
def count(config: TrainConfig) -> Counts:
    """Numbers of weights, tokens and operations."""
    model = config.model
    base = _base_sizes(model)
    fp32 = {n: size for n, size in base.items() if any(part in n.split(".") for part in FP32_MODULES)}
    adapters, queries = _trained_sizes(model)
    trained = adapters + (queries if config.objective.learnable_query else 0)
    frozen = {
        "frozen": sum(base.values()),
        "frozen_fp32": sum(fp32.values()),
        "in_blocks": sum(size for name, size in base.items() if name.startswith("blocks.")),
        "in_blocks_fp32": sum(size for name, size in fp32.items() if name.startswith("blocks.")),
    }
    if config.train_base:
        trained, frozen = trained + frozen["frozen"], dict.fromkeys(frozen, 0)
    return Counts(**frozen, trained=trained, tokens=_tokens(config), flops=step_flops(config))


@functools.lru_cache(maxsize=16)
def _base_sizes(model: ModelConfig) -> dict[str, int]:
    return {name: _size(shape) for name, shape in base_shapes(model).items()}


@functools.lru_cache(maxsize=16)
def _trained_sizes(model: ModelConfig) -> tuple[int, int]:
    """Of all adapters, and of the queries."""
    adapters = sum(map(_size, lora_shapes(model).values())) if model.lora_rank else 0
    return adapters, sum(map(_size, query_shapes(model).values()))


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
    scale, counts, depth = config.scale, count(config), config.model.num_layers
    bytes_each = 2 if scale.dtype == "bf16" else 4
    share = devices if scale.shard and devices > 1 else 1
    weights = counts.frozen * bytes_each + counts.frozen_fp32 * (4 - bytes_each)
    blocks = counts.in_blocks * bytes_each + counts.in_blocks_fp32 * (4 - bytes_each)
    states = 2 if config.optim.states == "8bit" else 8
    host = 0.0
    if scale.offload_weights:
        host += blocks
        weights -= blocks - blocks * SLOTS // depth
    if scale.offload_activations:
        host += _between(config) * depth
    block = (counts.frozen * bytes_each + counts.trained * 4) / depth
    return Budget(
        weights=weights / share / GIB,
        masters=counts.trained * 4 / share / GIB,
        optimiser=counts.trained * states / share / GIB,
        gradients=counts.trained * 4 / share / GIB,
        average=counts.trained * 4 / share / GIB if config.optim.ema_decay else 0.0,
        gathered=2 * block / GIB if share > 1 else 0.0,
        activations=activations(config) / GIB,
        reserve=RESERVE_GIB if config.codec == "wan" else 0.0,
        host=host / GIB,
    )


def activations(config: TrainConfig) -> float:
    """Most bytes of the forward and backward pass besides weights and their gradients.

    Of a row of the stream a block keeps three fp32 norms' inputs and about 18 values of the computing type
    (q, k, v and what makes them, both attentions' outputs, modulated inputs), and twice the feed-forward's
    hidden row; the backward pass works with about 8 more. A lean block keeps parts' inputs and the inside of
    its widest part alone.
    """
    model, scale = config.model, config.scale
    rows = _tokens(config) / max(1, scale.context_parallel)
    each = 2 if scale.dtype == "bf16" else 4
    kept = rows * (model.width * (12 + 17.6 * each) + 2 * model.ffn_width * each)
    kept += _uneven_heads(config) * model.width * EXCHANGED * each
    work = rows * model.width * 7.5 * each
    if not scale.checkpoint_activations:
        return kept * model.num_layers + work
    if scale.lean_blocks:
        kept, work = rows * model.width * (10 + 12.5 * each), 0.0
        kept += _uneven_heads(config) * model.width * EXCHANGED * each
    # With those on the host: the one at work, the one that comes next and the one that leaves.
    on_device = min(3, model.num_layers) if scale.offload_activations else model.num_layers
    return _between(config) * on_device + kept + work


def _uneven_heads(config: TrainConfig) -> float:
    """Rows of all heads by which the fullest device exceeds its share, where heads do not divide evenly.

    Inside attention a device holds all tokens of its heads (`memento_model.distributed.ulysses`).
    """
    heads, shared_by = config.model.num_heads, max(1, config.scale.context_parallel)
    return _tokens(config) * (math.ceil(heads / shared_by) / heads - 1 / shared_by)


def _between(config: TrainConfig) -> float:
    """Bytes of the stream before one block."""
    each = 4 if config.compat.residual == "fp32" else 2
    return _tokens(config) / max(1, config.scale.context_parallel) * config.model.width * each


def cache_bytes(config: TrainConfig, clips: int) -> float:
    """Size of the cache for so many clips: two shots and the single frames of each, and text."""
    channels, frames, height, width = config.grid.latent_shape
    each = 2 if config.data.cache_dtype == "bf16" else 4
    singles = config.data.max_candidates_per_clip + config.objective.last_frames
    latents = channels * height * width * (2 * frames + singles) * each
    return clips * (latents + 2 * 150 * config.model.text_dim * each)


def advice(config: TrainConfig, machine: Machine) -> tuple[TrainConfig, Budget]:
    """The run as it fits a machine at the least cost in speed and precision, or leanest where nothing fits.

    Each of `STEPS` is added to those before it until the estimate fits; first with whole sequences, then with
    tokens shared by as many devices as divide their number. Heads need not divide evenly, but each device
    needs one.
    """
    shard = machine.devices > 1
    tight: tuple[TrainConfig, Budget] | None = None
    for context in range(1, machine.devices + 1):
        if machine.devices % context or context > config.model.num_heads:
            continue
        made = replace(
            config,
            scale=replace(config.scale, shard=shard, context_parallel=context, **PLAIN),
            optim=replace(config.optim, states="fp32") if shard else config.optim,  # 8-bit ones stay whole
        )
        for part, changes in STEPS:
            if not _possible(made, changes):
                continue
            made = replace(made, **{part: replace(getattr(made, part), **changes)})
            needs = budget(made, machine.devices)
            if fits(needs, machine):
                return made, needs
            if tight is None or needs.total < tight[1].total:
                tight = made, needs
    assert tight is not None
    return tight


PLAIN: dict[str, Any] = {
    "checkpoint_activations": False, "lean_blocks": False, "offload_activations": False,
    "offload_weights": False,
}  # fmt: skip
STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("scale", {}),
    ("scale", {"checkpoint_activations": True}),
    ("scale", {"offload_activations": True}),
    ("compat", {"residual": "bf16"}),
    ("scale", {"lean_blocks": True, "compile": False}),
    ("optim", {"states": "8bit"}),
    ("scale", {"offload_weights": True}),
)
"""What saves memory, from what costs least to what costs most."""


def _possible(config: TrainConfig, changes: dict[str, Any]) -> bool:
    """8-bit states and weights on the host are for one device, the latter for weights that do not move."""
    if "states" in changes:
        return not config.scale.shard
    return "offload_weights" not in changes or not (config.scale.shard or config.train_base)


def fits(needs: Budget, machine: Machine) -> bool:
    """Whether an estimate leaves `MARGIN` of a device's memory free."""
    return needs.total * GIB <= (1 - MARGIN) * machine.gib * 1e9
