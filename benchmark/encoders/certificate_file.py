"""Makes the reference numbers of `benchmark.encoders.certificate` with other libraries than the encoders'.

For maintainers: `python -m benchmark.encoders.certificate --write` in a checkout with its tests, with the
extras `eval` and `train`. Nothing is written unless our ViCLIP gives the numbers of the published code first.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.encoders import certificate, pixels, tensors

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
HEAD_ROWS = 4
AGREES = 1e-5


def main() -> None:
    """The command: `--write` writes the file, nothing else prints the certificate."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.encoders.certificate")
    parser.add_argument("--write", action="store_true", help="make the reference numbers again")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=sorted(certificate.TOLERANCE))
    chosen = parser.parse_args()
    if chosen.write:
        path = Path(__file__).parent / "data" / certificate.FILE
        write(path)
        sys.stdout.write(f"{path}: {path.stat().st_size} bytes\n")
        return
    for check in certificate.certificate(chosen.device, chosen.precision):
        sys.stdout.write(check.line + "\n")


def write(path: Path) -> None:
    """Compute all reference numbers and write them: complete, or not at all."""
    arrays = _viclip() | _heads()
    for recipe in certificate.RECIPES:
        arrays[f"pixels {recipe.name}"] = certificate.sampled(_independent(recipe))
    arrays["viclip"] = certificate.viclip_clips("cpu", "fp32").numpy()
    for name in ("clip", "clip full"):
        arrays[name] = _clip(certificate.images(64, 112 if "full" in name else 64, "cpu", "fp32"))
    for name in ("dinov2", "dinov2 full"):
        arrays[name] = _dinov2(certificate.images(56, 98 if "full" in name else 56, "cpu", "fp32"))
    made = io.BytesIO()
    np.savez_compressed(made, allow_pickle=False, **arrays)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(made.getvalue())
    os.replace(part, path)


def _viclip() -> dict[str, np.ndarray]:
    """Tokens, text tower and text features of the published code; its clip features are compared."""
    import torch
    from safetensors.torch import load_file

    from benchmark.encoders import viclip

    settings = json.loads((GOLDEN / "viclip" / "config.json").read_text())
    state, expected = (
        load_file(GOLDEN / "viclip" / "weights.safetensors"),
        load_file(GOLDEN / "viclip" / "io.safetensors"),
    )
    vision = tensors.part_of(state, "vision_encoder.")
    tower = tensors.assembled(lambda: viclip.VisionTower(certificate.golden_viclip()), vision, "golden")
    recipe = pixels.VICLIP["vbench-crop-clip"]
    images = recipe.pixels.pictures(golden_frames())
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(row)[:, None, None] for row in (recipe.mean, recipe.std))
    drift = (tower(((values - mean) / std)[None])[0] - expected["video.vbench.forward.raw"]).abs().max()
    if drift > AGREES:
        raise SystemExit(f"our ViCLIP is {drift:.2g} from the published code's features: nothing was written")
    arrays = {name: value.numpy() for name, value in state.items() if name.startswith("text_encoder.")}
    return arrays | {
        "texts": np.frombuffer(json.dumps(settings["texts"]).encode(), np.uint8),
        "tokens": expected["text.tokens"].numpy().astype(np.int32),
        "viclip texts": expected["text.feature_raw"].numpy(),
    }


