"""JSON schemas of the answers. They use only what every engine that binds answers by schema can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curation.captions.lint import LintSettings

SUBJECTS, STORY, CAPTION = "subjects", "story", "caption"


def story_schema(labels: Sequence[str], lint: LintSettings) -> dict[str, Any]:
    """A story and one description for each label: as keys, so that none is left out or invented.

    The descriptions come first: the model settles who is who before it tells what happens.
    """
    told = {STORY: _text(lint.story_max_chars)}
    if not labels:
        return _object(told)
    return _object(
        {SUBJECTS: _object({label: _text(lint.description_max_chars) for label in labels}), **told}
    )


def caption_schema(max_chars: int) -> dict[str, Any]:
    """One caption.

    Args:
        max_chars: that the linter allows.
    """
    return _object({CAPTION: _text(max_chars)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(max_chars: int) -> dict[str, Any]:
    # Ends a model that does not stop. The bound lies beyond the linter's, so that a text that is too long
    # is found out and mended instead of being cut in the middle of a sentence.
    return {"type": "string", "minLength": 1, "maxLength": max_chars + max_chars // 4}
