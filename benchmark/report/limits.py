"""Calibration of a report: limits of every cosine, and who wins by freezing or copying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmark.calibration import calibrate
from benchmark.evaluation import Evaluation
from benchmark.report.measures import number
from benchmark.report.schema import Limits, MethodFact, MetricFact
from benchmark.report.stillness import stillness_lines, value
from benchmark.scoring import Metric

COPIED = 1.0
"""Calibrated similarity of shots at which they differ no more than two halves of one shot do."""
FROZEN = "frozen"
"""What the name of a control of frozen videos ends with."""
REPEATED = 0.5
"""Share of boundaries with a repeated frame from which adjacent shots are easy points."""


def limits(evaluation: Evaluation, metrics: Sequence[Metric]) -> list[Limits]:
    """Floor, ceiling and frozen cheat of every cosine that has a value, for each method."""
    found = []
    order = evaluation.preset.order
    for metric in metrics:
        if metric.unit != "cosine":
            continue
        for method in evaluation.methods:
            score = method.scores.metrics.get(metric.name)
            if score is None or number(score.value(order)) is None:
                continue
            made = calibrate(metric, score, evaluation.stories, method.store, order)
            found.append(
                Limits(
                    metric=metric.name,
                    method=method.name,
                    score=number(made.score),
                    floor=number(made.floor),
                    ceiling=number(made.ceiling),
                    cheat=number(made.cheat),
                    calibrated=number(made.calibrated),
                    won_by_freezing=made.won_by_freezing,
                )
            )
    return found


def flags(
    metrics: Sequence[MetricFact], methods: Sequence[MethodFact], found: Sequence[Limits], order: str
) -> list[str]:
    """What a reader of consistency must know: which metrics and which methods reward standing still.

    Args:
        metrics: of the report.
        methods: with their scores, controls too.
        found: of `limits`.
        order: of aggregation.
    """
    lines = []
    by_metric: dict[str, list[Limits]] = {}
    for one in found:
        by_metric.setdefault(one.metric, []).append(one)
    titles = {metric.name: metric.title for metric in metrics}
    for name, each in by_metric.items():
        frozen = [one.method for one in each if one.won_by_freezing]
        if frozen:
            lines.append(
                f"{titles[name]}: videos frozen at their first frames would score at least as high "
                f"as those of {', '.join(frozen)}: read it together with motion"
            )
    compared = [method for method in methods if not method.control]
    lines += stillness_lines(metrics, compared, order)
    for metric in metrics:
        winner = _winner(metric, compared, order)
        if winner is not None and metric.unit == "cosine" and "text" not in metric.needs:
            lines += _suspicious(metric, winner, by_metric.get(metric.name, ()), order)
    return [*dict.fromkeys(lines), *_controls(metrics, methods, order)]


def _winner(metric: MetricFact, methods: Sequence[MethodFact], order: str) -> MethodFact | None:
    valued = [(value(method, metric.name, order), method) for method in methods]
    defined = [(v, method) for v, method in valued if v is not None]
    if len(defined) < 2 or metric.higher_is_better is None:
        return None
    best = max if metric.higher_is_better else min
    return best(defined, key=lambda pair: pair[0])[1]


def _suspicious(metric: MetricFact, winner: MethodFact, found: Sequence[Limits], order: str) -> list[str]:
    """Lines on a winner whose shots are copies of each other, or begin with the frame before."""
    lines = []
    head = f"{winner.name} is best in {metric.title}"
    between = ("shot" in metric.name and "intra" not in metric.name) or metric.name == "inter_scene"
    for one in found:
        copied = one.calibrated is not None and one.calibrated >= COPIED
        if between and one.method == winner.name and copied:
            lines.append(
                f"{head} with {one.calibrated:.2f} of the ceiling: its shots are as alike as two halves of "
                "one shot, so it may win by copying"
            )
    repeated = value(winner, "duplicate_boundaries", order)
    if between and repeated is not None and repeated > REPEATED:
        lines.append(
            f"{head}, but {repeated:.0%} of its shots begin with the last frame of the shot before: "
            "adjacent shots are easy points"
        )
    return lines


def _controls(metrics: Sequence[MetricFact], methods: Sequence[MethodFact], order: str) -> list[str]:
    """A line for each control that does no worse than a method where it should lose.

    Where both are without a fault there is nothing to tell.
    """
    lines = []
    compared = [method for method in methods if not method.control]
    for control in methods:
        if not control.control:
            continue
        blind = {
            metric.title: [m.name for m in compared if _no_worse(metric, control, m, order)]
            for metric in metrics
            if _tells(metric, control)
        }
        named = [m.name for m in compared if any(m.name in each for each in blind.values())]
        told = [
            title if each == named else f"{title} ({', '.join(each)})"
            for title, each in blind.items()
            if each
        ]
        if told:
            lines.append(f"{control.name} does no worse than {', '.join(named)} in: {'; '.join(told)}")
    return lines


def _tells(metric: MetricFact, control: MethodFact) -> bool:
    """Whether a metric could tell a control from a method: shots in other places are the same shots."""
    inside = metric.group == "shot" or "level=shots_of_scene" in metric.options
    inside |= all(kind.startswith(("aes_", "stat_")) and "boundary" not in kind for kind in metric.needs)
    return control.name.endswith(FROZEN) or not inside


def _no_worse(metric: MetricFact, control: MethodFact, method: MethodFact, order: str) -> bool:
    a, b = value(control, metric.name, order), value(method, metric.name, order)
    if metric.higher_is_better is None or a is None or b is None:
        return False
    faultless = not metric.higher_is_better and a == b == 0
    return not faultless and (a >= b if metric.higher_is_better else a <= b)


def by_method(found: Sequence[Limits]) -> Mapping[tuple[str, str], Limits]:
    """(metric, method) -> limits."""
    return {(one.metric, one.method): one for one in found}
