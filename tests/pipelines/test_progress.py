"""The progress of `memento curate`: units, stage, time left; moving on a terminal, calm in a log."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from curation.engine.store import Store
from pipelines import progress as module
from pipelines.curate import resolve
from pipelines.progress import groups_of, show_progress, time_left

SCAN = "scan, titles"
LAST = "analyse, crop, subjects, recon_targets, export, captions, proof"


@pytest.fixture
def plan(tmp_path: Path):
    return resolve(["demo"], Path("datasets.yaml"), output=tmp_path / "set").plan


def test_every_group_knows_what_it_counts(plan) -> None:
    found = groups_of(plan)
    assert [group.unit for group in found.values()] == ["film", "film", "segment", "film", "film", "sequence"]
    assert [group.number for group in found.values()] == [1, 2, 3, 4, 5, 6]
    assert {group.of for group in found.values()} == {6}
    assert found[SCAN].names == "scan, titles"
    assert found[LAST].names == "analyse ... proof"


@pytest.mark.parametrize(
    ("done", "total", "took_s", "told"),
    [
        (0, 4, 100.0, ""),
        (4, 4, 100.0, ""),
        (1, 2, 30.0, "about 30 s left"),
        (1, 4, 130.0, "about 6 min left"),
        (2, 100, 360.0, "about 4 h 54 min left"),
    ],
)
def test_what_is_left_follows_from_what_is_done(done, total, took_s, told) -> None:
    assert time_left(done, total, took_s) == told


def test_before_all_that_run_at_once_have_ended_it_is_a_bound():
    assert time_left(1, 2, 109.0, at_once=2) == "at most 2 min left"
    assert time_left(2, 4, 109.0, at_once=2) == "about 2 min left"


def test_a_log_has_a_line_for_each_group_with_what_was_counted(plan, monkeypatch) -> None:
    console = Console(file=io.StringIO(), width=80)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    log = module._Log(console, groups_of(plan), lambda stage: {"analyse": 1, "scan": 9}.get(stage, 0))
    for at, names, done, total in (
        (0, SCAN, 0, 16), (10, SCAN, 4, 16), (70, SCAN, 8, 16), (80, SCAN, 16, 16),
        (100, LAST, 0, 1), (161, LAST, 0, 1), (200, LAST, 0, 1), (230, LAST, 1, 1), (999, LAST, 1, 1),
    ):  # fmt: skip
        clock[0] = float(at)
        if done < total or at < 900:
            log(names, done, total)
        log.tell()
    assert console.file.getvalue().splitlines() == [
        "  step 3 of 6, scan, titles: 8 of 16 segments after 1 min 10 s, about 1 min left, now scan 9/16",
        "  step 3 of 6, scan, titles: 16 segments in 1 min 20 s",
        "  step 6 of 6, analyse ... proof: 0 of 1 sequence after 1 min 1 s, now crop 0/1",
        "  step 6 of 6, analyse ... proof: 1 sequence in 2 min 10 s",
    ]


def test_a_log_has_its_line_although_no_row_was_done(plan, monkeypatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(module, "QUIET_S", 0.05)
    with show_progress(console, groups_of(plan)) as progress:
        progress(LAST, 0, 2)
        until = time.monotonic() + 20
        while not console.file.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
    assert "0 of 2 sequences after" in console.file.getvalue()
    assert "now analyse 0/2" in console.file.getvalue()


def test_a_terminal_shows_the_unit_and_the_stage_at_work_in_80_columns(plan, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    store = Store(tmp_path)
    with show_progress(console, groups_of(plan), store.ticks) as progress:
        progress(LAST, 0, 3)
        for stage, passed in (("analyse", 3), ("crop", 3), ("subjects", 2)):
            for _ in range(passed):
                store.tick(stage)
        progress(LAST, 1, 3)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert "1/3 sequences" in lines[-1]
    assert "subjects 2/3" in lines[-1]
    assert all(len(line) <= 80 for line in lines)


def test_what_has_passed_a_stage_is_counted_across_processes_and_forgotten_by_the_next_run(tmp_path) -> None:
    store, same = Store(tmp_path), Store(tmp_path)
    assert store.ticks("scan") == 0
    store.tick("scan")
    same.tick("scan")
    assert store.ticks("scan") == 2
    store.clean()
    assert store.ticks("scan") == 0
