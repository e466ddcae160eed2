"""Checkpoints: exact resume, also after a kill, the export that other programs read, what is kept, faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.checkpoints.choice import choose
from memento_model.checkpoints.load import load_expert, open_checkpoint
from memento_model.errors import CheckpointError
from memento_model.training.state import RESUME, Checkpoints, prune, resume, snapshot, step_folders
from memento_model.training.trainer import fit
from tests.memento_model.in_memory import Quiet, config, run_of, sequences, weights
from tests.support import REPOSITORY

ODD = replace(config().scale, accumulate=4)
"""Six samples and four a step: an epoch ends in the middle of an accumulation."""


def trained(tmp_path, steps, made=None, keep_last=9):
    made = replace(made or config(), steps=steps)
    run = run_of(made)
    found = step_folders(tmp_path)
    if found:
        resume(run, found[-1])
    fit(run, Quiet(), Checkpoints(tmp_path, keep_last))
    return run


def state(run):
    shot = snapshot(run)
    return shot.state


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    else:
        assert one == other


@pytest.mark.parametrize("expert", ["high", "low"])
def test_going_on_equals_never_having_stopped(tmp_path, expert):
    base = config(expert=expert, scale=ODD, optim=replace(config().optim, ema_decay=0.9, schedule="constant"))
    straight = trained(tmp_path / "a", 4, base)
    trained(tmp_path / "b", 2, base)
    parted = trained(tmp_path / "b", 4, base)
    assert parted.count == straight.count == 16
    one, other = state(straight), state(parted)
    for part in ("step", "count", "model", "optimizer", "average", "skipped"):
        same(one[part], other[part])


def test_stopped_between_checkpoints_it_goes_on_to_the_same_bits(tmp_path):
    base = config(scale=ODD, steps=4, watch=replace(config().watch, save_every=99))
    straight = trained(tmp_path / "a", 4, base)
    run = run_of(base)
    fit(run, Quiet(), Checkpoints(tmp_path / "b", 9), lambda: run.step == 3)
    assert [place.name for place in step_folders(tmp_path / "b")] == ["step-000003"]
    parted = trained(tmp_path / "b", 4, base)
    for part in ("step", "count", "model", "optimizer"):
        same(state(straight)[part], state(parted)[part])


KILLED = """
    import sys
    from pathlib import Path
    from dataclasses import replace
    import os, signal
    from memento_model.training.state import Checkpoints, resume, step_folders
    from memento_model.training import trainer
    from tests.memento_model.in_memory import Quiet, run_of
    from tests.memento_model.test_train_state import killed_config

    folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    run = run_of(killed_config())
    found = step_folders(folder)
    if found:
        resume(run, found[-1])
    keeper = Checkpoints(folder, 9)
    forward, seen = trainer.Run.forward, []

    def counted(self, sample):
        seen.append(run.count)
        if kill_at and len(seen) == kill_at:
            keeper.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, sample)

    trainer.Run.forward = counted
    trainer.fit(run, Quiet(), keeper)
