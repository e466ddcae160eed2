"""What stands between a film and its first sequence: the limits, with the numbers, and what would help.

Settings are only named after the search has found a sequence under them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

from curation.packing import Rules, Shots, pack

EASIER: dict[str, Any] = {"min_window_s": 8, "min_clips": 2, "min_shot_s": 2}
"""The easiest limits that are worth a try."""
FEWEST_CLIPS = 2
"""A model that is trained to predict the next shot needs two; one is only for those who ask for it."""


def hindrance(shots: Shots, rules: Rules) -> str:
    """Why a film gives no window, and what would help if anything does; one line.

    Args:
        shots: of a film in which `pack` finds no window.
        rules: under which it finds none.
    """
    num, fewest = sum(map(bool, shots.usable)), min(rules.min_clips, FEWEST_CLIPS)
    if num < fewest:
        has = "only one of its shots is" if num else "none of its shots is" if len(shots) else "no shot is"
        return f"{has} usable" + (" and a sequence needs two (sequences.min_clips)" if num else "")
    first, end = max(_runs(shots, rules), key=lambda run: (run[1] - run[0] >= fewest, _seconds(shots, *run)))
    if end - first < fewest:
        if any(one and other for one, other in pairwise(shots.usable)):
            return f"its usable shots are farther apart than sequences.max_gap_s ({rules.max_gap_s:g} s)"
        return f"of its {num} usable shots no two follow each other, as they do in a sequence"
    lengths = [_seconds(shots, i, i + 1) for i in range(first, end)]
    count = f"{len(lengths)} shots" if len(lengths) > 1 else "1 shot"
    told = f"its longest run of usable shots lasts {_seconds(shots, first, end):.1f} s ({count})"
    if easier := easier_settings(shots, rules):
        sets = " ".join(f"--set sequences.{name}={value:g}" for name, value in easier.items())
        return f"{told}; a sequence fits with {sets}"
    if limits := list(_broken(_seconds(shots, first, end), lengths, rules)):
        return f"{told}; what it does not meet: {', '.join(limits)}"
    return (
        f"{told}; no part of it has {rules.min_window_s:g} to {rules.max_window_s:g} s "
        f"(sequences.min_window_s, max_window_s) in {rules.min_clips} to {rules.max_clips} shots "
        "(min_clips, max_clips)"
    )


def easier_settings(shots: Shots, rules: Rules) -> dict[str, Any]:
    """The fewest settings of `EASIER` under which there is a sequence; empty if there are none."""
    names = [name for name, value in EASIER.items() if value < getattr(rules, name)]
    if not names or not pack(shots, replace(rules, **{name: EASIER[name] for name in names})):
        return {}
    choices = (combination for n in range(1, len(names) + 1) for combination in combinations(names, n))
    found = ({name: EASIER[name] for name in combination} for combination in choices)
    return next(settings for settings in found if pack(shots, replace(rules, **settings)))


def _runs(shots: Shots, rules: Rules) -> Iterator[tuple[int, int]]:
    """Usable shots in a row, as half-open ranges: what windows can be made of."""
    first = None
    for i in range(len(shots)):
        apart = i > 0 and shots.start[i] - shots.end[i - 1] > shots.at_most(rules.max_gap_s)
        if first is not None and (apart or not shots.usable[i]):
            yield first, i
            first = None
        if first is None and shots.usable[i]:
            first = i
    if first is not None:
        yield first, len(shots)


def _seconds(shots: Shots, first: int, end: int) -> float:
    return float((shots.end[end - 1] - shots.start[first]) * shots.tick_s)


def _broken(lasts: float, lengths: list[float], rules: Rules) -> Iterator[str]:
    """The limits that a run of shots does not meet."""
    if lasts < rules.min_window_s:
        yield f"sequences.min_window_s ({rules.min_window_s:g} s)"
    if len(lengths) < rules.min_clips:
        yield f"sequences.min_clips ({rules.min_clips})"
    if num := sum(length < rules.min_shot_s for length in lengths):
        yield f"sequences.min_shot_s ({rules.min_shot_s:g} s; {_shots(num)} shorter)"
    if num := sum(length > rules.max_shot_s for length in lengths):
        yield f"sequences.max_shot_s ({rules.max_shot_s:g} s; {_shots(num)} longer)"


def _shots(num: int) -> str:
    return f"{num} shot is" if num == 1 else f"{num} shots are"
