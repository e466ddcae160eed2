"""The page of a report: one HTML file that opens without a server or network.

Everything that comes from users' files (names, prompts, paths) is data: templates escape it, scripts read it
from JSON, and the page's policy forbids every request but for the videos beside it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from benchmark.aggregate import ORDERS
from benchmark.report.charts import drift_chart, drift_scale, heat_scale, interval_plot, legend, radar
from benchmark.report.console import lacking_encoders
from benchmark.report.layout import DASH, Table, interval, shown, table, tables
from benchmark.report.limits import by_method
from benchmark.report.results import write_text
from benchmark.report.schema import (
    MEASURED_COLUMN,
    WEIGHT_FREE_COLUMN,
    Ambiguity,
    Matrix,
    MetricFact,
    Number,
    ReportData,
    StoryFact,
)
from benchmark.report.stillness import best_by_stillness
from benchmark.statistics import RANKED
from curation.captions.grammar import replace_hidden

TEMPLATES = Path(__file__).parent / "templates"
NAME = "report.html"
MAX_HEAT_CELLS = 60_000
"""Of all heat maps; those of further stories are left out and said so."""
MAX_TEXT = 1_500
"""Characters of a prompt that are shown."""
SIGNIFICANT = 0.05


def write_page(data: ReportData, path: Path | str) -> Path:
    """Write the page, whole or not at all.

    Args:
        data: of a report, made for the folder that the page lies in.
        path: of the file, or of the folder, where it becomes `report.html`.

    Returns:
        The file.
    """
    path = Path(path)
    return write_text(path if path.suffix == ".html" else path / NAME, page(data))


def page(data: ReportData) -> str:
    """The page as text. Equal data gives equal text."""
    methods = [method.name for method in data.compared()]
    main = {order: table(data, MEASURED_COLUMN, order) for order in ORDERS}
    free = {order: table(data, WEIGHT_FREE_COLUMN, order) for order in ORDERS}
    several = len(data.stories) > 1
    still = best_by_stillness(data.metrics, data.compared(), data.order)
    context = {
        "data": data,
        "methods": methods,
        "colours": legend(methods),
        "orders": ORDERS,
        "main": main,
        "free": free,
        "several": several,
        "ranked": main[data.order].ranked,
        "still": sorted({(name, m.name) for name, won in still.items() for m in won}),
        "bring": lacking_encoders(data),
        # The command that brings them is said once, with `bring`.
        "looked": [e.missing.partition("; get them with")[0] for e in data.encoders if e.missing],
        "measured": any(not metric.reason for metric in data.columns()),
        "radar": radar(main[data.order]) if main[data.order].ranked else None,
        "plots": [*_plots(main[data.order]), *_plots(free[data.order])] if several else [],
        "comparisons": _comparisons(data),
        "calibration": _calibration(data),
        "splits": _splits(data),
        "ambiguities": _ambiguities(data),
        "agreement": _agreement(data),
        "worst": _worst(data),
        "stories": _stories(data, methods),
        "players": _players(data),
        "metrics": {metric.name: metric for metric in data.metrics},
        "titles": {column.metric.name: column.title for one in tables(data) for column in one.columns},
        "slugs": {story.key: slug(story.key) for story in data.stories},
        "heat_left_out": _heat_left_out(data),
    }
    return _environment().get_template("report.html").render(context)


def slug(key: str) -> str:
    """A story's key as part of a link; names with other characters than letters, digits, `-_` get a hash."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", key)
    return plain if plain == key else f"{plain[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def video_url(path: str) -> str:
    """A path relative to the page as an address that no browser takes for another scheme."""
    return quote(path if path.startswith(("../", "./", "/")) else f"./{path}", safe="/")


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    made.filters |= {
        "shown": shown,
        "interval": interval,
        "num": _num,
        "clip": _clip,
        "words": _words,
        "brief": _brief,
    }
    return made


