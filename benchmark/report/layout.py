"""Tables of a report as values: columns grouped as in the papers, measured rows, and reported ones apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark.report.ranking import DASH, found_ranks, shown
from benchmark.report.schema import (
    MEASURED_COLUMN,
    WEIGHT_FREE_COLUMN,
    Cell,
    MethodFact,
    MetricFact,
    Number,
    ReportData,
)
from benchmark.report.stillness import MARK, best_by_stillness
from benchmark.statistics import RANKED

REPORTED = Path(__file__).parent / "reported.yaml"
ARROWS = {"up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}", "": ""}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its group's title and its own, as in the paper where there is one.

    Attributes:
        arrow: `up` or `down` for which end is better; empty where neither is.
    """

    metric: MetricFact
    group: str
    head: str
    arrow: str

    @property
    def title(self) -> str:
        """Both in one: `Subject consistency, inter-shot`."""
        return f"{self.group}, {self.head.lower()}" if self.head else self.group


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell of a table.

    Attributes:
        rank: 1 for the best of the measured methods, 2 for the second, 0 for the rest.
        reason: why there is no number.
        coverage: `27/30` stories where some have no value; empty where all have.
        mark: `hardly moves` where a method is best and standing still is enough for that; else empty.
        note: letter of the table's note that says why there is no number; empty where there is one.
    """

    cell: Cell
    rank: int = 0
    reason: str = ""
    coverage: str = ""
    std: Number = None
    mark: str = ""
    note: str = ""

    @property
    def dash(self) -> str:
        """What stands in the place of a number: a dash and the letter of its note."""
        return f"{DASH} ({self.note})" if self.note else DASH


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method's cells in the order of the columns."""

    method: str
    entries: list[Entry]


@dataclass(frozen=True, kw_only=True)
class ReportedTable:
    """A paper's numbers in the order of the measured table's columns; None where it has none."""

    paper: str
    source: str
    rows: list[tuple[str, list[Number]]]
    notes: list[str]
    ablation: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        part: `preset` or `weight-free`.
        order: of aggregation.
        groups: (title, number of columns) of neighbours with the same title.
        rows: methods as given.
        controls: rows of controls, which compete with nobody.
        reported: what papers print for these columns, kept apart.
        notes: what a reader must know, a line each.
        stories: that were scored; one gives no intervals, and few give no ranks (`ranked`).
    """

    title: str
    part: str
    order: str
    stories: int
    columns: list[Column]
    groups: list[tuple[str, int]]
    rows: list[Row]
    controls: list[Row]
    reported: list[ReportedTable]
    notes: list[str]

    @property
    def ranked(self) -> bool:
        """Whether there are enough stories for a best and a second."""
        return self.stories >= RANKED


def table(data: ReportData, part: str = MEASURED_COLUMN, order: str = "") -> Table:
    """A table of a report.

    Args:
        data: of the report.
        part: `preset` for the table of the paper, `weight-free` for the numbers that need no encoder.
        order: of aggregation; the preset's if not given.
    """
    order = order or data.order
    metrics = _in_paper_order(data.columns(part), data.preset)
    columns = [_column(metric, data.preset) for metric in metrics]
    compared = data.compared()
    ranks = found_ranks(data, metrics, order)
    still = best_by_stillness(metrics, compared, order)
    marked = {(name, metric.name) for name, won in still.items() for metric in won}
    rows = [_row(method, metrics, order, ranks, marked) for method in compared]
    controls = [_row(method, metrics, order) for method in data.methods if method.control]
    preset_table = part == MEASURED_COLUMN
    rows, controls, notes = _noted(columns, rows, controls)
    return Table(
        title=f"Preset {data.preset}" if preset_table else "Weight-free numbers",
        part=part,
        order=order,
        stories=len(data.stories),
        columns=columns,
        groups=_groups(columns),
        rows=rows,
        controls=controls,
        reported=_reported(metrics, data.preset) if preset_table else [],
        notes=notes,
    )


def tables(data: ReportData) -> list[Table]:
    """The preset's table and that of the weight-free numbers."""
    found = [table(data, part) for part in (MEASURED_COLUMN, WEIGHT_FREE_COLUMN)]
    return [one for one in found if one.columns]


