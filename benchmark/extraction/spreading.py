"""Jobs spread over processes of this machine, or over Ray; one worker for each place, each with its encoders.

What a worker encodes is on disk at once, so whatever is killed goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmark.extraction.working import Encoders, ExtractionError, Job, Outcome, Tell, work

EncoderFactory = Callable[..., Encoders]
"""Makes the encoders of a process, called with `device`; `functools.partial(encoders_for, preset)` is one."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where jobs run.

    Attributes:
        workers: processes; one works in this process. Memory holds the encoders once for each.
        devices: of the workers in turn, as torch names them.
        threads: that decode for each worker; None for two on a CPU, up to eight beside a GPU.
        ray: spread over Ray, local or `RAY_ADDRESS`; the folder must be reachable from every node.
    """

    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    threads: int | None = None
    ray: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1 or not self.devices:
            raise ValueError("extraction needs at least one worker and one device")

    @property
    def cores(self) -> int:
        """Of each worker."""
        return max(1, (os.cpu_count() or 1) // self.workers)

    def decoders(self, device: str) -> int:
        """Threads that decode for a worker on a device."""
        return self.threads or (2 if device == "cpu" else max(2, min(8, self.cores)))


def spread(
    jobs: Sequence[Job],
    encoders: Encoders | EncoderFactory,
    folder: Path,
    place: Place,
    tell: Tell = lambda kind, count: None,
) -> Outcome:
    """Do all jobs.

    Args:
        jobs: to do.
        encoders: those of this process, or what makes them; several workers need the latter.
        folder: of all features.
        place: where.
        tell: is told of each batch that is on disk.

    Raises:
        ExtractionError: a worker fails or is killed.
    """
    if place.ray:
        from benchmark.extraction.ray_workers import spread_over_ray

        return spread_over_ray(jobs, encoders, folder, place)
    parts = divided(jobs, place.workers)
    if len(parts) == 1 and place.workers == 1:
        device = place.devices[0]
        return work(parts[0], made(encoders, device), folder, threads=place.decoders(device), tell=tell)
    return _in_processes(parts, encoders, folder, place, tell)


def made(encoders: Encoders | EncoderFactory, device: str) -> Encoders:
    """The encoders themselves."""
    return encoders(device=device) if callable(encoders) else encoders


def divided(jobs: Sequence[Job], parts: int) -> list[list[Job]]:
    """Jobs in up to so many parts of about the same cost."""
    found: list[list[Job]] = [[] for _ in range(parts)]
    loads = [0.0] * parts
    for place in sorted(range(len(jobs)), key=lambda i: (-cost(jobs[i]), i)):
        least = loads.index(min(loads))
        found[least].append(jobs[place])
        loads[least] += cost(jobs[place])
    return [part for part in found if part]


GFLOP = {"clip_b32": 8.6, "dino_b14": 46.0, "clip_l14": 162.0}
GFLOP_CLIP, GFLOP_TEXT, GFLOP_FILE = 357.0, 3.0, 500.0


def cost(job: Job) -> float:
    """About how much a job is, to spread jobs evenly; a pass over a file counts as so many GFLOP."""
    frames = sum(
        GFLOP.get(kind, 50.0) * len(taken) for file in job.files for kind, taken in file.frames.items()
    )
    return frames + GFLOP_CLIP * len(job.clips) + GFLOP_TEXT * len(job.texts) + GFLOP_FILE * len(job.files)


def _in_processes(
    parts: Sequence[Sequence[Job]],
    encoders: Encoders | EncoderFactory,
    folder: Path,
    place: Place,
    tell: Tell,
) -> Outcome:
    import multiprocessing

    # A forked process would share locks and devices with this one.
    context = multiprocessing.get_context("spawn")
    total, open_ends, processes = Outcome(), [], []
    try:
        for number, part in enumerate(parts):
            device = place.devices[number % len(place.devices)]
            ours, theirs = context.Pipe(duplex=False)
            arguments = (theirs, list(part), encoders, folder, device, place)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            open_ends.append(ours)
            processes.append(process)
        while open_ends:
            for end in wait(open_ends):
                assert isinstance(end, Connection)
                if _take(end, total, tell):
                    open_ends.remove(end)
    finally:
        for process in processes:
            if open_ends:
                process.terminate()
            process.join()
    return total


def _take(end: Connection, total: Outcome, tell: Tell) -> bool:
    """Read one message of a worker; whether it was the last."""
    try:
        what, value = end.recv()
    except EOFError as error:
        raise ExtractionError(
            "a worker was killed, perhaps for want of memory: run the same command again with fewer workers; "
            "what was encoded is kept"
        ) from error
    if what == "failed":
        raise ExtractionError(value)
    if what == "done":
        total.add(value)
        return True
    tell(*value)
    return False


def _serve(
    end: Connection,
    jobs: list[Job],
    encoders: Encoders | EncoderFactory,
    folder: Path,
    device: str,
    place: Place,
) -> None:
    """Body of a worker process. It ends with its parent: the next message finds nobody."""
    limit_threads(device, place.cores)

    def told(kind: str, count: int) -> None:
        end.send(("told", (kind, count)))

    try:
        outcome = work(jobs, made(encoders, device), folder, threads=place.decoders(device), tell=told)
        end.send(("done", outcome))
    except BrokenPipeError:
        return
    except ExtractionError as error:
        end.send(("failed", str(error)))


def limit_threads(device: str, cores: int) -> None:
    """Let torch use no more cores than are this process's, before it is imported."""
    if device == "cpu":
        os.environ["OMP_NUM_THREADS"] = str(min(cores, int(os.environ.get("OMP_NUM_THREADS") or cores)))
