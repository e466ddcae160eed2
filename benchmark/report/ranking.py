"""Which cells of a table are the best and the second, and which numbers must not be ranked at all."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from benchmark.report.schema import MetricFact, Number, ReportData
from benchmark.report.stillness import hardly_moving, rewards_stillness
from benchmark.statistics import RANKED

DASH = "-"


def digits(metric: MetricFact) -> int:
    """Decimals to show: four for scores, as the papers have them."""
    return 4 if metric.unit in ("cosine", "score") or metric.unit.startswith("share") else 2


def shown(value: Number, metric: MetricFact) -> str:
    """A number as the tables show it, a dash for none. The sign of zero is dropped."""
    if value is None:
        return DASH
    text = f"{value:.{digits(metric)}f}"
    return text[1:] if text.startswith("-") and not float(text) else text


def found_ranks(data: ReportData, metrics: Sequence[MetricFact], order: str) -> dict[tuple[str, str], int]:
    """(method, metric) -> 1 or 2 by what is shown; equal numbers share a rank.

    Nothing is ranked from fewer than `RANKED` stories, or where all show the same. A method that hardly moves
    is left out where standing still is enough to win. Where the methods lack different shots, a rank that the
    difference on the shots that both have contradicts is not given.
    """
    methods = data.compared()
    still = hardly_moving(methods, order)
    apart = len({frozenset(method.missing_shots) for method in methods}) > 1
    found: dict[tuple[str, str], int] = {}
    for metric in metrics:
        rivals = [
            method.scores[metric.name].cells[order]
            if metric.name in method.scores and not (method.name in still and rewards_stillness(metric))
            else None
            for method in methods
        ]
        cells = {
            method.name: cell
            for method, cell in zip(methods, rivals, strict=True)
            if cell is not None and cell.value is not None
        }
        if metric.higher_is_better is None or len(cells) < 2:
            continue
        if min(cell.stories for cell in cells.values()) < RANKED:
            continue
        values = {name: float(shown(cell.value, metric)) for name, cell in cells.items()}
        best = sorted(set(values.values()), reverse=metric.higher_is_better)[:2]
        if len(best) < 2:
            continue
        for name, number in values.items():
            worse = [n for n, v in values.items() if v != number and (v < number) == metric.higher_is_better]
            if number in best and not (apart and _contradicted(data, metric, name, worse)):
                found[name, metric.name] = best.index(number) + 1
    return found


def _contradicted(data: ReportData, metric: MetricFact, name: str, worse: Collection[str]) -> bool:
    """Whether a method is not better than each of the worse ones on the shots that both have."""
    sign = 1 if metric.higher_is_better else -1
    for d in data.differences:
        if d.metric != metric.name or d.difference.value is None:
            continue
        lead = sign * d.difference.value
        if (d.first == name and d.second in worse and lead <= 0) or (
            d.second == name and d.first in worse and lead >= 0
        ):
            return True
    return False
