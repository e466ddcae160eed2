"""What goes over the wire to an OpenAI-compatible server and what comes back, as pure functions."""

from __future__ import annotations

import base64
import email.utils
import io
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from curation.models.chat import LENGTH, REFUSED, STOP, ChatReply, ChatRequest, Part, Picture, Text, Video
from curation.models.vllm_prompt import defuse

SCHEMA, OBJECT, FREE = "json_schema", "json_object", "none"

RETRY, BAD, DECLINED, FATAL = "retry", "bad", "declined", "fatal"

VIDEO_FIELD = "media_io_kwargs"  # by which vLLM is told the rate of frames

SHOWN = 300  # characters of a server's message that reach the user

_CONTROL = re.compile(r"<\|[^|<>\s]{1,60}\|>")  # Qwen's, and most others': the server would obey them
_CLEAN = str.maketrans({code: " " for code in (*range(32), *range(127, 160))})
_NO_FORMAT = re.compile(r"response.?format|json.?schema|json.?object|structured.?output|guided|grammar")
_NO_MODEL = re.compile(r"model_not_found|invalid model name|model.{0,200}(not found|not exist|unknown model)")
_FILTERED = re.compile(r"content.?(filter|management.policy|policy.violation)|moderation|flagged")
_SPENT = re.compile(r"insufficient.?(quota|credit|balance)|exceeded your current quota")
_TRANSIENT = (408, 409, 425, 429)


@dataclass(frozen=True)
class Dialect:
    """What a server was found to take.

    Attributes:
        answers: how answers are bound: json_schema, json_object (the schema is told in words as well), none.
        max_tokens: what the field of that meaning is called; OpenAI's newer models refuse the old name.
    """

    answers: str = SCHEMA
    max_tokens: str = "max_tokens"

    def milder(self, complaint: str) -> Dialect | None:
        """The next one to try after a refusal in these words; None when nothing of it is to blame."""
        said = complaint.lower()
        if self.max_tokens == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, max_tokens="max_completion_tokens")
        if self.answers != FREE and _NO_FORMAT.search(said):
            return replace(self, answers=OBJECT if self.answers == SCHEMA else FREE)
        return None


@dataclass(frozen=True)
class Trouble:
    """Why a request has no answer.

    Attributes:
        kind: `retry` (the next try may succeed), `bad` (the server will not take this request), `declined`
            (it takes exception to the content), `fatal` (it will take none).
        why: one line.
        wait_s: how long the server asks to wait.
        limited: it says that there are too many requests.
        status: of the HTTP answer, if there was one.
    """

    kind: str
    why: str
    wait_s: float | None = None
    limited: bool = False
    status: int | None = None


# -- out --------------------------------------------------------------------------------------------


def time_stamps(num_frames: int, fps: float) -> list[str]:
    """The text before each pair of frames: the middle of the pair, as Qwen3-VL's own processor writes it."""
    last = num_frames - 1
    return [f"<{(first + min(first + 1, last)) / 2 / fps:.1f} seconds>" for first in range(0, num_frames, 2)]


def encode_picture(rgb_hwc_u8: np.ndarray, kind: str, quality: int) -> str:
    """Base64 of a `jpeg` (full colour resolution) or `png` file of a picture uint8 [H, W, 3]."""
    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(rgb_hwc_u8)
    if kind == "png":
        picture.save(out, "PNG", compress_level=1)
    else:
        picture.save(out, "JPEG", quality=quality, subsampling=0)
    return base64.b64encode(out.getvalue()).decode("ascii")


