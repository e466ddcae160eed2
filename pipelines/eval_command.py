"""`memento eval`: anybody's videos on a benchmark of stories, scored and reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.words import counted
from curation.engine.stage import StopRun
from pipelines.eval_inputs import Order, read, told_of_characters
from pipelines.eval_output import refuse_other
from pipelines.eval_scoring import evaluate, find_encoders

if TYPE_CHECKING:
    from benchmark.evaluation import Evaluation
    from benchmark.report.schema import ReportData

SHOWN_FAULTS = 12


def main(order: Order, *, dry_run: bool = False, console: Console | None = None) -> bool:
    """Evaluate methods and write the report.

    Returns:
        Whether anything has a number.

    Raises:
        StopRun: with one line for the user.
        SettingsError: a preset or a setting that does not exist.
    """
    console = console or Console(soft_wrap=True, markup=False, highlight=False)
    given = read(order, console)
    if not given.submissions:
        _say_faults(given.faults, console)
        console.print("memento: nothing to score: no method has a video of any story", style="red")
        return False
    encoders = find_encoders(order, given.chosen)
    if dry_run:
        from pipelines.eval_plan import cost_table

        _say_faults(given.faults, console)
        for renderable in cost_table(given.submissions, given.stories, given.chosen, encoders):
            console.print(renderable)
        for line in told_of_characters(order.characters, given.stories):
            console.print(line)
        console.print(f"The report would be {given.output}/report.html")
        return True
    refuse_other(given.output, given.specs)
    made = evaluate(order, given, encoders, console)
    return report(made, given.output, console, told_of_characters(order.characters, given.stories))


def report(made: Evaluation, output: Path, console: Console, told: Sequence[str] = ()) -> bool:
    """Write the report and say what came out, `told` below the tables.

    Returns:
        Whether anything has a number.
    """
    from benchmark.report.console import print_report
    from benchmark.report.data import report_data
    from benchmark.report.page import write_page
    from benchmark.report.tables import write_tables

    with console.status("writing the report"):
        data = report_data(made, folder=output)
        told = [*told, *renewed(output, data)]
        files = write_tables(data, output)
        page = write_page(data, output)
    faults = [
        *data.faults,
        *(f"{m.name}: {line}" for m in data.methods if not m.control for line in m.faults),
    ]
    _say_faults(list(dict.fromkeys(faults)), console)
    print_report(data, Console())
    console.print()
    for line in [*told, *summary(data)]:
        console.print(line)
    console.print(f"Page: {page}\nTables: {', '.join(str(file) for file in files)}")
    return any(score.coverage["units"][0] for method in data.compared() for score in method.scores.values())


def renewed(output: Path, data: ReportData) -> list[str]:
    """A line if the report that is about to be replaced was made by another recipe: what differs."""
    from benchmark.report.diff import changes_between, recipe_changes
    from benchmark.report.results import ResultsError, read_results

    try:
        old = read_results(output)
    except ResultsError:  # there is none, or none that can be compared
        return []
    if old.recipe == data.recipe:
        return []
    why = recipe_changes(list(changes_between(old, data)))
    return [f"note: the report that was in {output} is replaced, and does not compare with this one: {why}"]


def summary(data: ReportData) -> Iterator[str]:
    """What was covered."""
    shots = sum(len(story.shots) for story in data.stories)
    stories = counted(len(data.stories), "story", "stories")
    for method in data.compared():
        there = sum(map(len, method.videos.values()))
        whole = "" if there == shots else f" ({'; '.join(method.missing[:3])})"
        work = method.work
        yield (
            f"{method.name}: {there} of {counted(shots, 'shot')} of {stories}{whole}; "
            f"{work['decode_passes']} of {counted(work['videos'], 'video')} decoded in this run"
        )
    if any(encoder.random for encoder in data.encoders):
        yield "The encoders' weights are random numbers: learned scores mean nothing."


def _say_faults(faults: Sequence[str], console: Console) -> None:
    for fault in faults[:SHOWN_FAULTS]:
        console.print(f"note: {fault}", style="yellow")
    if len(faults) > SHOWN_FAULTS:
        console.print(f"note: and {len(faults) - SHOWN_FAULTS} more, all in the report", style="yellow")


def diff(a: Path, b: Path, *, across_recipes: bool = False) -> None:
    """Say what changed from one report to another.

    Raises:
        StopRun: one of them is none, or they do not compare.
    """
    from benchmark.aggregate import RecipeMismatch
    from benchmark.report import diff as reports
    from benchmark.report.results import ResultsError, read_results

    console = Console(soft_wrap=True, markup=False, highlight=False)
    try:
        found = reports.diff(read_results(a), read_results(b), across_recipes=across_recipes)
    except ResultsError as error:
        raise StopRun(str(error)) from error
    except RecipeMismatch as error:
        raise StopRun(f"{error}; or see what differs: --across-recipes") from error
    except reports.NothingCommon as error:
        raise StopRun(str(error)) from error
    for line in reports.lines(found):
        console.print(line)
