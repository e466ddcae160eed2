"""A report's tables for papers and spreadsheets: CSV (long and wide), LaTeX, Markdown.

Numbers that a paper reports are always apart from measured ones, in a block of their own that names its
source; they are never ranked with them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.report.layout import ARROWS, DASH, Column, Row, Table, fixed, interval, shown, tables
from benchmark.report.results import write_results, write_text
from benchmark.report.schema import MethodFact, MetricFact, Number, ReportData
from benchmark.report.stillness import stillness_lines

LONG_HEAD = (
    "source",
    "method",
    "story",
    "metric",
    "column",
    "order",
    "value",
    "low",
    "high",
    "stories",
    "unit",
    "reason",
    "recipe",
)


def csv_long(data: ReportData) -> str:
    """A row per method, metric and order of aggregation, then per story; then the papers' reported numbers.

    `source` is `measured`, `control`, or the paper's table. An absent value is an empty field with a reason.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(LONG_HEAD)
    for method in data.methods:
        for metric in data.metrics:
            if metric.name in method.scores:
                writer.writerows(_long_rows(method, metric, data.recipe))
    for one in tables(data):
        for reported in one.reported:
            source = f"reported: {reported.paper}, {reported.source}"
            for name, values in reported.rows:
                for column, value in zip(one.columns, values, strict=True):
                    row = ("", column.metric.name, column.metric.column, "", _plain(value), "", "", "")
                    writer.writerow((source, _safe(name), *row, column.metric.unit, "", ""))
    return file.getvalue()


def _long_rows(method: MethodFact, metric: MetricFact, recipe: str) -> Iterator[tuple[object, ...]]:
    score = method.scores[metric.name]
    head = ("control" if method.control else "measured", _safe(method.name))
    tail = (metric.unit, score.reason, recipe)
    for order, cell in score.cells.items():
        numbers = (_plain(cell.value), _plain(cell.low), _plain(cell.high), cell.stories)
        yield (*head, "", metric.name, metric.column, order, *numbers, *tail)
    for order, values in score.per_story.items():
        for story, value in values.items():
            row = (_safe(story), metric.name, metric.column, order, _plain(value), "", "", 1)
            yield (*head, *row, *tail)


