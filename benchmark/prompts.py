"""How much of each prompt a text tower reads, and texts cut into pieces that it can read.

ViCLIP reads 32 tokens, two of which mark start and end. What is beyond is cut in silence, so that shots whose
prompts begin alike become the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.stories import SHOT_MARKER, ShotKey, Story
from benchmark.words import counted

Tokenize = Callable[[str], Sequence[int]]
"""Tokens of a text, without marks of start and end, not cut."""

VICLIP_TOKENS = 30
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")


@dataclass(frozen=True)
class Visibility:
    """What a text tower reads of a text.

    Attributes:
        tokens: of the whole text.
        seen: those that are read.
        shot_seen: tokens of the part after `shot caption:` that are read; None without that part.
        shot_tokens: all tokens of that part; None without it.
    """

    tokens: int
    seen: int
    shot_seen: int | None
    shot_tokens: int | None

    @property
    def share(self) -> float:
        """Part of the text that is read."""
        return self.seen / self.tokens if self.tokens else 1.0


@dataclass(frozen=True)
class StoryAudit:
    """A story's texts as a text tower reads them.

    Attributes:
        shots: of each prompt.
        scenes: of each scene's joined prompts.
        overview: None without one.
        alike: shots whose prompts are the same to the tower, in groups of at least two.
        distinct: how many different texts the prompts are to it.
    """

    shots: Mapping[ShotKey, Visibility]
    scenes: Mapping[int, Visibility]
    overview: Visibility | None
    alike: tuple[tuple[ShotKey, ...], ...]
    distinct: int

    def lines(self, story: str) -> list[str]:
        """What a reader of scores must know, a line each; empty if nothing."""
        found = []
        if cut := [v for v in self.shots.values() if v.seen < v.tokens]:
            share = sum(v.share for v in self.shots.values()) / len(self.shots)
            of = counted(len(self.shots), "prompt is", "prompts are")
            found.append(f"{story}: {len(cut)} of {of} cut, {share:.0%} is read")
        unseen = [k.stem for k, v in self.shots.items() if v.shot_seen == 0]
        if unseen:
            found.append(f"{story}: no word of the shot caption is read in {', '.join(unseen)}")
        for group in self.alike:
            found.append(f"{story}: the same text to the encoder: {', '.join(k.stem for k in group)}")
        return found


def visibility(text: str, tokenize: Tokenize, limit: int = VICLIP_TOKENS) -> Visibility:
    """What is read of a text if only its first `limit` tokens are."""
    tokens = len(tokenize(text))
    head, marker, shot = text.partition(SHOT_MARKER)
    if not marker:
        return Visibility(tokens, min(tokens, limit), None, None)
    before, part = len(tokenize(head + marker)), len(tokenize(shot))
    return Visibility(tokens, min(tokens, limit), min(part, max(0, limit - before)), part)


def audit(story: Story, tokenize: Tokenize, limit: int = VICLIP_TOKENS, joiner: str = " ") -> StoryAudit:
    """What a text tower reads of a story's texts.

    Args:
        story: with the prompts that are scored.
        tokenize: of the tower.
        limit: tokens it reads, without marks of start and end.
        joiner: between the prompts of a scene.
    """
    groups: dict[tuple[int, ...], list[ShotKey]] = {}
    for shot in story.shots:
        groups.setdefault(tuple(tokenize(shot.prompt)[:limit]), []).append(shot.key)
    return StoryAudit(
        {shot.key: visibility(shot.prompt, tokenize, limit) for shot in story.shots},
        {scene.number: visibility(scene.text(joiner), tokenize, limit) for scene in story.scenes},
        visibility(story.overview, tokenize, limit) if story.overview else None,
        tuple(tuple(keys) for keys in groups.values() if len(keys) > 1),
        len(groups),
    )


def windows(text: str, tokenize: Tokenize, limit: int = VICLIP_TOKENS) -> list[str]:
    """A long text as pieces of at most `limit` tokens: whole sentences as far as they fit, else words.

    Every word is in exactly one piece. A single word of more than `limit` tokens is a piece of its own. The
    feature of the text is the pooled feature of its pieces.
    """
    pieces: list[str] = []
    for sentence in _SENTENCE.split(text.strip()):
        if pieces and len(tokenize(f"{pieces[-1]} {sentence}")) <= limit:
            pieces[-1] = f"{pieces[-1]} {sentence}"
        elif len(tokenize(sentence)) <= limit:
            pieces.append(sentence)
        else:
            pieces += _by_words(sentence.split(), tokenize, limit)
    return [piece for piece in pieces if piece]


def text_pieces(prompt: str, mode: str, tokenize: Tokenize, limit: int = VICLIP_TOKENS) -> list[str]:
    """The texts to encode for a prompt, whose pooled feature is the prompt's.

    Args:
        prompt: as the script has it.
        mode: `truncate`: the prompt, which the tower cuts; `shot-part`: what comes after `shot caption:`;
            `windows`: see `windows`.
        tokenize: of the tower.
        limit: tokens it reads.

    Raises:
        ValueError: no such mode.
    """
    if mode == "truncate":
        return [prompt]
    if mode == "shot-part":
        return [prompt.partition(SHOT_MARKER)[2].strip() or prompt]
    if mode == "windows":
        return windows(prompt, tokenize, limit)
    raise ValueError(f"{mode!r} is no text mode: use truncate, shot-part or windows")


def _by_words(words: Iterable[str], tokenize: Tokenize, limit: int) -> list[str]:
    pieces: list[str] = []
    for word in words:
        if pieces and len(tokenize(f"{pieces[-1]} {word}")) <= limit:
            pieces[-1] = f"{pieces[-1]} {word}"
        else:
            pieces.append(word)
    return pieces
