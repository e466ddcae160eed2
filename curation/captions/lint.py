"""The linter of captions: each rule a function that returns faults, and what holds for each kind of caption.

The rules follow the Memento paper (arXiv 2606.14667), section 3.1: an inventory of fixed, pronoun-free
descriptions binds all captions; shot captions use its labels instead of generic nouns and pronouns. The text
of a fault is written so that it can be shown to the model that is asked to mend its answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from curation.captions.facts import Shot
from curation.captions.grammar import (
    GLOBAL,
    LABEL,
    SHOT,
    Inventory,
    hidden_characters,
    labels,
    parse_inventory,
    replace_hidden,
    split_caption,
)
from curation.captions.references import PRONOUNS, vague_references, without_quotations

QUOTED = 60
"""Characters of an answer that a fault repeats, so that no fault is as long as a hostile answer."""
_MARKUP = re.compile(
    r"</?[A-Za-z!?][^<>]{0,200}>|```|\*\*|__|(?:^|\s)#{1,6}\s|\[[^\[\]\n]{0,200}\]\(|&(?:#\d+|[a-z]+);"
)
ENDLESS = 20_000
"""Characters beyond which an answer is not looked at, however strict: the model did not stop."""
MAX_FAULTS = 12
"""Faults told of one answer; a model mends no more at a time."""
MAX_FOREIGN = 0.02
"""Share of letters of other scripts; the few of a sign in the picture are no other language."""
MIN_ENGLISH, ENOUGH_WORDS = 0.05, 20
"""Least share of `_ENGLISH` in a text of that many words; the 450 published prompts have 0.067 or more."""
_ENGLISH = re.compile(
    r"\b(?:the|and|of|with|is|are|to|from|into|while|over|under|behind|through|his|her|at|by|on|for|near)\b"
)
"""Common in English sentences and rare in those of other languages."""
_BRACKETS = re.compile(r"[\[\]]")
_MARKER = re.compile(r"(?i)\b(?:global|shot)\s+caption\s*:")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a caption.

    Attributes:
        rule: `undefined`, `unseen`, `unmentioned`, `vague`, `grammar`, `language`, `inventory` or `length`.
        text: one line that says what to change.
    """

    rule: str
    text: str

    def __str__(self) -> str:
        """As it is stored in the table of captions."""
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class LintSettings:
    """How captions are judged. Lengths are in characters and lie around those of the paper's Table 3.

    Attributes:
        strictness: `strict` wants a label wherever a labelled subject is meant; `published` lets a pronoun
            follow a label that it can stand for, as the released stories do; `off` refuses only what the
            trainer or a table cannot hold, and labels without a description.
        min_prominence: a subject must be named in a shot where its share of time times its share of the
            picture is at least this.
        story_min_chars: shortest story caption.
        story_max_chars: longest story caption.
        shot_min_chars: shortest text of a shot, without the global part.
        shot_max_chars: longest text of a shot, without the global part.
        recon_min_chars: shortest caption of a reconstruction target.
        recon_max_chars: longest caption of a reconstruction target.
        description_min_chars: shortest description of a subject.
        description_max_chars: longest description of a subject; the global part repeats it in every shot.
    """

    strictness: Literal["strict", "published", "off"] = "strict"
    min_prominence: float = 0.05
    story_min_chars: int = 80
    story_max_chars: int = 1500
    shot_min_chars: int = 80
    shot_max_chars: int = 800
    recon_min_chars: int = 30
    recon_max_chars: int = 650
    description_min_chars: int = 8
    description_max_chars: int = 200

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet."""
        if not 0 <= self.min_prominence <= 1:
            raise ValueError(f"min_prominence: {self.min_prominence} is no share from 0 to 1")
        for what in ("story", "shot", "recon", "description"):
            shortest, longest = getattr(self, f"{what}_min_chars"), getattr(self, f"{what}_max_chars")
            if not 0 <= shortest <= longest:
                raise ValueError(
                    f"{what}_min_chars: {shortest} must be from 0 to {what}_max_chars ({longest})"
                )


DEFAULTS = LintSettings()


# -- whole captions -------------------------------------------------------------------------------


def lint_story(text: str, inventory: Inventory, settings: LintSettings = DEFAULTS) -> list[Fault]:
    """Faults of a story caption; the inventory has its own check, `inventory_faults`."""
    if len(text) > ENDLESS:
        return length_faults(text, 0, ENDLESS)
    faults = [*grammar_faults(text), *undefined_labels(text, inventory)]
    if settings.strictness == "off":
        return faults[:MAX_FAULTS]
    faults += [
        *vague_faults(text, inventory, settings),
        *language_faults(text),
        *length_faults(text, settings.story_min_chars, settings.story_max_chars),
    ]
    return faults[:MAX_FAULTS]


def lint_shot(
    text: str,
    inventory: Inventory,
    prominence: Mapping[str, float],
    settings: LintSettings = DEFAULTS,
) -> list[Fault]:
    """Faults of a shot's text, without its global part.

    Args:
        text: the answer.
        inventory: all subjects of the sequence.
        prominence: label -> `prominence_in` of each subject that is seen in the shot.
        settings: how strict.
    """
    if len(text) > ENDLESS:
        return length_faults(text, 0, ENDLESS)
    faults = [*grammar_faults(text), *undefined_labels(text, inventory)]
    if settings.strictness == "off":
        return faults[:MAX_FAULTS]
    cast = [(label, description) for label, description in inventory if label in prominence]
    faults += [
        *unseen_labels(text, prominence, inventory),
        *unmentioned_subjects(text, prominence, settings.min_prominence),
        *vague_faults(text, cast, settings),
        *language_faults(text),
        *length_faults(text, settings.shot_min_chars, settings.shot_max_chars),
    ]
    return faults[:MAX_FAULTS]


def lint_recon(
    text: str,
    inventory: Inventory,
    target: str,
    others: Iterable[str] = (),
    settings: LintSettings = DEFAULTS,
) -> list[Fault]:
    """Faults of the caption of a reconstruction target.

    Args:
        text: the answer.
        inventory: all subjects of the sequence.
        target: label of the subject that the frame is about; it must be named.
        others: labels of the other subjects in the frame.
        settings: how strict.
    """
    if len(text) > ENDLESS:
        return length_faults(text, 0, ENDLESS)
    faults = [*grammar_faults(text), *undefined_labels(text, inventory)]
    if settings.strictness == "off":
        return faults[:MAX_FAULTS]
    seen = {target: 1.0} | dict.fromkeys(others, 0.0)
    cast = [(label, description) for label, description in inventory if label in seen]
    faults += [
        *unseen_labels(text, seen, inventory),
        *unmentioned_subjects(text, seen, 1.0),
        *vague_faults(text, cast, settings),
        *language_faults(text),
        *length_faults(text, settings.recon_min_chars, settings.recon_max_chars),
    ]
    return faults[:MAX_FAULTS]


def lint_caption(
    caption: str, visible: Collection[str] | None = None, settings: LintSettings = DEFAULTS
) -> list[Fault]:
    """Faults of a whole caption in the trainer's grammar, as published; lengths are not judged.

    Args:
        caption: `global caption: ...; shot caption: ...`.
        visible: labels of the subjects that are seen in the shot, if known.
        settings: how strict.
    """
    if len(caption) > ENDLESS:
        return length_faults(caption, 0, ENDLESS)
    if hidden := hidden_characters(caption):
        return [Fault("grammar", f"hidden characters: {', '.join(hidden[:5])}")]
    try:
        told, shot = split_caption(caption)
        inventory = parse_inventory(told)
    except ValueError as error:
        return [Fault("grammar", str(error))]
    faults = [*grammar_faults(shot), *undefined_labels(shot, inventory)]
    if visible is not None:
        faults += unseen_labels(caption, visible, inventory)
    if settings.strictness != "off":
        faults += [*vague_faults(shot, inventory, settings), *language_faults(shot)]
    return faults[:MAX_FAULTS]


# -- rules ----------------------------------------------------------------------------------------


def undefined_labels(text: str, inventory: Inventory) -> list[Fault]:
    """Labels that nothing defines."""
    known = [label for label, _ in inventory]
    there = f"; the labels are {', '.join(known)}" if known else "; there are no labels here"
    return [
        Fault("undefined", f"{label} is not in the inventory{there}")
        for label in labels(text)
        if label not in known
    ]


def unseen_labels(text: str, visible: Collection[str], inventory: Inventory) -> list[Fault]:
    """Labels of the inventory that are used although the tracks do not show them here."""
    defined = {label for label, _ in inventory}
    return [
        Fault("unseen", f"{label} is not seen in this shot: do not mention {label}")
        for label in labels(text)
        if label in defined and label not in visible
    ]


def unmentioned_subjects(text: str, prominence: Mapping[str, float], threshold: float) -> list[Fault]:
    """Subjects that take up at least `threshold` of time and picture and are not named, the largest first."""
    named = set(labels(text))
    missing = sorted(
        (-share, label) for label, share in prominence.items() if share >= threshold and label not in named
    )
    return [
        Fault("unmentioned", f"{label} is prominent in this shot: say what {label} does")
        for _, label in missing
    ]


def vague_faults(text: str, cast: Inventory, settings: LintSettings = DEFAULTS) -> list[Fault]:
    """Pronouns and generic nouns where a label of the cast belongs, each phrase once."""
    told: dict[str, Fault] = {}
    for vague in vague_references(text, cast):
        before = set(labels(text[: vague.position]))
        if settings.strictness == "published" and vague.pronoun and before & set(vague.candidates):
            continue
        who = " or ".join(vague.candidates)
        line = f"'{vague.phrase}' leaves open who is meant: write {who}"
        told.setdefault(vague.phrase.lower(), Fault("vague", line))
    return list(told.values())


def grammar_faults(text: str) -> list[Fault]:
    """What the trainer's grammar, a table or a page cannot hold: it wants one line of plain text."""
    found = []
    if not text.strip():
        found.append("the text is empty")
    if len(text.strip(" ").splitlines()) > 1:
        found.append("more than one line: write a single paragraph")
    elif hidden := hidden_characters(text):
        found.append(f"hidden characters ({', '.join(hidden[:5])}): write plain text")
    if marker := _MARKER.search(text):
        found.append(f"'{marker.group()}' is added later: leave '{GLOBAL}' and '{SHOT}' out")
    if markup := _MARKUP.search(text):
        found.append(f"markup ({shorten(markup.group().strip())}): write plain text")
    if _BRACKETS.search(LABEL.sub("", text)):
        found.append("square brackets are for labels such as [Person A] only")
    return [Fault("grammar", line) for line in found]


