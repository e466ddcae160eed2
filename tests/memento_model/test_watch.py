"""What a run tells: the log, the loss by noise level, held-out loss at fixed draws, pictures, trackers."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from curation.optional import MissingExtra
from memento_model.codecs.dct import DctCodec
from memento_model.training.pictures import Painter
from memento_model.training.trainer import Feed, fit
from memento_model.training.watch import (
    LOG,
    WANDB_ID,
    Recorder,
    WeightsAndBiases,
    cut_log,
    duration,
    summary,
    trackers,
    validate,
)
from tests.memento_model.in_memory import InMemory, Quiet, config, run_of, sequences, weights


def lines(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_a_run_logs_validates_and_paints(tmp_path):
    watch = replace(config().watch, log_every=2, validate_every=2, sample_every=4)
    run = run_of(config(watch=watch))
    held = Feed(sequences(3)[2:], InMemory(), run.config)
    said = []
    recorder = Recorder(tmp_path, said.append, validation=held, paint=Painter(held, DctCodec, count=1))
    fit(run, recorder, Quiet())
    logged = [entry for entry in lines(tmp_path) if "loss" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    assert {"target", "grad_norm", "lr", "samples_per_s", "tokens_per_s", "skipped_steps"} <= logged[0].keys()
    assert any(name.startswith("target_t") for name in logged[0])
    held_out = [entry["validation"] for entry in lines(tmp_path) if "validation" in entry]
    assert len(held_out) == 2
    assert run.validation == held_out[-1]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["step-000004-0.png"]
    assert any("2 s left" in line or "s left" in line for line in said)


def test_held_out_loss_is_the_same_every_time_and_moves_nothing():
    run = run_of()
    held = Feed(sequences(3)[2:], InMemory(), run.config)
    before = weights(run)
    first, second = validate(run, held), validate(run, held)
    assert first == second
    assert math.isfinite(first["validation"])
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())
    assert run.transformer.training


def test_summary_by_part_and_noise_level():
    nan = math.nan
    rows = [[100.0, 3.0, 1.0, 4.0, nan], [800.0, 5.0, 3.0, nan, nan]]
    assert summary(rows) == {
        "loss": 4.0, "target": 2.0, "identity": 4.0, "identity_share": 0.5, "target_t0-250": 1.0,
        "target_t750-900": 3.0,
    }  # fmt: skip


def test_the_parts_of_a_line_add_up_to_its_loss(tmp_path):
    said = []
    made = config(steps=5, watch=replace(config().watch, log_every=5))
    run = run_of(replace(made, objective=replace(made.objective, identity_weight=4.0)))
    fit(run, Recorder(tmp_path, said.append), Quiet())
    found = re.search(
        r"loss ([\d.]+) \(target ([\d.]+) \+ 4 x identity ([\d.]+) in (\d+)% of samples\)", said[0]
    )
    assert found, said
    loss, target, identity, share = map(float, found.groups())
    assert loss == pytest.approx(target + 4 * identity * share / 100, rel=1e-3)


def test_the_log_is_cut_where_a_run_goes_on(tmp_path):
    path = tmp_path / LOG
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    cut_log(path, 2)
    assert [entry["step"] for entry in lines(tmp_path)] == [1, 2]
    cut_log(tmp_path / "none.jsonl", 2)


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = run_of(config(watch=replace(config().watch, trackers=("wandb",))))
    with pytest.raises(MissingExtra, match="wandb"):
        Recorder(tmp_path).begin(run)


def test_tensorboard_shows_numbers_and_sheets(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = replace(config().watch, log_every=1, validate_every=2, sample_every=2, trackers=("tensorboard",))
    run = run_of(config(watch=watch))
    held = Feed(sequences(3)[2:], InMemory(), run.config)
    fit(run, Recorder(tmp_path, validation=held, paint=Painter(held, DctCodec, count=1)), Quiet())
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    logged = {entry["step"]: entry["loss"] for entry in lines(tmp_path) if "loss" in entry}
    assert {e.step: e.value for e in shown.Scalars("loss")} == pytest.approx(logged)
    assert [e.step for e in shown.Scalars("validation")] == [2, 4]
    assert [e.step for e in shown.Images("sheet-0")] == [2, 4]


def test_wandb_keeps_numbers_and_sheets_without_a_network(tmp_path, monkeypatch):
    """The real client, offline: it is told what the log says, and a resumed run keeps its id."""
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    watch = replace(config().watch, log_every=1, validate_every=2, sample_every=2, trackers=("wandb",))
    run = run_of(config(watch=watch))
    held = Feed(sequences(3)[2:], InMemory(), run.config)
    recorder = Recorder(tmp_path, validation=held, paint=Painter(held, DctCodec, count=1))
    told, numbers = [], WeightsAndBiases.numbers

    def listen(tracker, step, values):
        told.append((step, dict(values)))
        numbers(tracker, step, values)

    monkeypatch.setattr(WeightsAndBiases, "numbers", listen)
    fit(run, recorder, Quiet())
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert kept.stat().st_size > 0
    assert [step for step, _ in told] == [1, 2, 2, 3, 4, 4]  # losses, and held-out ones at 2 and 4
    logged = [entry["loss"] for entry in lines(tmp_path) if "loss" in entry]
    assert [values["loss"] for _, values in told if "loss" in values] == pytest.approx(logged)
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/sheet-0*.png"))
    first = (tmp_path / WANDB_ID).read_text()
    assert first in kept.name
    for step, stays in ((2, True), (0, False)):
        run.step = step
        for tracker in trackers(run, tmp_path):
            tracker.close()
        assert ((tmp_path / WANDB_ID).read_text() == first) is stays


def test_durations():
    assert [duration(s) for s in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]
