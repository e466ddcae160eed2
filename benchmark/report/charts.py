"""Geometry of the page's charts: where points lie, not how they look."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmark.report.layout import Column, Table
from benchmark.report.schema import Drift, Number

RADAR_RADIUS, RADAR_INNER = 120.0, 0.18
"""Of the outer ring, and the share of it at which the lowest method of an axis lies."""
DRIFT_SIZE = (300.0, 132.0)
DRIFT_MARGIN = (30.0, 8.0, 10.0, 18.0)  # left, top, right, bottom


class Span(NamedTuple):
    """An interval of an interval plot, in percent of its width; `low` and `high` None without one."""

    method: str
    at: float
    low: Number
    high: Number


def interval_plot(one: Table, place: int) -> tuple[list[Span], float, float]:
    """Dots and intervals of a column.

    Args:
        one: a table of measured numbers.
        place: of the column.

    Returns:
        A span for each method with a value, and the numbers at the left and right ends.
    """
    cells = [(row.method, row.entries[place].cell) for row in one.rows]
    known = [v for _, c in cells for v in (c.value, c.low, c.high) if v is not None]
    if not known:
        return [], 0.0, 0.0
    low, high = min(known), max(known)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    low, high = (0.0 if 0 <= low < pad else low - pad), (1.0 if 1 - pad < high <= 1 else high + pad)

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    spans = [
        Span(name, at(c.value), None if c.low is None else at(c.low), None if c.high is None else at(c.high))
        for name, c in cells
        if c.value is not None
    ]
    return spans, low, high


class Axis(NamedTuple):
    """An axis of the radar: its end, where its title stands, and the numbers at its inner and outer ends."""

    x: float
    y: float
    text_x: float
    text_y: float
    anchor: str
    low: float
    high: float
    column: Column


def radar(one: Table) -> dict[str, Any] | None:
    """Axes and polygons of the columns on which at least two methods differ; None for fewer than three.

    The worst of the methods lies on the inner ring, the best on the outer one.
    """
    places = [i for i, column in enumerate(one.columns) if column.arrow and _differs(one, i)]
    if len(places) < 3 or len(one.rows) < 2:
        return None
    axes, scales = [], []
    for n, place in enumerate(places):
        angle = 2 * math.pi * n / len(places) - math.pi / 2
        values = [row.entries[place].cell.value for row in one.rows]
        known = [v for v in values if v is not None]
        column = one.columns[place]
        worst, best = (min(known), max(known)) if column.arrow == "up" else (max(known), min(known))
        x, y = math.cos(angle), math.sin(angle)
        anchor = "middle" if abs(x) < 0.2 else "start" if x > 0 else "end"
        out = RADAR_RADIUS + 14
        scales.append((x, y, worst, best))
        end_x, end_y = round(x * RADAR_RADIUS, 1), round(y * RADAR_RADIUS, 1)
        axes.append(Axis(end_x, end_y, round(x * out, 1), round(y * out, 1), anchor, worst, best, column))
    shapes = {row.method: _shape([row.entries[i].cell.value for i in places], scales) for row in one.rows}
    rings = [round(RADAR_RADIUS * (RADAR_INNER + (1 - RADAR_INNER) * share), 1) for share in (0, 0.5, 1)]
    return {"axes": axes, "shapes": shapes, "rings": rings}


def _differs(one: Table, place: int) -> bool:
    known = {v for row in one.rows if (v := row.entries[place].cell.value) is not None}
    return len(known) >= 2


def _shape(
    values: Sequence[Number], scales: Sequence[tuple[float, float, float, float]]
) -> list[tuple[float, float]]:
    points = []
    for value, (x, y, worst, best) in zip(values, scales, strict=True):
        if value is None:  # an open place in the polygon would be read as a low score
            continue
        share = RADAR_INNER + (1 - RADAR_INNER) * (value - worst) / (best - worst)
        points.append((round(x * share * RADAR_RADIUS, 1), round(y * share * RADAR_RADIUS, 1)))
    return points


def drift_chart(drift: Drift, floor: Number, scale: tuple[float, float]) -> dict[str, Any]:
    """Lines of a drift chart.

    Args:
        drift: similarities to the first shot, by method.
        floor: similarity by chance, None if not known.
        scale: lowest and highest similarity shown, the same in all charts.
    """
    width, height = DRIFT_SIZE
    left, top, right, bottom = DRIFT_MARGIN
    low, high = scale

    def x(i: int) -> float:
        return round(left + (width - left - right) * i / max(1, len(drift.stems) - 1), 1)

    def y(value: float) -> float:
        return round(top + (height - top - bottom) * (high - value) / (high - low), 1)

    lines = {
        method: [(x(i), y(v), v, drift.stems[i]) for i, v in enumerate(values) if v is not None]
        for method, values in drift.values.items()
    }
    every = math.ceil((len(drift.stems) - 1) / 5) or 1
    return {
        "name": drift.name,
        "width": width,
        "height": height,
        "left": left,
        "lines": {method: points for method, points in lines.items() if points},
        "stems": [(x(i), stem) for i, stem in enumerate(drift.stems) if i % every == 0],
        "ticks": [(y(v), f"{v:.2g}") for v in _ticks(low, high)],
        "floor": y(floor) if floor is not None and low <= floor <= high else None,
    }


def drift_scale(drifts: Sequence[Drift]) -> tuple[float, float]:
    """Lowest and highest similarity of all charts, a little apart even if they are equal."""
    known = [v for drift in drifts for values in drift.values.values() for v in values if v is not None]
    low = min([*known, 1.0])
    low = math.floor((low - 0.02) * 10) / 10
    return low, 1.0 if low < 1.0 else low + 0.1


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.05, 0.1, 0.2, 0.25, 0.5, 1.0) if (high - low) / s <= 4.01)
    first = math.ceil(low / step - 1e-9)
    return [round(first * step + i * step, 6) for i in range(int((high - first * step) / step + 1e-9) + 1)]


def heat_scale(values: Sequence[Number]) -> tuple[float, float]:
    """Similarities that get the palest and the strongest colour: the 2nd percentile, and 1."""
    known = sorted(v for v in values if v is not None and v < 0.9999)
    if not known:
        return 0.0, 1.0
    low = known[int(0.02 * (len(known) - 1))]
    return min(low, 0.98), 1.0


def legend(methods: Sequence[str]) -> Mapping[str, str]:
    """Method -> class of its colour; colours start over after eight."""
    return {name: f"m{i % 8}" for i, name in enumerate(methods)}
