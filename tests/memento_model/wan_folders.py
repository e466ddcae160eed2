"""Tiny Wan2.2 folders as they are published: two experts, the video codec, umT5 with its tokenizer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from memento_model.checkpoints import names
from memento_model.checkpoints.foreign_config import to_native_config
from memento_model.config import ModelConfig
from memento_model.nn.transformer import MementoTransformer, initialise
from tests.memento_model.weights import random_trainable, spelt
from tests.support import GOLDEN

CONFIG = ModelConfig(
    width=24, num_heads=2, num_layers=2, ffn_width=32, freq_dim=16, text_dim=48, text_len=12,
    lora_rank=4, lora_alpha=4,
)  # fmt: skip
T2V = replace(CONFIG, in_channels=16)
WORDS = ["a", "cat", "dog", "sits", "runs", "on", "the", "mat", "&", "red"]


def wan_folder(folder: Path, config: ModelConfig = CONFIG, seed: int = 0, *, parts: bool = True) -> Path:
    """A native folder; with `parts`, codec and text encoder lie beside the experts."""
    for number, expert in enumerate(("high", "low")):
        model = MementoTransformer.from_config(config)
        initialise(model, seed + number)
        with torch.no_grad():
            model.proj_out.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
        place = folder / f"{expert}_noise_model"
        place.mkdir(parents=True)
        state = {names.to_native(name): value for name, value in model.state_dict().items()}
        save_file(state, place / "diffusion_pytorch_model.safetensors")
        (place / "config.json").write_text(json.dumps(to_native_config(config)))
    if parts:
        model = GOLDEN / "model"
        shutil.copy(model / "vae_tiny/vae.safetensors", folder / "Wan2.1_VAE.safetensors")
        shutil.copy(model / "t5_tiny/t5.safetensors", folder / "models_t5_umt5-xxl-enc-bf16.safetensors")
        tokenizer(folder / "google/umt5-xxl")
    return folder


def tokenizer(folder: Path) -> Path:
    """Of the tiny encoder's vocabulary: words, end mark 1, unknown 2."""
    import tokenizers

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: 3 + i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def adapters(folder: Path, *, queries: bool = True) -> Path:
    """Files of LoRA as they are released: Memento's with queries, StoryMem's without."""
    folder.mkdir(parents=True)
    for seed, expert in enumerate(("high", "low")):
        state = {
            name: value * 0.05 for name, value in random_trainable(seed, CONFIG, queries=queries).items()
        }
        save_file(spelt(state, names.OFFICIAL[expert]), folder / f"backbone_{expert}_noise.safetensors")
    return folder
