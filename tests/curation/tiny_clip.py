"""A tiny CLIP with made-up numbers in transformers' layout: real loading, real arithmetic, no meaning."""

from __future__ import annotations

from pathlib import Path

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
L14 = {"patch_size": 14, "image_size": 224, "projection_dim": 768}


def save_clip(folder: Path, *, seed: int = 0, **vision) -> Path:
    """Write a whole CLIP, text tower included, as the published repository has it; `vision` overrides."""
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    text = {**VISION, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
    picture = {**VISION, **L14, **vision}
    width = picture["projection_dim"]
    config = CLIPConfig(
        projection_dim=width, text_config={**text, "projection_dim": width}, vision_config=picture
    )
    CLIPModel(config).save_pretrained(folder)
    return folder
