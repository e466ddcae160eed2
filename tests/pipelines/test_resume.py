"""Killed at any instant and run again: the same published bytes, and no finished work is done twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

KILLS = 10


def command(film, output, *extra):
    start = "import pipelines.cli; pipelines.cli.main()"
    return [sys.executable, "-c", start, "curate", str(film), "-o", str(output), *extra]


def kill_at(arguments, output, count, delay_s):
    """Run a command and SIGKILL its whole process group some time after it has kept so many results.

    By what is done and not by the clock: how fast a machine is, and how busy, changes from run to run.

    Returns:
        Whether it was still at work.
    """
    with subprocess.Popen(
        arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and num_entries(output) < count:
            time.sleep(0.05)
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


def num_entries(output):
    """How many results a run that is at work has kept; folders come and go meanwhile."""
    count = 0
    for _, below, files in os.walk(output / ".work"):
        below[:] = [name for name in below if name not in ("latest", "scratch")]
        count += sum(name.endswith(".json") for name in files)
    return count


def entries(output):
    """Every kept result with the time it was written."""
    return {
        str(path.relative_to(output)): path.stat().st_mtime_ns
        for path in (output / ".work").rglob("*.json")
        if "latest" not in path.parts and "scratch" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("mode", [["--loop"], ["--ray"]], ids=["loop", "ray"])
def test_ten_kills_change_nothing(tmp_path, demo_film, mode):
    undisturbed, disturbed = tmp_path / "a" / "set", tmp_path / "b" / "set"
    subprocess.run(command(demo_film, undisturbed, *mode), check=True, stdout=subprocess.DEVNULL)
    rng, killed, kept = random.Random(7), 0, {}
    for count in sorted(rng.choices(range(len(entries(undisturbed))), k=KILLS)):
        killed += kill_at(command(demo_film, disturbed, *mode), disturbed, count, rng.uniform(0, 1))
        now = entries(disturbed)
        assert {name: now[name] for name in kept} == kept, "finished work was done again or lost"
        kept = now
    assert killed >= KILLS // 2
    subprocess.run(command(demo_film, disturbed, *mode), check=True, stdout=subprocess.DEVNULL)
    assert {name: t for name, t in entries(disturbed).items() if name in kept} == kept
    assert os.readlink(disturbed / "current") == os.readlink(undisturbed / "current")
    record = json.loads((disturbed / "run.json").read_text())
    assert sum(record["rows_reused"].values()) > 0
