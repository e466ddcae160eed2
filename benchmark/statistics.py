"""How sure a number is: intervals clustered by story, paired comparisons, what could have been detected.

Shots of a story are not independent, so stories are what is resampled and what is flipped. A method's values
are per story, `dict[story, value]`, NaN where it has none; comparisons use the stories on which all methods
have values. Everything is seeded and independent of the order of stories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from benchmark.aggregate import MACRO, MICRO, STORY_POOLED, MetricScore, mean

RESAMPLES = 10_000
EXACT_STORIES = 14
"""Up to this many stories all sign flips are tried (16,384)."""
SMALL = 20
RANKED = 6
"""Stories from which methods are ranked: of n stories the smallest p of the sign-flip test is 2 / 2^n, which
is below 0.05 from six on. With fewer no order of two methods can be told from chance, however far apart they
are; and up to three stories, more than 2.5 % of bootstrap resamples are one story alone, so that a 95 %
interval is only the smallest and the largest story."""
_NORMAL = NormalDist()


class Interval(NamedTuple):
    """An estimate and its confidence interval, NaN where there is none; `stories` it rests on."""

    value: float
    low: float
    high: float
    stories: int


class Comparison(NamedTuple):
    """Two methods on the same stories.

    Attributes:
        difference: mean of first - second, with its interval.
        p: of the sign-flip permutation test, two-sided.
        p_wilcoxon: of Wilcoxon's signed-rank test, NaN where it was not asked for.
        detectable: smallest true difference that would have been found with 80 % power.
        wins: stories on which the first is better, ties count half.
    """

    difference: Interval
    p: float
    p_wilcoxon: float
    detectable: float
    wins: float


def resamples(num_stories: int, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Which stories each bootstrap resample draws: int [count, num_stories]; repeatable."""
    return np.random.default_rng([seed, num_stories]).integers(0, num_stories, (count, num_stories))


def cell_interval(
    score: MetricScore, order: str = MACRO, *, level: float = 0.95, count: int = RESAMPLES
) -> Interval:
    """Interval of one cell of a table: bias-corrected and accelerated bootstrap over stories.

    With `micro`, a resampled story brings all of its units. One story gives no interval.
    """
    if order in (MACRO, STORY_POOLED):
        return mean_interval(score.per_story(order), level=level, count=count)
    units = [[u for u in score.stories[key].units() if math.isfinite(u)] for key in sorted(score.stories)]
    sums = np.asarray([math.fsum(u) for u in units if u])
    sizes = np.asarray([float(len(u)) for u in units if u])

    def pooled(places: np.ndarray) -> np.ndarray:
        return sums[places].sum(axis=-1) / sizes[places].sum(axis=-1)

    return _bca(pooled, len(sums), score.value(MICRO), level, count)


def mean_interval(values: Mapping[str, float], *, level: float = 0.95, count: int = RESAMPLES) -> Interval:
    """The same for a mean of values per story."""
    array = _array(values, sorted(values))
    array = array[np.isfinite(array)]
    return _bca(lambda places: array[places].mean(axis=-1), len(array), mean(array), level, count)


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    level: float = 0.95,
    count: int = RESAMPLES,
    wilcoxon: bool = False,
) -> Comparison:
    """First minus second, paired by story.

    Raises:
        MissingExtra: `wilcoxon` is asked for and SciPy is not installed.
    """
    stories = common_stories([first, second])
    differences = _array(first, stories) - _array(second, stories)
    by_story = dict(zip(stories, differences.tolist(), strict=True))
    return Comparison(
        mean_interval(by_story, level=level, count=count),
        sign_flip_p(differences, count=count),
        wilcoxon_p(differences) if wilcoxon else math.nan,
        detectable_difference(differences, alpha=1 - level),
        float((differences > 0).sum() + (differences == 0).sum() / 2),
    )


def common_stories(methods: Sequence[Mapping[str, float]]) -> list[str]:
    """Stories on which every method has a value, sorted."""
    shared = set.intersection(*(set(m) for m in methods)) if methods else set()
    return sorted(s for s in shared if all(math.isfinite(m[s]) for m in methods))


