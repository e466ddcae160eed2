"""Checkpoints of a run: everything needed to go on exactly, and weights that other programs read.

    OUTPUT/step-000250/config.json, low/...   the expert in our form (`memento_model.checkpoints.forms`): what
                                              `make generate` takes; the average where one is kept
    OUTPUT/step-000250/resume.pt              weights, optimiser, average, random states, place in the data

A folder appears complete under its name or not at all. A run that was killed goes on from the newest one, bit
for bit as if it had not been: a step that was under way, with all samples of its accumulation, is made again
from its start, for what is drawn depends on a sample's place alone.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor

from memento_model.checkpoints.load import save_expert
from memento_model.checkpoints.names import to_native
from memento_model.checkpoints.tensor_formats import read_json
from memento_model.distributed.sharding import full_state, load_full_state
from memento_model.errors import CheckpointError
from memento_model.training.config import TrainConfig
from memento_model.training.trainer import Run, told

RESUME = "resume.pt"
VERSION = 1
FREE = (
    "watch", "steps", "output", "data.dataset", "data.cache", "data.where", "data.validation_share",
    "data.on_bad_sample", "scale.accumulate", "scale.shard", "scale.compile", "scale.backend",
    "scale.workers", "scale.context_parallel", "scale.checkpoint_activations",
)  # fmt: skip
"""Settings that may change while a run goes on; the samples themselves are compared by name."""


def step_folders(output: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [place for place in output.glob("step-*") if re.fullmatch(r"step-\d+", place.name)]
    return sorted((p for p in found if (p / RESUME).is_file()), key=lambda p: int(p.name[5:]))


class Checkpoints:
    """Writes checkpoints beside the run, one at a time, and keeps the last few and the best.

    Args:
        output: folder of the run.
        keep_last: how many of the newest stay.
    """

    def __init__(self, output: Path, keep_last: int) -> None:
        self.output, self.keep_last = output, keep_last
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, run: Run) -> None:
        """Copy the state to host memory and write it while the run goes on; all processes call it.

        Raises:
            OSError: of the checkpoint before this one.
        """
        self.wait()
        shot = snapshot(run)
        if shot is not None:
            self._writing = self._pool.submit(self._write, shot)

    def wait(self) -> None:
        """Until the checkpoint under way is on the disk; its errors are raised here."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def finish(self) -> None:
        """`wait`, for good."""
        self.wait()
        self._pool.shutdown()

    def _write(self, shot: Snapshot) -> None:
        shot.write(self.output)
        prune(self.output, self.keep_last)


def prune(output: Path, keep_last: int) -> None:
    """Remove all checkpoints but the last `keep_last` and the best by validation loss; and leftovers."""
    folders = step_folders(output)
    judged = [(loss, place) for place in folders if (loss := _validation(place)) is not None]
    kept = {*folders[-keep_last:], *([min(judged)[1]] if judged else [])}
    for place in folders:
        if place not in kept:
            gone = place.with_name(f".{place.name}.old")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(place, gone)
    for pattern in (".step-*.old", ".step-*.part"):
        for place in output.glob(pattern):
            (place / "config.json").unlink(missing_ok=True)  # first, so that nobody takes it for a checkpoint
            shutil.rmtree(place, ignore_errors=True)