def csv_wide(data: ReportData) -> str:
    """A row per method, three columns per metric (value, low, high), in the preset's order of aggregation."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    shown_tables = tables(data)
    head = ["source", "method"]
    for one in shown_tables:
        for column in one.columns:
            name = column.metric.name
            head += [name, f"{name} low", f"{name} high"]
    writer.writerow([*head, "recipe"])
    rows = [("measured", [one.rows[i] for one in shown_tables]) for i in range(len(data.compared()))]
    controls = len(data.methods) - len(data.compared())
    rows += [("control", [one.controls[i] for one in shown_tables]) for i in range(controls)]
    for source, parts in rows:
        cells = [entry.cell for part in parts for entry in part.entries]
        numbers = [_plain(value) for cell in cells for value in (cell.value, cell.low, cell.high)]
        writer.writerow([source, _safe(parts[0].method), *numbers, data.recipe])
    for reported in shown_tables[0].reported if shown_tables else ():
        source = f"reported: {reported.paper}, {reported.source}"
        for name, values in reported.rows:
            numbers = [text for value in values for text in (_plain(value), "", "")]
            numbers += [""] * (len(head) - 2 - len(numbers))
            writer.writerow([source, _safe(name), *numbers, ""])
    return file.getvalue()


def _plain(value: Number) -> str:
    return "" if value is None else repr(float(value))


def _safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row, LaTeX takes these for arguments of its own.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}


def tex(text: str) -> str:
    """Text as LaTeX data, on one line."""
    return "".join(_TEX.get(c, c) for c in " ".join(text.split()))


def latex(data: ReportData) -> str:
    r"""The tables with booktabs, intervals below the numbers; needs `\usepackage{booktabs}`."""
    return "\n".join(_latex_table(one, data) for one in tables(data))


def _latex_table(one: Table, data: ReportData) -> str:
    width = len(one.columns)
    lines = [
        r"% needs \usepackage{booktabs}; wide tables fit with \resizebox or in landscape",
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_latex_caption(one, data)}}}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        *_latex_head(one),
        r"\midrule",
    ]
    for row in one.rows:
        lines += _latex_row(row, one.columns)
    if one.controls:
        lines.append(rf"\midrule \multicolumn{{{width + 1}}}{{l}}{{\itshape controls}} \\")
        for row in one.controls:
            lines += _latex_row(row, one.columns)
    for reported in (table for table in one.reported if not table.ablation):
        told = tex(f"reported by {reported.paper}, not measured here: {reported.source}")
        lines.append(rf"\midrule \multicolumn{{{width + 1}}}{{l}}{{\itshape {told}}} \\")
        for name, values in reported.rows:
            lines.append(rf"\itshape {tex(name)} & " + " & ".join(map(_fixed_tex, values)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_caption(one: Table, data: ReportData) -> str:
    if one.stories == 1:
        how = "1 story, so without intervals"
    else:
        how = (
            f"{one.order.replace('_', ' ')} means over {one.stories} stories with 95 % intervals from a "
            "bootstrap over stories" + ("; best in bold, second underlined" if one.ranked else "")
        )
    told = f"{one.title}: {how}; recipe {data.recipe[:12]}."
    unavailable = [c.title for c in one.columns if c.metric.reason]
    told += f" Unavailable: {'; '.join(unavailable)}." if unavailable else ""
    still = stillness_lines([c.metric for c in one.columns], data.compared(), one.order)
    return tex(" ".join([told, *(f"{line}." for line in still)]))


def _latex_head(one: Table) -> list[str]:
    groups = [rf"\multicolumn{{{count}}}{{c}}{{{tex(title)}}}" for title, count in one.groups]
    rules, at = [], 2
    for _, count in one.groups:
        rules += [rf"\cmidrule(lr){{{at}-{at + count - 1}}}"] if count > 1 else []
        at += count
    arrows = {"up": r"$\uparrow$", "down": r"$\downarrow$", "": ""}
    heads = [" ".join(filter(None, (tex(c.head), arrows[c.arrow], _unit(c)))) for c in one.columns]
    return [
        "Method & " + " & ".join(groups) + r" \\",
        *([" ".join(rules)] if rules else []),
        " & " + " & ".join(heads) + r" \\",
    ]


def _unit(column: Column) -> str:
    unit = column.metric.unit
    return "" if unit in ("cosine", "score") else rf"{{\scriptsize {tex(unit)}}}"


def _latex_row(row: Row, columns: Sequence[Column]) -> list[str]:
    values, spreads = [], []
    for entry, column in zip(row.entries, columns, strict=True):
        text = shown(entry.cell.value, column.metric)
        text = "--" if text == DASH else text
        wrap = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(entry.rank, "%s")
        values.append(wrap % text)
        spread = " ".join(filter(None, (interval(entry.cell, column.metric), entry.mark)))
        spreads.append(rf"{{\tiny {spread}}}" if spread else "")
    lines = [f"{tex(row.method)} & " + " & ".join(values) + r" \\"]
    return [*lines, " & " + " & ".join(spreads) + r" \\"] if any(spreads) else lines


def _fixed_tex(value: Number) -> str:
    return "--" if value is None else rf"{{\itshape {value:.4f}}}"


def markdown(data: ReportData) -> str:
    """The tables for a README or an issue: intervals beside the numbers."""
    parts = [f"> {warning}\n" for warning in data.warnings]
    for one in tables(data):
        head = f"{one.order.replace('_', ' ')} means over {one.stories} stories, 95 % intervals"
        head = "1 story" if one.stories == 1 else head
        parts.append(f"### {one.title}: {head}, recipe `{data.recipe[:12]}`\n")
        rows = [
            [md(row.method) + (" (control)" if row in one.controls else ""), *_md_cells(row, one.columns)]
            for row in [*one.rows, *one.controls]
        ]
        parts.append(_md_table(["measured", *[md(_plain_head(c)) for c in one.columns]], rows))
        for reported in one.reported:
            source = f"reported by {reported.paper}, not measured here ({reported.source})"
            rows = [[f"*{md(name)}*", *[fixed(v) for v in values]] for name, values in reported.rows]
            parts.append(f"*{md(source)}*\n")
            parts.append(_md_table(["reported", *[md(_plain_head(c)) for c in one.columns]], rows))
            parts += [f"- {md(note)}" for note in reported.notes]
            parts.append("")
        parts += [f"- {md(note)}" for note in one.notes]
        parts.append("")
    parts += [f"> {md(flag)}\n" for flag in data.flags]
    return "\n".join(parts)


def _plain_head(column: Column) -> str:
    return f"{column.title} {ARROWS[column.arrow]}".strip()


def _md_cells(row: Row, columns: Sequence[Column]) -> list[str]:
    found = []
    for entry, column in zip(row.entries, columns, strict=True):
        text = entry.dash if entry.cell.value is None else shown(entry.cell.value, column.metric)
        text = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(entry.rank, text)
        mark = f"({entry.mark})" if entry.mark else ""
        found.append(" ".join(filter(None, (text, interval(entry.cell, column.metric), mark))))
    return found


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def md(text: str) -> str:
    """Text as data in a cell of a Markdown table."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in plain)


def write_tables(data: ReportData, folder: Path | str) -> list[Path]:
    """Write `results.json`, `table.md`, `table.tex`, `scores.csv` (long) and `table.csv` (wide).

    Returns:
        The files.
    """
    folder = Path(folder)
    texts = {
        "table.md": markdown(data),
        "table.tex": latex(data),
        "scores.csv": csv_long(data),
        "table.csv": csv_wide(data),
    }
    made = [write_results(data, folder)]
    return made + [write_text(folder / name, text) for name, text in texts.items()]