def sign_flip_p(differences: np.ndarray, *, count: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of a mean difference if each story's difference could as well have the other sign.

    Exact up to 14 stories, else from `count` random flips and the observed one. NaN without stories.
    """
    differences = np.asarray(differences, np.float64)
    n = len(differences)
    if not n:
        return math.nan
    if n <= EXACT_STORIES:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng([seed, n]).integers(0, 2, (count, n)) * 2 - 1
        signs = np.concatenate([np.ones((1, n), np.int64), drawn])
    # Rounding of sums must not decide whether a flip ties with what was observed.
    observed = abs(differences.sum()) * (1 - 1e-12)
    return float((np.abs(signs @ differences) >= observed).mean())


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if all differences are zero, NaN without stories.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    from curation.optional import require

    differences = np.asarray(differences, np.float64)
    if not len(differences):
        return math.nan
    stats = require("scipy.stats", extra="eval")
    return 1.0 if not differences.any() else float(stats.wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number by Holm's method, in the order given; NaN is not counted."""
    order = sorted((i for i, p in enumerate(p_values) if math.isfinite(p)), key=lambda i: p_values[i])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def detectable_difference(differences: np.ndarray, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that a paired test on these stories finds with the given power.

    (z(1 - alpha / 2) + z(power)) s / sqrt(n), widened for small n by the fourth-order terms of Student's t.
    NaN for fewer than three stories.
    """
    n = len(differences)
    if n < 3:
        return math.nan
    spread = float(np.std(differences, ddof=1))
    return (_t(1 - alpha / 2, n - 1) + _t(power, n - 1)) * spread / math.sqrt(n)


def rank_probabilities(
    methods: Mapping[str, Mapping[str, float]], *, higher_is_better: bool = True, count: int = RESAMPLES
) -> dict[str, list[float]]:
    """Method -> probability of rank 1, 2, ... over resampled stories; ties share their ranks evenly."""
    names = sorted(methods)
    stories = common_stories([methods[name] for name in names])
    if not stories:
        return {name: [math.nan] * len(names) for name in names}
    values = np.stack([_array(methods[name], stories) for name in names])
    means = values[:, resamples(len(stories), count)].mean(axis=-1)
    means = -means if higher_is_better else means
    found = np.zeros((len(names), len(names)))
    for i in range(len(names)):
        before = (means < means[i] - 1e-15).sum(axis=0)
        tied = (np.abs(means - means[i]) <= 1e-15).sum(axis=0)
        for rank in range(len(names)):
            found[i, rank] = (((before <= rank) & (rank < before + tied)) / tied).mean()
    return {name: found[i].tolist() for i, name in enumerate(names)}


def small_sample_line(num_stories: int) -> str:
    """What to tell a reader of intervals from few stories; empty from 20 on."""
    if num_stories >= SMALL:
        return ""
    if num_stories == 1:
        return "1 story: intervals, ranks and a best in bold need several stories, so there are none"
    if num_stories < RANKED:
        least = f"2 / 2^{num_stories} = {2 / 2**num_stories:.2g}"
        return (
            f"{num_stories} stories: no ranks and no best in bold, for fewer than {RANKED} cannot tell "
            f"methods apart (their smallest p is {least}), and intervals from so few are too narrow"
        )
    return f"{num_stories} stories: intervals from so few are too narrow, and small differences go unseen"


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties averaged: float64 [n]."""
    values = np.asarray(values, np.float64)
    below = (values[None, :] < values[:, None]).sum(axis=1)
    same = (values[None, :] == values[:, None]).sum(axis=1)
    return below + (same + 1) / 2


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN for fewer than three pairs or where one side is constant."""
    if len(a) < 3:
        return math.nan
    x, y = (r - r.mean() for r in (average_ranks(a), average_ranks(b)))
    scale = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale else math.nan


def metric_agreement(
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[tuple[str, str], tuple[float, int]]:
    """How far metrics order the same videos alike.

    Args:
        metrics: metric -> method -> story -> value.

    Returns:
        (metric, metric) -> (rank correlation over (method, story) cells that both have, number of cells).
        Values are compared inside each story, so that easy and hard stories do not count as agreement.
    """
    names = list(metrics)
    found = {}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            x, y = _centred(metrics[a], metrics[b])
            found[a, b] = (spearman(x, y), len(x))
    return found


def _centred(
    a: Mapping[str, Mapping[str, float]], b: Mapping[str, Mapping[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    by_story: dict[str, list[tuple[float, float]]] = {}
    for method in sorted(set(a) & set(b)):
        for story in common_stories([a[method], b[method]]):
            by_story.setdefault(story, []).append((a[method][story], b[method][story]))
    cells = [np.asarray(pairs) - np.mean(pairs, axis=0) for pairs in by_story.values() if len(pairs) > 1]
    joined = np.concatenate(cells) if cells else np.zeros((0, 2))
    return joined[:, 0], joined[:, 1]


def _array(values: Mapping[str, float], stories: Sequence[str]) -> np.ndarray:
    return np.asarray([values[story] for story in stories], np.float64)


def _bca(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, value: float, level: float, count: int
) -> Interval:
    """Efron's bias-corrected and accelerated interval of a statistic of story indices [..., n]."""
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    drawn = np.sort(statistic(resamples(n, count)))
    if drawn[0] == drawn[-1]:
        return Interval(value, value, value, n)
    below = float((drawn < value).mean() + (drawn == value).mean() / 2)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / count), 1 - 0.5 / count))
    others = np.asarray([np.delete(np.arange(n), i) for i in range(n)])
    left_out = statistic(others)
    d = left_out.mean() - left_out
    cubes, squares = float((d**3).sum()), float((d**2).sum())
    acceleration = cubes / (6 * squares**1.5) if squares else 0.0
    edges = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        edges.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(drawn, edges)
    return Interval(value, float(low), float(high), n)


def _t(probability: float, freedom: int) -> float:
    """Quantile of Student's t by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    z, v = _NORMAL.inv_cdf(probability), float(freedom)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (i + 1) for i, term in enumerate(terms))
