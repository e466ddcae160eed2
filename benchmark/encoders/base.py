"""What extraction needs of an encoder. It decodes nothing and knows no stories.

Axis letters: n clips, t frames, h, w, c of uint8 RGB pictures, d of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class PixelRecipe(Protocol):
    """From decoded frames to the small pictures that an encoder reads; pure, runs where decoding does."""

    @property
    def name(self) -> str:
        """Of the pictures: size, filter, crop. Encoders of one name share their pictures."""
        ...

    def pictures(self, frames_thwc: np.ndarray) -> np.ndarray:
        """Resize and crop: uint8 [t, h, w, 3] of any size to uint8 [t, h', w', 3] of the recipe's."""
        ...


class FrameEncoder(Protocol):
    """A feature for each frame."""

    kind: str
    """Of its features, see `benchmark.features`: `clip_b32`, `dino_b14`, `clip_l14`."""
    identity: str
    """Hash of all that decides its features: weights, pixels, statistics, precision, version of our code."""
    pixels: PixelRecipe
    batch: int
    """Frames that it likes to get at once on its device."""

    def encode(self, pictures_thwc: np.ndarray) -> np.ndarray:
        """Features of pictures that `pixels` made: float32 [t, d], not normalised to unit length."""
        ...


class ClipEncoder(Protocol):
    """A feature for each clip of eight frames, and for texts in the same space: ViCLIP."""

    kind: str
    """`viclip`; what units it is computed on gives the kinds `viclip_8`, `viclip_24` and `text`."""
    identity: str
    pixels: PixelRecipe
    batch: int
    """Clips that it likes to get at once on its device."""

    def encode(self, pictures_nthwc: np.ndarray) -> np.ndarray:
        """Features of clips: uint8 [n, 8, h, w, 3] of its pixels to float32 [n, d]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features of texts, each cut to what the tower reads: float32 [n, d]."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a text without marks of start and end, not cut, for the audit of prompts."""
        ...


class EncodersMissing(LookupError):
    """No weights for an encoder; the message says where they were sought and the command that brings them."""
