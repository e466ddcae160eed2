"""A text encoder without weights: every token becomes a fixed sum of hashed features.

For trying out and testing the model without umT5: deterministic on any machine, knows nothing about language,
but equal words give equal directions, words that share letters lie closer, neighbours and order show.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from memento_model.codecs.text import TextEncoder, clean

TOKENS = re.compile(r"\[[^\[\]]+\]|\w+(?:['-]\w+)*|[^\w\s]")
"""Labels in brackets such as [Person A] are one token; words; other marks alone."""
UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")
"""Scripts that are read character by character."""
END = "</s>"


class HashedText(TextEncoder):
    """The hashed encoder; see the module's text.

    A row is the scaled sum of: the word (weight 0.7), its three-letter pieces (0.7 together), the pair with
    the word before it (0.4), and a sinusoid of its place (0.5). A prompt of more tokens than `text_len` is
    folded: neighbours share a row, so that the end of a long prompt still counts. The last row marks the end.

    Args:
        text_dim: width of a row.
        text_len: most rows of a prompt.
        device: where the rows go.
    """

    name = "hashed"
    revision = "1"

    def __init__(self, text_dim: int = 64, text_len: int = 32, device: torch.device | str = "cpu") -> None:
        if text_dim < 2 or text_len < 2:
            raise ValueError(f"text_dim and text_len are at least 2, not {text_dim} and {text_len}")
        self.text_dim = text_dim
        self.text_len = text_len
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:
        """Where the rows go."""
        return self._device

    def to(self, device: torch.device | str) -> Self:
        """Put rows on another device from now on."""
        self._device = torch.device(device)
        return self

    def encode(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Rows of each prompt, root mean square 1; see `TextEncoder.encode`."""
        return [self._rows(tokens(prompt)).to(self._device) for prompt in prompts]

    def _rows(self, words: list[str]) -> torch.Tensor:
        features_td = np.stack(
            [
                self._token(word, before, place)
                for place, (before, word) in enumerate(zip(["", *words], words, strict=False))
            ]
        )
        if len(words) > self.text_len:
            # The end mark keeps its own row; all before it share the rest evenly.
            groups = np.array_split(features_td[:-1], self.text_len - 1)
            features_td = np.stack([group.sum(axis=0) for group in groups] + [features_td[-1]])
        features_td /= np.sqrt(np.mean(features_td**2, axis=1, keepdims=True))
        return torch.from_numpy(features_td.astype(np.float32))

    def _token(self, word: str, before: str, place: int) -> np.ndarray:
        letters = f"<{word}>"
        pieces = [letters[i : i + 3] for i in range(max(1, len(letters) - 2))]
        spelling = sum(_hashed(f"piece:{piece}", self.text_dim) for piece in pieces)
        return (
            0.7 * _hashed(f"word:{word}", self.text_dim)
            + 0.7 * spelling / math.sqrt(len(pieces))
            + 0.4 * _hashed(f"pair:{before} {word}", self.text_dim)
            + 0.5 * _place(place, self.text_dim)
        )


def tokens(prompt: str) -> list[str]:
    """Tokens of a prompt in lower case (labels as written), then the end mark."""
    spaced = UNSPACED.sub(r" \1 ", clean(prompt))
    found = TOKENS.findall(spaced)
    return [token if token.startswith("[") else token.lower() for token in found] + [END]


@functools.lru_cache(maxsize=100_000)
def _hashed(text: str, width: int) -> np.ndarray:
    """A fixed direction of about `width` independent signs and sizes, mean square 1, from the text's hash."""
    raw = hashlib.shake_128(text.encode()).digest(2 * width)
    uniform = (np.frombuffer(raw, dtype="<u2").astype(np.float64) + 0.5) / 65536
    return (uniform - 0.5) * math.sqrt(12)


def _place(place: int, width: int) -> np.ndarray:
    """Sines and cosines of the place, periods from 2 pi to 10000 times that, mean square 1."""
    half = (width + 1) // 2
    angles = place * 10_000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)])[:width] * math.sqrt(2)