class PartEncoder:
    """Parts of a request as content parts of a message; kept while the part lives, because calls share it.

    Args:
        media: `images`: a video is its frames, each an image, with a time stamp before each pair;
            `video`: a video is one part, JPEG frames in a row, as vLLM takes it.
        picture_format: `jpeg` or `png`; frames in a `video` are always JPEG.
        jpeg_quality: 1 to 100.
    """

    def __init__(self, media: str, picture_format: str, jpeg_quality: int) -> None:
        self._media, self._format, self._quality = media, picture_format, jpeg_quality
        self._kept: WeakKeyDictionary[Part, list[dict[str, Any]]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def content(self, parts: Iterable[Part]) -> list[dict[str, Any]]:
        """Content parts in the order of the parts; a video is several. Equal parts give equal bytes."""
        return [piece for part in parts for piece in self._pieces(part)]

    def _pieces(self, part: Part) -> list[dict[str, Any]]:
        if isinstance(part, Text):
            return [{"type": "text", "text": defuse(part.text, _CONTROL)}]
        with self._lock:
            kept = self._kept.get(part)
        if kept is None:
            kept = self._encode(part)
            with self._lock:
                self._kept[part] = kept
        return kept

    def _encode(self, part: Picture | Video) -> list[dict[str, Any]]:
        if isinstance(part, Picture):
            return [self._image(part.rgb_hwc_u8)]
        if self._media == "video":
            frames = ",".join(encode_picture(f, "jpeg", self._quality) for f in part.frames_thwc_u8)
            return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}]
        pieces = []
        for pair, stamp in enumerate(time_stamps(len(part.frames_thwc_u8), part.fps)):
            pieces.append({"type": "text", "text": stamp})
            pieces.extend(self._image(frame) for frame in part.frames_thwc_u8[2 * pair : 2 * pair + 2])
        return pieces

    def _image(self, rgb_hwc_u8: np.ndarray) -> dict[str, Any]:
        data = encode_picture(rgb_hwc_u8, self._format, self._quality)
        return {"type": "image_url", "image_url": {"url": f"data:image/{self._format};base64,{data}"}}


def video_options(parts: Iterable[Part]) -> dict[str, Any]:
    """The field by which vLLM learns that all frames are meant, and their rate.

    Raises:
        ValueError: two videos of different rates; the field has room for one.
    """
    rates = {part.fps for part in parts if isinstance(part, Video)}
    if len(rates) > 1:
        raise ValueError(f"videos of different rates in one request: {sorted(rates)}")
    return {VIDEO_FIELD: {"video": {"num_frames": -1, "fps": rates.pop()}}} if rates else {}


def messages(request: ChatRequest, content: list[dict[str, Any]], dialect: Dialect) -> list[dict[str, Any]]:
    """System, then prefix and question in one message, so that calls with a common prefix begin alike.

    Args:
        request: for its system prompt and schema.
        content: its encoded prefix and question.
        dialect: unless it binds answers by schema, the schema is added in words, last of all.
    """
    if request.schema and dialect.answers != SCHEMA:
        words = "Answer with one JSON object that follows this JSON schema, and with nothing else:\n"
        schema = json.dumps(request.schema, ensure_ascii=True, sort_keys=True)
        content = [*content, {"type": "text", "text": words + schema}]
    system = [{"role": "system", "content": defuse(request.system, _CONTROL)}] if request.system else []
    return [*system, {"role": "user", "content": content}]


