"""What a study found: win, tie and lose with intervals, agreement, and which metrics people share.

Answers to one story, and answers of one rater, are not independent: intervals come from drawing stories and
raters anew, both at once (A. B. Owen, The pigeonhole bootstrap, 2007), which errs on the wide side.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmark.aggregate import MACRO
from benchmark.statistics import RESAMPLES, resamples, spearman
from benchmark.study.agreement import NOMINAL, krippendorff_alpha, raw_agreement
from benchmark.study.answers import Judgement
from benchmark.study.design import CRITERIA


class Share(NamedTuple):
    """A share of answers and its interval, NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A pair of methods under a criterion, from the first method's side.

    Attributes:
        first, second: methods.
        criterion: of the study.
        win, tie, lose: shares of answers.
        net: win - lose.
        answers: how many, of how many `stories` and `raters`.
        alpha: Krippendorff's, values in order; `alpha_nominal` without an order.
        same: share of pairs of raters with the same answer.
    """

    first: str
    second: str
    criterion: str
    win: Share
    tie: Share
    lose: Share
    net: Share
    answers: int
    stories: int
    raters: int
    alpha: float
    alpha_nominal: float
    same: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a metric goes along with people.

    Attributes:
        metric: name.
        criterion: of the study.
        rho: Spearman's, of differences between methods and net preference, over stories and pairs.
        cells: how many (story, pair).
        low, high: interval from drawing stories anew.
    """

    metric: str
    criterion: str
    rho: float
    low: float
    high: float
    cells: int


def verdicts(
    judgements: Sequence[Judgement], *, level: float = 0.95, count: int = RESAMPLES
) -> list[Verdict]:
    """Every pair of methods under every criterion, in the order in which they first come."""
    found = []
    groups: dict[tuple[str, str], list[Judgement]] = defaultdict(list)
    for one in judgements:
        groups[one.first, one.second].append(one)
    for (first, second), of_pair in groups.items():
        for criterion in CRITERIA:
            if chosen := [one for one in of_pair if one.criterion == criterion]:
                found.append(_verdict(first, second, criterion, chosen, level, count))
    return found


def _verdict(
    first: str, second: str, criterion: str, chosen: Sequence[Judgement], level: float, count: int
) -> Verdict:
    units: dict[str, list[float]] = defaultdict(list)
    for one in chosen:
        units[one.story].append(one.value)
    values = np.asarray([one.value for one in chosen])
    parts = {"win": values == 1, "tie": values == 0, "lose": values == -1, "net": values}
    shares = clustered(
        {name: part.astype(np.float64) for name, part in parts.items()},
        [one.story for one in chosen], [one.rater for one in chosen], level=level, count=count,
    )  # fmt: skip
    return Verdict(
        first=first, second=second, criterion=criterion, **shares, answers=len(chosen), stories=len(units),
        raters=len({one.rater for one in chosen}), alpha=krippendorff_alpha(list(units.values())),
        alpha_nominal=krippendorff_alpha(list(units.values()), NOMINAL), same=raw_agreement(units),
    )  # fmt: skip


def clustered(
    values: Mapping[str, np.ndarray],
    stories: Sequence[Any],
    raters: Sequence[Any],
    *,
    level: float = 0.95,
    count: int = RESAMPLES,
) -> dict[str, Share]:
    """Means with intervals from stories and raters drawn anew together.

    Args:
        values: name -> float64 [n].
        stories: of each value.
        raters: of each value.
        level: of the intervals.
        count: of resamples.

    Returns:
        Name -> mean and interval. With a single story only raters are drawn anew, with a single rater only
        stories; with one of each there is no interval.
    """
    story_names, rater_names = sorted(set(stories)), sorted(set(raters))
    s = np.asarray([story_names.index(story) for story in stories])
    r = np.asarray([rater_names.index(rater) for rater in raters])
    shape = (len(story_names), len(rater_names))
    if shape == (1, 1):
        return {name: Share(float(v.mean()), math.nan, math.nan) for name, v in values.items()}
    by_story = _draws(shape[0], count, 0)
    by_rater = _draws(shape[1], count, 1)

    def weighted(cells: np.ndarray) -> np.ndarray:
        return ((by_story @ cells) * by_rater).sum(axis=1)

    sizes = weighted(_cells(np.ones(len(s)), s, r, shape))
    some = sizes > 0
    found = {}
    for name, array in values.items():
        means = weighted(_cells(array, s, r, shape))[some] / sizes[some]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        found[name] = Share(float(array.mean()), float(low), float(high))
    return found


