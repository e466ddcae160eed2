"""The same training in the processes of Ray Train: on a cluster, or on this machine.

Ray starts the processes and joins them; from there on they are what torchrun's would be.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curation.engine.stage import StopRun

if TYPE_CHECKING:
    from memento_model.training.config import TrainConfig

ATTEMPTS = 2
"""Times that a run whose processes were lost is taken up again from its last checkpoint."""


def train_on_ray(configs: Sequence[TrainConfig], resume: str, console: Console) -> list[Path]:
    """Train each expert with `scale.workers` processes.

    Returns:
        Folders of the experts.

    Raises:
        StopRun: a process failed, with its line; or the cluster cannot be joined.
    """
    from curation.engine.cluster import cluster
    from pipelines.only_run import only_run

    folder = Path(configs[0].output).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with cluster(folder) as place:
        console.print(f"running on {place}")
        for config in configs:
            with only_run(folder / config.expert):  # here, so that it outlives processes that are lost
                made.append(_train(with_absolute_paths(config), resume, console))
    return made


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same run from any working directory; Ray's processes have their own."""
    data = config.data
    cache = None if data.cache is None else str(Path(data.cache).absolute())
    named: dict[str, Any] = {
        name: str(Path(value).absolute())
        for name in ("base", "start_from", "codec_path", "text_path")
        if (value := getattr(config, name)) is not None and Path(value).exists()
    }
    return replace(
        config,
        output=str(Path(config.output).absolute()),
        data=replace(data, dataset=str(Path(data.dataset).absolute()), cache=cache),
        **named,
    )


def _train(config: TrainConfig, resume: str, console: Console) -> Path:
    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    folder, refused = Path(config.output) / config.expert, _refusal(config)
    refused.unlink(missing_ok=True)
    trainer: Any = TorchTrainer(
        work,
        train_loop_config={"config": config, "resume": resume},
        scaling_config=ScalingConfig(num_workers=config.scale.workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(
            name=f"{config.name}-{config.expert}",
            storage_path=str(Path(config.output) / ".ray"),
            failure_config=FailureConfig(max_failures=ATTEMPTS),
        ),
    )
    stop = threading.Event()
    teller = threading.Thread(target=_tell, args=(folder / "log.jsonl", config.steps, console, stop))
    teller.start()
    try:
        trainer.fit()
    except Exception as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        raise StopRun(
            f"Ray Train: {lines[-1].strip()}; run the same command again to go on from the last checkpoint"
        ) from error
    finally:
        stop.set()
        teller.join()
    if refused.exists():
        raise StopRun(refused.read_text(encoding="utf-8"))
    return folder


def _refusal(config: TrainConfig) -> Path:
    """Where a process writes that a run cannot be, so that Ray does not try it again."""
    return Path(config.output) / ".ray" / f"{config.expert}.refused"


def work(asked: dict[str, Any]) -> None:
    """What each process does."""
    from memento_model.distributed.launch import launched
    from memento_model.errors import CheckpointError, DataError
    from pipelines.train_command import train

    config = asked["config"]
    refused = _refusal(config)
    if refused.exists():
        return  # Ray's second attempt at what a user has to mend
    try:
        with launched(context_parallel=config.scale.context_parallel) as world:
            train(config, world, asked["resume"], Console(quiet=not world.is_first))
    except (CheckpointError, DataError, StopRun) as error:
        refused.parent.mkdir(parents=True, exist_ok=True)
        refused.write_text(str(error), encoding="utf-8")
        raise


def _tell(log: Path, steps: int, console: Console, stop: threading.Event) -> None:
    """Repeat the log's lines here: Ray's processes write to their own files."""
    seen = len(log.read_text().splitlines()) if log.is_file() else 0
    while True:
        ended = stop.wait(1.0)
        lines = log.read_text().splitlines() if log.is_file() else []
        for line in lines[seen:]:
            values = json.loads(line)
            if "loss" in values:
                console.print(f"step {values['step']}/{steps}, loss {values['loss']:.4f}")
        seen = max(len(lines), 0)
        if ended:
            return
