"""Any number of workers, and workers that are killed: the same bytes, and nothing encoded twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
from functools import partial

import numpy as np
import pytest

from benchmark.extraction.lacking import wanted
from benchmark.extraction.run import extract, extract_all
from benchmark.extraction.spreading import Place, divided
from benchmark.extraction.working import ExtractionError, Job
from benchmark.presets import all_readings, preset
from benchmark.scoring import score
from tests.benchmark import extracting, made

MEMENTO = preset("memento")
STORIES = {key: made.story(key, (2, 1), overview=f"About {key}.") for key in ("one", "two", "three")}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return extracting.method(tmp_path_factory.mktemp("videos") / "m", STORIES)


def contents(folder):
    """Every file of features by its path."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


def table(store):
    scores = score(all_readings(MEMENTO), STORIES, store, recipe="r")
    return repr({name: metric.stories for name, metric in scores.metrics.items()})


@pytest.fixture(scope="module")
def alone(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    store, _, faults = extract(videos, STORIES, MEMENTO, extracting.encoders, folder)
    assert faults == ()
    return store, contents(folder), table(store)


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_bytes(videos, alone, tmp_path, workers):
    store, work, _ = extract(videos, STORIES, MEMENTO, extracting.encoders, tmp_path, workers=workers)
    assert contents(tmp_path) == alone[1]
    assert table(store) == alone[2]
    assert work.decode_passes == 9


@pytest.mark.slow
def test_ray_gives_the_same_bytes(videos, alone, tmp_path):
    pytest.importorskip("ray")
    store, work, _ = extract(videos, STORIES, MEMENTO, extracting.encoders, tmp_path, workers=2, ray=True)
    assert contents(tmp_path) == alone[1]
    assert table(store) == alone[2]
    assert work.decode_passes == 9


def killed(videos, folder, **of):
    extract(videos, STORIES, MEMENTO, extracting.encoders(**of), folder)


@pytest.mark.parametrize("kill_at", [1, 9])
def test_killed_and_run_again(videos, alone, tmp_path, kill_at):
    """Killed inside an encoder: all that it had encoded before is on disk, whatever encoder it was."""
    log, folder = tmp_path / "log.txt", tmp_path / "f"
    process = multiprocessing.get_context("fork").Process(
        target=killed, args=(videos, folder), kwargs={"log": log, "kill_at": kill_at}
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    first = log.read_text().splitlines()
    assert first
    store, work, faults = extract(videos, STORIES, MEMENTO, extracting.encoders(log=log), folder)
    assert faults == ()
    lines = [line for line in log.read_text().splitlines() if not line.endswith(" batch")]
    assert len(lines) == len(set(lines))
    assert sum(work.reused.values()) == len([line for line in first if not line.endswith(" batch")])
    assert contents(folder) == alone[1]
    assert table(store) == alone[2]


def dies(device, folder):
    return extracting.encoders(device, log=folder / f"log{os.getpid()}.txt", kill_at=2)


def test_a_worker_that_is_killed_is_one_line_and_loses_nothing(videos, alone, tmp_path):
    with pytest.raises(ExtractionError, match=r"a worker was killed.*what was encoded is kept"):
        extract(videos, STORIES, MEMENTO, partial(dies, folder=tmp_path), tmp_path / "f", workers=2)
    _, work, _ = extract(videos, STORIES, MEMENTO, extracting.encoders(), tmp_path / "f")
    assert sum(work.reused.values()) > 0
    assert contents(tmp_path / "f") == alone[1]


class Broken(extracting.Frames):
    def encode(self, pictures_thwc):
        raise RuntimeError("CUDA out of memory.\nTried to allocate")


def broken(device="cpu"):
    one = extracting.encoders(device)
    one.frames = (Broken("clip_b32"), *one.frames[1:])
    return one


@pytest.mark.parametrize("workers", [1, 2])
def test_an_encoder_that_fails_is_one_line(videos, tmp_path, workers):
    with pytest.raises(ExtractionError, match=r"^clip_b32: the encoder failed: CUDA out of memory\.$"):
        extract(videos, STORIES, MEMENTO, broken, tmp_path, workers=workers)


def test_progress_is_told(videos, tmp_path):
    for workers in (1, 2):
        told = []
        place = Place(workers=workers)
        (found,) = extract_all(
            [videos],
            STORIES,
            MEMENTO,
            extracting.encoders,
            tmp_path / str(workers),
            place=place,
            tell=lambda kind, count, told=told: told.append((kind, count)),
        )
        for kind, count in found.work.encoded.items():
            assert sum(n for k, n in told if k == kind) == count


def test_jobs_are_divided_evenly_and_completely():
    jobs = [Job(texts=tuple("abcdefgh"[:count])) for count in (8, 1, 5, 3, 3, 2)]
    parts = divided(jobs, 3)
    assert sorted(len(job.texts) for part in parts for job in part) == [1, 2, 3, 3, 5, 8]
    assert sorted(sum(len(job.texts) for job in part) for part in parts) == [7, 7, 8]
    assert divided(jobs[:1], 4) == [jobs[:1]]
    with pytest.raises(ValueError, match="at least one worker"):
        Place(workers=0)


torch_missing = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("torch") is None, reason="needs torch"
)


class Torch(extracting.Frames):
    """A matrix product, whose last bits depend on the shape of a batch."""

    def encode(self, pictures_thwc):
        import torch

        flat = torch.from_numpy(pictures_thwc.reshape(len(pictures_thwc), -1)).float() / 255 - 0.4
        weight = extracting.projection(self.kind, flat.shape[1], self.width).astype(np.float32)
        with torch.inference_mode():
            return (flat @ torch.from_numpy(weight)).numpy()


def torch_encoders(device="cpu"):
    one = extracting.encoders(device)
    wide = Torch("clip_b32", pixels=extracting.Pixels(60), batch=8, width=256)
    one.frames = (wide, *one.frames[1:])
    return one


@torch_missing
def test_torch_gives_the_same_bytes_whatever_batches_are_made_of(videos, tmp_path):
    """All at once, and in a second run that finds some shots there, so that batches hold others."""
    at_once, late = tmp_path / "one", tmp_path / "late"
    few = {"one": made.story("one", (2,))}
    extract(videos, STORIES, MEMENTO, torch_encoders, at_once)
    extract(videos, few, MEMENTO, torch_encoders, late)
    assert 0 < len(contents(late)) < len(contents(at_once))
    extract(videos, STORIES, MEMENTO, torch_encoders, late)
    first, second = contents(at_once), contents(late)
    assert {path: second[path] for path in first} == first


@pytest.mark.slow
@torch_missing
@pytest.mark.parametrize("workers", [2, 4])
def test_torch_gives_the_same_bytes_on_any_number_of_processes(videos, tmp_path, workers):
    extract(videos, STORIES, MEMENTO, torch_encoders, tmp_path / "one")
    extract(videos, STORIES, MEMENTO, torch_encoders, tmp_path / "many", workers=workers)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_what_is_wanted_is_counted_once(videos):
    from benchmark.extraction.plan import make_plan

    plan = make_plan(STORIES, videos, MEMENTO, str.split)
    once, twice = wanted([plan], ["clip_b32", "viclip", "text"]), wanted([plan, plan], ["clip_b32", "viclip"])
    assert {kind for kind, _ in once.keys} == {"clip_b32", "viclip", "text"}
    assert all(twice.count(filed) == once.count(filed) for filed in twice.keys)
