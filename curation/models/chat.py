"""What a vision-language model is asked and answers: the same for an engine here and a server elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

STOP, LENGTH, REFUSED, ERROR = "stop", "length", "refused", "error"


@dataclass(frozen=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, eq=False)
class Picture:
    """One image: uint8 [H, W, 3] RGB."""

    rgb_hwc_u8: np.ndarray

    @cached_property
    def name(self) -> str:
        """Content hash; equal pictures share it, so that caches hit."""
        return _content_hash(self.rgb_hwc_u8)


@dataclass(frozen=True, eq=False)
class Video:
    """Frames at a constant rate: uint8 [T, H, W, 3] RGB, T even, H and W multiples of 32.

    Qwen3-VL takes one token for each 32x32 pixels of two frames and writes a time stamp before each pair,
    so what is handed over is sampled and sized already and must not be resampled again.
    """

    frames_thwc_u8: np.ndarray
    fps: float

    @cached_property
    def name(self) -> str:
        """Content hash; the rate is part of it, because the model sees time stamps."""
        return _content_hash(self.frames_thwc_u8, str(self.fps))


Part = Text | Picture | Video


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One call.

    Attributes:
        system: the system prompt.
        prefix: the parts that all calls about a sequence have in common, byte for byte; they come first.
        question: what only this call has; its text comes last.
        schema: JSON schema of the answer; the answer is constrained by it while it is decoded.
        max_tokens: of the answer.
    """

    system: str
    prefix: tuple[Part, ...] = ()
    question: tuple[Part, ...] = ()
    schema: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 512


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """What came back. Nothing about a single request is ever raised: it is told here.

    Attributes:
        text: as the model wrote it; None when there is none.
        finish: `stop`; `length` when max_tokens cut it off; `refused` when the model or the server declined;
            `error` when no answer could be had.
        tokens_in, tokens_out: None where unknown.
        tokens_cached: of tokens_in, how many the engine had computed before; None where unknown.
        seconds: from sending to the last token, waiting and retries included.
        error: one line, for `refused` and `error`.
    """

    text: str | None
    finish: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    seconds: float = 0.0
    error: str = ""


class ChatClient(Protocol):
    """A model that answers. Safe to use from several threads; calls of all threads are in flight together.

    Attributes:
        backend: `vllm` or `openai`.
        model_id: as the user named it.
        revision: commit or content hash of the weights; for a server what it reports, else "unknown".
        sampling: temperature, seed and whatever else changes answers; part of every cache key.
    """

    backend: str
    model_id: str
    revision: str
    sampling: Mapping[str, Any]

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Answer all requests, concurrently, in their order.

        Raises:
            StopRun: nothing can be answered at all (no such server, wrong key, no weights).
        """

    def close(self) -> None:
        """Free what is held; the client cannot be used afterwards."""


def _content_hash(pixels_u8: np.ndarray, *more: str) -> str:
    hashed = hashlib.sha256(repr((pixels_u8.shape, *more)).encode())
    hashed.update(np.ascontiguousarray(pixels_u8).data)
    return hashed.hexdigest()
