"""The same training in the processes of Ray Train."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")
pytest.importorskip("ray.train", reason="the extra `train-ray` is not installed", exc_type=ImportError)

from rich.console import Console

from curation.engine.stage import StopRun
from memento_model.training.config import ObjectiveConfig, OptimConfig
from memento_model.training.state import RESUME, step_folders
from pipelines.train_command import train
from pipelines.train_ray import train_on_ray
from tests.memento_model.films import config as films_config
from tests.memento_model.films import write_dataset
from tests.memento_model.in_memory import CPU


@pytest.fixture
def settings(tmp_path):
    """Two steps of two samples on two small films."""
    made = films_config(write_dataset(tmp_path / "set"), tmp_path / "cache")
    return replace(
        made,
        train_base=True,
        objective=ObjectiveConfig(last_frames=3, bank_frames=3),
        optim=OptimConfig(lr=1e-3, warmup_steps=1, schedule="constant"),
        scale=replace(made.scale, dtype="fp32", checkpoint_activations=False, backend="ray", workers=2),
        watch=replace(made.watch, log_every=1, validate_every=0, sample_every=0, save_every=2),
        steps=2,
        output=str(tmp_path / "run"),
    )


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_of_ray_equal_one_process(settings, tmp_path):
    """Same losses, same checkpoint as one process with two samples a step; then a mistake in one line."""
    said = StringIO()
    (folder,) = train_on_ray([settings], "auto", Console(file=said, width=200))
    alone = replace(
        settings, output=str(tmp_path / "alone"), scale=replace(settings.scale, backend="auto", accumulate=2)
    )
    train(alone, CPU, "auto", Console(quiet=True))
    here = tmp_path / "alone" / settings.expert
    assert losses(folder) == pytest.approx(losses(here), abs=1e-5)
    ends = [torch.load(step_folders(place)[-1] / RESUME, weights_only=True) for place in (folder, here)]
    assert ends[0]["count"] == ends[1]["count"] == 4
    for name, value in ends[0]["model"].items():
        torch.testing.assert_close(value, ends[1]["model"][name], atol=1e-4, rtol=1e-3, msg=name)
    assert "step 2/2" in said.getvalue()
    missing = replace(settings, data=replace(settings.data, dataset=str(tmp_path / "nowhere")))
    with pytest.raises(StopRun) as refused:
        train_on_ray([missing], "auto", Console(quiet=True))
    assert str(refused.value).startswith(f"{tmp_path / 'nowhere'}: neither a dataset folder")
