"""Does the ranking of methods survive every reading of a paper's column that could be meant?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.aggregate import ORDERS, Scores, mean, refuse_different
from benchmark.metrics import readings
from benchmark.statistics import common_stories


@dataclass(frozen=True)
class Reading:
    """A column read in one way.

    Attributes:
        metric: the reading of the column.
        order: of aggregation.
        values: method -> value, on the stories that all methods have; NaN where there is none.
        ranking: methods, best first; those without a value are left out.
        flipped: pairs of methods in the opposite order of the default reading.
    """

    metric: str
    order: str
    values: Mapping[str, float]
    ranking: tuple[str, ...]
    flipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AmbiguityReport:
    """All readings of a column, the default first.

    Attributes:
        column: of a paper.
        readings: in all metrics and orders of aggregation for which there are numbers.
        survives: the ranking is the same in all of them.
        winner_survives: so is at least the best method.
        spread: largest - smallest value of each method over the readings.
    """

    column: str
    readings: tuple[Reading, ...]
    survives: bool
    winner_survives: bool
    spread: Mapping[str, float]


def ambiguity(column: str, methods: Mapping[str, Scores]) -> AmbiguityReport:
    """Every reading of a column on several methods.

    Args:
        column: one of `benchmark.metrics.columns()`.
        methods: name -> scores, of one recipe.

    Raises:
        RecipeMismatch: the scores were made in different ways.
        ValueError: no such column, or no method has a value in any reading of it.
    """
    refuse_different([scores.recipe for scores in methods.values()])
    metrics = readings(column)
    if not metrics:
        raise ValueError(f"{column!r} is no column of a paper")
    found: list[Reading] = []
    for metric in metrics:
        if any(metric.name not in s.metrics or metric.name in s.unavailable for s in methods.values()):
            continue
        for order in ORDERS:
            values = _values(metric.name, order, methods)
            defined = [name for name in sorted(values) if math.isfinite(values[name])]
            better = metric.higher_is_better is not False
            ranking = tuple(sorted(defined, key=lambda name: -values[name] if better else values[name]))
            if ranking:
                swapped = flipped(found[0].ranking, ranking) if found else ()
                found.append(Reading(metric.name, order, values, ranking, swapped))
    if not found:
        raise ValueError(f"{column}: no reading of it has been scored for all methods")
    return _report(column, found)


def _report(column: str, found: Sequence[Reading]) -> AmbiguityReport:
    names = sorted(found[0].values)
    spread = {}
    for name in names:
        values = [r.values[name] for r in found if math.isfinite(r.values[name])]
        spread[name] = max(values) - min(values) if values else math.nan
    return AmbiguityReport(
        column,
        tuple(found),
        survives=len({r.ranking for r in found}) == 1,
        winner_survives=len({r.ranking[0] for r in found}) == 1,
        spread=spread,
    )


def _values(metric: str, order: str, methods: Mapping[str, Scores]) -> dict[str, float]:
    per_story = {name: scores.metrics[metric].per_story(order) for name, scores in methods.items()}
    shared = common_stories(list(per_story.values()))
    if order != "micro":
        return {name: mean(values[s] for s in shared) for name, values in per_story.items()}
    return {
        name: mean(u for s in shared for u in scores.metrics[metric].stories[s].units())
        for name, scores in methods.items()
    }


def flipped(default: Sequence[str], ranking: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of methods, in the default order, that another ranking has the other way round."""
    place = {name: i for i, name in enumerate(ranking)}
    shared = [name for name in default if name in place]
    return tuple((a, b) for i, a in enumerate(shared) for b in shared[i + 1 :] if place[a] > place[b])
