"""Numbers of the official memory transformer at tiny sizes: weights, inputs, outputs, gradients.

`hd32x2` (two heads of 32) travels with the repository, `hd128x1` (one head of 128) only beside a checkout.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
load_file = pytest.importorskip("safetensors.torch").load_file

from memento_model.checkpoints.names import from_native
from memento_model.config import Compat, Layout, ModelConfig
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.transformer import MementoTransformer
from tests.support import GOLDEN, SHARED

NAMES = ("hd32x2", "hd128x1")
BLEND = Compat(no_identity_attention="blend")  # what the official training code computes


def golden(name):
    """The numbers of one configuration, or skip."""
    for root in (GOLDEN / "model" / name, SHARED / "golden/model" / name):
        if root.exists():
            return Golden(root)
    return pytest.skip(f"golden numbers not present: {name}")


@dataclass(frozen=True)
class Golden:
    root: Path

    @cached_property
    def config(self):
        return json.loads((self.root / "config.json").read_text())

    @cached_property
    def forward(self):
        return load_file(self.root / "forward.safetensors")

    @cached_property
    def keyframe(self):
        return load_file(self.root / "keyframe.safetensors")

    @cached_property
    def train_step(self):
        return load_file(self.root / "train_step.safetensors")

    @cached_property
    def base(self):
        return load_file(self.root / "base.safetensors")

    @cached_property
    def trainable(self):
        """Official tensors by name below the PEFT wrapper, e.g. `keyframe_query.queries`."""
        whole = load_file(self.root / "trainable.safetensors")
        return {name.split("base_model.model.")[1]: value for name, value in whole.items()}

    def model_config(self, in_channels=36):
        shape, lora = self.config["config"], self.config["lora"]
        return ModelConfig(
            in_channels=in_channels,
            width=shape["dim"],
            num_heads=shape["num_heads"],
            num_layers=shape["num_layers"],
            ffn_width=shape["ffn_dim"],
            freq_dim=shape["freq_dim"],
            text_dim=shape["text_dim"],
            text_len=shape["text_len"],
            lora_rank=lora["rank"],
            lora_alpha=lora["alpha"],
        )

    def transformer(self, in_channels=36, compat=BLEND):
        """With the official weights, without adapters."""
        model = MementoTransformer.from_config(self.model_config(in_channels), compat=compat)
        weights = {from_native(name): value.clone() for name, value in self.base.items()}
        weights["patch_embedding.weight"] = weights["patch_embedding.weight"][:, :in_channels].clone()
        model.load_state_dict(weights, strict=True)
        return model

    def keyframe_query(self):
        module = KeyframeQuery(self.model_config())
        prefix = "keyframe_query."
        weights = {
            name.removeprefix(prefix): value.clone()
            for name, value in self.trainable.items()
            if name.startswith(prefix)
        }
        module.load_state_dict(weights, strict=True)
        return module

    def inputs(self, case):
        """Arguments of one forward case, batch of one."""
        numbers, first, last = self.forward, *case["frame_range"]
        noisy, condition = numbers["noisy"][:, first:last], numbers["cond"][:, first:last]
        captions = [numbers["identity_text"][None]]
        if case["identity_frames"] == 2:
            noisy = torch.cat((numbers["noisy_identity_2"], noisy), 1)
            condition = torch.cat((numbers["cond_identity_2"], condition), 1)
            captions.insert(0, numbers["identity_text_2"][None])
        latents = noisy if case.get("in_channels") == 16 else torch.cat((noisy, condition))
        return {
            "latents_bcfhw": latents[None],
            "timestep_b": torch.tensor([case["timestep"]]),
            "text_bld": numbers["text"][None],
            "positions_bf": torch.tensor([case["temporal_positions"]]),
            "layout": layout(case),
            "identity_text": captions if case["identity_frames"] else None,
            "attention": "split" if case["split_attention"] else "joint",
        }


def layout(case):
    return Layout(**{f"{part}_frames": case[f"{part}_frames"] for part in ("identity", "memory", "target")})


def relative(found, wanted):
    """Largest difference over the largest magnitude."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