def computed(data: ReportData) -> list[Table]:
    """The tables with only those columns that could be computed; none without any."""
    return [_kept(one, places) for one in tables(data) if (places := _with_numbers(one))]


def _with_numbers(one: Table) -> list[int]:
    return [place for place, column in enumerate(one.columns) if not column.metric.reason]


def _kept(one: Table, places: Sequence[int]) -> Table:
    """A table with some of its columns; a paper's rows stay where the paper has one of them."""
    columns = [one.columns[place] for place in places]
    rows, controls = (
        [replace(row, entries=[row.entries[place] for place in places]) for row in part]
        for part in (one.rows, one.controls)
    )
    reported = [
        replace(each, rows=[(name, [values[place] for place in places]) for name, values in each.rows])
        for each in one.reported
        if any(values[place] is not None for _, values in each.rows for place in places)
    ]
    rows, controls, notes = _noted(columns, rows, controls)
    return replace(
        one, columns=columns, groups=_groups(columns), rows=rows, controls=controls, reported=reported,
        notes=notes,
    )  # fmt: skip


def heading(one: Table) -> str:
    """`Preset memento, macro mean with 95 % interval`."""
    if one.stories == 1:
        return f"{one.title}, 1 story"
    return f"{one.title}, {one.order.replace('_', ' ')} mean with 95 % interval"


def interval(cell: Cell, metric: MetricFact) -> str:
    """`[0.4821, 0.5103]`, empty where there is none."""
    if cell.low is None or cell.high is None:
        return ""
    return f"[{shown(cell.low, metric)}, {shown(cell.high, metric)}]"


def fixed(value: Number) -> str:
    """A reported number, with the papers' four decimals."""
    return DASH if value is None else f"{value:.4f}"


def _in_paper_order(metrics: Sequence[MetricFact], preset: str) -> list[MetricFact]:
    """Columns of the paper first, as its table has them, then the rest."""
    order: list[str] = next((entry["order"] for entry in reported_tables() if entry["preset"] == preset), [])
    return sorted(metrics, key=lambda m: order.index(m.column) if m.column in order else len(order))


def _column(metric: MetricFact, preset: str) -> Column:
    arrow = {True: "up", False: "down", None: ""}[metric.higher_is_better]
    for entry in reported_tables():
        if entry["preset"] != preset:
            continue
        for group in entry.get("groups", ()):
            if metric.column in group["columns"]:
                head = group["heads"][group["columns"].index(metric.column)]
                return Column(metric=metric, group=group["title"], head=head, arrow=arrow)
    group, _, head = metric.title.partition(", ")
    return Column(metric=metric, group=group, head=_extra(metric, head), arrow=arrow)


_EXTRA = {
    "subject_intra_shot_true_shot": "within true shots",
    "inter_shot_continuations": "inter-shot, continuations",
    "inter_shot_cuts": "inter-shot, cuts",
    "inter_shot_scene_changes": "across scene changes",
}


def _extra(metric: MetricFact, head: str) -> str:
    """What tells readings of one title apart where a preset has several."""
    head = _EXTRA.get(metric.name, head)
    return head[:1].upper() + head[1:]


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found


