"""What a run tells: lines with the time left, a log of JSON lines, TensorBoard and W&B, held-out loss.

    OUTPUT/log.jsonl     a line per logged step; what a killed run wrote beyond its checkpoint is cut off
    OUTPUT/tensorboard/  if that tracker is chosen and installed
    OUTPUT/pictures/     sheets of `memento_model.training.pictures`

Numbers stay on the device until a line is due: one wait per line, none per step.
"""

from __future__ import annotations

import itertools
import json
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from curation.optional import require
from memento_model.training.budget import step_flops
from memento_model.training.objective import noise_level, prepare
from memento_model.training.samples import Draw, Frame, Sample, earlier_targets, older_frames
from memento_model.training.trainer import Done, Feed, Run, parts, told

PARTS = ("loss", "target", "identity", "memory")
BANDS = (0, 250, 500, 750, 900, 950, 1000)
"""Edges of the noise levels (timesteps) that losses are told by."""
VALIDATION_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in the expert's range of noise levels the held-out loss is measured."""
MAX_VALIDATION = 32
"""Samples of the held-out loss, evenly spaced."""
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "B200": 2250.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0}
"""Dense bf16 of each kind of GPU, from the makers' data sheets; part of the device's name."""
LOG = "log.jsonl"
WANDB_ID = "wandb-id.txt"


class Tracker(Protocol):
    """Where numbers and pictures go besides the log."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""

    def picture(self, step: int, name: str, path: Path) -> None:
        """A picture of a step."""

    def close(self) -> None:
        """Nothing more comes."""


class TensorBoard:
    """Event files that TensorBoard shows."""

    def __init__(self, folder: Path) -> None:
        require("tensorboard", extra="train-watch")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """An image."""
        import numpy as np
        from PIL import Image

        self._writer.add_image(name, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run; with `WANDB_MODE=offline` it stays in the run's folder.

    Args:
        folder: of the run; keeps the id, so that a run that is resumed goes on under the same one.
        name: shown.
        config: shown.
        fresh: the run begins, so it gets an id of its own even where another one was in this folder.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any], *, fresh: bool) -> None:
        self._wandb = require("wandb", extra="train-watch")
        kept = folder / WANDB_ID
        if fresh or not kept.exists():
            kept.write_text(uuid.uuid4().hex[:12])
        self._run = self._wandb.init(
            project="memento", name=name, dir=str(folder), config=dict(config), resume="allow",
            id=kept.read_text(),
        )  # fmt: skip

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """An image."""
        self._run.log({name: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def trackers(run: Run, folder: Path) -> list[Tracker]:
    """Those that the settings name.

    Raises:
        MissingExtra: one that is not installed.
    """
    made: list[Tracker] = []
    for name in run.config.watch.trackers:
        if name == "tensorboard":
            made.append(TensorBoard(folder))
        else:
            made.append(WeightsAndBiases(folder, run.config.name, told(run.config), fresh=not run.step))
    return made


class Recorder:
    """Watches a run; on all processes, the first one of which writes.

    Args:
        folder: of the run.
        say: shows a line to a person.
        validation: held-out samples; None where there are none.
        paint: makes pictures and returns their paths; None makes none.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        *,
        validation: Feed | None = None,
        paint: Callable[[Run, Path], Sequence[Path]] | None = None,
    ) -> None:
        self.folder, self.say, self.validation, self.paint = folder, say, validation, paint
        self._trackers: list[Tracker] = []
        self._since: list[Done] = []
        self._began = self._mark = 0.0
        self._first = 0

    def begin(self, run: Run) -> None:
        """Open the log where the run goes on."""
        self._began = self._mark = time.monotonic()
        self._first = run.step
        if run.world.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            cut_log(self.folder / LOG, run.step)
            self._trackers = trackers(run, self.folder)

    def step(self, run: Run, done: Done) -> None:
        """Log, validate and paint where it is due."""
        watch, last = run.config.watch, done.step == run.config.steps
        self._since.append(done)
        if done.step % watch.log_every == 0 or last:
            self._log(run)
        held = self.validation is not None and watch.validate_every
        if held and (done.step % watch.validate_every == 0 or last):
            self._validate(run)
        if self.paint is not None and watch.sample_every and (done.step % watch.sample_every == 0 or last):
            self._paint(run)

    def end(self, run: Run) -> None:
        """Close what is open."""
        for tracker in self._trackers:
            tracker.close()

    def _log(self, run: Run) -> None:
        now = time.monotonic()
        rows = _rows(self._since)
        done, seconds = self._since[-1], now - self._mark
        everybody = _gathered(run, rows)
        if run.world.is_first:
            values = summary(everybody)
            steps = len(self._since)
            values |= {
                "grad_norm": float(done.norm),
                "lr": done.lr,
                "skipped_steps": float(run.optimiser.skipped),
                "samples_per_s": steps * run.batch / seconds,
                "tokens_per_s": sum(d.tokens for d in self._since) * run.world.data_size / seconds,
                **_device_facts(run, self._since, seconds),
            }
            self._write(run.step, values)
            left = (now - self._began) / (run.step - self._first) * (run.config.steps - run.step)
            self.say(line(run, values, left))
        self._since, self._mark = [], time.monotonic()

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for tracker in self._trackers:
            tracker.numbers(step, values)

    def _validate(self, run: Run) -> None:
        assert self.validation is not None
        values = validate(run, self.validation)
        run.validation = values["validation"]
        if run.world.is_first:
            self._write(run.step, values)
            self.say(f"step {run.step}: held-out loss {run.validation:.4f}")
        self._mark = time.monotonic()

    def _paint(self, run: Run) -> None:
        assert self.paint is not None
        made = self.paint(run, self.folder / "pictures")
        if run.world.is_first:
            for path in made:
                for tracker in self._trackers:
                    # One name for all steps, so that they can be leafed through.
                    tracker.picture(run.step, f"sheet-{path.stem.rpartition('-')[2]}", path)
        self._mark = time.monotonic()


