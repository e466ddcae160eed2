"""Encoders for `perf.train_step`: Wan's codec and umT5 as networks of their architecture, far narrower.

Random weights: what they make means nothing, what it costs does. They are shrunk as the debug model is: its
width is 1/27 of the full model's, so the codec's is 4 instead of 96, and the text encoder has two layers of
width 64 instead of 24 of 4096.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from zlib import crc32

import torch

from memento_model.codecs.codec import Codec, WanCodec
from memento_model.codecs.hashed import tokens
from memento_model.codecs.text import TextEncoder
from memento_model.training.cache_encoders import Encoders

CODEC_WIDTH = 4
TEXT_LAYERS = 2
VOCABULARY = 1024


class NarrowText(TextEncoder):
    """A umT5 encoder of random weights; words are numbered by a hash, as its tokenizer is not here."""

    name, revision = "narrow", "1"

    def __init__(self, text_dim: int, text_len: int) -> None:
        from transformers import UMT5Config, UMT5EncoderModel

        torch.manual_seed(0)
        self.text_dim, self.text_len = text_dim, text_len
        config = UMT5Config(
            vocab_size=VOCABULARY, d_model=text_dim, num_heads=4, d_kv=text_dim // 4, d_ff=text_dim * 5 // 2,
            num_layers=TEXT_LAYERS,
        )  # fmt: skip
        self._model: Any = UMT5EncoderModel(config).eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model.device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """Rows of each prompt."""
        made = []
        for prompt in prompts:
            words = tokens(prompt)[: self.text_len]
            ids = torch.tensor([[crc32(word.encode()) % VOCABULARY for word in words]], device=self.device)
            made.append(self._model(input_ids=ids).last_hidden_state[0])
        return made


def narrow_codec() -> WanCodec:
    """Wan's video autoencoder at a 24th of its width."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    return WanCodec(AutoencoderKLWan(base_dim=CODEC_WIDTH), revision="narrow", sliced=False)


@dataclass(frozen=True, kw_only=True)
class NarrowEncoders(Encoders):
    """The same in the place of a run's own, to fill its cache with."""

    def codec_mark(self) -> str:
        """Of the cache's folders."""
        return f"narrow-{CODEC_WIDTH}"

    def text_mark(self) -> str:
        """Of the cache's folders."""
        return f"narrow-{self.text_len}x{self.text_dim}"

    def codec(self, device: torch.device) -> Codec:
        """The codec."""
        return narrow_codec().to(device)

    def text(self, device: torch.device) -> TextEncoder:
        """The text encoder."""
        return NarrowText(self.text_dim, self.text_len).to(device)
