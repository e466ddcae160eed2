"""`memento train`: one run at a time in a folder, and what the keys of a keyboard do to it."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from rich.console import Console

from curation.engine.stage import StopRun
from memento_model.errors import DataError
from memento_model.training.state import step_folders
from memento_model.training.watch import Recorder
from pipelines import train_command, train_stop
from pipelines.only_run import only_run
from pipelines.train_command import Order
from tests.memento_model.films import config as films_config
from tests.memento_model.films import write_dataset
from tests.memento_model.in_memory import CPU

QUIET = Console(quiet=True)


def test_two_runs_of_an_expert_in_one_folder_are_refused(tmp_path, monkeypatch):
    order = Order(expert="high", dataset=tmp_path / "none", output=tmp_path / "run")
    with only_run(tmp_path / "run/high"):
        with pytest.raises(StopRun, match=r"run/high: another run is at work here; wait for it or stop it"):
            train_command.main(order, QUIET)
        with pytest.raises(DataError, match="neither a dataset folder"):
            train_command.main(replace(order, expert="low"), QUIET)
        monkeypatch.setattr("curation.engine.cluster.cluster", lambda _: nullcontext("here"))
        with pytest.raises(StopRun, match="another run is at work here"):
            train_command.main(replace(order, settings=["scale.backend=ray"]), QUIET)
    with pytest.raises(DataError, match="neither a dataset folder"):  # the lock went with its holder
        train_command.main(order, QUIET)


def test_of_several_processes_the_first_takes_the_lock(tmp_path, monkeypatch):
    second = replace(CPU, rank=1, size=2)
    monkeypatch.setattr("memento_model.distributed.launch.launched", lambda **_: nullcontext(second))
    monkeypatch.setattr(train_command, "train", lambda config, *_: config.output)
    order = Order(expert="high", dataset=tmp_path / "none", output=tmp_path / "run")
    with only_run(tmp_path / "run/high"):
        assert train_command.main(order, QUIET) == [str(tmp_path / "run")]


def test_a_file_system_without_locks_goes_without(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with only_run(tmp_path / "a"), only_run(tmp_path / "a"):
        assert (tmp_path / "a/.lock").exists()


@pytest.fixture
def settings(tmp_path):
    """Three steps, a checkpoint at the end alone."""
    made = films_config(write_dataset(tmp_path / "set"), tmp_path / "cache")
    return replace(
        made,
        train_base=True,
        scale=replace(made.scale, dtype="fp32", checkpoint_activations=False),
        watch=replace(made.watch, validate_every=0, sample_every=0, save_every=99),
        steps=3,
        output=str(tmp_path / "run"),
    )


def signalled(monkeypatch, number, times=1):
    """The first step of a run gets a signal."""
    told = Recorder.step

    def step(self, run, done):
        if done.step == 1:
            for _ in range(times):
                os.kill(os.getpid(), number)
        told(self, run, done)

    monkeypatch.setattr(Recorder, "step", step)


@pytest.mark.parametrize("number", train_stop.SIGNALS)
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(settings, number, monkeypatch, capfd):
    before, threads = [signal.getsignal(one) for one in train_stop.SIGNALS], torch.get_num_threads()
    signalled(monkeypatch, number, times=2)  # as `timeout` does
    folder = Path(settings.output) / settings.expert
    with pytest.raises(KeyboardInterrupt):
        train_command.train(settings, CPU, "auto", QUIET)
    assert [place.name for place in step_folders(folder)] == ["step-000001"]
    assert capfd.readouterr().err.count("stopping: this step is finished and a checkpoint written") == 1
    assert [signal.getsignal(one) for one in train_stop.SIGNALS] == before
    said = StringIO()
    last = train_command.train(settings, CPU, "auto", Console(file=said, width=200))
    assert last.name == "step-000003"
    assert "going on at step-000001" in said.getvalue()
    torch.set_num_threads(threads)


def test_a_second_signal_ends_it_at_once(settings, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(train_stop, "AGAIN_S", -1.0)
    signalled(monkeypatch, signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt):
        train_command.train(settings, CPU, "auto", QUIET)
    assert step_folders(Path(settings.output) / settings.expert) == []
    torch.set_num_threads(threads)


def test_runs_of_several_processes_keep_the_usual_signals():
    handler = signal.getsignal(signal.SIGTERM)
    with train_stop.stop_at_a_step(replace(CPU, mesh=object())) as stopped:
        assert signal.getsignal(signal.SIGTERM) is handler
        assert not stopped()


def test_lines_say_what_is_encoded(settings):
    said = StringIO()
    train_command.read(settings, CPU, Console(file=said, width=200))
    assert "encoding clips: 6 of 6" in said.getvalue()
    assert "encoding batches of captions: 1 of 1" in said.getvalue()
