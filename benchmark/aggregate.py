"""From values to tables: groups, stories, benchmark; with coverage, and a hash of how they were made.

    macro           mean of units in a group, of groups in a story, of stories (each story weighs 1)
    story_pooled    mean of all units in a story, of stories
    micro           mean of all units of all stories

What is undefined is left out of every mean and counted, never taken as 0 or 1. Sums are exactly rounded
(`math.fsum`), so nothing depends on the order or on how many workers the stories were spread over.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmark.features import Group

MACRO, STORY_POOLED, MICRO = "macro", "story_pooled", "micro"
ORDERS = (MACRO, STORY_POOLED, MICRO)


class RecipeMismatch(ValueError):
    """Results that were made in different ways were to be put in one table."""


class Coverage(NamedTuple):
    """How much of the benchmark has a value.

    Attributes:
        stories: (defined, all).
        groups: (defined, all).
        units: defined ones.
        undefined_units: computed but not finite, such as a cosine with a feature of length zero.
    """

    stories: tuple[int, int]
    groups: tuple[int, int]
    units: int
    undefined_units: int


@dataclass(frozen=True)
class StoryScore:
    """One metric on one story: (name, values) of each group; NaN values are left out of means."""

    groups: tuple[tuple[str, tuple[float, ...]], ...]

    @classmethod
    def of(cls, groups: Iterable[Group]) -> StoryScore:
        """From what a metric's function gives."""
        return cls(tuple((g.name, tuple(float(v) for v in g.units)) for g in groups))

    def per_group(self) -> dict[str, float]:
        """Mean of each group, NaN where it has none."""
        return {name: mean(units) for name, units in self.groups}

    def units(self) -> list[float]:
        """All values of the story."""
        return [unit for _, units in self.groups for unit in units]

    def value(self, order: str = MACRO) -> float:
        """The story's value; `micro` and `story_pooled` are the same inside a story."""
        _check_order(order)
        return mean(self.per_group().values()) if order == MACRO else mean(self.units())


@dataclass(frozen=True)
class MetricScore:
    """One metric on all stories, by story key."""

    stories: Mapping[str, StoryScore]

    def per_story(self, order: str = MACRO) -> dict[str, float]:
        """Value of each story, NaN where it has none; sorted by key."""
        return {key: self.stories[key].value(order) for key in sorted(self.stories)}

    def value(self, order: str = MACRO) -> float:
        """The benchmark's value, NaN if no story has one."""
        _check_order(order)
        if order == MICRO:
            return mean(self._units())
        return mean(self.per_story(order).values())

    def std(self) -> float:
        """Population standard deviation of all units of all stories."""
        units = _finite(self._units())
        middle = mean(units)
        return math.sqrt(math.fsum((u - middle) ** 2 for u in units) / len(units)) if units else math.nan

    def coverage(self) -> Coverage:
        """How much has a value."""
        stories = list(self.per_story().values())
        groups = [m for score in self.stories.values() for m in score.per_group().values()]
        units = self._units()
        defined = len(_finite(units))
        return Coverage(
            (len(_finite(stories)), len(stories)),
            (len(_finite(groups)), len(groups)),
            defined,
            len(units) - defined,
        )

    def _units(self) -> list[float]:
        return [unit for key in sorted(self.stories) for unit in self.stories[key].units()]


@dataclass(frozen=True)
class Scores:
    """All metrics of one method.

    Attributes:
        recipe: hash of everything that decides the numbers but the videos.
        metrics: by name; also those that are unavailable, undefined on every story.
        unavailable: metric -> why it has no numbers at all: `needs clip_b32`.
    """

    recipe: str
    metrics: Mapping[str, MetricScore]
    unavailable: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """As plain values; NaN becomes null. The inverse of `scores_from_json`."""
        values = {
            name: {
                key: [[group, [None if math.isnan(u) else u for u in units]] for group, units in s.groups]
                for key, s in sorted(score.stories.items())
            }
            for name, score in sorted(self.metrics.items())
        }
        return {
            "recipe": self.recipe,
            "metrics": values,
            "unavailable": dict(sorted(self.unavailable.items())),
        }


def scores_from_json(value: Mapping[str, Any]) -> Scores:
    """From what `Scores.as_json` gives."""
    metrics = {
        name: MetricScore(
            {
                key: StoryScore(
                    tuple((g, tuple(math.nan if u is None else float(u) for u in us)) for g, us in groups)
                )
                for key, groups in stories.items()
            }
        )
        for name, stories in value["metrics"].items()
    }
    return Scores(value["recipe"], metrics, dict(value["unavailable"]))


def merge(parts: Sequence[Scores]) -> Scores:
    """Scores of several shards of stories of one method as one.

    Raises:
        RecipeMismatch: they were made in different ways.
        ValueError: nothing to merge, or a story is in more than one.
    """
    if not parts:
        raise ValueError("nothing to merge: give at least one result")
    refuse_different([part.recipe for part in parts])
    merged: dict[str, dict[str, StoryScore]] = {}
    for part in parts:
        for name, score in part.metrics.items():
            stories = merged.setdefault(name, {})
            if twice := sorted(stories.keys() & score.stories.keys()):
                raise ValueError(f"{name}: story {', '.join(twice)} is in more than one part: score it once")
            stories.update(score.stories)
    metrics = {name: MetricScore(dict(sorted(merged[name].items()))) for name in sorted(merged)}
    # What one shard lacks another may have: its stories are then undefined, not the metric.
    nowhere = set.intersection(*(set(part.unavailable) for part in parts))
    return Scores(parts[0].recipe, metrics, {name: parts[0].unavailable[name] for name in sorted(nowhere)})


def refuse_different(recipes: Sequence[str]) -> None:
    """Raise `RecipeMismatch` unless all recipes are the same."""
    if len(different := sorted(set(recipes))) > 1:
        shown = ", ".join(recipe[:12] for recipe in different)
        raise RecipeMismatch(
            f"results were made by {len(different)} different recipes ({shown}): their numbers do not "
            "compare; score all of them again with one preset"
        )


def recipe_hash(recipe: Any) -> str:
    """SHA-256 of plain values (dicts, lists, strings, numbers, booleans, None), independent of key order."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def mean(values: Iterable[float]) -> float:
    """Exactly rounded mean of the finite values, NaN if there is none."""
    finite = _finite(values)
    return math.fsum(finite) / len(finite) if finite else math.nan


def _finite(values: Iterable[float]) -> list[float]:
    return [float(v) for v in values if np.isfinite(v)]


def _check_order(order: str) -> None:
    if order not in ORDERS:
        raise ValueError(f"{order!r} is no order of aggregation: use {', '.join(ORDERS)}")