def language_faults(text: str) -> list[Fault]:
    """Captions are English: the rules on pronouns and nouns see nothing in another language.

    What stands in quotation marks is read off the picture and may be in any.
    """
    if foreign := script_faults(text):
        return foreign
    plain = LABEL.sub(" ", without_quotations(text)).lower()
    words = len(re.findall(r"[^\W\d_]+", plain))
    if words >= ENOUGH_WORDS and len(_ENGLISH.findall(plain)) < MIN_ENGLISH * words:
        return [Fault("language", "this does not read as English: write English sentences")]
    return []


def script_faults(text: str) -> list[Fault]:
    """Letters that English is not written in, beyond the few of a sign; quotations may have any."""
    letters = [c for c in LABEL.sub(" ", without_quotations(text)) if c.isalpha()]
    foreign = [c for c in letters if not unicodedata.name(c, "").startswith("LATIN ")]
    if len(foreign) <= MAX_FOREIGN * len(letters):
        return []
    return [Fault("language", f"'{''.join(foreign[:5])}' is not English: write English")]


def inventory_faults(
    inventory: Inventory, expected: Sequence[str], settings: LintSettings = DEFAULTS
) -> list[Fault]:
    """Faults of the descriptions that bind all captions of a sequence.

    Args:
        inventory: as answered.
        expected: labels of the tracked subjects, all of which need a description.
        settings: how strict.
    """
    given = [label for label, _ in inventory]
    found = [f"{label} has no description" for label in expected if label not in given]
    found += [f"{shorten(label)} is no label of this sequence" for label in given if label not in expected]
    found += [f"{label} is described twice" for label in dict.fromkeys(given) if given.count(label) > 1]
    faults = [Fault("inventory", line) for line in found]
    owner: dict[str, str] = {}
    for label, description in inventory:
        faults += _description_faults(label, description, settings)
        same = owner.setdefault(" ".join(re.findall(r"\w+", description.lower())), label)
        if same != label and settings.strictness != "off":
            line = f"{label} and {same} have the same description: say what tells them apart"
            faults.append(Fault("inventory", line))
    return faults


