"""Do the videos of the methods compare: rates, sizes, codecs, bit rates, and what does not match."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmark.report.schema import FairnessRow, MethodFact, StoryFact, Video
from benchmark.words import counted

BITRATE_RATIO = 3.0
"""Bit rates per pixel that differ by more are worth a flag: CRF 10 against CRF 25 is about a factor of 9."""
LENGTH_RATIO = 1.1


def fairness(
    methods: Sequence[MethodFact], stories: Sequence[StoryFact], environment: Mapping[str, str]
) -> tuple[list[FairnessRow], list[str]]:
    """A row for each method, and the flags between methods.

    Args:
        methods: without controls.
        stories: that were scored.
        environment: may say `prompts <method>`: which text a method was generated from.
    """
    rows = []
    shared = _shared(methods, stories)
    scored = ", ".join(sorted({story.source or "unknown" for story in stories}))
    against = ", ".join(_PROMPTS.get(form, form) for form in scored.split(", "))
    total = sum(len(story.shots) for story in stories)
    characters = _counted(story.characters_from for story in stories)
    for method in methods:
        videos = _videos(method)
        told = environment.get(f"prompts {method.name}", "")
        rows.append(
            FairnessRow(
                method=method.name,
                shots=f"{len(videos)} of {total}",
                fps=_counted(f"{v.fps:.5g}" for v in videos),
                frames=_range([v.frames for v in videos], "{:.0f}"),
                size=_counted(f"{v.width} x {v.height}" for v in videos),
                codec=_counted(f"{v.codec}, {v.pix_fmt}" for v in videos),
                bitrate=_range([v.bitrate / 1e6 for v in videos if v.bitrate], "{:.2f}", " Mbit/s"),
                matrix=_counted(v.matrix for v in videos),
                prompts=f"{_PROMPTS.get(told, told) or 'not declared'}; scored against prompts {against}",
                flags=_own_flags(method, videos, told, scored),
                characters=characters,
            )
        )
    return rows, [*_flags(methods), *shared]


def _shared(methods: Sequence[MethodFact], stories: Sequence[StoryFact]) -> list[str]:
    """A line if the methods lack different shots: how many each has, and what is compared on which."""
    lacked = [set(method.missing_shots) for method in methods]
    if len({frozenset(each) for each in lacked}) < 2:
        return []
    total = sum(len(story.shots) for story in stories)
    shared = total - len(set().union(*lacked))
    each = "; ".join(
        f"{method.name} {total - len(missing)}" for method, missing in zip(methods, lacked, strict=True)
    )
    return [
        f"the methods lack different shots (of {total} there are: {each}; {shared} of all): a cell of the "
        "tables is of the shots that its method has; differences compare the shots that both have, chances "
        "of ranks and readings those that all have"
    ]


def _videos(method: MethodFact) -> list[Video]:
    return [video for shots in method.videos.values() for video in shots.values()]


def _own_flags(method: MethodFact, videos: Sequence[Video], told: str, scored: str) -> list[str]:
    found = []
    if method.missing_shots:
        found.append(counted(len(method.missing_shots), "shot is missing", "shots are missing"))
    for name, what in _CONSTANT.items():
        if len(different := {what(video) for video in videos}) > 1:
            found.append(f"{len(different)} different {name}")
    same = Counter(video.id for video in videos)
    if copies := sum(count for count in same.values() if count > 1):
        found.append(f"{copies} shots share their video with another shot")
    if told and told != scored:
        made, against = (_PROMPTS.get(form, form) for form in (told, scored))
        found.append(f"made from prompts {made}, scored against prompts {against}")
    return found


_PROMPTS = {"storymem": "in StoryMem's form", "memento": "in Memento's form"}
"""An encoding of scripts -> what a reader is told of its prompts, which may be anybody's."""
_CONSTANT: Mapping[str, Callable[[Video], Any]] = {
    "frame rates": lambda v: f"{v.fps:.3g}",
    "sizes": lambda v: (v.height, v.width),
    "codecs": lambda v: (v.codec, v.pix_fmt),
    "colour matrices": lambda v: v.matrix,
}


def _flags(methods: Sequence[MethodFact]) -> list[str]:
    found = []
    videos = {method.name: _videos(method) for method in methods}
    videos = {name: each for name, each in videos.items() if each}
    for what, of in _CONSTANT.items():
        usual = {name: Counter(map(of, each)).most_common(1)[0][0] for name, each in videos.items()}
        if len(set(usual.values())) > 1:
            shown = "; ".join(f"{name} {_plain(value)}" for name, value in usual.items())
            found.append(f"the methods differ in their {what}: {shown}")
    found += _ratio(
        {n: [v.bitrate / (v.height * v.width * v.fps) for v in each] for n, each in videos.items()},
        BITRATE_RATIO,
        "bits per pixel",
        "compression alone moves aesthetic scores and features",
    )
    found += _ratio(
        {n: [v.frames / v.fps for v in each] for n, each in videos.items()},
        LENGTH_RATIO,
        "seconds per shot",
        "longer shots have more room to drift",
    )
    names = list(videos)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if shared := len({v.id for v in videos[a]} & {v.id for v in videos[b]}):
                found.append(
                    f"{a} and {b} share {counted(shared, 'identical video')}: is one a copy of the other?"
                )
    return found


def _ratio(values: Mapping[str, Sequence[float]], limit: float, what: str, why: str) -> list[str]:
    middle = {name: statistics.median(each) for name, each in values.items() if any(each)}
    if len(middle) < 2 or min(middle.values()) <= 0 or max(middle.values()) / min(middle.values()) <= limit:
        return []
    shown = "; ".join(f"{name} {value:.3g}" for name, value in middle.items())
    return [
        f"{what} differ by a factor of {max(middle.values()) / min(middle.values()):.1f} ({shown}): {why}"
    ]


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        height_or_codec, other = value
        if isinstance(height_or_codec, int):
            return f"{other} x {height_or_codec}"
        return f"{height_or_codec} {other}"
    return str(value)


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values).most_common(3)
    if len(counts) == 1:
        return counts[0][0]
    return "; ".join(f"{value} ({count})" for value, count in counts)


def _range(values: Sequence[float], form: str, unit: str = "") -> str:
    if not values:
        return ""
    low, middle, high = (form.format(v) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"
