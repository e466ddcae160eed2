"""Who sees what, in which order, and on which side.

A trial is two methods' films of one story, side by side. A session shows every trial once, in as many rounds
as there are pairs of methods; a round shows every story once, so no story comes twice in a row:

    order of stories   a row of a Williams square (E. J. Williams, 1949): over its rows every story stands at
                       every place equally often and follows every other equally often
    pair in a round    (round + place of the story in the script's order + rater) mod pairs
    side               alternates with story, pair and rater

so that over raters each trial has each method on the left equally often, give or take one, and so has each
pair in each session.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

CRITERIA = ("consistency", "prompt", "aesthetics")
"""As in the user study of Memento (section 4.2.3): cross-shot consistency, prompt following, aesthetics."""
LEFT, TIE, RIGHT, BROKEN = "left", "tie", "right", "broken"
CHOICES = (LEFT, TIE, RIGHT, BROKEN)
SAME, OTHER_STORY = "same", "other story"
"""Attention checks: one film on both sides, or a film of another story on one side."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """Which film stands on a side: of a method, and of a story."""

    method: str
    story: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a rater sees at once.

    Attributes:
        story: whose script is shown.
        left: film on the left.
        right: film on the right.
        check: `same`, `other story`, or empty for a real comparison.
    """

    story: str
    left: Film
    right: Film
    check: str = ""

    @property
    def expected(self) -> str:
        """What an attentive rater answers for prompt following; empty for a real comparison."""
        if not self.check:
            return ""
        return TIE if self.check == SAME else LEFT if self.left.story == self.story else RIGHT


def pairs(methods: Sequence[str], reference: str | None = None) -> list[tuple[str, str]]:
    """The pairs to compare: of the reference with each other method, or all.

    Raises:
        ValueError: fewer than two methods, one twice, or an unknown reference.
    """
    if len(methods) < 2 or len(set(methods)) < len(methods):
        raise ValueError("a study compares at least two methods with different names")
    if reference is None:
        return list(combinations(methods, 2))
    if reference not in methods:
        raise ValueError(f"--reference {reference}: there are {', '.join(methods)}")
    return [(reference, method) for method in methods if method != reference]


def williams(count: int) -> list[list[int]]:
    """A Williams square: orders of 0 .. count - 1 balanced for place and for what comes before.

    Returns:
        `count` rows, twice as many for an odd count. Over all rows each entry stands at each place equally
        often and comes right after each other entry equally often.
    """
    base = [0]
    low, high = 1, count - 1
    while low <= high:
        base.append(low)
        if low < high:
            base.append(high)
        low, high = low + 1, high - 1
    rows = [[(entry + shift) % count for entry in base] for shift in range(count)]
    return rows if count % 2 == 0 else rows + [row[::-1] for row in rows]


def sessions(
    stories: Sequence[str],
    compared: Sequence[tuple[str, str]],
    raters: int,
    *,
    limit: int | None = None,
    checks: int = 0,
    seed: int = 0,
) -> list[list[Trial]]:
    """The trials of every rater, in the order in which they are shown.

    Args:
        stories: that every pair has films of.
        compared: pairs of methods.
        raters: how many.
        limit: comparisons in a session, the first ones of each; all if not given. Orders rotate from rater to
            rater, so what is left stays balanced.
        checks: attention checks in each session, at random places but the first.
        seed: of what is left to chance: which story is which row, and where checks lie.

    Raises:
        ValueError: no story, no pair, no rater, or checks that need more films than there are.
    """
    if not stories or not compared or raters < 1 or checks < 0:
        raise ValueError("a study needs a story, a pair of methods and a rater")
    rng = random.Random(seed)
    shuffled = rng.sample(list(stories), len(stories))
    rows = williams(len(stories))
    picked = rng.sample(range(len(rows)), len(rows))
    found = []
    for rater in range(raters):
        shown = _session(shuffled, compared, rater, [rows[i] for i in picked])[:limit]
        found.append(_with_checks(shown, shuffled, compared, checks, random.Random(f"{seed}/{rater}")))
    return found


def _session(
    stories: Sequence[str], compared: Sequence[tuple[str, str]], rater: int, rows: Sequence[Sequence[int]]
) -> list[Trial]:
    rounds = len(compared)
    # With an even number of pairs, side and pair of a round would go together from rater to rater.
    flip = rater + (rater // rounds if rounds % 2 == 0 else 0)
    trials: list[Trial] = []
    for turn in range(rounds):
        order = list(rows[(rater + turn * (len(rows) // rounds or 1)) % len(rows)])
        if trials and len(order) > 1 and stories[order[0]] == trials[-1].story:
            order = order[1:] + order[:1]
        for place in order:
            pair = (turn + place + rater) % rounds
            films = [Film(method=method, story=stories[place]) for method in compared[pair]]
            if (place + pair + flip) % 2:
                films.reverse()
            trials.append(Trial(story=stories[place], left=films[0], right=films[1]))
    return trials


def _with_checks(
    trials: Sequence[Trial],
    stories: Sequence[str],
    compared: Sequence[tuple[str, str]],
    checks: int,
    rng: random.Random,
) -> list[Trial]:
    made = list(trials)
    methods = sorted({method for pair in compared for method in pair})
    for number in range(checks):
        story, method = rng.choice(list(stories)), rng.choice(methods)
        right = Film(method=method, story=story)
        left, kind = right, SAME
        if number % 2 and len(stories) > 1:
            other = rng.choice([s for s in stories if s != story])
            left, kind = Film(method=method, story=other), OTHER_STORY
            if rng.random() < 0.5:
                left, right = right, left
        trial = Trial(story=story, left=left, right=right, check=kind)
        made.insert(rng.randint(1, len(made)), trial)
    return made
