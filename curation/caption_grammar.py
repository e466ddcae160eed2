"""The trainer's caption grammar: compose it, take it apart, and name what breaks it.

A caption is one line, `global caption: [Person A]: look, [Animal B]: look; shot caption: text`. The trainer
splits it at the literal lower-case `shot caption:` after a leading `global caption:`; without these it takes
the whole text for both parts. A label stands for a subject wherever it is mentioned; the global part says
who that is, for each subject of the shot. A shot without subjects has an empty global part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

GLOBAL, SHOT = "global caption:", "shot caption:"
LABEL = re.compile(r"\[[A-Z][A-Za-z]* [A-Z]{1,2}\]")
PRONOUNS = frozenset(
    [
        *("he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its", "itself"),
        *("they", "them", "their", "theirs", "themselves", "who", "whom", "whose"),
    ]
)
"""Third-person words that leave open who is meant. Published stories use some; strict captions use labels."""

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


def caption_faults(caption: str, visible: Iterable[str] | None = None, *, strict: bool = True) -> list[str]:
    """What breaks the rules in a caption, one line each; empty for a sound one.

    Args:
        caption: the whole text.
        visible: labels of the subjects that are seen in the shot, if known.
        strict: also refuse pronouns where a label belongs.
    """
    try:
        global_caption, shot_caption = split_caption(caption)
        inventory = parse_inventory(global_caption)
    except ValueError as error:
        return [str(error)]
    defined = {label for label, _ in inventory}
    faults = [f"{label} has no description" for label in labels(shot_caption) if label not in defined]
    if visible is not None:
        shown = set(visible)
        faults += [f"{label} is not seen in the shot" for label in labels(caption) if label not in shown]
    if strict:
        faults += [f"{word!r} stands where a label belongs" for word in pronouns(caption)]
    return faults


def pronouns(text: str) -> list[str]:
    """The third-person pronouns in a text, each once, in order."""
    words = re.findall(r"[A-Za-z]+", text.lower())
    return list(dict.fromkeys(word for word in words if word in PRONOUNS))


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
