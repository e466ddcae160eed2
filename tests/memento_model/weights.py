"""Tiny models of the true architecture, in the forms that weights come in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from memento_model.checkpoints import names
from memento_model.checkpoints.foreign_config import lora_shapes, query_shapes
from memento_model.checkpoints.forms import base_shapes
from memento_model.config import Expert, ModelConfig

TINY = ModelConfig(
    width=24, num_heads=2, num_layers=2, ffn_width=32, freq_dim=16, text_dim=8, text_len=6,
    lora_rank=4, lora_alpha=4,
)  # fmt: skip
TINY_T2V = replace(TINY, in_channels=16)
NATIVE_CONFIG = {
    "_class_name": "WanModel", "model_type": "i2v", "dim": 24, "ffn_dim": 32, "num_heads": 2, "num_layers": 2,
    "freq_dim": 16, "in_dim": 36, "out_dim": 16, "text_len": 6, "eps": 1e-6,
}  # fmt: skip


def random_base(seed: int = 0, config: ModelConfig = TINY) -> dict[str, torch.Tensor]:
    """Base weights by our names."""
    return _random(base_shapes(config), seed)


def random_trainable(
    seed: int = 1, config: ModelConfig = TINY, *, queries: bool = True
) -> dict[str, torch.Tensor]:
    """Adapters and queries by our names."""
    return _random(lora_shapes(config) | (query_shapes(config) if queries else {}), seed)


def _random(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def native_folder(folder: Path, seed: int = 0) -> Path:
    """A native Wan2.2 folder with both experts, the high-noise one in two shards."""
    for expert, shards in (("high", 2), ("low", 1)):
        state = {names.to_native(name): value for name, value in random_base(seed + len(expert)).items()}
        write_sharded(state, folder / f"{expert}_noise_model", shards)
        (folder / f"{expert}_noise_model" / "config.json").write_text(json.dumps(NATIVE_CONFIG))
    return folder


def write_sharded(state: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    """The files that hubs hold: one, or several and an index."""
    folder.mkdir(parents=True)
    if shards == 1:
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
        return
    weight_map = {}
    listed = sorted(state)
    for number in range(shards):
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = listed[number::shards]
        save_file({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def spelt(state: dict[str, torch.Tensor], spelling: names.Spelling) -> dict[str, torch.Tensor]:
    """Adapters and queries as a release spells them."""
    return {names.to_spelling(name, spelling): value for name, value in state.items()}


def released(folder: Path, expert: Expert = "low", seed: int = 1) -> Path:
    """A file such as Memento releases."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"memento_{expert}_noise.safetensors"
    save_file(spelt(random_trainable(seed), names.OFFICIAL[expert]), file)
    return file