"""


def killed_config():
    return config(scale=ODD, steps=4, watch=replace(config().watch, save_every=1))


def test_killed_in_the_middle_of_an_accumulation_and_of_an_epoch(tmp_path):
    """SIGKILL after the third of four samples of step 3; the epoch of six ended within step 2."""
    straight = trained(tmp_path / "a", 4, killed_config())

    def process(kill_at):
        code = textwrap.dedent(KILLED)
        arguments = [sys.executable, "-c", code, str(tmp_path / "b"), str(kill_at)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            arguments, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )

    first = process(11)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert [place.name for place in step_folders(tmp_path / "b")] == ["step-000001", "step-000002"]
    second = process(0)
    assert second.returncode == 0, second.stderr
    last = torch.load(tmp_path / "b" / "step-000004" / RESUME, weights_only=True)
    wanted = state(straight)
    for part in ("step", "count", "model", "optimizer"):
        same(wanted[part], last[part])


def test_a_checkpoint_is_one_of_our_own_and_make_generate_takes_it(tmp_path):
    for expert in ("high", "low"):
        run = trained(tmp_path / expert, 2, config(expert=expert))
    place = step_folders(tmp_path / "low")[-1]
    checkpoint = open_checkpoint(place)
    loaded = load_expert(checkpoint, "low", dtype=torch.float32)
    loaded.keyframe_query.train()
    loaded.transformer.compat = run.config.compat
    sample = run.feed.prepared(0)[2]
    with torch.no_grad():
        wanted = run.forward(sample).prediction_bcfhw
        run.transformer, run.query = loaded.transformer, loaded.keyframe_query
        assert torch.equal(run.forward(sample).prediction_bcfhw, wanted)
    sources = choose(None, None, tmp_path)
    assert set(sources.trainable) == {"high", "low"}
    assert sources.told["codec"] == "dct"
    assert sources.told["grid"]["height"] == 16
    notes = json.loads((place / "config.json").read_text())["notes"]["low"]
    assert (notes["step"], notes["weights"]) == (2, "trained")


def test_the_average_is_what_is_exported(tmp_path):
    run = trained(tmp_path, 2, config(optim=replace(config().optim, ema_decay=0.5, lr=1e-2)))
    tensors, _ = open_checkpoint(step_folders(tmp_path)[-1]).trainable("low")
    exported = tensors.read("keyframe_query.queries")
    assert torch.equal(exported, run.optimiser.average["keyframe_query.queries"])
    assert not torch.equal(exported, run.optimiser.parameters["keyframe_query.queries"].detach())


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    run = run_of()
    keeper = Checkpoints(tmp_path, keep_last=2)
    for step, loss in enumerate((0.9, 0.2, 0.5, 0.6, 0.7), 1):
        run.step, run.validation = step, loss
        keeper.save(run)
    keeper.finish()
    assert [place.name[-1] for place in step_folders(tmp_path)] == ["2", "4", "5"]
    (tmp_path / ".step-000006.part").mkdir()
    prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002", "step-000004", "step-000005"]


def test_a_checkpoint_is_a_copy_of_its_moment(tmp_path):
    run = run_of()
    shot = snapshot(run)
    before = weights(run)
    with torch.no_grad():
        for parameter in run.optimiser.parameters.values():
            parameter.add_(1)
    for name, value in before.items():
        assert torch.equal(shot.state["model"][name], value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optim": replace(config().optim, lr=1.0)}, "optim.lr was 0.001 and is 1.0"),
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"expert": "high"}, "expert was 'low' and is 'high'"),
        ({"scale": replace(config().scale, accumulate=2)}, "batches of 2 samples, they were of 1"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, said):
    trained(tmp_path, 2)
    run = run_of(config(**change))
    with pytest.raises(CheckpointError, match=said):
        resume(run, step_folders(tmp_path)[-1])


def test_other_samples_and_damage_are_refused(tmp_path):
    trained(tmp_path, 2)
    place = step_folders(tmp_path)[-1]
    with pytest.raises(CheckpointError, match="other samples"):
        resume(run_of(data=sequences(3)), place)
    file = place / RESUME
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        resume(run_of(), place)


def test_what_may_change_may(tmp_path):
    trained(tmp_path, 2)
    run = run_of(config(steps=9, output="elsewhere", watch=replace(config().watch, log_every=7)))
    resume(run, step_folders(tmp_path)[-1])
    assert run.step == 2


def test_a_setting_that_a_checkpoint_does_not_know_had_its_default(tmp_path):
    trained(tmp_path, 2)
    place = step_folders(tmp_path)[-1]
    kept = torch.load(place / RESUME, weights_only=True)
    del kept["config"]["objective"]["drawn_picks"], kept["config"]["compat"]["query_gradient"]
    torch.save(kept, place / RESUME)
    run = run_of()
    resume(run, place)
    assert run.step == 2
    drawn = replace(config().objective, drawn_picks=not config().objective.drawn_picks)
    with pytest.raises(CheckpointError, match=r"objective\.drawn_picks was False and is True"):
        resume(run_of(config(objective=drawn)), place)
