"""LAION's linear aesthetic head on CLIP ViT-L/14, through transformers: pictures in, scores out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from curation import aesthetic_heads, repositories
from curation.engine.stage import StopRun
from curation.optional import MissingExtra, available, install_command, own_command, require
from curation.weights import WeightsMissing

AUTO, OFF, CLIP = "auto", "off", "clip-l14"
PACKAGES = ("torch", "transformers")
HEAD = aesthetic_heads.LINEAR
SIDE, PATCH = 224, 14
BATCH = 8
DIGITS = 3
"""Of a score that are kept: float32 on another processor moves the fifth."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue between 0 and 1, by which CLIP's pictures are normalised."""

_WANTED = {"image_size": SIDE, "patch_size": PATCH, "hidden_act": "quick_gelu"} | {
    "projection_dim": aesthetic_heads.WIDTH
}
_ASSUMED = {"image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "projection_dim": 512}
"""What transformers takes where a CLIP's config.json does not say."""


@dataclass(frozen=True)
class Choice:
    """What scores: `off`, a name of the table or a folder; and why where that was not said."""

    model: str
    why: str = ""


def choose(model: str) -> Choice:
    """Settle `auto`: CLIP where its packages and weights are here, else off.

    Args:
        model: auto, off, a name of the table or a folder.
    """
    if model != AUTO:
        return Choice(model)
    missing = [package for package in PACKAGES if not available(package)]
    if missing:
        return Choice(OFF, f"{' and '.join(missing)} not installed: {install_command('aesthetic')}")
    if repositories.find(CLIP) is None:
        return Choice(OFF, f"no weights here: {own_command('weights pull')} {CLIP}")
    return Choice(CLIP, "torch, transformers and the weights are here")


def folder_of(model: str) -> Path:
    """The folder of a CLIP that the head can be put on, from this machine only.

    Args:
        model: a name of the table or a folder.

    Raises:
        MissingExtra: torch or transformers is not installed.
        WeightsMissing: there is no such folder, or it holds another model.
    """
    missing = [package for package in PACKAGES if not available(package)]
    if missing:
        raise MissingExtra(
            f"aesthetic.model: {' and '.join(missing)} not installed; install with: "
            f"{install_command('aesthetic')}"
        )
    folder = repositories.resolve(model, reads_text=False)
    if odd := _unlike(folder):
        raise WeightsMissing(
            f"aesthetic.model: {folder} is not OpenAI's CLIP ViT-L/14 ({odd}); LAION's head was trained on "
            f"the features of no other: {own_command('weights pull')} {CLIP}"
        )
    return folder


def _unlike(folder: Path) -> str:
    """What of a folder's settings is not CLIP L/14's; a folder without settings is taken for one."""
    file = folder / "config.json"
    if not file.is_file():
        return ""
    try:
        told = json.loads(file.read_text())
        told = told.get("vision_config", told)
        values = {name: told.get(name, assumed) for name, assumed in _ASSUMED.items()}
    except (OSError, ValueError, AttributeError):
        return f"{file.name} is damaged"
    return ", ".join(
        f"{name} {values[name]}, not {wanted}" for name, wanted in _WANTED.items() if values[name] != wanted
    )


def describe(model: str, folder: Path) -> dict[str, Any]:
    """`curation.rows.MODEL` values; the hash is that of the published head."""
    return {
        "part": "aesthetic",
        "tier": "full",
        "backend": f"transformers {version('transformers')}",
        "model_id": f"{repositories.shown_name(model)} + {aesthetic_heads.SOURCE_FILE[HEAD]}",
        "revision": repositories.revision_of(folder),
        "sha256": aesthetic_heads.SOURCE_SHA256[HEAD],
    }


class AestheticScorer:
    """The loaded model, on a GPU where this process may use one."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        torch = require("torch", extra="aesthetic")
        torch.set_num_threads(threads)
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tower = _load(folder).to(self._device)
        self._mean, self._std = (
            torch.tensor(one, device=self._device).reshape(1, 3, 1, 1) for one in (MEAN, STD)
        )

    def scores(self, inputs: Sequence[np.ndarray]) -> list[float]:
        """Raw scores, about 1 to 10.

        Args:
            inputs: what `clip_input` made, uint8 [224, 224, 3] RGB each.
        """
        if not inputs:
            return []
        parts = [self._features(np.stack(inputs[i : i + BATCH])) for i in range(0, len(inputs), BATCH)]
        return [round(float(score), DIGITS) for score in raw_scores(np.concatenate(parts))]

    def _features(self, pictures_nhwc: np.ndarray) -> np.ndarray:
        torch = self._torch
        images_nchw = torch.from_numpy(pictures_nhwc).to(self._device).permute(0, 3, 1, 2).float() / 255
        # cuDNN would round the patches to TF32, and scores should not depend on the processor.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=False):
            found = self._tower(pixel_values=(images_nchw - self._mean) / self._std)
        return found.image_embeds.cpu().numpy()


def raw_scores(features_nd: np.ndarray) -> np.ndarray:
    """Scores of the linear head, float64 [n], of CLIP L/14 image features of any length, [n, 768]."""
    wide_nd = features_nd.astype(np.float64)
    return aesthetic_heads.scores(wide_nd / np.linalg.norm(wide_nd, axis=1, keepdims=True))[HEAD]


def clip_input(picture_hwc: np.ndarray, pixel_aspect: float = 1.0) -> np.ndarray:
    """CLIP's own transform: the short side to 224 by Pillow's bicubic filter, then the middle square.

    Args:
        picture_hwc: uint8 [H, W, 3] RGB.
        pixel_aspect: width over height of a source pixel.

    Returns:
        uint8 [224, 224, 3].
    """
    from PIL import Image

    height, width = picture_hwc.shape[0], picture_hwc.shape[1] * pixel_aspect
    scale = SIDE / min(height, width)
    rows, columns = max(SIDE, int(height * scale)), max(SIDE, int(width * scale))
    small = Image.fromarray(picture_hwc).resize((columns, rows), Image.Resampling.BICUBIC)
    top, left = round((rows - SIDE) / 2), round((columns - SIDE) / 2)
    return np.asarray(small)[top : top + SIDE, left : left + SIDE]


def _load(folder: Path) -> Any:
    """The vision tower of a CLIP in transformers' layout; the text tower in the file is not looked at.

    Raises:
        StopRun: the weights are damaged or of another shape.
    """
    transformers = require("transformers", extra="aesthetic")
    torch = require("torch", extra="aesthetic")
    damaged = require("safetensors", extra="aesthetic").SafetensorError
    config = _config(transformers, folder)
    told, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # it warns of the text tower
    transformers.logging.disable_progress_bar()
    try:
        tower, report = transformers.CLIPVisionModelWithProjection.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=True,
        )
    except (OSError, RuntimeError, ValueError, damaged) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StopRun(f"aesthetic.model: cannot load {folder} ({first})") from error
    finally:
        transformers.logging.set_verbosity(told)
        if bars:
            transformers.logging.enable_progress_bar()
    lacks = sorted({*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])})
    if lacks:
        raise StopRun(f"aesthetic.model: {folder} lacks {len(lacks)} tensors of a CLIP, first {lacks[0]}")
    from curation.cpu_linear import speed_up

    return speed_up(tower.eval().requires_grad_(False))


def _config(transformers: Any, folder: Path) -> Any:
    if (folder / "config.json").is_file():
        return transformers.CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    return transformers.CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, **_WANTED
    )
