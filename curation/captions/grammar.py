"""The trainer's caption grammar: compose it, take it apart, and name what breaks it.

A caption is one line, `global caption: [Person A]: look, [Animal B]: look; shot caption: text`. The trainer
splits it at the literal lower-case `shot caption:` after a leading `global caption:`; without these it takes
the whole text for both parts. A label stands for a subject wherever it is mentioned; the global part says
who that is, for each subject of the shot. A shot without subjects has an empty global part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

GLOBAL, SHOT = "global caption:", "shot caption:"
LABEL = re.compile(r"\[[A-Z][A-Za-z]* [A-Z]{1,2}\]")
AFTER_HEAD = frozenset(
    [
        *(
            "with",
            "wearing",
            "in",
            "on",
            "of",
            "at",
            "by",
            "from",
            "and",
            "or",
            "who",
            "whose",
            "that",
            "which",
        ),
        *("as", "under", "over", "beside", "near", "to", "holding", "carrying", "dressed", "clad", "having"),
        *("sitting", "standing", "covered", "made", "first", "seen"),
    ]
)
"""Words that end the head of a description."""
HIDDEN = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
"""Unicode categories of characters that have no place in a caption."""

Inventory = Sequence[tuple[str, str]]
"""(label, description) pairs, the label with its brackets."""


def labels(text: str) -> list[str]:
    """The labels in a text, each once, in order of first mention."""
    return list(dict.fromkeys(LABEL.findall(text)))


def global_part(inventory: Inventory) -> str:
    """`[Person A]: look, [Person B]: look`; empty without subjects.

    Raises:
        ValueError: a label or description does not fit the grammar.
    """
    _check_inventory(inventory)
    return ", ".join(f"{label}: {description}" for label, description in inventory)


def compose(global_caption: str, shot_caption: str) -> str:
    """A caption in the trainer's grammar.

    Args:
        global_caption: from `global_part`; may be empty.
        shot_caption: the text of the shot.

    Raises:
        ValueError: a part is not one line, holds a marker of the grammar, or the shot's text is empty.
    """
    for part in (global_caption, shot_caption):
        _check_text(part)
    if not shot_caption.strip():
        raise ValueError("the shot caption is empty")
    return f"{GLOBAL} {global_caption.strip()}; {SHOT} {shot_caption.strip()}"


def split_caption(caption: str) -> tuple[str, str]:
    """(global part, shot part) of a caption, without markers and the separator between them.

    Raises:
        ValueError: the caption is not in the trainer's grammar, so that the trainer would not split it.
    """
    head, marker, shot = caption.partition(SHOT)
    if not caption.startswith(GLOBAL) or not marker:
        raise ValueError(f"no leading {GLOBAL!r} and {SHOT!r} after it: {caption[:60]!r}")
    if SHOT in shot or GLOBAL in caption[len(GLOBAL) :]:
        raise ValueError(f"a marker of the grammar comes twice: {caption[:60]!r}")
    return head[len(GLOBAL) :].strip().rstrip(";,").rstrip(), shot.strip()


def parse_inventory(global_caption: str) -> list[tuple[str, str]]:
    """(label, description) pairs of a global part; the inverse of `global_part`.

    A missing colon after a label is forgiven: published scripts have some.

    Raises:
        ValueError: text stands before the first label, or a label is described twice or not at all.
    """
    at = list(LABEL.finditer(global_caption))
    if not at:
        if global_caption.strip():
            raise ValueError(f"no label is described in {global_caption[:60]!r}")
        return []
    if global_caption[: at[0].start()].strip():
        raise ValueError(f"text before the first label: {global_caption[:60]!r}")
    ends = [m.start() for m in at[1:]] + [len(global_caption)]
    inventory = [
        (m.group(), global_caption[m.end() : end].lstrip(":").strip().rstrip(";,").rstrip())
        for m, end in zip(at, ends, strict=True)
    ]
    _check_inventory(inventory)
    return inventory


def reconstruct_target(inventory: Inventory) -> str:
    """The inventory as stories for generation carry it: a line `[Person A] look` for each subject."""
    _check_inventory(inventory)
    return "\n".join(f"{label} {description}" for label, description in inventory)


def parse_reconstruct_target(text: str) -> list[tuple[str, str]]:
    """(label, description) pairs; a colon after the label is accepted. Inverse of `reconstruct_target`.

    Raises:
        ValueError: a line does not begin with a label.
    """
    inventory = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        match = LABEL.match(line)
        if match is None:
            raise ValueError(f"no label at the start of {line[:60]!r}")
        inventory.append((match.group(), line[match.end() :].lstrip(":").strip()))
    _check_inventory(inventory)
    return inventory


def head_phrase(description: str) -> str:
    """The part of a description that says what the subject is: `young man` of `young man with a hat`."""
    words = re.split(r"[,;.:()]", description, maxsplit=1)[0].split()
    end = next((i for i, word in enumerate(words) if i and word.lower() in AFTER_HEAD), len(words))
    return " ".join(words[:end])


def hidden_characters(text: str) -> list[str]:
    """Characters that no caption needs and that break tables, pages or terminals, each once: `U+202E`.

    Control and format characters (line ends, escapes, marks that turn the direction of writing, zero-width
    ones), halves of surrogate pairs, private and unassigned code points.
    """
    hidden = [c for c in set(text) if unicodedata.category(c) in HIDDEN]
    return [f"U+{ord(c):04X}" for c in sorted(hidden, key=text.index)]


def replace_hidden(text: str, by: str, keep: str = "") -> str:
    """The text with each of its hidden characters, but for those in `keep`, replaced."""
    hidden = {int(name[2:], 16) for name in hidden_characters(text)} - set(map(ord, keep))
    return text.translate(dict.fromkeys(hidden, by))


def _check_inventory(inventory: Inventory) -> None:
    seen: set[str] = set()
    for label, description in inventory:
        if not LABEL.fullmatch(label):
            raise ValueError(f"not a label: {label!r}")
        if label in seen:
            raise ValueError(f"{label} is described twice")
        if not description.strip() or LABEL.search(description):
            raise ValueError(f"{label} needs a description of its own, not {description!r}")
        _check_text(description)
        seen.add(label)


def _check_text(text: str) -> None:
    if GLOBAL in text or SHOT in text:
        raise ValueError(f"a marker of the grammar inside {text[:60]!r}")
    if len(text.splitlines()) > 1:
        raise ValueError(f"more than one line: {text[:60]!r}")
    if hidden := hidden_characters(text):
        raise ValueError(f"hidden characters ({', '.join(hidden[:5])}) in {text[:60]!r}")