def _description_faults(label: str, description: str, settings: LintSettings) -> list[Fault]:
    who = shorten(label)
    if len(description) > ENDLESS:
        return [Fault("length", f"description of {who} has {len(description)} characters")]
    faults = [Fault(f.rule, f"description of {who}: {f.text}") for f in grammar_faults(description)]
    if inside := labels(description):
        faults.append(
            Fault("inventory", f"description of {who} holds the label {inside[0]}: describe the look")
        )
    if settings.strictness == "off":
        return faults
    for word in dict.fromkeys(re.findall(r"[A-Za-z]+", description.lower())):
        if word in PRONOUNS:
            faults.append(Fault("vague", f"description of {who} holds '{word}': describe without pronouns"))
    shortest, longest = settings.description_min_chars, settings.description_max_chars
    faults += [
        Fault(f.rule, f"description of {who}: {f.text}")
        for f in (*script_faults(description), *length_faults(description, shortest, longest))
    ]
    return faults


def length_faults(text: str, shortest: int, longest: int) -> list[Fault]:
    """Too short or too long, in characters; nothing about an empty text, which the grammar refuses."""
    length = len(text.strip())
    if 0 < length < shortest:
        return [Fault("length", f"{length} characters are too few: write at least {shortest}")]
    if length > longest:
        return [Fault("length", f"{length} characters are too many: write at most {longest}")]
    return []


def prominence_in(shot: Shot) -> dict[str, float]:
    """Label -> share of the shot's time times share of the picture, of each subject seen in it."""
    told: dict[str, float] = {}
    for seen in shot.seen:
        share = min(1.0, (seen.last_s - seen.first_s) / shot.duration_s) if shot.duration_s > 0 else 0.0
        told[seen.label] = told.get(seen.label, 0.0) + share * seen.area
    return told


def shorten(text: str, length: int = QUOTED) -> str:
    """The start of any text as one line that can be printed."""
    line = replace_hidden(" ".join(text[: 4 * length].split()), "?")
    return line if len(line) <= length else line[: length - 3] + "..."