def _validation(place: Path) -> float | None:
    notes = read_json(place / "config.json").get("notes", {})
    losses = [n["validation"] for n in notes.values() if n.get("validation") is not None]
    return min(losses) if losses else None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run's state in host memory, untouched by the steps that follow."""

    run: Run
    state: Mapping[str, Any]
    base: Mapping[str, Tensor] | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, output: Path) -> None:
        """A folder for the step, complete or absent."""
        name = f"step-{self.state['step']:06d}"
        part, place = output / f".{name}.part", output / name
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        with (part / RESUME).open("wb") as file:
            torch.save(dict(self.state), file)
            file.flush()
            os.fsync(file.fileno())
        average = self.state["average"]
        weights = average if average is not None else self.state["model"]
        save_expert(
            part,
            self.run.config.expert,
            self.run.model,
            base=None if self.base is None else {**self.base, **base_tensors(weights)},
            trainable=official(weights) or None,
            notes={**self.facts, "weights": "trained" if average is None else "average"},
        )
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
        with suppress(OSError):  # not every file system lets a folder be synchronised
            handle = os.open(output, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapters and queries by their official names."""
    made = {}
    for name, value in weights.items():
        module, _, inner = name.partition(".")
        if module == "keyframe_query":
            made[name] = value
        elif ".lora_" in inner:
            made[to_native(inner)] = value
    return made


def base_tensors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An expert's own tensors, by diffusers' names: as if there were no adapters around them."""
    return {
        name.removeprefix("transformer.").replace(".base_layer.", "."): value
        for name, value in weights.items()
        if name.startswith("transformer.") and ".lora_" not in name
    }


def snapshot(run: Run) -> Snapshot | None:
    """Gather and copy; all processes call it, the first one gets the result."""
    state = full_state(run.modules, run.optimiser.adam)
    average = None
    if run.optimiser.average is not None:
        average = {name: _whole(value) for name, value in run.optimiser.average.items()}
    base = None
    if run.config.base is None or run.config.train_base:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        gathered = get_model_state_dict(run.transformer, options=options)
        base = base_tensors({f"transformer.{k}": v for k, v in gathered.items() if isinstance(v, Tensor)})
    if not run.world.is_first:
        return None
    assert run.feed is not None
    kept = {
        "version": VERSION,
        "step": run.step,
        "count": run.count,
        "batch": run.batch,
        "samples": samples_hash(run),
        "config": told(run.config),
        "model": state["model"],
        "optimizer": state["optimizer"],
        "average": average,
        "skipped": run.optimiser.skipped,
        "validation": run.validation,
        "random": random_states(),
    }
    facts = {
        "step": run.step,
        "samples": run.count,
        "validation": run.validation,
        "base": run.config.base,
        "config": told(run.config),
    }
    return Snapshot(run=run, state=_copied(kept), base=_copied(base), facts=facts)


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _copied(value: Any) -> Any:
    """The same with every tensor copied to host memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value


def samples_hash(run: Run) -> str:
    """A short name of the list of samples; a place in the data means something only with the same list."""
    assert run.feed is not None
    names = "\n".join(sample.sample_id for sample in run.feed.samples)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


# -- going on -----------------------------------------------------------------------------------------


def resume(run: Run, place: Path) -> None:
    """Bring a freshly built run, with its feed, to where a checkpoint was; all processes call it.

    The global batch stays: on another number of processes each accumulates more or fewer samples.

    Raises:
        CheckpointError: damaged, of other settings or samples, or a batch that the processes cannot share.
    """
    kept = _read(place) if run.world.is_first else None
    fault = None if kept is None else "; ".join(faults(kept, run)) or None
    fault = run.world.share(fault)
    if fault:
        raise CheckpointError(f"{place}: {fault}; take that back, or choose another output to start afresh")
    load_full_state(run.modules, kept, run.optimiser.adam)
    for group in run.optimiser.adam.param_groups:
        group["betas"] = tuple(group["betas"])  # read as a list
    plain: dict[str, Any] = {}
    if kept:
        plain = {name: kept[name] for name in ("step", "count", "batch", "validation")}
        plain |= {"skipped": float(kept["skipped"]), "average": kept["average"]}
    plain = run.world.share(plain)
    run.step, run.count, run.validation = plain["step"], plain["count"], plain["validation"]
    run.accumulate = plain["batch"] // run.world.data_size
    run.optimiser.skipped.copy_(torch.tensor(plain["skipped"]))
    if run.optimiser.average is not None:
        _put_back(run.optimiser.average, plain["average"])
    if kept:
        set_random_states(kept["random"])


@torch.no_grad()
def _put_back(average: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, mine in average.items():
        value = values[name].to(mine.device)
        if isinstance(mine, DTensor):
            value = distribute_tensor(value, mine.device_mesh, mine.placements)
        mine.copy_(value)


def _read(place: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = torch.load(place / RESUME, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{place / RESUME}: damaged ({first}); remove {place} to go on from the one before"
        ) from error
    return kept


def faults(kept: Mapping[str, Any], run: Run) -> Iterator[str]:
    """Why a state does not belong to a run."""
    if kept.get("version") != VERSION:
        yield f"written by another version ({kept.get('version')!r}, this one reads {VERSION})"
        return
    began = with_defaults(kept["config"], told(TrainConfig(name="")))
    for name, before, now in differences(began, told(run.config)):
        yield f"{name} was {before!r} and is {now!r}"
    if kept["samples"] != samples_hash(run):
        yield "the dataset has other samples than when the run began"
    if kept["batch"] % run.world.data_size:
        yield f"its batch of {kept['batch']} samples cannot be shared by {run.world.data_size} processes"
    accumulate = run.config.scale.accumulate
    if kept["config"]["scale"]["accumulate"] != accumulate and kept["batch"] != run.batch:
        yield f"accumulate {accumulate} makes batches of {run.batch} samples, they were of {kept['batch']}"


def with_defaults(began: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings a run began with; one that did not exist yet had what is its default now."""
    made = dict(began)
    for name, value in defaults.items():
        if name not in made:
            made[name] = value
        elif isinstance(value, Mapping) and isinstance(made[name], Mapping):
            made[name] = with_defaults(made[name], value)
    return made


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Settings that differ and may not: name, then and now."""
    if path in FREE:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{path}.{key}" if path else key
            yield from differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now


def random_states() -> dict[str, Any]:
    """Of every generator a step could draw from."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """The other way round."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, cached))
