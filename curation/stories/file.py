"""Reading the file of a story script: bytes to plain values, every fault said in one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ERROR, WARNING, NOTE = "error", "warning", "note"
MAX_BYTES = 4 << 20
"""A story of 300 long shots is 0.3 MB; what is larger than this is no story script."""
_JSON5_LINE = re.compile(r"'?line (\d+)")
MAX_JSON5_BYTES = 256 << 10
"""JSON5 is read at about 30 KB a second, so more of it is refused than waited for."""


@dataclass(frozen=True)
class StoryFault:
    """One thing about a story script.

    Attributes:
        level: `error`: it cannot be used; `warning`: it can, mended as the text says, or a part has no
            effect; `note`: worth knowing.
        where: the place: `scene 2, shot 3`; empty for the whole file.
        text: what is wrong and how to mend it, one line.
    """

    level: str
    where: str
    text: str

    def __str__(self) -> str:
        """`error: scene 2, shot 3: ...`."""
        return ": ".join(part for part in (self.level, self.where, self.text) if part)


class StoryError(ValueError):
    """A story script cannot be used; the message has a line for each error."""

    def __init__(self, source: str, faults: Iterable[StoryFault]) -> None:
        self.faults = tuple(faults)
        errors = [f for f in self.faults if f.level == ERROR]
        super().__init__("\n".join(f"{source}: {fault}" for fault in errors))


def load_story_file(path: Path) -> tuple[Any, list[StoryFault]]:
    """The value in a file of JSON or JSON5, UTF-8 with or without a byte order mark.

    Returns:
        The value, None if there is none, and what was found on the way.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            return None, [_error("is a folder: give the story's .json file")]
        if size > MAX_BYTES:
            return None, [_error(f"has {size / 1e6:,.0f} MB: a story script has less than {MAX_BYTES >> 20}")]
        data = path.read_bytes()
    except OSError as error:
        return None, [_error(f"cannot be read ({error.strerror}): check the path")]
    if b"\0" in data[:512] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None, [_error("is no text: give the story's .json file")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return None, [_error(f"line {line} is not UTF-8: save the file as UTF-8")]
    if not text.strip():
        return None, [_error("is empty: write a story into it, or make one with `memento story write`")]
    faults = []
    if data.startswith(b"\xef\xbb\xbf"):
        faults.append(StoryFault(WARNING, "", "begins with a byte order mark: save it as UTF-8 without one"))
    value, found = parse_story_text(text)
    return value, faults + found


def parse_story_text(text: str) -> tuple[Any, list[StoryFault]]:
    """The value of JSON or JSON5 text, None if there is none, and what was found on the way."""
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        twice.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(items)

    faults = []
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        return None, [_error("is nested too deeply for a story")]
    except ValueError as error:
        value, problem = _parse_json5(text, pairs)
        if problem:
            return None, [_error(_no_json(error, problem, text))]
        faults.append(StoryFault(WARNING, "", "is JSON5 (comments, trailing commas): other tools want JSON"))
    for key in dict.fromkeys(twice):
        line = f"key {short(key)} is given twice in one object: the last one counts, remove the other"
        faults.append(StoryFault(WARNING, "", line))
    if not _finite(value):
        return None, [_error("holds a number that is not finite: remove NaN and Infinity")]
    return value, faults


def _parse_json5(text: str, pairs: Any) -> tuple[Any, str]:
    """(value, why not)."""
    import json5

    if len(text) > MAX_JSON5_BYTES:
        return None, f"not tried beyond {MAX_JSON5_BYTES >> 10} KB"
    try:
        return json5.loads(text, object_pairs_hook=pairs), ""
    except RecursionError:
        return None, "nested too deeply"
    except ValueError as error:
        return None, short(re.sub(r"^<string>:(\d+)", r"line \1:", str(error)), 120)


def _no_json(error: ValueError, problem: str, text: str) -> str:
    """What is wrong and where: as JSON, or as JSON5 where reading it came further or was not tried."""
    if not isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {short(str(error), 120)}"
    line = _JSON5_LINE.match(problem)
    if not line or int(line[1]) > error.lineno:
        return f"is neither JSON (line {error.lineno}, column {error.colno}) nor JSON5 ({problem})"
    around = text.splitlines()[error.lineno - 1 :][:1] or [""]
    shown = around[0][max(0, error.colno - 31) : error.colno + 29].strip()
    place = f"line {error.lineno}, column {error.colno}"
    return f"is not JSON: {error.msg} at or before {place}: {short(shown, 80)}"


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(v) for v in value.values())
    return all(_finite(v) for v in value) if isinstance(value, list) else True


def _error(text: str) -> StoryFault:
    return StoryFault(ERROR, "", text)


def short(value: Any, length: int = 60) -> str:
    """A value of any size as a short, printable literal."""
    text = ascii(value) if not isinstance(value, str) else ascii(value[: 2 * length])
    return text if len(text) <= length else text[: length - 3] + "..."
