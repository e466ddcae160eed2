"""Story scripts: read, check, write. What writers, generation and the benchmark agree on.

    story = read_story(Path("robinson.json"))
    for shot in story.shots:
        print(shot.stem, shot.cut, shot.prompt)

What the public files get wrong is mended and said (`story.faults`); what cannot be mended is a `StoryError`
with a line for each error.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from curation.stories.check import check_prompts
from curation.stories.file import (
    ERROR,
    MAX_BYTES,
    NOTE,
    WARNING,
    StoryError,
    StoryFault,
    load_story_file,
    parse_story_text,
)
from curation.stories.form import (
    FORMS,
    MEMENTO,
    STORYMEM,
    Scene,
    ShotPrompt,
    StoryScript,
    as_json,
    converted,
    json_schema,
    safe_name,
)
from curation.stories.parse import Parser

__all__ = [
    "ERROR",
    "FORMS",
    "MAX_BYTES",
    "MEMENTO",
    "NOTE",
    "STORYMEM",
    "WARNING",
    "Scene",
    "ShotPrompt",
    "StoryError",
    "StoryFault",
    "StoryScript",
    "as_json",
    "check_story",
    "converted",
    "json_schema",
    "parse_story",
    "parse_story_text",
    "read_story",
    "safe_name",
    "write_story",
]


def read_story(path: Path | str) -> StoryScript:
    """The story in a file, in either form.

    Args:
        path: JSON or JSON5, UTF-8.

    Returns:
        The story; `faults` says what was found and mended.

    Raises:
        StoryError: the file cannot be used; a line for each error.
    """
    story, faults = _read(Path(path))
    if story is None:
        raise StoryError(str(path), faults)
    return story


def check_story(path: Path | str) -> list[StoryFault]:
    """Everything that is wrong with a file, in its order; it can be used if none is an error."""
    return _read(Path(path))[1]


def parse_story(value: Any, key: str = "story") -> tuple[StoryScript | None, list[StoryFault]]:
    """A story from the value of its file.

    Args:
        value: what JSON gives.
        key: name of the story's folder; made safe.

    Returns:
        The story, None if there is an error, and everything that was found.
    """
    parser = Parser()
    story = parser.story(value, safe_name(key))
    faults = [*parser.faults, *(check_prompts(story) if story else ())]
    faults = list(dict.fromkeys(faults))
    if story is None or any(fault.level == ERROR for fault in faults):
        return None, faults
    return replace(story, faults=tuple(faults)), faults


def write_story(story: StoryScript, path: Path | str, form: str | None = None) -> None:
    """Write a story to a file, whole or not at all; reading it gives the same story.

    Args:
        story: what to write.
        path: of the file; an existing one is replaced.
        form: `storymem` or `memento`; the story's own if not given. See `converted` for what changes.

    Raises:
        StoryError: what would be written could not be read back.
        ValueError: no such form.
    """
    path = Path(path)
    value = as_json(converted(story, form or story.form))
    again, faults = parse_story(value, path.stem)
    if again is None:
        raise StoryError(str(path), faults)
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> tuple[StoryScript | None, list[StoryFault]]:
    value, faults = load_story_file(path)
    if any(fault.level == ERROR for fault in faults):
        return None, faults
    story, found = parse_story(value, path.stem)
    faults += found
    return (replace(story, faults=tuple(faults)) if story else None), faults
