"""A chat request as vLLM takes it: the model's template around words and placeholders, media beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from curation.models.chat import ChatRequest, Part, Picture, Text, Video

Template = Callable[[list[dict[str, Any]]], str]
"""Messages in the form of chat templates -> prompt that ends where the answer begins."""

PIXELS_PER_TOKEN_SIDE = 32
"""Qwen3-VL: patches of 16 pixels, merged two by two (its processor's patch_size and merge_size)."""


def prompt(request: ChatRequest, template: Template, control: re.Pattern[str]) -> dict[str, Any]:
    """The prompt with its media; equal parts give equal text, names and metadata in whichever call they are.

    Args:
        request: what is asked.
        template: the model's chat template.
        control: from `control_pattern`, for the model's tokenizer.

    Raises:
        ValueError: a part has a shape that the model cannot take as it is.
    """
    parts = (*request.prefix, *request.question)
    messages: list[dict[str, Any]] = []
    if request.system:
        messages.append({"role": "system", "content": defuse(request.system, control)})
    messages.append({"role": "user", "content": [_content(part, control) for part in parts]})
    made: dict[str, Any] = {"prompt": template(messages)}
    media: dict[str, list[Any]] = {}
    uuids: dict[str, list[str]] = {}
    for part in parts:
        if isinstance(part, Text):
            continue
        kind, item = ("video", video_item(part)) if isinstance(part, Video) else ("image", image_item(part))
        media.setdefault(kind, []).append(item)
        uuids.setdefault(kind, []).append(part.name)
    if media:
        made |= {"multi_modal_data": media, "multi_modal_uuids": uuids}
    return made


def _content(part: Part, control: re.Pattern[str]) -> dict[str, str]:
    if isinstance(part, Text):
        return {"type": "text", "text": defuse(part.text, control)}
    return {"type": "video" if isinstance(part, Video) else "image"}


def video_item(video: Video) -> tuple[Any, dict[str, Any]]:
    """Frames and the metadata from which the model's time stamps are made; sampling is over already."""
    shape = video.frames_thwc_u8.shape
    fits = len(shape) == 4 and shape[0] >= 2 and shape[0] % 2 == 0 and shape[3] == 3
    if not fits or any(side == 0 or side % PIXELS_PER_TOKEN_SIDE for side in shape[1:3]):
        raise ValueError(
            f"video of shape {shape}: wanted [T, H, W, 3], T even, H and W multiples of "
            f"{PIXELS_PER_TOKEN_SIDE}"
        )
    if video.fps <= 0:
        raise ValueError(f"video at {video.fps} frames a second")
    return video.frames_thwc_u8, {
        "fps": float(video.fps),
        "duration": shape[0] / video.fps,
        "total_num_frames": shape[0],
        "frames_indices": list(range(shape[0])),
        "video_backend": "pyav",
        "do_sample_frames": False,
    }


def image_item(picture: Picture) -> Any:
    """The picture as the image processors of every model take it."""
    from PIL import Image

    shape = picture.rgb_hwc_u8.shape
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"picture of shape {shape}: wanted [H, W, 3]")
    return Image.fromarray(picture.rgb_hwc_u8)


def control_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the tokens by which a chat template structures a prompt (`<|im_end|>`, ...).

    Tokens of one character or with blanks are left out: a space does not break them.
    """
    breakable = (token for token in tokens if len(token) > 1 and not re.search(r"\s", token))
    longest_first = sorted(breakable, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def defuse(text: str, control: re.Pattern[str]) -> str:
    """`text` as words only: a control token in it is broken by a space, so that nobody's text ends a turn.

    Lone surrogates, which tokenizers refuse, become question marks, and NUL becomes U+FFFD.
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    while control.search(text):  # what is left on both sides of a broken token may form another
        text = control.sub(lambda found: found[0][0] + " " + found[0][1:], text)
    return text


def template_of(folder: Path) -> tuple[Template, re.Pattern[str]]:
    """The chat template of the model in `folder`, and the pattern of its control tokens.

    Raises:
        ValueError: it has no chat template.
    """
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(str(folder), local_files_only=True)
    tokenizer = processor.tokenizer
    text = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if not text:
        raise ValueError(f"{folder} has no chat template (chat_template.jinja or tokenizer_config.json)")

    def template(messages: list[dict[str, Any]]) -> str:
        return tokenizer.apply_chat_template(
            messages, chat_template=text, tokenize=False, add_generation_prompt=True
        )

    marked = [token for token in tokenizer.get_added_vocab() if token[0] == "<" and token[-1] == ">"]
    return template, control_pattern([*tokenizer.all_special_tokens, *marked])
