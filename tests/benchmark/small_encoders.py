"""Small towers of the real architectures, and their files in every published layout."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
if not find_spec("open_clip"):  # whose import takes seconds
    pytest.skip("open_clip is not installed", allow_module_level=True)

import torch
from safetensors.torch import save_file

from benchmark.encoders import certificate, clip, dinov2, load, tensors, viclip
from benchmark.encoders.clip import Clip
from benchmark.encoders.dinov2 import Dinov2

SMALL_VICLIP = replace(certificate.small_viclip(), size=224, patch=56, width=32, features=32)
SMALL_CLIP = clip.Shape(patch=56, width=64, layers=1, heads=4, features=32)
SMALL_DINOV2 = dinov2.Shape(patch=56, size=280, width=48, layers=1, heads=4)
SMALL_SIZE = 224


def install(monkeypatch, tmp_path):
    """All encoders small, on a machine without any weights; gives the folder where they would be."""
    for name in ("viclip-b16", "viclip-l14"):
        monkeypatch.setitem(viclip.SHAPES, name, SMALL_VICLIP)
    for name in ("clip-b32", "clip-l14"):
        monkeypatch.setitem(clip.SHAPES, name, SMALL_CLIP)
    monkeypatch.setitem(dinov2.SHAPES, "dinov2-b14", SMALL_DINOV2)
    forget()
    return no_weights(monkeypatch, tmp_path)


def forget():
    """Modules that were loaded by names."""
    load._module.cache_clear()
    load._placed.cache_clear()


def no_weights(monkeypatch, tmp_path):
    """A machine without weights; gives the folder where they would be."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder.mkdir()
    return folder


def viclip_state(seed=1):
    return tensors.made_up(partial(viclip.Viclip, SMALL_VICLIP), seed).state_dict()


def clip_state(seed=1, shape=SMALL_CLIP):
    """As open_clip and OpenAI name it, with a part of the text tower."""
    state = tensors.made_up(partial(Clip, shape), seed).state_dict()
    return state | {"logit_scale": torch.zeros(()), "token_embedding.weight": torch.zeros(4, 4)}


def dinov2_state(seed=1, shape=SMALL_DINOV2):
    """As Meta names it."""
    state = tensors.made_up(partial(Dinov2, shape), seed).state_dict()
    return tensors.part_of(state, "vit.") | {"mask_token": torch.zeros(1, shape.width)}


def clip_in_transformers(state):
    """The same tensors as transformers stores a whole CLIP."""
    made = {}
    for name, value in tensors.part_of(state, "visual.").items():
        if name == "proj":
            made["visual_projection.weight"] = value.T.contiguous()
            continue
        for ours, theirs in (
            ("transformer.resblocks.", "encoder.layers."),
            (".attn.", ".self_attn."),
            (".ln_1.", ".layer_norm1."),
            (".ln_2.", ".layer_norm2."),
            (".mlp.c_fc.", ".mlp.fc1."),
            (".mlp.c_proj.", ".mlp.fc2."),
            ("class_embedding", "embeddings.class_embedding"),
            ("positional_embedding", "embeddings.position_embedding.weight"),
            ("conv1.", "embeddings.patch_embedding."),
            ("ln_pre.", "pre_layrnorm."),
            ("ln_post.", "post_layernorm."),
        ):
            name = name.replace(ours, theirs)
        if "in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                made["vision_model." + name.replace("in_proj_", f"{letter}_proj.")] = part.clone()
        else:
            made["vision_model." + name] = value
    made["vision_model.embeddings.position_ids"] = torch.arange(5)
    return made | {"text_model.final_layer_norm.bias": torch.zeros(4), "logit_scale": torch.zeros(())}


def dinov2_in_transformers(state):
    """The same tensors as transformers stores a DINOv2."""
    made = {}
    for name, value in state.items():
        for ours, theirs in (
            ("blocks.", "encoder.layer."),
            (".attn.proj.", ".attention.output.dense."),
            (".ls1.gamma", ".layer_scale1.lambda1"),
            (".ls2.gamma", ".layer_scale2.lambda1"),
            ("cls_token", "embeddings.cls_token"),
            ("mask_token", "embeddings.mask_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
        ):
            name = name.replace(ours, theirs)
        if name.startswith("norm."):
            name = "layer" + name
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                made[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows.clone()
        else:
            made[name] = value
    return made


def write(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def pictures(count, size=(SMALL_SIZE, SMALL_SIZE), seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, *size, 3), dtype=np.uint8)


def zeros(module):
    """A state dict of a module's real shapes that takes no memory."""
    return {name: torch.zeros(()).expand(like.shape) for name, like in module.state_dict().items()}
