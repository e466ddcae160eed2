"""`memento curate`: progress while it runs, a summary when it is done."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from curation.explain import Forecast
from curation.runner import Progress as ProgressCallback
from pipelines.curate import Job, Report, curate, forecast, prepare, resolve


def main(
    films: list[str],
    config: Path,
    *,
    output: Path | None,
    preset: str | None,
    settings: dict[str, dict[str, Any]],
    explain_only: bool,
    on_ray: bool,
) -> None:
    """Run or explain; print what a person wants to know."""
    console = Console()
    job = resolve(films, config, output=output, preset=preset, settings=settings)
    if explain_only:
        show_forecast(console, job, forecast(job))
        return
    doing = "rendering the demo film, once (half a minute)" if job.renders_demo else "listing the films"
    with console.status(doing):
        rows = prepare(job)
    console.print(
        f"[bold]{job.name}[/]: {len(rows)} file(s), preset {job.preset}, output {job.output}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    with place_to_run(console, job, on_ray=on_ray) as place, progress_bars(console) as progress:
        report = curate(job, rows, on_ray=on_ray, progress=progress, place=place)
    show_report(console, report)


@contextlib.contextmanager
def place_to_run(console: Console, job: Job, *, on_ray: bool) -> Iterator[str]:
    """A connected Ray cluster, or nothing for the plain loop."""
    if not on_ray:
        yield "a plain loop in one process"
        return
    from curation.cluster import cluster

    with contextlib.ExitStack() as stack:
        with console.status("starting Ray (about ten seconds)"):
            place = stack.enter_context(cluster(job.store.root))
        console.print(f"running on {place}", style="dim", highlight=False)
        yield place


@contextlib.contextmanager
def progress_bars(console: Console) -> Iterator[ProgressCallback]:
    """One bar per group of stages."""
    columns = (
        SpinnerColumn(finished_text="[green]*"), TextColumn("{task.description}"), BarColumn(20),
        MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    bars = Progress(*columns, console=console, disable=not console.is_terminal)
    tasks: dict[str, Any] = {}

    def update(names: str, done: int, total: int) -> None:
        if names not in tasks:
            tasks[names] = bars.add_task(names, total=total)
        bars.update(tasks[names], completed=done, total=total)
        if not console.is_terminal and done == total:
            console.print(f"  {names}: {total} done", highlight=False)

    with bars:
        yield update


def show_forecast(console: Console, job: Job, forecasts: list[Forecast]) -> None:
    """The table of `--explain`."""
    table = Table("stage", "kept", "to do", "why", title=f"{job.name}: what a run would do")
    for f in forecasts:
        why = "; ".join(f"{count} x {reason}" for reason, count in f.runs.most_common(3))
        if f.unknown:
            why = "; ".join(filter(None, [why, f"{f.unknown} follow(s) from the stages above"]))
        table.add_row(f.stage, str(f.reused), str(f.runs.total()), why or "nothing to do")
    console.print(table)
    if not any(f.reused or f.runs or f.unknown for f in forecasts):
        console.print("No film yet: the demo film is rendered by the first run.", style="dim")


def show_report(console: Console, report: Report) -> None:
    """The summary at the end of a run."""
    tables, record = report.outcome.tables, report.record
    count = Table("", "in", "kept", "rejected", "failed")
    for name, counts in report.published.counts.items():
        total = sum(counts.get(s, 0) for s in ("kept", "rejected", "failed"))
        count.add_row(name, str(total), *(str(counts.get(s, 0)) for s in ("kept", "rejected", "failed")))
    console.print(count)
    for line in problems(report):
        console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)
    console.print(coverage_table(tables.get("film", []), report.job.preset))
    passes = record["decode_passes"]
    console.print(
        f"decode passes per second of footage: {passes['not_exported'] or '-'} where nothing is exported, "
        f"{passes['exported'] or '-'} where it is; {record['wall_s']:.0f} s of work, "
        f"{sum(record['rows_reused'].values())} results reused",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for name, path in report.published.paths.items():
        console.print(f"{name:<9} {path}", highlight=False, soft_wrap=True)


def problems(report: Report) -> list[str]:
    """One line per file that was not kept; sequences summed up by reason."""
    lines = [
        f"{film['status']}: {film['path']!r}: {film['reason']}: {film['detail']}"
        for film in report.published.films
        if film["status"] != "kept"
    ]
    reasons = Counter(
        (row["status"], row["stage"], row["reason"])
        for row in report.outcome.tables.get("sequence", [])
        if row["status"] != "kept"
    )
    lines += [
        f"{status}: {n} sequence(s) at {stage}: {reason}" for (status, stage, reason), n in reasons.items()
    ]
    return lines


def coverage_table(films: list[dict[str, Any]], chosen: str) -> Table:
    """What each preset would keep of all films together, and what this run packed."""
    table = Table("packed by preset", "sequences", "seconds", "share of the footage")
    total = sum((f.get("stream") or {}).get("duration_s") or 0.0 for f in films if f["status"] == "kept")
    sums: dict[str, list[float]] = {}
    for film in films:
        for item in film.get("preset_coverage") or []:
            entry = sums.setdefault(item["preset"], [0, 0.0])
            entry[0] += item["num_sequences"]
            entry[1] += item["covered_s"]
    spans = [c for f in films for c in f.get("coverage") or [] if c["used_by"] and not c["reason"]]
    packed = [len({c["used_by"] for c in spans}), sum(c["end_s"] - c["start_s"] for c in spans)]
    for name, (number, seconds) in {**sums, f"this run ({chosen}, as set)": packed}.items():
        share = f"{seconds / total:.0%}" if total else "-"
        table.add_row(name, str(int(number)), f"{seconds:.1f}", share)
    return table
