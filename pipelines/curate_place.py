"""Where a run of `memento curate` takes place: on Ray, or in a loop where Ray costs more than it brings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from curation.engine.explain import explain
from curation.engine.stage import Row
from pipelines.curate import Job
from pipelines.generate_progress import clock
from pipelines.terminal import print_line

LOOP = "a plain loop in one process"
WORK_PER_S = 0.5
"""Seconds that one core works for a second of film, half of which is packed (measured; no model on a GPU)."""
RAY_S = 30.0
"""What Ray costs, seconds: its start, and the libraries once more in every worker (measured: 18 on two idle
cores, a minute on two busy ones)."""


@contextlib.contextmanager
def place_to_run(
    console: Console, job: Job, rows: list[Row], *, asked: bool | None
) -> Iterator[tuple[bool, str]]:
    """A connected Ray, or nothing for the plain loop; says which, and why where it was not asked for.

    Args:
        console: where to say it.
        job: about to run.
        rows: of `pipelines.curate.prepare`.
        asked: for Ray (true) or the loop (false); None leaves it to `why_loop`.

    Yields:
        Whether the run goes to Ray, and a line for run.json.

    Raises:
        StopRun: the cluster of `RAY_ADDRESS` cannot be joined, or a node does not see the output.
    """
    why = "" if asked is False else None
    if asked is None and not ray_is_here():
        with console.status("looking at what is left to do"):
            why = why_loop(job, rows, cpus_here())
    if why is not None:
        if why:
            print_line(console, f"running in {LOOP}: {why}", style="dim")
        yield False, LOOP
        return
    from curation.engine.cluster import NoLocalRay, cluster

    with contextlib.ExitStack() as stack:
        try:
            with console.status("starting Ray (about ten seconds)"):
                place = stack.enter_context(cluster(job.store.root))
        except NoLocalRay as error:
            print_line(console, f"Ray did not start here ({error.said}): going on in {LOOP}", style="yellow")
            place = LOOP
        else:
            print_line(console, f"running on {place}", style="dim")
        yield place != LOOP, place


def ray_is_here() -> bool:
    """Whether a cluster was named."""
    return bool(os.environ.get("RAY_ADDRESS"))


def cpus_here() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def why_loop(job: Job, rows: list[Row], cpus: int) -> str | None:
    """Why a plain loop does as well as Ray on `cpus` cores of this machine; None where Ray may pay.

    What takes a loop less time than Ray's start needs no Ray, and on one core Ray brings nothing.
    """
    enough_s = RAY_S / WORK_PER_S if cpus > 1 else float("inf")
    left_s = footage_left(job, rows, enough_s=enough_s)
    if left_s is None:
        return "nothing is left to compute"
    if left_s >= enough_s and cpus > 1:
        return None
    if cpus == 1:
        return "Ray brings nothing on one core"
    return f"{clock(left_s)} of film takes less time than Ray's start"


def footage_left(job: Job, rows: list[Row], enough_s: float) -> float | None:
    """Seconds of the films and sequences on which something is to be done; None if there is nothing to do.

    A film counts whole where it begins at its own stages, a sequence where only those of sequences are left.

    Args:
        job: about to run.
        rows: of `pipelines.curate.prepare`.
        enough_s: where films never seen before last longer together, no more is looked at (and hashed).
    """
    from curation.stages.ingest import is_remembered

    new_s = 0.0
    for row in rows:
        if not is_remembered(row["path"], job.store.root):
            new_s += length_of(row["path"])
            if new_s >= enough_s:
                return new_s
    forecasts = explain(job.plan, rows, job.store)
    if not any(forecast.runs for forecast in forecasts):
        return None
    return sum(seconds_of(row) for forecast in forecasts for row in forecast.begun.values())


def seconds_of(row: Row) -> float:
    """Length of the sequence of a row, or of its film."""
    if row.get("sequence_id"):
        return float(row["end_s"] - row["start_s"])
    if row.get("stream"):
        return float(row["stream"]["duration_s"] or 0.0)
    return length_of(row["path"])


def length_of(path: str) -> float:
    """Seconds of a film as its container says; infinite for one elsewhere, 0 for what is no film."""
    if "://" in path:
        return float("inf")
    if not Path(path).is_file():
        return 0.0
    import av

    try:
        with av.open(path) as container:
            return (container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError, ValueError):
        return 0.0
