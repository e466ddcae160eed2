"""Do raters agree? Krippendorff's alpha: 1 for perfect agreement, 0 for what chance gives, below for less.

K. Krippendorff, Content Analysis (2nd edition, 2004), chapter 11. It takes any number of raters, and units
that some of them did not judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

NOMINAL, ORDINAL, INTERVAL = "nominal", "ordinal", "interval"


def krippendorff_alpha(units: Sequence[Sequence[float]], metric: str = ORDINAL) -> float:
    """Alpha of judgements.

    Args:
        units: the values that a unit got, of however many raters; units with fewer than two say nothing.
        metric: `nominal`, `ordinal` or `interval`: how far two values are apart.

    Returns:
        Alpha; NaN if no unit has two values, or all values are the same, so that nothing could differ.

    Raises:
        ValueError: no such metric.
    """
    paired = [list(unit) for unit in units if len(unit) >= 2]
    values = sorted({value for unit in paired for value in unit})
    if len(values) < 2:
        return math.nan
    place = {value: i for i, value in enumerate(values)}
    together = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = np.bincount([place[value] for value in unit], minlength=len(values)).astype(np.float64)
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = together.sum(axis=0)
    far = _distances(np.asarray(values, np.float64), totals, metric)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return 1.0 - float((together * far).sum() / (expected * far).sum())


def _distances(values: np.ndarray, totals: np.ndarray, metric: str) -> np.ndarray:
    if metric == NOMINAL:
        return 1.0 - np.eye(len(values))
    if metric == INTERVAL:
        return (values[:, None] - values[None, :]) ** 2
    if metric == ORDINAL:
        middles = np.cumsum(totals) - totals / 2
        return (middles[:, None] - middles[None, :]) ** 2
    raise ValueError(f"{metric!r} is no metric: use {NOMINAL}, {ORDINAL} or {INTERVAL}")


def raw_agreement(units: Mapping[str, Sequence[float]]) -> float:
    """Share of pairs of raters who gave a unit the same value, every pair alike; NaN without pairs."""
    same = pairs = 0.0
    for unit in units.values():
        for i, value in enumerate(unit):
            pairs += len(unit) - i - 1
            same += sum(1.0 for other in unit[i + 1 :] if other == value)
    return same / pairs if pairs else math.nan
