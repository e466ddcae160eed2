"""Exact search for the windows of a film: runs of consecutive shots that become sequences.

Pure integers in, indices out: times are ticks of the stream's time base, so that a shot of exactly five
seconds is five seconds. The search is a dynamic programme over the shots, from the last to the first; with
windows of at most w shots it costs O(n * w), and no other set of disjoint windows scores higher.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a window must fulfil. The defaults are the preset `paper-text`.

    Attributes:
        min_window_s: shortest window, from the start of its first to the end of its last shot.
        max_window_s: longest window.
        min_shot_s: shortest shot that becomes a clip.
        max_shot_s: longest shot that becomes a clip; longer ones break a window.
        min_clips: fewest clips of a window; a trainer that predicts the next shot needs two.
        max_clips: most clips of a window.
        max_context_share: share of a window's seconds that may lie in shots under `min_shot_s`, which keep
            their place as context but do not become clips; 0 lets such shots break a window.
        max_gap_s: longest gap (transition) between two shots of a window.
    """

    min_window_s: float = 30.0
    max_window_s: float = 60.0
    min_shot_s: float = 5.0
    max_shot_s: float = 60.0
    min_clips: int = 2
    max_clips: int = 16
    max_context_share: float = 0.0
    max_gap_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse settings that no window can fulfil.

        Raises:
            ValueError: names the setting and what to change.
        """
        for low, high in (
            ("min_window_s", "max_window_s"),
            ("min_shot_s", "max_shot_s"),
            ("min_clips", "max_clips"),
        ):
            if not 0 < getattr(self, low) <= getattr(self, high):
                raise ValueError(
                    f"{low} ({getattr(self, low)}) must be above 0 and at most {high} "
                    f"({getattr(self, high)}); change one of them"
                )
        if not 0 <= self.max_context_share < 1:
            raise ValueError(f"max_context_share ({self.max_context_share}) is a share: at least 0, below 1")
        if self.max_gap_s < 0:
            raise ValueError(f"max_gap_s ({self.max_gap_s}) must not be negative")


def exact(number: float) -> Fraction:
    """A setting as it was written: 0.1 is one tenth, not the nearest binary number."""
    return Fraction(str(number))


class Role(Enum):
    """What a shot can be in a window."""

    CLIP = "clip"
    CONTEXT = "context"
    TOO_SHORT = "shot_too_short"
    TOO_LONG = "shot_too_long"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Shots:
    """The shots of a film as the search sees them, in order.

    Attributes:
        start, end: half-open spans in ticks.
        usable: whether the quality filters let a shot through.
        boundaries: n + 1 strengths 0..2 of the boundaries before each shot and after the last: 0 inside a
            scene, 1 perhaps, 2 surely the end of a scene.
        tick_s: seconds of a tick.
    """

    start: Sequence[int]
    end: Sequence[int]
    usable: Sequence[bool]
    boundaries: Sequence[int]
    tick_s: Fraction

    def __len__(self) -> int:
        return len(self.start)

    def at_least(self, seconds: float) -> int:
        """The fewest ticks that last `seconds`."""
        return math.ceil(exact(seconds) / self.tick_s)

    def at_most(self, seconds: float) -> int:
        """The most ticks that fit into `seconds`."""
        return math.floor(exact(seconds) / self.tick_s)


@dataclass(frozen=True)
class Window:
    """Shots [first, end) as one sequence; those in `context` are no clips."""

    first: int
    end: int
    context: tuple[int, ...] = ()


class Value(NamedTuple):
    """What the search maximises, most important first.

    Attributes:
        ticks: in clips.
        scenes: minus the scene faults: 2 - strength at both ends of each window, plus one for every sure
            scene boundary inside.
        windows: minus the number of windows: of equal solutions the one with the longer sequences.
    """

    ticks: int = 0
    scenes: int = 0
    windows: int = 0


def roles(shots: Shots, rules: Rules) -> list[Role]:
    """What each shot can be under the rules."""
    shortest, longest = shots.at_least(rules.min_shot_s), shots.at_most(rules.max_shot_s)
    short = Role.CONTEXT if rules.max_context_share else Role.TOO_SHORT
    out = []
    for start, end, usable in zip(shots.start, shots.end, shots.usable, strict=True):
        if not usable:
            out.append(Role.UNUSABLE)
        elif end - start < shortest:
            out.append(short)
        else:
            out.append(Role.TOO_LONG if end - start > longest else Role.CLIP)
    return out


def pack(shots: Shots, rules: Rules) -> list[Window]:
    """The best set of disjoint windows, in order; of equal ones that with early, long windows.

    Args:
        shots: of one film.
        rules: what a window must fulfil.

    Returns:
        Windows that maximise the sum of `Value` over all sets of disjoint possible windows.
    """
    kinds, limits = roles(shots, rules), _Limits.of(shots, rules)
    best = [Value()] * (len(shots) + 1)
    choice: list[Window | None] = [None] * len(shots)
    for first in range(len(shots) - 1, -1, -1):
        best[first] = best[first + 1]
        for window, value in _windows(shots, kinds, limits, first):
            rest = best[window.end]
            total = Value(value[0] + rest[0], value[1] + rest[1], value[2] + rest[2])
            # Windows come shortest first: at equal value the longest wins, and any wins over skipping.
            if total >= best[first]:
                best[first], choice[first] = total, window
    found, at = [], 0
    while at < len(shots):
        chosen = choice[at]
        if chosen is not None:
            found.append(chosen)
        at = chosen.end if chosen is not None else at + 1
    return found


def possible(shots: Shots, rules: Rules) -> Iterator[tuple[Window, Value]]:
    """Every window the rules allow, with its value, by first shot and then by length."""
    kinds, limits = roles(shots, rules), _Limits.of(shots, rules)
    for first in range(len(shots)):
        yield from _windows(shots, kinds, limits, first)


@dataclass(frozen=True)
class _Limits:
    """Rules in whole ticks."""

    min_window: int
    max_window: int
    max_gap: int
    context: Fraction
    min_clips: int
    max_clips: int

    @classmethod
    def of(cls, shots: Shots, rules: Rules) -> _Limits:
        return cls(
            shots.at_least(rules.min_window_s),
            shots.at_most(rules.max_window_s),
            shots.at_most(rules.max_gap_s),
            exact(rules.max_context_share),
            rules.min_clips,
            rules.max_clips,
        )


def _windows(shots: Shots, kinds: list[Role], limits: _Limits, first: int) -> Iterator[tuple[Window, Value]]:
    """The possible windows that start with the shot `first`, shortest first."""
    clips = clip_ticks = context_ticks = inside = 0
    context: tuple[int, ...] = ()
    for at in range(first, len(shots)):
        kind, span = kinds[at], shots.end[at] - shots.start[first]
        if at > first:
            if shots.start[at] - shots.end[at - 1] > limits.max_gap:
                return
            inside += shots.boundaries[at] == 2
        if kind is Role.CLIP:
            clips += 1
            clip_ticks += shots.end[at] - shots.start[at]
        elif kind is Role.CONTEXT and at > first:
            context += (at,)
            context_ticks += shots.end[at] - shots.start[at]
        else:
            return
        if span > limits.max_window or clips > limits.max_clips:
            return
        share_kept = context_ticks * limits.context.denominator <= limits.context.numerator * span
        fits = kind is Role.CLIP and span >= limits.min_window and clips >= limits.min_clips
        if fits and share_kept:
            faults = 4 - shots.boundaries[first] - shots.boundaries[at + 1] + inside
            yield Window(first, at + 1, context), Value(clip_ticks, -faults, -1)
