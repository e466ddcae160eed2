"""Weights from one form to another, tensor by tensor: never more than one tensor in memory.

Base weights go to `native`, `diffusers` or `ours`; adapters and queries to `official` (Memento's spelling),
`storymem` (adapters only) or `ours`. Values are not touched unless a type or a merge is asked for.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from memento_model.checkpoints import names
from memento_model.checkpoints.carried import texts_for
from memento_model.checkpoints.choice import open_weights
from memento_model.checkpoints.foreign_config import (
    to_diffusers_config,
    to_native_config,
    to_our_config,
    with_trainable,
)
from memento_model.checkpoints.forms import (
    EXPERTS,
    FOLDERS,
    FORMAT,
    VERSION,
    Checkpoint,
    base_shapes,
)
from memento_model.checkpoints.tensor_files import TensorSet, save_json, stream_tensors
from memento_model.checkpoints.tensor_formats import INDEX_ENDING
from memento_model.config import Compat, Expert, ModelConfig
from memento_model.errors import CheckpointError
from memento_model.nn.lora import lora_factor

Form = Literal["native", "diffusers", "official", "storymem", "ours"]
SHARD_BYTES = 5_000_000_000
STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may change besides names.

    Attributes:
        merge: adapters to add into the base weights; None leaves them.
        dtype: of base weights; None keeps each tensor's.
        compat: decides the scale of adapters that are merged.
        shard_bytes: largest file of a native or diffusers folder.
    """

    merge: Checkpoint | None = None
    dtype: torch.dtype | None = None
    compat: Compat = field(default_factory=Compat)
    shard_bytes: int = SHARD_BYTES


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Tensors to write: names, facts, and where their values come from."""

    facts: dict[str, tuple[torch.dtype, tuple[int, ...]]]
    read: Callable[[str], torch.Tensor]


def convert(source: Path, target: Path, to: str, options: Options | None = None) -> list[str]:
    """Write what `source` holds in another form.

    The target folder appears complete or not at all; a killed conversion is run again.

    Args:
        source: anything `open_weights` opens.
        target: a folder that does not exist yet.
        to: one of `Form`.
        options: merge, type, size of files.

    Returns:
        One line per part written.

    Raises:
        CheckpointError: nothing to convert, a wrong or partial source, or a target that exists.
    """
    options = options or Options()
    if to not in get_args(Form):
        raise CheckpointError(f"no form {to!r}; there are: {', '.join(get_args(Form))}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists already; choose another target or remove it")
    if options.merge and to in ("official", "storymem"):
        raise CheckpointError(f"merged adapters are part of the base weights, which {to} does not hold")
    checkpoint = open_weights(source)
    has_base = to not in ("official", "storymem") and any(p.base for p in checkpoint.experts.values())
    if options.dtype and checkpoint.experts and not has_base:
        raise CheckpointError(
            f"{source}: adapters keep their type, and no base weights are written; leave --dtype out"
        )
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        writer = {"ours": _write_ours, "official": _write_adapters, "storymem": _write_adapters}
        lines = _read_from(checkpoint) + writer.get(to, _write_base)(checkpoint, part, to, options)
        if target.exists():
            target.rmdir()
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return lines


def _read_from(checkpoint: Checkpoint) -> list[str]:
    """Where each expert comes from, if what was named holds several checkpoints."""
    folders = {
        expert: (parts.trainable or parts.base or checkpoint.path).parent.parent
        for expert, parts in checkpoint.experts.items()
        if checkpoint.kind == "ours"
    }
    return [f"{e}-noise expert: from {folder}" for e, folder in folders.items() if folder != checkpoint.path]


def _write_base(checkpoint: Checkpoint, target: Path, to: str, options: Options) -> list[str]:
    held = [expert for expert in checkpoint.experts if checkpoint.experts[expert].base]
    if not held:
        raise CheckpointError(
            f"{checkpoint.path}: holds adapters only; --to {to} needs base weights (or use --to official)"
        )
    lines = []
    for expert in held:
        plan, config = _base_plan(checkpoint, expert, options)
        folder = target / FOLDERS[to][expert]
        if to == "native":
            plan = _renamed(plan, names.from_native, names.to_native)
        count = _write_shards(plan, folder, options.shard_bytes)
        made = to_native_config(config) if to == "native" else to_diffusers_config(config)
        save_json(made, folder / "config.json")
        lines.append(f"{expert}-noise expert: {len(plan.facts)} tensors in {count} files of {folder.name}")
        if checkpoint.experts[expert].trainable and not options.merge:
            lines.append(f"{expert}-noise expert: adapters and queries left out (write them: --to official)")
    return lines


def _write_adapters(checkpoint: Checkpoint, target: Path, to: str, options: Options) -> list[str]:
    held = [expert for expert in checkpoint.experts if checkpoint.experts[expert].trainable]
    if not held:
        raise CheckpointError(f"{checkpoint.path}: holds no adapters; --to {to} needs them")
    lines = []
    for expert in held:
        tensors, config = checkpoint.trainable(expert)
        if config.lora_alpha != config.lora_rank:
            raise CheckpointError(
                f"{checkpoint.path}: alpha {config.lora_alpha} differs from rank {config.lora_rank}, which "
                f"{to} files cannot say"
            )
        notes = checkpoint.notes.get(expert)
        left_out = to == "storymem" and any(name.startswith("keyframe_query.") for name in tensors)
        if left_out:
            tensors = tensors.chosen(name for name in tensors if not name.startswith("keyframe_query."))
            notes = None  # they tell of weights with queries
        spelling = names.STORYMEM if to == "storymem" else names.OFFICIAL[expert]
        plan = _renamed(
            _plan(tensors),
            lambda name: names.from_spelling(name)[0],
            functools.partial(names.to_spelling, spelling=spelling),
        )
        file = target / f"{expert}_noise.safetensors"
        stream_tensors(plan.facts, plan.read, file, {"format": "pt", **texts_for(expert, config, notes)})
        lines.append(f"{expert}-noise expert: {len(plan.facts)} tensors in {file.name}")
        if left_out:
            lines.append(f"{expert}-noise expert: queries left out (write them: --to official)")
    return lines


def _write_ours(checkpoint: Checkpoint, target: Path, to: str, options: Options) -> list[str]:
    lines: list[str] = []
    configs: list[ModelConfig] = []
    listed: dict[Expert, list[str]] = {}
    for expert in EXPERTS:
        parts = checkpoint.experts.get(expert)
        config = None
        for kind in ("base", "trainable"):
            if parts is None or getattr(parts, kind) is None or (kind == "trainable" and options.merge):
                continue
            if kind == "base":
                plan, config = _base_plan(checkpoint, expert, options)
            else:
                tensors, told = checkpoint.trainable(expert)
                plan, config = _plan(tensors), with_trainable(config, told) if config else told
            file = target / expert / f"{kind}.safetensors"
            stream_tensors(plan.facts, plan.read, file, {"format": FORMAT, "expert": expert})
            listed.setdefault(expert, []).append(kind)
            lines.append(f"{expert}-noise expert: {len(plan.facts)} tensors in {expert}/{file.name}")
        configs += [config] if config else []
    if any(config != configs[0] for config in configs):
        raise CheckpointError(f"{checkpoint.path}: the two experts have different sizes")
    notes = {} if options.merge else {e: dict(told) for e, told in checkpoint.notes.items() if e in listed}
    model = to_our_config(configs[0])
    made = {"format": FORMAT, "version": VERSION, "model": model, "experts": listed, "notes": notes}
    save_json(made, target / "config.json")
    return lines


def _base_plan(checkpoint: Checkpoint, expert: Expert, options: Options) -> tuple[Plan, ModelConfig]:
    tensors, config = checkpoint.base(expert)
    plan = _plan(tensors)
    if options.dtype:
        plan = replace(plan, facts={name: (options.dtype, shape) for name, (_, shape) in plan.facts.items()})
    if options.merge is None:
        return plan, config
    adapters, told = options.merge.trainable(expert)
    factor = lora_factor(told, options.compat)
    wrong = [
        name
        for name in adapters
        if ".lora_" in name
        and names.from_native(f"{name.split('.lora_')[0]}.weight") not in base_shapes(config)
    ]
    if wrong:
        raise CheckpointError(f"{adapters.source}: {wrong[0]} has no layer in {checkpoint.path}")
    return replace(plan, read=_merging(tensors, adapters, factor)), config


def _merging(tensors: TensorSet, adapters: TensorSet, factor: float) -> Callable[[str], torch.Tensor]:
    """Values of the base plus factor B A, summed in fp32 and rounded once, when written."""

    def read(name: str) -> torch.Tensor:
        value = tensors.read(name)
        layer = names.to_native(name).removesuffix(".weight")
        down, up = (f"{layer}.lora_{side}.default.weight" for side in "AB")
        if not name.endswith(".weight") or down not in adapters:
            return value
        product = adapters.read(up).float() @ adapters.read(down).float()
        if product.shape != value.shape:
            raise CheckpointError(
                f"{adapters.source}: {down} makes {tuple(product.shape)}, the layer is {tuple(value.shape)}"
            )
        return (value.float() + factor * product).to(value.dtype)

    return read


def _plan(tensors: TensorSet) -> Plan:
    return Plan(
        facts={name: (entry.dtype, entry.shape) for name, entry in tensors.items()}, read=tensors.read
    )


def _renamed(plan: Plan, back: Callable[[str], str], forth: Callable[[str], str]) -> Plan:
    """The same under other names; `back` finds the old one again."""
    read = plan.read
    return Plan(
        facts={forth(name): fact for name, fact in plan.facts.items()}, read=lambda name: read(back(name))
    )


def _write_shards(plan: Plan, folder: Path, shard_bytes: int) -> int:
    """One file, or several and an index; returns how many."""
    shards = list(_shards(plan, shard_bytes))
    if len(shards) == 1:
        stream_tensors(plan.facts, plan.read, folder / f"{STEM}.safetensors", {"format": "pt"})
        return 1
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{STEM}-{number:05d}-of-{len(shards):05d}.safetensors"
        stream_tensors({name: plan.facts[name] for name in shard}, plan.read, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(_bytes(plan, name) for name in plan.facts)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    save_json(index, folder / f"{STEM}{INDEX_ENDING}")
    return len(shards)


def _shards(plan: Plan, shard_bytes: int) -> Iterator[list[str]]:
    shard: list[str] = []
    size = 0
    for name in plan.facts:
        if shard and size + _bytes(plan, name) > shard_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += _bytes(plan, name)
    yield shard


def _bytes(plan: Plan, name: str) -> int:
    dtype, shape = plan.facts[name]
    return dtype.itemsize * torch.Size(shape).numel()