def _visible(value: Any) -> Any:
    """Text without characters that are not seen but act, such as those that turn the direction of writing."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return replace_hidden(value, "\ufffd", keep="\n\t")


def _num(value: Number, digits: int = 3) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT].rstrip() + f" ... ({len(text)} characters)"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _brief(stem: str) -> str:
    """`2.1` for `02_01`, where there is little room."""
    return ".".join(str(int(part)) for part in stem.split("_"))


def _plots(one: Table) -> list[dict[str, Any]]:
    found = []
    for place, column in enumerate(one.columns):
        spans, low, high = interval_plot(one, place)
        if spans:
            found.append({"column": column, "spans": spans, "low": low, "high": high, "part": one.part})
    return found


def _comparisons(data: ReportData) -> list[dict[str, Any]]:
    """Each metric with its pairs, how many of them are told apart, and the chances of ranks."""
    chances = {ranks.metric: ranks for ranks in data.ranks}
    found = []
    for metric in data.metrics:
        pairs = [d for d in data.differences if d.metric == metric.name]
        if pairs:
            apart = sum(d.p_holm is not None and d.p_holm < SIGNIFICANT for d in pairs)
            ranks = chances.get(metric.name)
            found.append({"metric": metric, "pairs": pairs, "apart": apart, "ranks": ranks})
    return found


def _calibration(data: ReportData) -> list[dict[str, Any]]:
    """Each metric with the limits of each method; positions are percent between the outermost limits."""
    limits = by_method(data.calibration)
    found = []
    for metric in data.metrics:
        rows = [limits[metric.name, m.name] for m in data.methods if (metric.name, m.name) in limits]
        known = [v for r in rows for v in (r.score, r.floor, r.ceiling, r.cheat) if v is not None]
        if not rows:
            continue
        low, high = min(known), max(known)
        wide = (high - low) or 1.0
        places = [
            {
                what: None if (v := getattr(row, what)) is None else round(100 * (v - low) / wide, 2)
                for what in ("score", "floor", "ceiling", "cheat")
            }
            for row in rows
        ]
        found.append({"metric": metric, "rows": list(zip(rows, places, strict=True))})
    return found


def _splits(data: ReportData) -> dict[str, dict[str, Any]]:
    """`joined` and `recurrence`: names of the columns, and method -> name -> split."""
    found: dict[str, dict[str, Any]] = {}
    for one in data.split:
        part = found.setdefault(one.kind, {"names": [], "rows": {}})
        if one.name not in part["names"]:
            part["names"].append(one.name)
        part["rows"].setdefault(one.method, {})[one.name] = one
    order = ["continuation", "cut", "scene_change", "unknown", "1", "2", "3-4", "5+"]
    for part in found.values():
        part["names"].sort(key=order.index)
    return found


def _ambiguities(data: ReportData) -> list[dict[str, Any]]:
    facts = {metric.column: metric for metric in data.metrics}
    return [
        {
            "report": one,
            "metric": facts[one.column],
            "verdict": _verdict(one, len(data.compared()), len(data.stories)),
            "flips": sum(bool(reading.flipped) for reading in one.readings),
        }
        for one in data.ambiguity
    ]


def _verdict(one: Ambiguity, methods: int, stories: int) -> tuple[str, str]:
    if methods < 2:
        return "", "one method: no ranking"
    if stories < RANKED:
        return "", f"fewer than {RANKED} stories: no ranking"
    if one.survives:
        return "good", "ranking survives every reading"
    if one.winner_survives:
        return "warn", "the best method survives, the ranking does not"
    return "bad", "even the best method depends on the reading"


def _agreement(data: ReportData) -> dict[str, Any] | None:
    """Correlations by pair of metrics; no names where there are too few stories, None without any at all."""
    if all(one.correlation is None for one in data.agreement):
        return None
    if len(data.stories) < RANKED:
        return {"names": [], "values": {}, "least": RANKED}
    names = list(dict.fromkeys([*(a.first for a in data.agreement), *(a.second for a in data.agreement)]))
    ordered = [metric.name for metric in data.metrics if metric.name in names]
    values = {(a.first, a.second): a for a in data.agreement}
    values |= {(b, a): found for (a, b), found in values.items()}
    return {"names": ordered, "values": values, "least": RANKED}


def _worst(data: ReportData) -> list[dict[str, Any]]:
    return [
        {
            "pair": pair,
            "pictures": [data.pictures.get(name, "") for name in pair.pictures or ["", ""]],
            "slug": slug(pair.story),
        }
        for pair in data.worst_pairs
    ]


def _heat_left_out(data: ReportData) -> list[str]:
    """Stories whose heat maps are left out, from the last on."""
    room, found = MAX_HEAT_CELLS, []
    for story in data.stories:
        room -= sum(len(matrix.stems) ** 2 for matrix in data.views[story.key].matrices)
        if room < 0:
            found.append(story.key)
    return found


def _stories(data: ReportData, methods: Sequence[str]) -> list[dict[str, Any]]:
    left_out = set(_heat_left_out(data))
    matrices = [m for view in data.views.values() for m in view.matrices]
    off = [v for m in matrices for i, row in enumerate(m.values) for j, v in enumerate(row) if i != j]
    low, high = heat_scale(off)
    scale = drift_scale([drift for view in data.views.values() for drift in view.drift])
    found = []
    for story in data.stories:
        view = data.views[story.key]
        found.append(
            {
                "fact": story,
                "slug": slug(story.key),
                "scenes": len({shot.scene for shot in story.shots}),
                "heat": []
                if story.key in left_out
                else [_heat(m, low, high) for m in view.matrices if _seen(m)],
                "heat_left_out": story.key in left_out,
                "starts": {b.stem for a, b in pairwise(story.shots) if b.scene != a.scene},
                "drift": [
                    chart
                    for d in view.drift
                    if (chart := drift_chart(d, data.similarity_floor, scale))["lines"]
                ],
                "strip": _strip(data, story, methods),
                "values": _story_values(data, story),
                "audit": data.audits.get(story.key),
            }
        )
    return found


def _seen(matrix: Matrix) -> bool:
    return any(value is not None for row in matrix.values for value in row)


def _heat(matrix: Matrix, low: float, high: float) -> dict[str, Any]:
    """Cells (text, percent of the colour), None where a shot is missing."""

    def cell(value: Number) -> tuple[str, int] | None:
        if value is None:
            return None
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return ("1" if value > 0.995 else f"{value:.2f}".replace("0.", ".", 1)), round(100 * share)

    return {
        "method": matrix.method,
        "stems": matrix.stems,
        "rows": [[cell(value) for value in row] for row in matrix.values],
    }


def _strip(data: ReportData, story: StoryFact, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the film strip: each shot of each method with its poster, if it exists."""
    videos = {method.name: method.videos.get(story.key, {}) for method in data.compared()}
    rows = []
    for name in methods:
        shots = []
        for shot in story.shots:
            poster = data.posters.get(f"{name}/{story.key}/{shot.stem}", "")
            there = shot.stem in videos[name]
            shots.append({"stem": shot.stem, "there": there, "poster": data.pictures.get(poster, "")})
        rows.append({"method": name, "shots": shots, "any": any(shot["there"] for shot in shots)})
    return rows


def _story_values(data: ReportData, story: StoryFact) -> list[tuple[MetricFact, list[Number]]]:
    """The story's value of each metric that has any, per method."""
    order = "story_pooled" if data.order != "macro" else "macro"
    found = []
    for metric in data.metrics:
        values = [
            m.scores[metric.name].per_story[order].get(story.key) if metric.name in m.scores else None
            for m in data.compared()
        ]
        if any(value is not None for value in values):
            found.append((metric, values))
    return found


def _players(data: ReportData) -> Mapping[str, Any]:
    """Story -> method -> shot -> [address, start, end, width] for the script; end is null for the file's."""
    return {
        slug(story.key): {
            str(i): {
                stem: [
                    video_url(video.path),
                    round(video.start_s, 4),
                    video.end_s and round(video.end_s, 4),
                    video.width,
                ]
                for stem, video in method.videos.get(story.key, {}).items()
            }
            for i, method in enumerate(data.compared())
        }
        for story in data.stories
    }
