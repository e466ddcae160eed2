"""What a model answered, as checked values: whatever a server sends ends as values or as a fault in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from curation.captions.grammar import replace_hidden
from curation.captions.lint import shorten
from curation.captions.schemas import CAPTION, STORY, SUBJECTS
from curation.engine.store import digest
from curation.models.chat import ChatRequest, Part, Text

MAX_CHARS = 20_000
"""An answer that is longer is no caption; it is not looked at."""
MAX_STARTS = 64
"""Opening braces tried in a search for the answer's object."""
UNREADABLE = "\ufffd"


class AnswerError(ValueError):
    """The answer does not have the form asked for; the message can be shown to the model."""


# -- reading --------------------------------------------------------------------------------------


def read_story(text: str, labels: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The story and its inventory as (label, description) pairs: those asked for in their order, then others.

    Args:
        text: `{"subjects": {label: description}, "story": text}`; a list of objects with `label` and
            `description` is taken too, and labels without their brackets.
        labels: asked for.

    Raises:
        AnswerError: another form. Missing and unknown labels are left to the linter.
    """
    found = read_object(text, {STORY}, {SUBJECTS})
    pairs = [(_label(label, labels), description) for label, description in _pairs(found.get(SUBJECTS, {}))]
    order = {label: i for i, label in enumerate(labels)}
    pairs.sort(key=lambda pair: order.get(pair[0], len(order)))
    inventory = [(label, _line(told, f"the description of {shorten(label)}")) for label, told in pairs]
    return _line(found[STORY], "`story`"), inventory


def read_caption(text: str) -> str:
    """The caption in `{"caption": text}`.

    Raises:
        AnswerError: another form.
    """
    return _line(read_object(text, {CAPTION}, set())[CAPTION], "`caption`")


def read_object(text: str, needed: set[str], allowed: set[str], max_chars: int = MAX_CHARS) -> dict[str, Any]:
    """The one JSON object of an answer; a code fence or words around it are forgiven.

    Args:
        text: the answer.
        needed: keys it must have.
        allowed: further keys it may have.
        max_chars: longer answers are not looked at.

    Raises:
        AnswerError: too long, no object, two of them, a key twice, missing or unknown.
    """
    if len(text) > max_chars:
        raise AnswerError(f"the answer is longer than {max_chars} characters")
    if not text.strip():
        raise AnswerError("the answer is empty")
    found = [one for one in _objects(text) if set(one) & (needed | allowed)]
    wanted = " and ".join(f"`{key}`" for key in sorted(needed | allowed))
    if not found:
        raise AnswerError(f"the answer holds no complete JSON object with {wanted}: {shorten(text)}")
    if len(found) > 1:
        raise AnswerError("the answer holds more than one JSON object: answer with one")
    (only,) = found
    if unknown := sorted(set(only) - needed - allowed):
        raise AnswerError(f"the JSON object has the unknown key {shorten(unknown[0])}: use only {wanted}")
    if missing := sorted(needed - set(only)):
        raise AnswerError(f"the JSON object lacks `{missing[0]}`")
    return only


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text that are not inside another one."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, strict=False)
    found, at = [], text.find("{")
    for _ in range(MAX_STARTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except AnswerError:
            raise
        except (ValueError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise AnswerError(f"the JSON object has the key {shorten(twice[0])} twice")
    return dict(pairs)


def _pairs(subjects: Any) -> list[tuple[str, Any]]:
    if isinstance(subjects, Mapping):
        return list(subjects.items())
    if isinstance(subjects, list) and all(
        isinstance(one, Mapping)
        and isinstance(one.get("label"), str)
        and set(one) == {"label", "description"}
        for one in subjects
    ):
        return [(one["label"], one["description"]) for one in subjects]
    raise AnswerError("`subjects` must be an object with a description for each label")


def _label(written: str, labels: Sequence[str]) -> str:
    return f"[{written}]" if written not in labels and f"[{written}]" in labels else written


def _line(value: Any, name: str) -> str:
    if not isinstance(value, str):
        kind = {bool: "a truth value", int: "a number", float: "a number", list: "a list"}
        raise AnswerError(f"{name} must be text, not {kind.get(type(value), 'an object or null')}")
    if UNREADABLE in value:
        raise AnswerError(f"{name} holds characters that are no text")
    return " ".join(value.split())


# -- keeping --------------------------------------------------------------------------------------


def answer_key(request: ChatRequest, model: Mapping[str, Any]) -> str:
    """The name under which an answer is kept: a hash of all that is sent and of who is asked.

    Args:
        request: what is asked; media enter by the hash of their content.
        model: backend, model, revision and sampling settings.
    """
    return digest(
        {
            "system": request.system,
            "prefix": [_part(part) for part in request.prefix],
            "question": [_part(part) for part in request.question],
            "schema": dict(request.schema),
            "max_tokens": request.max_tokens,
            **model,
        }
    )


def _part(part: Part) -> str:
    if isinstance(part, Text):
        return f"text {part.text}"
    return f"{type(part).__name__} {part.name}"


def storable(text: str, limit: int = MAX_CHARS + 1) -> str:
    """The start of any text in a form that every table, file and terminal can hold.

    Hidden characters other than line ends and tabs (escapes, marks that turn the direction of writing, halves
    of surrogate pairs) become U+FFFD.
    """
    return replace_hidden(text[:limit], UNREADABLE, keep="\n\t")
