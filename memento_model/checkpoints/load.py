"""Checkpoints into models and back: one expert at a time, with adapters and queries if there are any.

What forms there are, and the layout of ours: `memento_model.checkpoints.forms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memento_model.checkpoints.foreign_config import lora_shapes, query_shapes, to_our_config, with_trainable
from memento_model.checkpoints.forms import FORMAT, VERSION, Checkpoint, base_shapes, open_checkpoint
from memento_model.checkpoints.tensor_files import TensorSet, save_json, save_tensors
from memento_model.checkpoints.tensor_formats import read_json
from memento_model.config import Compat, Expert, ModelConfig
from memento_model.errors import CheckpointError
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import inject_lora, trainable_tensors
from memento_model.nn.transformer import FP32_MODULES, MementoTransformer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "LoadedExpert",
    "install",
    "load_expert",
    "load_transformer",
    "open_checkpoint",
    "save_expert",
]


def load_transformer(
    checkpoint: Checkpoint,
    expert: Expert,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    compat: Compat | None = None,
) -> tuple[MementoTransformer, ModelConfig]:
    """An expert with its own weights, without adapters.

    Built without storage and filled tensor by tensor; on the CPU, tensors that are `dtype` already stay
    memory-mapped, so a full expert needs no memory beyond what is used of it.

    Args:
        checkpoint: with base weights.
        expert: which.
        dtype: of the matrices; the time path, modulation and norms are kept in fp32.
        device: where to.
        compat: choices on which releases differ.

    Raises:
        CheckpointError: see `Checkpoint.base`.
    """
    tensors, config = checkpoint.base(expert)
    with torch.device("meta"):
        model = MementoTransformer.from_config(config, compat=compat)

    def chosen(name: str) -> torch.dtype:
        return torch.float32 if any(part in name.split(".") for part in FP32_MODULES) else dtype

    tensors.fill(model, dtype=chosen, device=device)
    return model.eval(), config


@dataclass(frozen=True)
class LoadedExpert:
    """An expert ready for use.

    Attributes:
        transformer: with adapters if there are trainable weights.
        keyframe_query: None without queries (StoryMem, plain Wan).
        config: of both.
    """

    transformer: MementoTransformer
    keyframe_query: KeyframeQuery | None
    config: ModelConfig


def load_expert(
    base: Checkpoint,
    expert: Expert,
    trainable: Checkpoint | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    compat: Compat | None = None,
) -> LoadedExpert:
    """An expert with adapters and queries.

    Args:
        base: has the expert's own weights.
        expert: which.
        trainable: has LoRA and queries; None takes those of `base`, if it has any.
        dtype: of the matrices; adapters and queries are fp32.
        device: where to.
        compat: choices on which releases differ.

    Raises:
        CheckpointError: anything missing or unfit, down to a single tensor.
    """
    compat = compat or Compat()
    transformer, config = load_transformer(base, expert, dtype=dtype, device=device, compat=compat)
    if trainable is None and base.experts[expert].trainable is None:
        return LoadedExpert(transformer, None, config)
    tensors, told = (trainable or base).trainable(expert)
    config = with_trainable(config, told)
    inject_lora(transformer, config, compat)
    queries = any(name.startswith("keyframe_query.") for name in tensors)
    keyframe_query = KeyframeQuery(config).to(device).eval() if queries else None
    install(tensors, transformer, keyframe_query)
    return LoadedExpert(transformer, keyframe_query, config)


@torch.no_grad()
def install(tensors: TensorSet, transformer: nn.Module, keyframe_query: nn.Module | None) -> None:
    """Copy LoRA and queries into a model that has adapters.

    Raises:
        CheckpointError: unless exactly the model's trainable tensors are there; nothing is changed then.
    """
    parameters = trainable_tensors(transformer, keyframe_query)
    tensors.check({name: tuple(parameter.shape) for name, parameter in parameters.items()})
    values = {name: tensors.read(name) for name in parameters}
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def save_expert(
    folder: Path,
    expert: Expert,
    config: ModelConfig,
    *,
    base: Mapping[str, torch.Tensor] | None = None,
    trainable: Mapping[str, torch.Tensor] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write one expert in our form; experts of a folder may be written one after the other.

    Each file appears complete or not at all, `config.json` last.

    Args:
        folder: of the checkpoint.
        expert: which.
        config: of the model; the same for both experts.
        base: the expert's own tensors by our names (`transformer.state_dict()` without adapters).
        trainable: as `memento_model.nn.lora.trainable_tensors` names them.
        notes: for people and programs: step, data, how it was made; JSON values.

    Raises:
        CheckpointError: names or shapes are not the model's, or the folder belongs to another model.
    """
    place, file = folder / expert, folder / "config.json"
    settings = read_json(file) if file.is_file() else {}
    if settings and settings.get("model") != to_our_config(config):
        raise CheckpointError(f"{file}: of another model; choose another folder")
    metadata = {"format": FORMAT, "expert": expert}
    written = set(settings.get("experts", {}).get(expert, []))
    if base is not None:
        _check_names(base, base_shapes(config), folder)
        save_tensors(base, place / "base.safetensors", metadata)
        written.add("base")
    if trainable is not None:
        queries = any(name.startswith("keyframe_query.") for name in trainable)
        _check_names(trainable, lora_shapes(config) | (query_shapes(config) if queries else {}), folder)
        save_tensors(trainable, place / "trainable.safetensors", metadata)
        written.add("trainable")
    experts = {**settings.get("experts", {}), expert: sorted(written)}
    made = {"format": FORMAT, "version": VERSION, "model": to_our_config(config), "experts": experts}
    save_json({**made, "notes": {**settings.get("notes", {}), expert: dict(notes or {})}}, file)


def _check_names(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} tensors do not fit the model, e.g. {wrong[0]}; not saved"
        )
