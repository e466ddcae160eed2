"""Rank-stabilised LoRA on the ten linear layers of every block, through PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from memento_model.checkpoints.names import to_native
from memento_model.config import Compat, ModelConfig

ADAPTER = "default"
"""PEFT's name of the adapter; part of the official tensor names."""
TARGETS = r"blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.net\.(0\.proj|2))"
"""Full match of module names: q, k, v, o of both attentions and both layers of the feed-forward part."""


def lora_factor(config: ModelConfig, compat: Compat) -> float:
    """What B A is multiplied by: alpha / sqrt(rank) as released, or alpha / rank."""
    if config.lora_rank < 1:
        raise ValueError(f"no LoRA of rank {config.lora_rank}")
    return config.lora_alpha / config.lora_rank ** (0.5 if compat.lora_scale == "rs" else 1.0)


def inject_lora(model: nn.Module, config: ModelConfig, compat: Compat) -> None:
    """Put adapters around the model's linear layers, in place; only they stay trainable, in fp32.

    A starts Kaiming uniform and B at zero, so the model computes what it did before.

    Raises:
        ValueError: `config.lora_rank` is 0, or the model has adapters already.
    """
    lora_factor(config, compat)  # refuses rank 0 in our words
    if lora_layers(model):
        raise ValueError("the model has LoRA adapters already")
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        use_rslora=compat.lora_scale == "rs",
        lora_dropout=0.0,
        bias="none",
        target_modules=TARGETS,
    )
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = (
                parameter.data.float()
            )  # bf16 would round away most steps at usual learning rates


def lora_layers(model: nn.Module) -> dict[str, Any]:
    """PEFT's wrapped layers (`LoraLayer`) by module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def trainable_tensors(transformer: nn.Module, keyframe_query: nn.Module | None) -> dict[str, nn.Parameter]:
    """What training changes and checkpoints hold, by official name without the expert's prefix.

    Args:
        transformer: with adapters; base weights are left out even if they are trainable.
        keyframe_query: None for StoryMem's form (LoRA only).

    Returns:
        `blocks.0.self_attn.q.lora_A.default.weight` ..., then `keyframe_query.queries` ...; 824 at full size.
    """
    found = {
        to_native(name): parameter for name, parameter in transformer.named_parameters() if ".lora_" in name
    }
    if keyframe_query is not None:
        found |= {
            f"keyframe_query.{name}": parameter for name, parameter in keyframe_query.named_parameters()
        }
    return found


@dataclass(frozen=True)
class Merged:
    """Base weights as they were before a merge, by module name, on the CPU."""

    originals: dict[str, Tensor]


@torch.no_grad()
def merge_lora(model: nn.Module, *, keep_originals: bool = True) -> Merged:
    """Add factor x B A to the base weights, in place: W + factor B A in fp32, rounded once to W's type.

    Args:
        model: with adapters.
        keep_originals: copy the base weights to the CPU first (as many bytes as they have), so that
            `unmerge_lora` restores them bit for bit; subtracting the product again would not.

    Raises:
        ValueError: no adapters, or merged already.
    """
    layers = _layers(model, merged=False)
    originals = {}
    for name, layer in layers.items():
        weight = layer.get_base_layer().weight
        if keep_originals:
            originals[name] = weight.detach().to("cpu", copy=True)
        factor = layer.scaling[ADAPTER]
        delta = layer.lora_B[ADAPTER].weight.float() @ layer.lora_A[ADAPTER].weight.float()
        weight.copy_(weight.float() + factor * delta.to(weight.device))
        layer.merged_adapters.append(ADAPTER)
    return Merged(originals)


@torch.no_grad()
def unmerge_lora(model: nn.Module, merged: Merged) -> None:
    """Put the base weights back that `merge_lora` kept, bit for bit.

    Raises:
        ValueError: no merged adapters, or the originals were not kept.
    """
    layers = _layers(model, merged=True)
    missing = layers.keys() - merged.originals.keys()
    if missing:
        raise ValueError(f"the base weights of {len(missing)} layers were not kept; load them again")
    for name, layer in layers.items():
        layer.get_base_layer().weight.copy_(merged.originals[name])
        layer.merged_adapters.clear()


def drop_adapters(model: nn.Module) -> None:
    """Take the wrappers off, in place, leaving plain linear layers with the weights they have now."""
    for name, layer in lora_layers(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())


def _layers(model: nn.Module, *, merged: bool) -> dict[str, Any]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA adapters")
    if any(layer.merged != merged for layer in layers.values()):
        raise ValueError(f"the LoRA adapters are {'not merged' if merged else 'merged already'}")
    return layers