def answer_format(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The field `response_format`, if there is a schema and the server takes it."""
    if not schema or dialect.answers == FREE:
        return {}
    if dialect.answers == OBJECT:
        return {"response_format": {"type": OBJECT}}
    bound = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": SCHEMA, "json_schema": bound}}


def encodable(text: str) -> str:
    """The text with what UTF-8 cannot carry (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


# -- in ---------------------------------------------------------------------------------------------


def read_answer(body: bytes) -> ChatReply | Trouble:
    """The reply in a 200 answer's body; whatever the body holds, nothing is raised."""
    try:
        data = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return Trouble(RETRY, f"the server's answer is no JSON: {one_line(body[:SHOWN].decode('latin-1'))}")
    if isinstance(data, Mapping) and data.get("error") and not data.get("choices"):
        code = _get(data, "error", "code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        return judge(status, data, None)
    choices = _get(data, "choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = _get(first, "message")
    if not isinstance(message, Mapping):
        return Trouble(RETRY, "the server's answer holds no message")
    text, refusal = _text(message.get("content")), _text(message.get("refusal"))
    finish = _get(first, "finish_reason")
    reply = ChatReply(
        text=text,
        finish=LENGTH if finish in ("length", "max_tokens") else STOP,
        tokens_in=_count(_get(data, "usage", "prompt_tokens")),
        tokens_out=_count(_get(data, "usage", "completion_tokens")),
        tokens_cached=_count(_get(data, "usage", "prompt_tokens_details", "cached_tokens")),
    )
    if refusal:
        return replace(reply, finish=REFUSED, error=one_line(refusal))
    if finish == "content_filter":
        return replace(reply, finish=REFUSED, error="a content filter stopped the answer")
    if finish in ("error", "abort"):
        return Trouble(RETRY, f"the server broke off (finish reason {finish})")
    return reply if text is not None or reply.finish == LENGTH else replace(reply, text="")


def judge(status: int, body: object, wait_s: float | None) -> Trouble:
    """What an HTTP error means for the request and for the run.

    Args:
        status: of the HTTP answer.
        body: of it, parsed if it was JSON.
        wait_s: what Retry-After said.
    """
    said = _message(body)
    words = f"{said} {_get(body, 'error', 'code') or _get(body, 'code') or ''}".lower()
    if status in (400, 403, 422, 451) and _FILTERED.search(words):
        kind = DECLINED
    elif status in (401, 402, 403, 404, 405, 410) or _SPENT.search(words):
        kind = FATAL
    elif status in _TRANSIENT or status >= 500:
        kind = RETRY
    else:
        kind = FATAL if _NO_MODEL.search(words) or VIDEO_FIELD in words else BAD
    why = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    return Trouble(kind, why, wait_s, limited=status == 429, status=status)


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a server asks to wait (Retry-After, RFC 9110 10.2.3: seconds or a date), if it does."""
    said = headers.get("retry-after")
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            seconds = float(milliseconds) / 1000
        elif said is None:
            return None
        elif said.strip().isascii() and re.fullmatch(r"\s*[\d.]+\s*", said):
            seconds = float(said)
        else:
            moment = email.utils.parsedate_to_datetime(said).timestamp()
            seconds = moment - (time.time() if now is None else now)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def read_cards(body: bytes) -> list[Mapping[str, Any]]:
    """The model cards in the answer to GET /models; none if it is something else."""
    try:
        data = _get(json.loads(body.decode("utf-8", "replace")), "data")
    except (ValueError, RecursionError):
        return []
    return [card for card in data if isinstance(card, Mapping)] if isinstance(data, list) else []


def card_revision(card: Mapping[str, Any]) -> str:
    """What a server's model card tells of the weights' version, else "unknown".

    A field `revision`, `sha` or `digest` is taken as it is; vLLM's `root` names the commit when the server
    was given a folder of the hub's cache.
    """
    for name in ("revision", "sha", "digest"):
        if isinstance(card.get(name), str) and card[name]:
            return one_line(card[name])[:80]
    commit = re.search(r"/snapshots/([0-9a-f]{40})(/|$)", str(card.get("root", "")))
    return commit[1] if commit else "unknown"


def one_line(text: str) -> str:
    """A message for a log or a table: no control characters, one space at a time, not too long."""
    line = " ".join(encodable(text).translate(_CLEAN).split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "..."


def _message(body: object) -> str:
    """The server's own words in an error body of any of the usual forms."""
    for place in (_get(body, "error", "message"), _get(body, "error"), _get(body, "message"), body):
        if isinstance(place, str) and place.strip():
            return one_line(place)
    return one_line(json.dumps(body, default=str)) if body else ""


def _get(data: object, *path: str) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _text(content: object) -> str | None:
    """A message's text: a string, or a list of parts as some servers send it."""
    if isinstance(content, list):
        content = "".join(str(_get(part, "text") or "") for part in content)
    return encodable(content) if isinstance(content, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
