"""Who hardly moves, and in which columns standing still is enough to win."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmark.report.schema import MethodFact, MetricFact, Number

SLOW = 0.5
"""Motion below this part of the median of the others, or more frozen steps than that, is no fair win."""
MARK = "hardly moves"
"""Of a cell whose method is best while it hardly moves."""
_HELPED = ("stat_flicker", "stat_inner_cuts", "stat_boundary_difference")
"""Weight-free kinds of which metrics become better in videos that stand still."""


def value(method: MethodFact, metric: str, order: str) -> Number:
    """A method's number, None if it has none."""
    score = method.scores.get(metric)
    return score.cells[order].value if score else None


def rewards_stillness(metric: MetricFact) -> bool:
    """Whether standing still makes a metric better: likeness of pictures, flicker, cuts, repeated frames."""
    if metric.higher_is_better is None:
        return False
    alike = metric.unit == "cosine" and "text" not in metric.needs
    return alike or any(kind in _HELPED for kind in metric.needs)


def hardly_moving(methods: Sequence[MethodFact], order: str) -> dict[str, str]:
    """Methods that hardly move -> in which way: `moves 1.5 % of the width per second, the others 8.4`.

    Args:
        methods: with their scores, without controls.
        order: of aggregation.
    """
    motion = {method.name: value(method, "motion", order) for method in methods}
    found = {}
    for method in methods:
        told = []
        others = [m for name, m in motion.items() if name != method.name and m is not None]
        own, freeze = motion[method.name], value(method, "freeze", order)
        if own is not None and others and own < SLOW * (middle := statistics.median(others)):
            told.append(f"moves {own:.2g} % of the width per second, the others {middle:.2g}")
        if freeze is not None and freeze > SLOW:
            told.append(f"{100 * freeze:.0f} % of its frame steps are frozen")
        if told:
            found[method.name] = ", and ".join(told)
    return found


def best_by_stillness(
    metrics: Sequence[MetricFact], methods: Sequence[MethodFact], order: str
) -> dict[str, list[MetricFact]]:
    """Method that hardly moves -> metrics in which it is best, and standing still is enough for that.

    A method that moves and has the same number shares the win, so there is nothing to tell.
    """
    still = hardly_moving(methods, order)
    found: dict[str, list[MetricFact]] = {}
    for metric in metrics:
        values = {m.name: v for m in methods if (v := value(m, metric.name, order)) is not None}
        if not rewards_stillness(metric) or len(values) < 2:
            continue
        best = (max if metric.higher_is_better else min)(values.values())
        winners = [name for name, number in values.items() if number == best]
        if len(winners) < len(values) and all(name in still for name in winners):
            for name in winners:
                found.setdefault(name, []).append(metric)
    return found


def stillness_lines(
    metrics: Sequence[MetricFact],
    methods: Sequence[MethodFact],
    order: str,
    titles: Mapping[str, str] | None = None,
) -> list[str]:
    """A line for each method that is best while it hardly moves.

    Args:
        metrics: of the report.
        methods: with their scores, without controls.
        order: of aggregation.
        titles: metric -> how a reader knows it; its own title if not given.
    """
    ways = hardly_moving(methods, order)
    lines = []
    for name, won in best_by_stillness(metrics, methods, order).items():
        columns = "; ".join(dict.fromkeys((titles or {}).get(m.name, m.title) for m in won))
        lines.append(
            f"{name} is best in {columns}, but {ways[name]}: it may win by freezing, so it is not in bold "
            "there"
        )
    return lines
