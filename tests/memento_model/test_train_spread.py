"""Training on several processes equals training on one, and goes on with another number of them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.training.state import RESUME, step_folders
from tests.memento_model.in_memory import CPU, spread_run


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_then_one_equals_one(tmp_path, crew_of_two, shard):
    """Global batch of two: 2 x 1 sample, then 1 x 2; same losses to 1e-5, and the same weights in the end."""
    alone, batch = spread_run(CPU, tmp_path / "alone", 4, False, accumulate=2, ema=0.9)
    assert batch == 2
    answers = crew_of_two.results(spread_run, str(tmp_path / "parted"), 2, shard, 1, 0.9)
    together = [[a[0], b[0]] for a, b in zip(answers[0][0], answers[1][0], strict=True)]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone[:2]), atol=1e-5, rtol=1e-5)
    after, batch = spread_run(CPU, tmp_path / "parted", 4, False, accumulate=1, ema=0.9)
    assert batch == 2
    torch.testing.assert_close(torch.tensor(after), torch.tensor(alone[2:]), atol=1e-5, rtol=1e-5)
    ends = [
        torch.load(step_folders(tmp_path / name)[-1] / RESUME, weights_only=True)
        for name in ("alone", "parted")
    ]
    assert ends[0]["count"] == ends[1]["count"] == 8
    for part in ("model", "average"):
        for name, value in ends[0][part].items():
            torch.testing.assert_close(ends[1][part][name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_one_process_then_two_shards(tmp_path, crew_of_two):
    """A checkpoint of one process goes on in two that share the weights."""
    straight, _ = spread_run(CPU, tmp_path / "alone", 4, False, accumulate=2)
    spread_run(CPU, tmp_path / "parted", 2, False, accumulate=2)
    answers = crew_of_two.results(spread_run, str(tmp_path / "parted"), 4, True, 1)
    together = [[a[0], b[0]] for a, b in zip(answers[0][0], answers[1][0], strict=True)]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(straight[2:]), atol=1e-5, rtol=1e-5)
