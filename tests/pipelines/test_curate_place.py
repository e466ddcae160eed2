"""Where a run takes place: on Ray where it pays or was asked for, else in a plain loop."""

from __future__ import annotations

import contextlib
import io
import os
import shutil

import numpy as np
import pytest
from rich.console import Console

from curation.engine import cluster as engine_cluster
from curation.engine.cluster import NoLocalRay
from curation.engine.stage import StopRun
from pipelines import curate_command, curate_place
from pipelines.curate import curate, only_run, prepare, resolve
from pipelines.curate_place import LOOP, footage_left, length_of, place_to_run, why_loop
from tests.curation.tiny_film import write_film
from tests.support import REPOSITORY

SECONDS = 2.0


def settled(path):
    """Old enough for its hash to be remembered."""
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def film(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (64, 96), np.uint8) for _ in range(24)]
    path = tmp_path / "in" / "film.mp4"
    path.parent.mkdir()
    write_film(path, (pictures[n % 24] for n in range(int(24 * SECONDS))))
    return settled(path)


@pytest.fixture
def job(film, tmp_path):
    return resolve([str(film.parent)], REPOSITORY / "datasets.yaml", output=tmp_path / "set")


def place(job, rows, asked=None):
    """Whether the run goes to Ray, where, and what was said."""
    said = io.StringIO()
    with place_to_run(Console(file=said, width=200), job, rows, asked=asked) as (on_ray, words):
        return on_ray, words, said.getvalue()


@pytest.fixture
def ray_starts(monkeypatch):
    """A Ray that is there at once."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(engine_cluster, "cluster", lambda folder: contextlib.nullcontext("a Ray of the test"))


@pytest.fixture
def ray_does_not_start(monkeypatch):
    """No Ray can be started, and no address is given."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def none(folder):
        raise NoLocalRay("The current node timed out during startup")

    monkeypatch.setattr(engine_cluster, "cluster", none)


def test_what_is_left_is_the_films_not_done_yet_then_nothing(job, film):
    rows = prepare(job)
    assert footage_left(job, rows, enough_s=1e9) == pytest.approx(SECONDS, abs=0.1)
    curate(job, rows, on_ray=False)
    assert footage_left(job, rows, enough_s=1e9) is None
    assert why_loop(job, rows, 64) == "nothing is left to compute"
    shutil.copy2(film, film.with_name("more.mp4"))
    assert footage_left(job, prepare(job), enough_s=1e9) is None, "the same bytes at another place"


def test_new_films_that_are_enough_are_not_read(job, monkeypatch):
    rows = prepare(job)
    monkeypatch.setattr(curate_place, "explain", lambda *a: pytest.fail("would read every film"))
    assert footage_left(job, rows, enough_s=1.0) == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(
    ("cpus", "seconds", "loop"),
    [(1, 1e6, True), (1, float("inf"), True), (2, 50.0, True), (2, 70.0, False), (16, 60.0, False)],
)
def test_ray_is_for_more_film_than_its_start_costs(job, monkeypatch, cpus, seconds, loop):
    monkeypatch.setattr(curate_place, "footage_left", lambda *a, **k: seconds)
    why = why_loop(job, [], cpus)
    assert (why is not None) == loop
    assert why is None or ("one core" if cpus == 1 else "50 s of film takes less") in why


def test_films_elsewhere_are_for_ray_and_what_is_no_film_has_no_length(tmp_path):
    (tmp_path / "notes.txt").write_text("no film")
    os.mkfifo(tmp_path / "pipe")
    assert length_of("s3://bucket/film.mkv") == float("inf")
    assert [length_of(str(tmp_path / name)) for name in ("notes.txt", "pipe", "gone")] == [0.0, 0.0, 0.0]


def test_little_work_runs_in_the_loop_and_a_line_says_why(job, ray_does_not_start, monkeypatch):
    monkeypatch.setattr(curate_place, "cpus_here", lambda: 2)
    on_ray, words, said = place(job, prepare(job))
    assert (on_ray, words) == (False, LOOP)
    assert said.splitlines() == [f"running in {LOOP}: 2.0 s of film takes less time than Ray's start"]


def test_much_work_or_asking_for_it_means_ray(job, ray_starts, monkeypatch):
    rows = prepare(job)
    assert place(job, rows, asked=True)[:2] == (True, "a Ray of the test")
    assert place(job, rows, asked=False) == (False, LOOP, "")
    monkeypatch.setattr(curate_place, "why_loop", lambda *a: None)
    assert place(job, rows) == (True, "a Ray of the test", "running on a Ray of the test\n")
    monkeypatch.setattr(curate_place, "why_loop", lambda *a: pytest.fail("a cluster was named"))
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    assert place(job, rows)[0]


def test_where_a_local_ray_does_not_start_the_run_goes_on_in_the_loop(job, ray_does_not_start):
    on_ray, words, said = place(job, prepare(job), asked=True)
    assert (on_ray, words) == (False, LOOP)
    assert said.count("\n") == 1
    assert "timed out during startup" in said
    assert f"going on in {LOOP}" in said


def test_a_named_cluster_that_is_not_there_ends_the_run(job, monkeypatch):
    def none(folder):
        raise StopRun("no Ray cluster answers there")

    monkeypatch.setattr(engine_cluster, "cluster", none)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(StopRun, match="no Ray cluster answers there"):
        place(job, prepare(job))


def test_a_busy_folder_is_left_alone_before_anything_costly_starts(film, tmp_path, monkeypatch):
    """And the lock is held while Ray starts and during the run."""
    order = dict(
        config=REPOSITORY / "datasets.yaml", output=tmp_path / "set", preset=None, settings={},
        explain_only=False, on_ray=None,
    )  # fmt: skip
    job = resolve([str(film)], order["config"], output=tmp_path / "set")
    began = []

    def busy() -> bool:
        try:
            with only_run(job):
                return False
        except StopRun:
            return True

    @contextlib.contextmanager
    def costly(*_, **__):
        began.append(("place", busy()))
        yield False, LOOP

    monkeypatch.setattr(curate_command, "place_to_run", costly)
    monkeypatch.setattr(curate_command, "curate_locked", lambda *_, **__: began.append(("run", busy())))
    monkeypatch.setattr(curate_command, "show_report", lambda *_: None)
    prepare(job)
    with only_run(job), pytest.raises(StopRun, match="another run is at work here"):
        curate_command.main([str(film)], **order)
    assert began == []
    curate_command.main([str(film)], **order)
    assert began == [("place", True), ("run", True)]
    assert not busy()