def _cells(array: np.ndarray, s: np.ndarray, r: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    cells = np.zeros(shape)
    np.add.at(cells, (s, r), array)
    return cells


def _draws(size: int, count: int, seed: int) -> np.ndarray:
    """How often each of `size` is drawn in each resample: float64 [count, size]."""
    if size == 1:
        return np.ones((count, 1))
    drawn = resamples(size, count, seed)
    return np.stack([(drawn == i).sum(axis=1) for i in range(size)], axis=1).astype(np.float64)


def metric_values(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metric -> method -> story -> value, higher being better, from a `results.json` of an evaluation.

    Metrics of which neither more nor less is better are taken as they are.

    Raises:
        ResultsError: it is none; see `benchmark.report.results`.
    """
    from benchmark.report.results import read_results

    data = read_results(path)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric in data.metrics:
        sign = -1.0 if metric.higher_is_better is False else 1.0
        for method in data.compared():
            if score := method.scores.get(metric.name):
                values = score.per_story.get(MACRO, {})
                told = {story: sign * value for story, value in values.items() if value is not None}
                found.setdefault(metric.name, {})[method.name] = told
    return found


def correlations(
    judgements: Sequence[Judgement],
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    level: float = 0.95,
    count: int = 2000,
) -> list[Agreement]:
    """Every metric against every criterion, the closest first.

    A cell is a story and a pair of methods: the metric's difference between them, and the mean answer.
    Metrics with fewer than three cells are left out.
    """
    answers: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
    for one in judgements:
        answers[one.criterion, one.story, one.first, one.second].append(one.value)
    found = []
    for metric, methods in metrics.items():
        for criterion in CRITERIA:
            cells: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for (asked, story, first, second), values in answers.items():
                a, b = (methods.get(name, {}).get(story, math.nan) for name in (first, second))
                if asked == criterion and math.isfinite(a) and math.isfinite(b):
                    cells[story].append((a - b, sum(values) / len(values)))
            if (total := sum(map(len, cells.values()))) >= 3:
                rho = _rank_correlation([cells[story] for story in sorted(cells)], level, count)
                found.append(Agreement(metric=metric, criterion=criterion, **rho._asdict(), cells=total))
    return sorted(found, key=lambda a: (CRITERIA.index(a.criterion), -a.rho if a.rho == a.rho else 2))


class _Rho(NamedTuple):
    rho: float
    low: float
    high: float


def _rank_correlation(stories: Sequence[Sequence[tuple[float, float]]], level: float, count: int) -> _Rho:
    def of(chosen: Sequence[Sequence[tuple[float, float]]]) -> float:
        joined = np.asarray([cell for story in chosen for cell in story], np.float64)
        return spearman(joined[:, 0], joined[:, 1])

    drawn = [of([stories[i] for i in places]) for places in resamples(len(stories), count)]
    finite = [rho for rho in drawn if math.isfinite(rho)]
    if len(stories) < 3 or not finite:
        return _Rho(of(stories), math.nan, math.nan)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return _Rho(of(stories), float(low), float(high))


def as_json(found: Sequence[Verdict], agreements: Sequence[Agreement] = ()) -> dict[str, Any]:
    """Everything as plain values; NaN becomes null."""
    return {
        "format": "memento-study-results/1",
        "verdicts": [_plain(asdict(one)) for one in found],
        "correlations": [_plain(asdict(one)) for one in agreements],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Share):
        return _plain(value._asdict())
    return None if isinstance(value, float) and math.isnan(value) else value