def line(run: Run, values: Mapping[str, float], left_s: float) -> str:
    """A step for a person.

    Not every sample has a subject to reconstruct, so over a few samples the loss moves with their share.
    """
    shown = [f"step {run.step}/{run.config.steps}", f"loss {values['loss']:.4f}"]
    weights = {"identity": run.config.objective.identity_weight, "memory": run.config.objective.memory_weight}
    made = [f"target {values['target']:.4f}"]
    made += [
        f"{weight:g} x {part} {values[part]:.4f} in {values[f'{part}_share']:.0%} of samples"
        for part, weight in weights.items()
        if weight and part in values
    ]
    shown[-1] += f" ({' + '.join(made)})"
    shown += [f"norm {values['grad_norm']:.2f}", f"{values['tokens_per_s']:.0f} tokens/s"]
    if "mfu" in values:
        shown.append(f"MFU {values['mfu']:.0%}")
    if values["skipped_steps"]:
        shown.append(f"{values['skipped_steps']:.0f} steps skipped (gradients not finite)")
    return ", ".join([*shown, f"{duration(left_s)} left"])


def duration(seconds: float) -> str:
    """A time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _rows(dones: Iterable[Done]) -> list[list[float]]:
    """Timestep and losses of each sample: one wait for the device."""
    dones = list(dones)
    timesteps = [t for done in dones for t in done.timesteps]
    losses = torch.stack([loss for done in dones for loss in done.losses]).float().cpu().tolist()
    return [[t, *row] for t, row in zip(timesteps, losses, strict=True)]


def _gathered(run: Run, rows: list[list[float]]) -> list[list[float]]:
    """Rows of all processes, each sample once."""
    if run.world.size == 1:
        return rows
    boxes: list[Any] = [None] * run.world.size
    dist.all_gather_object(boxes, rows, group=run.world.control)
    return [row for box in boxes[:: run.world.context_size] for row in box]


def summary(rows: Sequence[Sequence[float]], prefix: str = "") -> dict[str, float]:
    """Mean of each part of the loss, and the target's by band of noise levels; only what somebody had."""
    made: dict[str, float] = {}
    for column, name in enumerate(PARTS, 1):
        if values := [row[column] for row in rows if not math.isnan(row[column])]:
            made[prefix + name] = sum(values) / len(values)
            if name in PARTS[2:]:
                made[f"{prefix}{name}_share"] = len(values) / len(rows)
    for low, high in itertools.pairwise(BANDS):
        if values := [row[2] for row in rows if low <= row[0] < high]:
            made[f"{prefix}target_t{low}-{high}"] = sum(values) / len(values)
    return made


