"""`memento study`: make the pages of a user study, and read what raters send back."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmark.study.answers import Judgement, Sheet, read_answers
from benchmark.study.kit import ANSWERS, KEY, PAGES, StudyError, StudySettings, make_study, read_key
from benchmark.study.results import Agreement, Share, Verdict, as_json, correlations, metric_values, verdicts
from benchmark.words import counted
from curation.engine.stage import StopRun
from curation.optional import own_command
from pipelines.benchmark_inputs import (
    find_stories,
    nothing_found,
    of_stories,
    parse_methods,
    read_methods,
    strange_folders,
)
from pipelines.progress import time_left

SHOWN_METRICS = 8
FEW = 5
QUIET_S = 15.0
"""Where the output is no terminal, at most this often it is said which film is encoded."""
FOOTNOTE = (
    "In brackets: 95 % intervals from stories and raters drawn anew. "
    "alpha: Krippendorff's, 1 if raters agree, 0 as by chance."
)


def make(methods: Sequence[str], stories: Sequence[Path], output: Path, settings: StudySettings) -> Path:
    """Make a study's pages.

    Args:
        methods: as on the command line.
        stories: scripts, or folders of them.
        output: folder of the study.
        settings: of the study.

    Returns:
        The page.

    Raises:
        StopRun: with one line for the user.
    """
    from curation.video.decode import BadInput

    console = Console(soft_wrap=True, markup=False, highlight=False)
    specs = parse_methods(methods)
    found, faults = find_stories(stories, specs)
    submissions = read_methods(specs, found)
    for spec, submission in zip(specs, submissions, strict=True):
        if not submission.num_clips:
            raise StopRun(nothing_found(spec, submission, found))
        faults += [f"{submission.method}: {fault}" for fault in submission.faults]
        faults += [f"{submission.method}: {line}" for line in strange_folders(submission, found, spec.path)]
    faults = of_stories(faults, found, {key for one in submissions for key in one.clips})
    with told_films(console) as tell:
        try:
            study = make_study(submissions, found, output, settings, tell)
        except StudyError as error:
            raise StopRun(str(error)) from error
        except BadInput as bad:
            raise StopRun(f"{bad.detail or bad}; write the video again") from bad
        except OSError as error:
            told = error.strerror or str(error)
            raise StopRun(
                f"{error.filename or output}: {told}; run the same command again to go on"
            ) from error
    for fault in [*faults, *study.faults]:
        console.print(f"note: {fault}", style="yellow")
    lengths, raters = {len(trials) for trials in study.sessions}, len(study.sessions)
    which = f"a number from 1 to {raters}" if raters > 1 else "the number 1"
    console.print(
        f"{counted(study.films, 'film')}, {counted(raters, 'rater')}, "
        f"{counted(min(lengths), 'comparison')} for each\n"
        f"Page: {study.page}\n"
        f"Give each rater the folder {output / PAGES} and {which} "
        f"(index.html#rater={min(3, raters)} fills it in).\n"
        f"Keep {output / KEY} to yourself: it says which film is whose.\n"
        f"When files come back: {own_command('study read')} {output / ANSWERS}/*.json --key {output / KEY}"
    )
    return study.page


@contextlib.contextmanager
def told_films(console: Console) -> Iterator[Callable[[int, int], None]]:
    """What is called with films done and in all: a moving line on a terminal, a calm log elsewhere."""
    began = told = time.monotonic()

    def line(done: int, total: int) -> str:
        left = time_left(done, total, time.monotonic() - began)
        return f"encoding film {min(done + 1, total)} of {total}" + (f", {left}" if left else "")

    if console.is_terminal:
        with console.status("encoding films") as status:
            yield lambda done, total: status.update(line(done, total))
        return

    def log(done: int, total: int) -> None:
        nonlocal told
        if done < total and (done == 0 or time.monotonic() - told >= QUIET_S):
            told = time.monotonic()
            console.print(line(done, total))

    yield log


def read(
    files: Sequence[Path], key: Path, results: Path | None, output: Path | None, max_failed: int | None
) -> list[Verdict]:
    """Read the answers and say what came out.

    Args:
        files: of raters, or folders of them.
        key: of the study.
        results: `results.json` of an evaluation of the same methods, to compare metrics with people.
        output: where to write all numbers as JSON.
        max_failed: raters who failed more attention checks are left out; None keeps all.

    Raises:
        StopRun: with one line for the user.
    """
    console = Console(soft_wrap=True, markup=False, highlight=False)
    paths = [p for file in files for p in (sorted(file.glob("*.json")) if file.is_dir() else [file])]
    try:
        sheets, faults = read_answers(paths, read_key(key))
    except StudyError as error:
        raise StopRun(str(error)) from error
    kept = [s for s in sheets if max_failed is None or s.checks[1] - s.checks[0] <= max_failed]
    faults += [
        f"{s.path.name}: left out: rater {s.rater} failed too many checks" for s in sheets if s not in kept
    ]
    for fault in faults:
        console.print(f"note: {fault}", style="yellow")
    judgements = [one for sheet in kept for one in sheet.judgements]
    if not judgements:
        raise StopRun(
            f"{counted(len(paths), 'file')}, and no answer can be used: give the files that the page saves"
        )
    found = verdicts(judgements)
    console.print(raters_table(kept))
    for table in verdicts_tables(found):
        console.print(table)
    console.print(f"\n{FOOTNOTE}", style="dim")
    if min(one.stories for one in found) < FEW or min(one.raters for one in found) < FEW:
        console.print(
            f"note: fewer than {FEW} stories or raters: the intervals are too narrow", style="yellow"
        )
    agreements = []
    if results is not None:
        try:
            values = metric_values(results)
        except ValueError as error:
            raise StopRun(str(error)) from error
        agreements = correlations(judgements, values)
        console.print(
            agreement_table(agreements) if agreements else _incomparable(judgements, values, results)
        )
    if output is not None:
        part = output.with_name(f".{output.name}")
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(as_json(found, agreements), indent=1) + "\n", encoding="utf-8")
        os.replace(part, output)
        console.print(f"All numbers: {output}")
    return found


def _incomparable(
    judgements: Sequence[Judgement], values: Mapping[str, Mapping[str, object]], results: Path
) -> str:
    """Why no metric could be set beside the answers."""
    asked = {name for one in judgements for name in (one.first, one.second)}
    scored = {name for methods in values.values() for name in methods}
    if absent := sorted(asked - scored):
        told = f"{results}: has no method {', '.join(absent)}, but {', '.join(sorted(scored))}"
        return f"{told}: evaluate under the names of the study"
    return f"{results}: no metric has three answered comparisons to be set beside"


def raters_table(sheets: Sequence[Sheet]) -> Table:
    """A line for each rater."""
    table = Table("rater", "answered", "seconds each", "prefers the left", "checks passed", title="Raters")
    for sheet in sheets:
        passed, seen = sheet.checks
        table.add_row(
            str(sheet.rater), str(sheet.answered), f"{sheet.seconds:.0f}",
            "-" if sheet.left is None else f"{sheet.left:.0%}", f"{passed} of {seen}" if seen else "-",
        )  # fmt: skip
    return table


def verdicts_tables(found: Sequence[Verdict]) -> Iterator[Table]:
    """A table for each pair, a line for each criterion; shares and their intervals in percent."""
    for first, second in dict.fromkeys((one.first, one.second) for one in found):
        of_pair = [one for one in found if (one.first, one.second) == (first, second)]
        most = max(of_pair, key=lambda one: one.answers)
        table = Table(
            "%", "win", "tie", "lose", "win - lose", "alpha", box=None, title_justify="left",
            padding=(0, 1, 0, 0),
            title=f"\n{first} against {second}: {counted(most.answers, 'answer')} on each criterion, "
            f"{counted(most.stories, 'story', 'stories')}, {counted(most.raters, 'rater')}",
        )  # fmt: skip
        for one in of_pair:
            shares = [percent(share) for share in (one.win, one.tie, one.lose)]
            table.add_row(one.criterion, *shares, percent(one.net, signed=True), _number(one.alpha))
        yield table


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """The metrics that go best with people, for each criterion."""
    table = Table("criterion", "metric", "rank correlation", "interval", "cells", title="Metrics and people")
    for criterion in dict.fromkeys(one.criterion for one in agreements):
        for one in [a for a in agreements if a.criterion == criterion][:SHOWN_METRICS]:
            table.add_row(
                criterion, one.metric, _number(one.rho), _between(one.low, one.high),
                str(one.cells),
            )  # fmt: skip
    return table


def percent(share: Share, *, signed: bool = False) -> str:
    """`57.3 [48, 66]`."""
    value = f"{100 * share.value:{'+' if signed else ''}.1f}"
    return value if math.isnan(share.low) else f"{value} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _between(low: float, high: float) -> str:
    return "-" if math.isnan(low) or math.isnan(high) else f"{low:.2f} to {high:.2f}"
