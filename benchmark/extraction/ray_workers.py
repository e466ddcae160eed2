"""Extraction over Ray: an actor for each worker holds the encoders and does the same work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.extraction.spreading import EncoderFactory, Place, divided, limit_threads, made
from benchmark.extraction.working import Encoders, ExtractionError, Job, Outcome, work


class Actor:
    """A worker on some node."""

    def __init__(self, encoders: Encoders | EncoderFactory, folder: Path, device: str, place: Place) -> None:
        limit_threads(device, place.cores)
        self._encoders, self._folder = made(encoders, device), folder
        self._threads = place.decoders(device)

    def work(self, jobs: list[Job]) -> Outcome | str:
        """Do jobs; a line if that fails."""
        try:
            return work(jobs, self._encoders, self._folder, threads=self._threads)
        except ExtractionError as error:
            return str(error)


def spread_over_ray(
    jobs: Sequence[Job], encoders: Encoders | EncoderFactory, folder: Path, place: Place
) -> Outcome:
    """Do all jobs on a Ray cluster, `RAY_ADDRESS` or a local one.

    An actor on a GPU asks Ray for one and sees it as its first; files and the folder must lie under the same
    paths on every node.

    Raises:
        ExtractionError: an actor fails or is lost, or there is no Ray.
    """
    from curation.engine.cluster import cluster
    from curation.engine.stage import StopRun

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with cluster(folder):
            return _gather(divided(jobs, place.workers), encoders, folder, place)
    except StopRun as error:
        raise ExtractionError(str(error)) from error


def _gather(
    parts: Sequence[Sequence[Job]], encoders: Encoders | EncoderFactory, folder: Path, place: Place
) -> Outcome:
    import ray

    total, answers = Outcome(), []
    for number, part in enumerate(parts):
        device = place.devices[number % len(place.devices)]
        # Ray shows an actor only the GPU that it gave it.
        wants = {"num_cpus": 1, "num_gpus": 0} if device == "cpu" else {"num_cpus": 1, "num_gpus": 1}
        actor: Any = ray.remote(Actor).options(**wants)
        here = "cuda:0" if device.startswith("cuda") else device
        answers.append(actor.remote(encoders, folder, here, place).work.remote(list(part)))
    try:
        for answer in ray.get(answers):
            if isinstance(answer, str):
                raise ExtractionError(answer)
            total.add(answer)
    except ray.exceptions.RayError as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExtractionError(
            f"a Ray worker was lost ({first}): run the same command again; what was encoded is kept"
        ) from error
    return total
