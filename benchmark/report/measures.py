"""Values, intervals and comparisons of a report, from scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from benchmark.aggregate import MACRO, MICRO, ORDERS, STORY_POOLED, Coverage, MetricScore, Scores
from benchmark.ambiguity import AmbiguityReport, ambiguity, flipped
from benchmark.metrics import columns
from benchmark.report.schema import (
    Agreement,
    Ambiguity,
    Cell,
    Difference,
    MetricFact,
    Number,
    Ranks,
    ReadingFact,
    Score,
)
from benchmark.statistics import (
    RANKED,
    Comparison,
    Interval,
    cell_interval,
    common_stories,
    compare,
    holm,
    metric_agreement,
    rank_probabilities,
)
from curation.optional import available

PerStory = Mapping[str, Mapping[str, Mapping[str, float]]]
"""metric -> method -> story -> value."""


def number(value: float) -> Number:
    """A finite number, else None."""
    return float(value) if math.isfinite(value) else None


def cell(interval: Interval) -> Cell:
    """An interval as plain values."""
    value, low, high, stories = interval
    return Cell(value=number(value), low=number(low), high=number(high), stories=stories)


def score_fact(score: MetricScore, reason: str) -> Score:
    """A metric's score with an interval for each order of aggregation.

    Args:
        score: what came out.
        reason: why the metric is unavailable; empty if it is not.
    """
    coverage = score.coverage()
    return Score(
        cells={order: cell(cell_interval(score, order)) for order in ORDERS},
        std=number(score.std()),
        coverage={
            "stories": list(coverage.stories),
            "groups": list(coverage.groups),
            "units": [coverage.units, coverage.undefined_units],
        },
        per_story={
            order: {key: number(value) for key, value in score.per_story(order).items()}
            for order in (MACRO, STORY_POOLED)
        },
        reason=reason or _why_undefined(coverage),
    )


def _why_undefined(coverage: Coverage) -> str:
    defined, total = coverage.stories
    if defined:
        return ""
    if coverage.undefined_units:
        return f"none of {coverage.undefined_units} computed values is finite"
    if not total:
        return "no story was scored"
    none = "the story does not have" if total == 1 else f"none of {total} stories has"
    return f"{none} it: it needs shots or scenes that are not there"


def per_story(metrics: Sequence[MetricFact], methods: Mapping[str, Scores], order: str) -> PerStory:
    """The values that comparisons are made of, of the metrics that have any."""
    inside = STORY_POOLED if order == MICRO else order
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric in metrics:
        values = {
            name: scores.metrics[metric.name].per_story(inside)
            for name, scores in methods.items()
            if metric.name in scores.metrics and metric.name not in scores.unavailable
        }
        if values := {name: v for name, v in values.items() if any(map(math.isfinite, v.values()))}:
            found[metric.name] = values
    return found


def differences(
    metrics: Sequence[MetricFact], values: PerStory, pairs: Callable[[str, str], PerStory] | None = None
) -> list[Difference]:
    """All pairs of methods on all metrics; p values are corrected over each part of the table.

    Args:
        metrics: of the report.
        values: of all methods: which there are.
        pairs: values of two methods on the shots that both have; those of `values` if not given.
    """
    wilcoxon = available("scipy")
    paired = cache(pairs or (lambda first, second: values))
    better = {metric.name: metric.higher_is_better for metric in metrics}
    found: list[Difference] = []
    for part in dict.fromkeys(metric.part for metric in metrics):
        rows = []
        for metric in metrics:
            if metric.part != part or metric.name not in values:
                continue
            for first, second in itertools.combinations(values[metric.name], 2):
                of = paired(first, second).get(metric.name, {})
                compared = compare(of.get(first, {}), of.get(second, {}), wilcoxon=wilcoxon)
                rows.append((metric.name, first, second, compared))
        corrected = holm([row[3].p for row in rows])
        found += [
            Difference(
                metric=name,
                first=first,
                second=second,
                difference=cell(compared.difference),
                p=number(compared.p),
                p_holm=number(p_holm),
                p_wilcoxon=number(compared.p_wilcoxon),
                detectable=number(compared.detectable),
                wins=number(_better_on(compared, better[name])),
            )
            for (name, first, second, compared), p_holm in zip(rows, corrected, strict=True)
        ]
    return found


def _better_on(compared: Comparison, higher_is_better: bool | None) -> float:
    stories = compared.difference.stories
    return stories - compared.wins if higher_is_better is False else compared.wins


def ranks(metrics: Sequence[MetricFact], values: PerStory) -> list[Ranks]:
    """Rank probabilities of the metrics of which one end is better, if the methods share enough stories.

    From few, the order that they have comes out with a certainty that nothing supports (`RANKED`).
    """
    found = []
    for metric in metrics:
        of = values.get(metric.name, {})
        if metric.higher_is_better is None or len(of) < 2:
            continue
        stories = len(common_stories(list(of.values())))
        if stories < RANKED:
            continue
        chances = rank_probabilities(of, higher_is_better=metric.higher_is_better)
        plain = {name: [number(c) for c in chances[name]] for name in of}
        found.append(Ranks(metric=metric.name, probabilities=plain, stories=stories))
    return found


def agreements(values: PerStory) -> list[Agreement]:
    """How far metrics order the methods alike inside stories; empty for a single method."""
    if all(len(methods) < 2 for methods in values.values()):
        return []
    return [
        Agreement(first=a, second=b, correlation=number(correlation), cells=cells)
        for (a, b), (correlation, cells) in metric_agreement(values).items()
    ]


def ambiguities(metrics: Sequence[MetricFact], methods: Mapping[str, Scores], order: str) -> list[Ambiguity]:
    """The ambiguity report of each column of the table for which there are numbers, our reading first."""
    default = {metric.column: metric.name for metric in metrics if metric.column}
    found = []
    for column in columns():
        if column not in default:
            continue
        try:
            report = ambiguity(column, methods)
        except ValueError:  # no reading of the column has numbers for all methods
            continue
        found.append(_ambiguity_fact(report, default[column], order))
    return found


def _ambiguity_fact(report: AmbiguityReport, default: str, order: str) -> Ambiguity:
    names = [default, *dict.fromkeys(reading.metric for reading in report.readings)]
    ordered = sorted(report.readings, key=lambda r: (names.index(r.metric), r.order != order))
    return Ambiguity(
        column=report.column,
        readings=[
            ReadingFact(
                metric=reading.metric,
                order=reading.order,
                values={name: number(value) for name, value in reading.values.items()},
                ranking=list(reading.ranking),
                flipped=[list(pair) for pair in flipped(ordered[0].ranking, reading.ranking)],
            )
            for reading in ordered
        ],
        survives=report.survives,
        winner_survives=report.winner_survives,
        spread={name: number(value) for name, value in report.spread.items()},
    )
