"""Sizes of a model: from the shapes of its tensors, and from and to other projects' config files.

Shapes are the truth; files add what shapes cannot tell (heads, eps, text length) and must not contradict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from memento_model.config import ModelConfig
from memento_model.errors import CheckpointError

WAN_HEAD_DIM = 128
FULL_WIDTH, FULL_LAYERS = 5120, 40
MOST_DIGITS, MOST_LAYERS = 6, 10_000
"""Of a block's number in a name; of blocks that a config file may ask for."""
NATIVE_FIELDS = {
    "width": "dim",
    "num_heads": "num_heads",
    "num_layers": "num_layers",
    "ffn_width": "ffn_dim",
    "freq_dim": "freq_dim",
    "in_channels": "in_dim",
    "out_channels": "out_dim",
    "text_len": "text_len",
    "eps": "eps",
}
DIFFUSERS_FIELDS = {
    "num_heads": "num_attention_heads",
    "num_layers": "num_layers",
    "ffn_width": "ffn_dim",
    "freq_dim": "freq_dim",
    "text_dim": "text_dim",
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "text_len": "text_len",  # ours: diffusers does not know it
    "eps": "eps",
}

Shapes = Mapping[str, tuple[int, ...]]


def config_of_base(shapes: Shapes, settings: Mapping[str, Any], source: Path) -> ModelConfig:
    """Sizes of an expert.

    Args:
        shapes: of its tensors, by our names.
        settings: its config file, native or diffusers'; may be empty, then heads have 128 channels.
        source: for messages.

    Raises:
        CheckpointError: tensors are missing, or the file contradicts them.
    """
    try:
        width, in_channels, *sizes = shapes["patch_embedding.weight"]
        patch = (sizes[0], sizes[1], sizes[2])
        found: dict[str, Any] = {
            "width": width,
            "in_channels": in_channels,
            "num_layers": _num_blocks(shapes, source),
            "ffn_width": shapes["blocks.0.ffn.net.0.proj.weight"][0],
            "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
            "out_channels": shapes["proj_out.weight"][0] // (patch[0] * patch[1] * patch[2]),
        }
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{source}: not the weights of a Wan transformer (lacks {error})") from error
    given = _given(settings)
    for name, value in found.items():
        if name in given and given[name] != value:
            raise CheckpointError(f"{source}: the config says {name} {given[name]}, the tensors say {value}")
    _check_full_size(width, found["num_layers"], source)
    heads = given.get("num_heads", width // WAN_HEAD_DIM)
    if not heads:
        raise CheckpointError(f"{source}: cannot tell the number of heads; put its config.json beside it")
    extra = {name: given[name] for name in ("text_len", "eps") if name in given}
    try:
        config = ModelConfig(patch_size=patch, num_heads=heads, **found, **extra)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{source}: no transformer of these sizes ({error})") from error
    _check_numbers(config, source)
    return config


def config_of_trainable(shapes: Shapes, source: Path) -> ModelConfig:
    """What adapters and queries alone tell about the model; the rest keeps its default.

    Args:
        shapes: by our names.
        source: for messages.

    Raises:
        CheckpointError: too few tensors to tell.
    """
    try:
        rank, width = shapes["blocks.0.self_attn.q.lora_A.default.weight"]
        ffn_width = shapes["blocks.0.ffn.0.lora_B.default.weight"][0]
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{source}: no LoRA of a Wan transformer (lacks {error})") from error
    layers = _num_blocks(shapes, source)
    _check_full_size(width, layers, source)
    config = replace(
        ModelConfig(),
        width=width,
        num_heads=max(1, width // WAN_HEAD_DIM),
        num_layers=layers,
        ffn_width=ffn_width,
        lora_rank=rank,
        lora_alpha=rank,
    )
    if "keyframe_query.queries" in shapes and "keyframe_query.queries_global" in shapes:
        local, shared = (shapes[f"keyframe_query.{name}"][0] for name in ("queries", "queries_global"))
        config = replace(config, num_local_queries=local, num_global_queries=shared)
    return config


def with_trainable(base: ModelConfig, trainable: ModelConfig) -> ModelConfig:
    """The base's sizes with the adapters' rank and the settings of the queries."""
    names = ("lora_rank", "lora_alpha", "num_local_queries", "num_global_queries")
    more = ("selected_local", "selected_global", "keyframe_temperature")
    return replace(base, **{name: getattr(trainable, name) for name in names + more})


def lora_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all LoRA tensors: 20 per block."""
    width, hidden, rank = config.width, config.ffn_width, config.lora_rank
    attention = {f"{side}_attn.{part}": (width, width) for side in ("self", "cross") for part in "qkvo"}
    linears = attention | {"ffn.0": (hidden, width), "ffn.2": (width, hidden)}
    return {
        f"blocks.{block}.{name}.lora_{side}.default.weight": shape
        for block in range(config.num_layers)
        for name, (out, into) in linears.items()
        for side, shape in (("A", (rank, into)), ("B", (out, rank)))
    }


def query_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the 24 tensors of `KeyframeQuery`."""
    from memento_model.nn.keyframe_query import KeyframeQuery

    with torch.device("meta"):
        state = KeyframeQuery(config).state_dict()
    return {f"keyframe_query.{name}": tuple(value.shape) for name, value in state.items()}


def to_native_config(config: ModelConfig) -> dict[str, Any]:
    """The config file of a native Wan2.2 expert."""
    made = {theirs: getattr(config, ours) for ours, theirs in NATIVE_FIELDS.items()}
    return {"_class_name": "WanModel", "model_type": "i2v" if config.has_condition else "t2v", **made}


def to_diffusers_config(config: ModelConfig) -> dict[str, Any]:
    """The config file of a diffusers expert."""
    made = {theirs: getattr(config, ours) for ours, theirs in DIFFUSERS_FIELDS.items()}
    if config.text_len == ModelConfig().text_len:
        del made["text_len"]
    more = {
        "patch_size": list(config.patch_size),
        "attention_head_dim": config.head_dim,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
    }
    return {"_class_name": "WanTransformer3DModel", **made, **more}


def to_our_config(config: ModelConfig) -> dict[str, Any]:
    """The `model` part of our config file."""
    return asdict(config) | {"patch_size": list(config.patch_size)}


def from_our_config(values: object, source: Path) -> ModelConfig:
    """The inverse of `to_our_config`.

    Raises:
        CheckpointError: unknown or missing settings.
    """
    known = {field.name for field in fields(ModelConfig)}
    if not isinstance(values, dict) or set(values) != known:
        odd = sorted(known ^ set(values if isinstance(values, dict) else ()))
        raise CheckpointError(
            f"{source}: `model` does not hold exactly our settings (see {', '.join(odd[:4])})"
        )
    try:
        config = ModelConfig(**values | {"patch_size": tuple(values["patch_size"])})
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    _check_numbers(config, source)
    return config


def _check_numbers(config: ModelConfig, source: Path) -> None:
    """Refuse settings that are no numbers, or so large that naming the model's tensors would never end."""
    for field in fields(config):
        value = getattr(config, field.name)
        kinds = (int, float) if isinstance(field.default, float) else (int,)
        if any(
            type(v) not in kinds or not 0 <= v < 1 << 31
            for v in (value if isinstance(value, tuple) else (value,))
        ):
            raise CheckpointError(f"{source}: {field.name} is {value!r}, which no model has")
    if config.num_layers > MOST_LAYERS:
        raise CheckpointError(f"{source}: num_layers is {config.num_layers}, which no model has")


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A foreign config in our words."""
    if not settings:
        return {}
    table = NATIVE_FIELDS if "in_dim" in settings else DIFFUSERS_FIELDS
    return {ours: settings[theirs] for ours, theirs in table.items() if theirs in settings}


def _num_blocks(shapes: Shapes, source: Path) -> int:
    """Blocks by the highest number in a name, which is below the number of tensors in any true file.

    Raises:
        CheckpointError: it is not; counting the tensors of so many blocks would never end.
        ValueError: there are none.
    """
    numbers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    absurd = next((n for n in numbers if len(n) > MOST_DIGITS or int(n) >= len(shapes)), None)
    if absurd is not None:
        raise CheckpointError(f"{source}: names block {absurd[:20]}, but holds {len(shapes)} tensors in all")
    return 1 + max(map(int, numbers))


def _check_full_size(width: int, layers: int, source: Path) -> None:
    if width == FULL_WIDTH and layers != FULL_LAYERS:
        raise CheckpointError(
            f"{source}: {layers} blocks of Wan2.2-A14B's {FULL_LAYERS}: fetch the missing parts"
        )
