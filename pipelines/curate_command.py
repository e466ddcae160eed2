"""`memento curate`: progress while it runs, a summary when it is done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.words import counted
from curation.config import SettingsError
from curation.engine.explain import Forecast
from curation.engine.stage import Row
from curation.models.captioner import ERROR, STATUSES
from pipelines.curate import Job, Report, curate_locked, forecast, only_run, prepare, resolve
from pipelines.curate_place import place_to_run
from pipelines.progress import groups_of, show_progress
from pipelines.terminal import make_console, print_line

PACKED = (
    "Packing comes first; later stages (crop, subjects, captions, ...) may reject a packed sequence. Packed "
    "are whole shots; published is the film time that the clips show."
)


def main(
    films: list[str],
    config: Path,
    *,
    output: Path | None,
    preset: str | None,
    settings: dict[str, dict[str, Any]],
    explain_only: bool,
    on_ray: bool | None,
) -> None:
    """Run or explain; print what a person wants to know. `on_ray`: as asked for; None decides here."""
    console = make_console()
    job = resolve(films, config, output=output, preset=preset, settings=settings)
    if explain_only:
        forecasts = forecast(job)  # before any word: a fault of the input stands alone
        show_notes(console, job)
        show_forecast(console, job, forecasts)
        return
    doing = "rendering the demo film, once (half a minute)" if job.renders_demo else "listing the films"
    with console.status(doing):
        rows = prepare(job)
    found = counted(len(rows), "file")
    print_line(console, f"{job.name}: {found}, preset {job.preset}, output {job.output}", style="bold")
    show_notes(console, job)
    with (
        only_run(job),  # before Ray starts
        place_to_run(console, job, rows, asked=on_ray) as (runs_on_ray, place),
        show_progress(console, groups_of(job.plan), job.store.ticks) as progress,
    ):
        report = curate_locked(job, rows, on_ray=runs_on_ray, progress=progress, place=place)
    show_report(console, report)


def show_notes(console: Console, job: Job) -> None:
    """What was settled for this machine."""
    for line in job.notes:
        print_line(console, line, style="dim")


def caption_settings(
    captioner: str | None, endpoint: str | None, model: str | None
) -> dict[str, dict[str, Any]]:
    """The command line's shorthands as settings of the stage `captions`.

    Args:
        captioner: auto, describe, vllm or openai; an endpoint alone means openai.
        endpoint: URL of a server.
        model: on that server, or for vLLM.

    Raises:
        SettingsError: options that exclude each other.
    """
    chosen = captioner or ("openai" if endpoint else None)
    if endpoint and chosen != "openai":
        raise SettingsError(f"--endpoint goes with --captioner openai, not {chosen}")
    if model and chosen == "describe":
        raise SettingsError("--caption-model: the describer has no model")
    settings: dict[str, Any] = {"captioner": chosen} if chosen else {}
    if endpoint:
        settings["openai"] = {"url": endpoint}
    if model:
        tier = "openai" if chosen == "openai" else "vllm"
        settings[tier] = settings.get(tier, {}) | {"model": model}
    return {"captions": settings} if settings else {}


def show_forecast(console: Console, job: Job, forecasts: list[Forecast]) -> None:
    """The table of `--explain`."""
    if not any(f.reused or f.runs or f.unknown or f.unlisted for f in forecasts):
        console.print(
            f"{job.name}: nothing is here yet. The first run renders the demo film, then every stage runs."
        )
        return
    table = Table(title=f"{job.name}: what a run would do")
    table.add_column("stage", no_wrap=True)
    for column in ("kept", "will run", "not known yet"):
        table.add_column(column, justify="right")
    table.add_column("why", overflow="fold")
    for f in forecasts:
        table.add_row(f.stage, count(f.reused), count(f.runs.total()), not_known(f), Text(why(f)))
    console.print(table)
    always = ", ".join(step.name for step in job.plan.steps if not getattr(step, "cached", False))
    console.print(
        "kept: made by an earlier run and used again. will run: has to be made. not known yet: waits for a "
        "stage above; if that comes out the same as before, this is kept too.\n"
        f"Not listed, because they take no time and always run: {always}.",
        style="dim", highlight=False, markup=False,
    )  # fmt: skip


def count(number: int) -> str:
    """A number; nothing for 0, so that the eye finds the others."""
    return str(number) if number else ""


def not_known(forecast: Forecast) -> str:
    """How many results wait for a stage above, or of how many films all of them do."""
    films = f"of {forecast.unlisted} film{'s' if forecast.unlisted > 1 else ''}" if forecast.unlisted else ""
    return " + ".join(filter(None, [count(forecast.unknown), films]))


def why(forecast: Forecast) -> str:
    """One line: the reasons to run, what the rest waits for, or that nothing changed."""
    parts = [
        reason if number == forecast.runs.total() else f"{number} x {reason}"
        for reason, number in forecast.runs.most_common(3)
    ]
    if not_known(forecast):
        parts.append(f"waits for {', '.join(forecast.after)}")
    if not parts:
        parts.append("nothing changed" if forecast.reused else f"no {forecast.grain} gets this far")
    return "; ".join(parts)


def show_report(console: Console, report: Report) -> None:
    """The summary at the end of a run."""
    record = report.record
    fates = Table("")
    for column in ("in", "kept", "rejected", "failed"):
        fates.add_column(column, justify="right")
    for name, counts in report.published.counts.items():
        total = sum(counts.get(s, 0) for s in ("kept", "rejected", "failed"))
        fates.add_row(name, str(total), *(str(counts.get(s, 0)) for s in ("kept", "rejected", "failed")))
    console.print(fates)
    for line in problems(report):
        print_line(console, line, style="yellow")
    summary = report.published.summary
    console.print(packing_table(summary, report.job.preset))
    print_line(console, PACKED, style="dim")
    if line := nothing_kept(report) or more_by_preset(summary, report.job.preset):
        print_line(console, line, style="yellow")
    if line := caption_line(record["counters"].get("captions", {})):
        print_line(console, line)
    print_line(console, cost_line(record))
    for name, path in report.published.paths.items():
        print_line(console, f"{name:<9} {path}")


def nothing_kept(report: Report) -> str:
    """Why the dataset is empty, in one line; nothing where it is not."""
    sequences = report.published.summary["sequences"]
    if sequences["kept"]:
        return ""
    if sequences["found"]:
        return f"Nothing was kept: all {counted(sequences['found'], 'sequence')} were rejected after packing."
    streams = [row["stream"] for row in report.outcome.tables["film"] if row.get("stream")]
    if not streams:
        return "Nothing was kept: no file is a film that can be curated."
    longest_s = max(stream["duration_s"] or 0.0 for stream in streams)
    least_s = report.record["settings"]["sequences"]["min_window_s"]
    above = "what would help is said with each film above" if len(streams) > 1 else "its line above says more"
    if longest_s < least_s:
        which = "the film" if len(streams) == 1 else "the longest film"
        return (
            f"Nothing was kept: {which} lasts {longest_s:.1f} s, and a sequence at least {least_s:g} s "
            f"(sequences.min_window_s); {above}."
        )
    advice = more_by_preset(report.published.summary, report.job.preset)
    return (
        "Nothing was kept: no run of shots makes a sequence under these settings"
        f"{'. ' + advice if advice else f'; {above}.'}"
    )


CLEARLY = 1.1
"""A preset is worth a word if it packs so many times what was packed."""


def more_by_preset(summary: Row, preset: str) -> str:
    """Which preset would pack clearly more than this run did; nothing where none would."""
    packed, share = summary["packed"], "{:.0%}".format
    best = max(summary["presets"], key=lambda p: p["seconds"], default=packed)
    if best["seconds"] <= CLEARLY * packed["seconds"] or best["preset"] == preset:
        return ""
    return (
        f"Preset {best['preset']} would pack {counted(best['sequences'], 'sequence')}, "
        f"{share(best['share'])} of the footage and not {share(packed['share'])}: run again with "
        f"--preset {best['preset']} (make: PRESET={best['preset']}); docs/presets.md says how it differs."
    )


def cost_line(record: Row) -> str:
    """What the run cost: how often the footage was decoded, the time, and what it took from earlier runs."""
    passes, parts = record["decode_passes"], []
    decoders = [name for name, sums in record["counters"].items() if sums.get("decoded_s")]
    if passes["not_exported"] and decoders:
        told = f"each second of film {times(passes['not_exported'])}"
        if passes["exported"]:
            told += f", in sequences {times(passes['exported'])}"
        is_new = any(record["rows_made"].get(name) for name in decoders)
        parts.append(f"decoded: {told}" if is_new else f"nothing decoded (by earlier runs: {told})")
    parts.append(f"{record['wall_s']:.0f} s of work")
    if reused := sum(record["rows_reused"].values()):
        parts.append(f"{reused} results of earlier runs reused")
    return "; ".join(parts)


def times(number: float) -> str:
    """Once, twice, 2.9 times."""
    told = f"{number:.1f}".removesuffix(".0")
    return {"1": "once", "2": "twice"}.get(told, f"{told} times")


def caption_line(counters: dict[str, float]) -> str:
    """How the caption requests ended, and what is to be done about those without an answer."""
    number = {status: int(counters.get(f"caption_{status}", 0)) for status in STATUSES}
    told = ", ".join(f"{count} {status}" for status, count in number.items() if count)
    if not told:
        return ""
    again = "; run the same command again to ask once more where there was an error" if number[ERROR] else ""
    return f"captions asked for: {int(counters['caption_requests'])}: {told}{again}"


def problems(report: Report) -> list[str]:
    """One line per file that was not kept, sorted by what became of it; sequences summed up by reason."""
    lines = [
        f"{film['status']}: {film['path']!r}: {film['reason']}: {film['detail']}"
        for film in sorted(report.published.films, key=lambda film: (film["status"], film["path"]))
        if film["status"] != "kept"
    ]
    reasons = Counter(
        (row["status"], row["stage"], row["reason"])
        for row in report.outcome.tables.get("sequence", [])
        if row["status"] != "kept"
    )
    lines += [
        f"{status}: {counted(n, 'sequence')} at {stage}: {reason}"
        for (status, stage, reason), n in reasons.items()
    ]
    return lines


def packing_table(summary: Row, preset: str) -> Table:
    """What each preset would pack, what this run packed, and below a line what was left of it in the end."""
    table = Table("before later rejections")
    for column in ("sequences", "seconds", "share of the footage"):
        table.add_column(column, justify="right")
    lines = [(f"{p['preset']} would pack", p) for p in summary["presets"]]
    lines.append((f"this run packed ({preset})", summary["packed"]))
    lines.append(("after them: published", summary["published"]))
    for name, line in lines:
        share = "-" if line["share"] is None else f"{line['share']:.0%}"
        last = line is summary["packed"]
        table.add_row(name, str(line["sequences"]), f"{line['seconds']:.1f}", share, end_section=last)
    return table