def _device_facts(run: Run, dones: Sequence[Done], seconds: float) -> dict[str, float]:
    """Memory, and the share of the device's peak that the model's own operations make up."""
    if run.world.device.type != "cuda":
        return {}
    made = {"memory_gib": torch.cuda.max_memory_allocated(run.world.device) / 2**30}
    name = torch.cuda.get_device_name(run.world.device)
    peak = next((tflops for kind, tflops in PEAK_TFLOPS.items() if kind in name), None)
    if peak is not None:
        flops = sum(step_flops(run.config, d.tokens // len(d.losses)) * len(d.losses) for d in dones)
        made["mfu"] = flops / run.world.context_size / seconds / (peak * 1e12)
    return made


def cut_log(path: Path, step: int) -> None:
    """Leave out what comes after a step: it will be written again."""
    if not path.is_file():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(text)["step"] <= step:
                kept.append(text)
        except (ValueError, KeyError):
            continue  # the line at which a run was killed
    part = path.with_name(f".{path.name}")
    part.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
    part.replace(path)


# -- held-out films -----------------------------------------------------------------------------------


def fixed_draw(sample: Sample, number: int, level: float, last: Sequence[int], config: Any) -> Draw:
    """What is always drawn for a held-out sample: nothing dropped, its first target, evenly spaced frames."""
    older = older_frames(sample)
    step = max(1, len(older) // max(1, config.bank_frames))
    return Draw(
        bank=tuple(older[::step][: config.bank_frames]),
        last=tuple(Frame(sample.target - 1, f) for f in last),
        identities=tuple(earlier_targets(sample)[:1]) if config.identity_probability else (),
        first_frame=False,
        drop_prompt=False,
        drop_local=False,
        drop_global=False,
        drop_identity=False,
        level=level,
        noise_seed=10_000_019 * (number + 1) + round(level * 1000),
        self_forced=False,
    )


@torch.no_grad()
def validate(run: Run, feed: Feed) -> dict[str, float]:
    """Loss on held-out samples at fixed noise levels, the same draws every time; all processes help."""
    config, last = run.config, feed.last_frames
    step = max(1, math.ceil(len(feed.samples) / MAX_VALIDATION))
    chosen = feed.samples[::step]
    work = [(n, sample, level) for n, sample in enumerate(chosen) for level in VALIDATION_LEVELS]
    size = run.world.data_size
    rows = []
    run.transformer.eval()
    for place in range(math.ceil(len(work) / size) * size)[run.world.data_rank :: size]:
        number, sample, level = work[min(place, len(work) - 1)]  # all processes work equally often
        made = fixed_draw(sample, number, level, last, config.objective)
        ready = prepare(sample, made, feed.latents, config.expert, config.compat, feed.device)
        losses = parts(run.forward(ready))
        if place < len(work):
            timestep = float(noise_level(level, config.expert, config.compat).timestep_b[0])
            rows.append([timestep, *losses.float().cpu().tolist()])
    run.transformer.train()
    values = summary(_gathered(run, rows), "validation_")
    return {"validation": values["validation_loss"], **values}
