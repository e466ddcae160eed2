"""From the environment to a run, and how a run ends that lost a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from memento_model.distributed.launch import is_broken, launched
from memento_model.errors import LaunchError
from tests.memento_model.processes import Crew
from tests.support import REPOSITORY


def place(world):
    got = world.share({"from": world.rank})
    same = world.same(torch.full((3,), float(world.rank)))
    return (
        world.rank,
        world.data_rank,
        world.data_size,
        world.context_size,
        world.is_first,
        got,
        same.tolist(),
    )


def trouble(world, what, who):
    """Process `who` gets into trouble after the first step; the others wait for it."""
    world.meet("step 1")
    if world.rank == who:
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "fails":
            raise ValueError("sample 17 has no video")
        time.sleep(8)
    if what == "hangs":
        world.meet("step 2")
    else:
        torch.distributed.all_reduce(torch.ones(4))


def test_one_process_needs_no_environment(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched(device="cpu") as world:
        assert place(world) == (0, 0, 1, 1, True, {"from": 0}, [0.0] * 3)
        assert world.device == torch.device("cpu")
        world.meet("nobody")
    with (
        pytest.raises(LaunchError, match="start it with torchrun --nproc-per-node 4"),
        launched(context_parallel=4, device="cpu"),
    ):
        raise AssertionError("not reached")


def test_processes_know_their_place(crew_of_two):
    told = {"from": 0}, [0.0] * 3
    assert crew_of_two.results(place) == [(0, 0, 2, 1, True, *told), (1, 1, 2, 1, False, *told)]
    assert crew_of_two.results(place, context_parallel=2) == [
        (0, 0, 1, 2, True, *told),
        (1, 0, 1, 2, False, *told),
    ]


def test_a_split_that_does_not_fit_is_refused(crew_of_two):
    for answer in crew_of_two.run(place, context_parallel=3):
        assert isinstance(answer, LaunchError)
        assert str(answer) == "context_parallel is 3, which does not divide 2 processes"


def test_a_failure_is_told_to_the_others(crew_of_two):
    told, own = crew_of_two.run(trouble, "fails", 1, timeout_s=3.0)
    assert isinstance(own, ValueError)
    assert isinstance(told, LaunchError)
    said = "process 1 failed with ValueError at step 1: sample 17 has no video ("
    assert str(told).startswith(f"process 0 of 2 stopped at step 1: {said}")
    assert str(told).endswith("start the run again and it goes on from what it saved last")


def test_a_killed_process_ends_the_run():
    with Crew(2) as crew:
        told, gone = crew.run(trouble, "killed", 1)
        assert gone is None
        assert isinstance(told, LaunchError)
        assert "no sign of life from process 1 (last seen at step 1)" in str(told)


@pytest.mark.slow
def test_a_hanging_process_ends_the_run():
    with Crew(3) as crew:
        for told in crew.run(trouble, "hangs", 2, timeout_s=4.0)[:2]:
            assert isinstance(told, LaunchError)
            assert "at step 2: process 2 (at step 1) is alive but did not get here in time" in str(told)


@pytest.mark.slow
def test_without_the_first_process_the_others_end_too():
    with Crew(3) as crew:
        gone, *told = crew.run(trouble, "killed", 0, timeout_s=10.0)
        assert gone is None
        assert all("the machine or process that started the run is gone" in str(error) for error in told)


SCRIPT = """
import os, signal, sys
import torch
from memento_model.errors import LaunchError
from memento_model.distributed.launch import launched

try:
    with launched(context_parallel=2, device="cpu") as world:
        world.meet("step 1")
        if sys.argv[1] == "kill" and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        total = world.same(torch.arange(2.0)).sum()
        torch.distributed.all_reduce(total)
        sys.stdout.write(f"sum {float(total)}\\n")  # at once: two processes share the pipe
except LaunchError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["work", "kill"])
def test_under_torchrun(tmp_path, task):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), task], capture_output=True, text=True, env=environment, timeout=200
    )
    if task == "work":
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("sum 2.0") == 2
    else:
        assert done.returncode != 0
        assert "process 0 of 2 stopped at step 1: no sign of life from process 1 (last seen at" in done.stderr
        assert "Signal 9 (SIGKILL)" in done.stderr  # torchrun's own report


def test_own_errors_are_not_taken_for_a_lost_process():
    assert not is_broken(RuntimeError("CUDA out of memory"))
    assert not is_broken(ValueError("gloo"))
    assert is_broken(RuntimeError("[x/pair.cc:5] Connection closed by peer [127.0.0.1]:1"))
