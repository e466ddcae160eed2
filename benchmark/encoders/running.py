"""Modules as encoders: batches to the device, normalised there, features back as float32.

torch is imported when something is encoded: a run that finds all features on disk does without.

Axis letters: n clips or texts, t frames, h, w, c of uint8 pictures, d of features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.encoders.base import PixelRecipe
from benchmark.encoders.pixels import Recipe
from benchmark.encoders.tokenizer import token_table, tokenize

if TYPE_CHECKING:
    from torch import Tensor

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Ours -> torch's names."""
TEXT_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Where and how a module runs.

    Attributes:
        module: gives the module on its device in its precision; the first call loads it.
        recipe: of its pictures.
        device: torch's name of it.
        precision: fp32, bf16 or fp16.
        batch: pictures or clips at once.
        width: of the features.
    """

    module: Callable[[], Any]
    recipe: Recipe
    device: str
    precision: str
    batch: int
    width: int

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Features of pictures or clips, one per row: uint8 [n, ..., h, w, 3] to float32 [n, d]."""
        import torch

        module, rows = self.module(), []
        with exact():
            for start in range(0, len(pictures), self.batch):
                images = self._normalised(pictures[start : start + self.batch])
                rows.append(module(images).float().cpu())
        return torch.cat(rows).numpy() if rows else np.zeros((0, self.width), np.float32)

    def _normalised(self, pictures: np.ndarray) -> Tensor:
        """uint8 [..., h, w, 3] to [..., 3, h, w] of the device and precision."""
        import torch

        whole = (
            pictures if pictures.flags.writeable else pictures.copy()
        )  # torch warns of what it might write to
        values = torch.from_numpy(whole).to(self.device).movedim(-1, -3).float() / 255
        mean, std = torch.tensor([self.recipe.mean, self.recipe.std], device=self.device)[..., None, None]
        return ((values - mean) / std).to(getattr(torch, PRECISIONS[self.precision]))


class Frames:
    """A `benchmark.encoders.base.FrameEncoder` of a module."""

    def __init__(self, kind: str, identity: str, runner: Runner) -> None:
        self.kind, self.identity, self._runner = kind, identity, runner
        self.pixels: PixelRecipe = runner.recipe.pixels
        self.batch = runner.batch

    def encode(self, pictures_thwc: np.ndarray) -> np.ndarray:
        """See `FrameEncoder`.

        Raises:
            ValueError: they are not pictures that its `pixels` made.
        """
        _check(pictures_thwc, 4, "[t, h, w, 3]")
        return self._runner.features(pictures_thwc)


class Clips:
    """A `benchmark.encoders.base.ClipEncoder` of ViCLIP."""

    def __init__(self, identity: str, runner: Runner) -> None:
        self.kind = "viclip"
        self.identity, self._runner = identity, runner
        self.pixels: PixelRecipe = runner.recipe.pixels
        self.batch = runner.batch

    def encode(self, pictures_nthwc: np.ndarray) -> np.ndarray:
        """See `ClipEncoder`.

        Raises:
            ValueError: they are not clips of eight pictures that its `pixels` made.
        """
        _check(pictures_nthwc, 5, "[n, 8, h, w, 3]")
        return self._runner.features(pictures_nthwc)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `ClipEncoder`."""
        import torch

        module, rows = self._runner.module(), []
        with exact():
            for start in range(0, len(texts), TEXT_BATCH):
                table = token_table(texts[start : start + TEXT_BATCH], module.text_length)
                tokens_nl = torch.from_numpy(table).to(self._runner.device)
                rows.append(module.text_encoder(tokens_nl).float().cpu())
        return torch.cat(rows).numpy() if rows else np.zeros((0, self._runner.width), np.float32)

    def tokenize(self, text: str) -> list[int]:
        """See `ClipEncoder`."""
        return tokenize(text)


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """Inference with float32 products as they are written: no TF32, the same algorithms every time."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check(pictures: np.ndarray, rank: int, wanted: str) -> None:
    if pictures.dtype != np.uint8 or pictures.ndim != rank or pictures.shape[-1] != 3:
        raise ValueError(f"pictures must be uint8 {wanted}, not {pictures.dtype} {list(pictures.shape)}")