def golden_frames() -> np.ndarray:
    """Frames of the published code's numbers, uint8 [8, 480, 832, 3]."""
    from PIL import Image

    paths = sorted((GOLDEN / "viclip" / "frames").glob("*.png"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def _heads() -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    expected = load_file(GOLDEN / "aesthetic" / "aesthetic.safetensors")
    return {
        "aesthetic features": expected["features"][:HEAD_ROWS],
        "aes_mlp_raw": expected["mlp_score_f64"][:HEAD_ROWS],
        "aes_linear_raw": expected["linear_score_f64"][:HEAD_ROWS],
    }


def _independent(recipe: pixels.Pixels) -> np.ndarray:
    """Pictures of the made-up frames by Pillow, torchvision or OpenCV."""
    import cv2
    import torch
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import center_crop, resize

    frames = certificate.frames()
    size = list(recipe.size(*frames.shape[1:3]))
    if recipe.shape == pixels.CENTER:
        size = [recipe.short_side, int(recipe.short_side * 832 / 480)]
    if recipe.method == pixels.OPENCV:
        made = np.stack([cv2.resize(frame, tuple(size[::-1])) for frame in frames])
    elif recipe.method == pixels.SMOOTH:
        small = [Image.fromarray(f).resize((size[1], size[0]), Image.Resampling.BICUBIC) for f in frames]
        made = np.stack([np.asarray(picture) for picture in small])
    else:
        mode = {pixels.BICUBIC: InterpolationMode.BICUBIC, pixels.BILINEAR: InterpolationMode.BILINEAR}
        images = torch.from_numpy(frames).permute(0, 3, 1, 2)
        made = resize(images, size, mode[recipe.method], antialias=False).permute(0, 2, 3, 1).numpy()
    if recipe.shape == pixels.CENTER:
        images = torch.from_numpy(made).permute(0, 3, 1, 2)
        made = center_crop(images, [pixels.SIDE, pixels.SIDE]).permute(0, 2, 3, 1).numpy()
    return made


def _clip(images_nchw: Any) -> np.ndarray:
    """Features by transformers' CLIP; of wide pictures the mean of the unit features of two squares."""
    from benchmark.encoders import clip

    shape = certificate.small_clip()
    state = tensors.made_up(lambda: clip.Clip(shape), certificate.SEED).state_dict()
    model = transformers_clip(shape, tensors.part_of(state, "visual."))
    wide = images_nchw.shape[3]
    squares = [images_nchw[..., left : left + shape.size] for left in dict.fromkeys((0, wide - shape.size))]
    features = [model(pixel_values=square).image_embeds.numpy() for square in squares]
    return features[0] if len(features) == 1 else np.mean([certificate.unit(f) for f in features], axis=0)


def transformers_clip(shape: Any, state: tensors.State) -> Any:
    """The vision tower of transformers with the numbers of ours."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    settings = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        projection_dim=shape.features,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.size,
        patch_size=shape.patch,
        hidden_act="quick_gelu",
    )
    made = {}
    for name, value in state.items():
        if "in_proj" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                made[name.replace("in_proj_", f"{letter}_proj.")] = part
        else:
            made[name] = value
    renames = {
        "transformer.resblocks.": "encoder.layers.",
        ".attn.": ".self_attn.",
        ".ln_1.": ".layer_norm1.",
        ".ln_2.": ".layer_norm2.",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.": "embeddings.patch_embedding.",
        "ln_pre.": "pre_layrnorm.",
        "ln_post.": "post_layernorm.",
    }
    projection = made.pop("proj").T.contiguous()
    made = {f"vision_model.{name}": value for name, value in tensors.renamed(made, renames).items()}
    model = CLIPVisionModelWithProjection(settings).eval()
    model.load_state_dict(made | {"visual_projection.weight": projection}, strict=True)
    return model.requires_grad_(False).to(torch.float32)


def _dinov2(images_nchw: Any) -> np.ndarray:
    """Features by transformers' DINOv2, its table of positions stretched as the hub's code does."""
    import torch

    from benchmark.encoders import dinov2

    shape = certificate.small_dinov2()
    state = tensors.part_of(
        tensors.made_up(lambda: dinov2.Dinov2(shape), certificate.SEED).state_dict(), "vit."
    )
    model = transformers_dinov2(shape, state)
    grid = images_nchw.shape[2] // shape.patch, images_nchw.shape[3] // shape.patch
    table = dinov2.positions(state["pos_embed"], grid)
    model.embeddings.interpolate_pos_encoding = lambda embeddings, height, width: table
    with torch.no_grad():
        return model(pixel_values=images_nchw).pooler_output.numpy()


def transformers_dinov2(shape: Any, state: tensors.State) -> Any:
    """The DINOv2 of transformers with the numbers of ours."""
    from transformers import Dinov2Config, Dinov2Model

    settings = Dinov2Config(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        image_size=shape.size,
        patch_size=shape.patch,
    )
    made = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                made[name.replace(".attn.qkv.", f".attention.attention.{part}.")] = rows
        else:
            made[name] = value
    renames = {
        "blocks.": "encoder.layer.",
        ".attn.proj.": ".attention.output.dense.",
        ".ls1.gamma": ".layer_scale1.lambda1",
        ".ls2.gamma": ".layer_scale2.lambda1",
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
    }
    made = tensors.renamed(made, renames)
    made = {
        ("layernorm." + n.removeprefix("norm.") if n.startswith("norm.") else n): v for n, v in made.items()
    }
    # Not load_state_dict: names inside change between versions, those of files do not.
    made["embeddings.mask_token"] = state["pos_embed"][0, :1]  # unused without masks
    loaded: Any = Dinov2Model.from_pretrained(
        None, config=settings, state_dict=made, output_loading_info=True
    )
    model, report = loaded
    if lacking := report["missing_keys"] or report["unexpected_keys"]:
        raise SystemExit(f"transformers has other names for {', '.join(sorted(lacking))}")
    return model.eval().requires_grad_(False)