def _row(
    method: MethodFact,
    metrics: Sequence[MetricFact],
    order: str,
    ranks: Mapping[tuple[str, str], int] = MappingProxyType({}),
    marked: Collection[tuple[str, str]] = (),
) -> Row:
    entries = []
    for metric in metrics:
        score = method.scores.get(metric.name)
        if score is None:
            entries.append(Entry(cell=Cell(value=None), reason=metric.reason or "not scored"))
            continue
        defined, total = score.coverage["stories"]
        entries.append(
            Entry(
                cell=score.cells[order],
                rank=ranks.get((method.name, metric.name), 0),
                reason=score.reason,
                coverage=f"{defined}/{total}" if 0 < defined < total else "",
                std=score.std,
                mark=MARK if (method.name, metric.name) in marked else "",
            )
        )
    return Row(method=method.name, entries=entries)


def _noted(
    columns: Sequence[Column], rows: Sequence[Row], controls: Sequence[Row]
) -> tuple[list[Row], list[Row], list[str]]:
    """Rows whose absent numbers bear the letter of a note, and the notes, which begin with their letters.

    One note for all columns, and one for all columns of a method, that share a reason or a coverage.
    """
    reasons: dict[str, list[str]] = {}
    for column in columns:
        if column.metric.reason:
            reasons.setdefault(column.metric.reason, []).append(column.title)
    letters = {reason: _letter(place) for place, reason in enumerate(reasons)}
    notes = [f"({letters[reason]}) {'; '.join(titles)}: {reason}" for reason, titles in reasons.items()]
    used = len(letters)
    made: list[Row] = []
    for row in [*rows, *controls]:
        absent: dict[str, list[int]] = {}
        partly: dict[str, list[int]] = {}
        for place, (column, entry) in enumerate(zip(columns, row.entries, strict=True)):
            if column.metric.reason:
                continue
            if entry.cell.value is None and entry.reason:
                absent.setdefault(entry.reason, []).append(place)
            elif entry.coverage:
                partly.setdefault(f"{entry.coverage} stories have a value", []).append(place)
        entries = [
            replace(e, note=letters.get(c.metric.reason, ""))
            for c, e in zip(columns, row.entries, strict=True)
        ]
        for reason, places in absent.items():
            letter, used = _letter(used), used + 1
            notes.append(f"({letter}) {row.method}: {reason}: {_titles(columns, places)}")
            for place in places:
                entries[place] = replace(entries[place], note=letter)
        notes += [f"{row.method}: {told}: {_titles(columns, places)}" for told, places in partly.items()]
        made.append(replace(row, entries=entries))
    return made[: len(rows)], made[len(rows) :], notes


def _letter(place: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    before, place = divmod(place, 26)
    return (_letter(before - 1) if before else "") + "abcdefghijklmnopqrstuvwxyz"[place]


def _titles(columns: Sequence[Column], places: Sequence[int]) -> str:
    return "all columns" if len(places) == len(columns) else "; ".join(columns[p].title for p in places)


def _reported(metrics: Sequence[MetricFact], preset: str) -> list[ReportedTable]:
    found = []
    for entry in reported_tables():
        if entry["preset"] != preset:
            continue
        places = [entry["order"].index(m.column) if m.column in entry["order"] else None for m in metrics]
        rows = [
            (row["method"], [None if place is None else row["values"][place] for place in places])
            for row in entry["rows"]
        ]
        found.append(
            ReportedTable(
                paper=entry["paper"],
                source=entry["source"],
                rows=rows,
                notes=list(entry["notes"]),
                ablation=entry.get("ablation", False),
            )
        )
    return found


@cache
def reported_tables() -> tuple[dict[str, Any], ...]:
    """The papers' tables of `reported.yaml`; `order` lists the columns of each as its values have them."""
    import yaml

    entries = yaml.safe_load(REPORTED.read_text(encoding="utf-8"))
    by_id = {entry["id"]: entry for entry in entries}
    found = []
    for entry in entries:
        groups = by_id[entry.get("same_columns_as", entry["id"])]["groups"]
        order = [column for group in groups for column in group["columns"]]
        assert all(len(row["values"]) == len(order) for row in entry["rows"]), entry["id"]
        found.append({**entry, "groups": groups, "order": order})
    return tuple(found)
