"""`memento train`: a recipe to checkpoints, one expert after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from curation.engine.stage import StopRun

if TYPE_CHECKING:
    from memento_model.distributed.launch import World
    from memento_model.training.config import TrainConfig
    from memento_model.training.inputs import TrainInputs
    from memento_model.training.trainer import Run

DEMO = Path("out/demo")
SHOWN = (
    "scale.shard", "scale.checkpoint_activations", "scale.lean_blocks", "scale.offload_activations",
    "scale.offload_weights", "scale.context_parallel", "scale.compile", "compat.residual", "optim.states",
)  # fmt: skip
"""Settings that a plan shows."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for.

    Attributes:
        recipe: name of a recipe.
        dataset: instead of the recipe's.
        output: instead of the recipe's.
        expert: high, low or both; None is the recipe's.
        settings: `field=value` items.
        plan: say what it will need; train nothing.
        resume: `auto`: go on where there is a checkpoint; `none`: start afresh.
        small: the recipe's objective at debug size.
        memory: name of a machine that the run shall fit; what must be set for it is set.
        export: write what is trained in the released form to this folder; train nothing.
    """

    recipe: str = "debug"
    dataset: Path | None = None
    output: Path | None = None
    expert: str | None = None
    settings: Sequence[str] = ()
    plan: bool = False
    resume: str = "auto"
    small: bool = False
    memory: str | None = None
    export: Path | None = None


def main(order: Order, console: Console | None = None) -> list[Path]:
    """Train, or plan.

    Returns:
        The last checkpoint of each expert.

    Raises:
        StopRun, SettingsError, DataError, CheckpointError, WeightsMissing, MissingExtra, LaunchError: with
            one line for the user; what is written can be gone on from.
    """
    from curation.optional import require

    console = console or Console(soft_wrap=True, markup=False, highlight=False)
    for package in ("torch", "safetensors", "diffusers", "peft", "ftfy"):
        require(package, extra="train")
    from memento_model.distributed.launch import launched
    from pipelines.train_settings import configs

    asked = configs(order)
    if order.export is not None:
        return export(asked[0], order.export, console)
    show_plan(asked[0], console, whole=order.plan)
    if order.plan:
        return []
    make_demo(asked[0], console)
    if asked[0].scale.backend == "ray":
        from pipelines.train_ray import train_on_ray

        return train_on_ray(asked, order.resume, console)
    made = []
    with launched(context_parallel=asked[0].scale.context_parallel) as world:
        for config in asked:
            made.append(train(config, world, order.resume, console))
    return made


def export(config: TrainConfig, target: Path, console: Console) -> list[Path]:
    """The newest checkpoint of each expert as the released two files; by `checkpoints.convert`."""
    import shutil

    from memento_model.checkpoints.convert import convert
    from memento_model.training.state import step_folders

    newest = {e: step_folders(Path(config.output) / e)[-1:] for e in ("high", "low")}
    if not any(newest.values()):
        raise StopRun(f"{config.output}: no checkpoint there; train first, or name the run with --output")
    if target.exists():
        raise StopRun(f"{target}: exists already; choose another folder")
    part, made = target.with_name(f".{target.name}.part"), []
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for expert, found in newest.items():
        for place in found:
            convert(place, part / expert, "official")
            for file in sorted((part / expert).iterdir()):
                made.append(target / file.name)
                file.rename(part / file.name)
            (part / expert).rmdir()
            console.print(f"{expert}-noise expert: {place}")
        if not found:
            console.print(f"{expert}-noise expert: not trained yet", style="yellow")
    part.rename(target)
    console.print(f"Written: {target}")
    return made


def make_demo(config: TrainConfig, console: Console) -> None:
    """Curate the demo dataset if that is what is asked for and it is not there."""
    place = Path(config.data.dataset)
    if place != DEMO or (place / "annotations.duckdb").exists() or os.environ.get("RANK", "0") != "0":
        return
    from pipelines import curate_command

    console.print(f"{place} is not there yet: making the demo dataset first (make curate)")
    curate_command.main(
        ["demo"],
        Path("datasets.yaml"),
        output=None,
        preset=None,
        settings={},
        explain_only=False,
        on_ray=True,
    )


def train(config: TrainConfig, world: World, resume_mode: str, console: Console) -> Path:
    """Train one expert; returns its last checkpoint."""
    from memento_model.training import state as train_state
    from memento_model.training.trainer import Feed, build, fit
    from memento_model.training.watch import Recorder

    folder = Path(config.output) / config.expert
    found = train_state.step_folders(folder)
    if found and resume_mode == "none":
        raise StopRun(
            f"{folder}: holds a run at {found[-1].name}; go on with --resume auto, choose another --output, "
            "or remove it"
        )
    say = console.print if world.is_first else lambda *_: None
    say(f"{config.name}, {config.expert}-noise expert, into {folder}")
    inputs = read(config, world, console)
    from memento_model.training.inputs import open_cache

    latents = open_cache(config, inputs)
    run = build(config, world)
    run.feed = Feed(inputs.train, latents, config, world.device)
    if found:
        train_state.resume(run, found[-1])
        say(f"going on at {found[-1].name}")
        if run.step >= config.steps:
            say(f"all {config.steps} steps are done")
            return found[-1]
    validation = Feed(inputs.validation, latents, config, world.device) if inputs.validation else None
    watch = Recorder(folder, say, validation=validation, paint=painter(run, validation or run.feed))
    fit(run, watch, train_state.Checkpoints(folder, config.watch.keep_last))
    last = train_state.step_folders(folder)[-1] if world.is_first else folder
    say(f"checkpoint: {last}")
    say(f"what it learned, in pictures: {folder / 'pictures'}; tell a story with it: memento generate")
    return last


def read(config: TrainConfig, world: World, console: Console) -> TrainInputs:
    """Samples, checked; the cache filled by the first process."""
    from memento_model.training.inputs import fill_cache, read_inputs

    inputs = None
    if world.is_first:
        inputs = read_inputs(config)

        def progress(what: str, done: int, total: int) -> None:
            if done == total or done % max(1, total // 10) == 0:
                console.print(f"  encoding {what}: {done} of {total}")

        inputs, _ = fill_cache(config, inputs, progress=progress)
        for fault in inputs.faults:
            console.print(f"left out: {fault}", style="yellow")
        told = f"{len(inputs.train)} sequences to train on, {len(inputs.validation)} held out"
        console.print(f"{told}{f', {inputs.skipped} samples left out' if inputs.skipped else ''}")
    made = world.share(inputs)
    assert made is not None
    return made


def painter(run: Run, feed: Any) -> Any:
    """Makes pictures of what is learned."""
    from memento_model.training.cache_encoders import Encoders
    from memento_model.training.pictures import Painter

    if not run.config.watch.sample_every:
        return None
    encoders = Encoders.of(run.config, run.world.device)
    return Painter(feed, lambda: encoders.codec(run.world.device), other_expert(run))


def other_expert(run: Run) -> Any:
    """The newest checkpoint of the other expert in the same output, where there is one."""
    from memento_model.checkpoints.load import load_expert, open_checkpoint
    from memento_model.training.state import step_folders

    if run.config.base is not None:
        return None  # as large as this one; pictures do not justify it
    name: Any = "low" if run.config.expert == "high" else "high"
    found = step_folders(Path(run.config.output) / name)
    if not found:
        return None
    checkpoint = open_checkpoint(found[-1])
    if checkpoint.settings.get("model") != _told_model(run):
        return None
    import torch

    loaded = load_expert(checkpoint, name, dtype=torch.float32, compat=run.config.compat)
    return loaded.transformer.to(run.world.device).eval()  # type: ignore[arg-type]


def _told_model(run: Run) -> Any:
    from memento_model.checkpoints.foreign_config import to_our_config

    return to_our_config(run.model)


def show_plan(config: TrainConfig, console: Console, *, whole: bool) -> None:
    """The estimated budget: a line before a run, the table of all machines with `--plan`."""
    from memento_model.training.budget import (
        GIB,
        MACHINES,
        MARGIN,
        advice,
        budget,
        cache_bytes,
        count,
        fits,
    )

    counts = count(config)
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    told = [
        f"{config.name}: {(counts.frozen + counts.trained) / 1e6:,.1f} M weights",
        f"{counts.trained / 1e6:,.1f} M of them trained",
        f"up to {counts.tokens:,} tokens and {counts.flops / 1e12:,.3g} TFLOP a sample",
        f"memory as it is set {budget(config, devices).total:.2f} GiB on each of {devices} device(s)",
        f"cache about {cache_bytes(config, 1000) / 2**30:.1f} GiB for 1000 clips",
    ]
    console.print(", ".join(told))
    if not whole:
        return
    table = Table(title=f"{config.name}: what it needs, and what to set")
    table.add_column("estimates, GiB a device", no_wrap=True, min_width=len(max(SHOWN, key=len)))
    advised = [(machine, *advice(config, machine)) for machine in MACHINES]
    for machine, _, _ in advised:
        table.add_column(f"--memory {machine.name}", justify="right")
    for name in vars(advised[0][2]):
        if name != "host":
            table.add_row(name, *(f"{getattr(needs, name):.2f}" for _, _, needs in advised))
    table.add_row("total", *(f"{needs.total:.1f}" for _, _, needs in advised))
    shares = [needs.total * GIB / (machine.gib * 1e9) for machine, _, needs in advised]
    table.add_row("of the device", *(f"{share:.0%}" for share in shares))
    table.add_row(
        f"fits with {MARGIN:.0%} to spare",
        *("yes" if fits(needs, machine) else "no" for machine, _, needs in advised),
    )
    table.add_row("host memory", *(f"{needs.host:.1f}" for _, _, needs in advised), end_section=True)
    for name in SHOWN:
        part, _, field = name.partition(".")
        table.add_row(name, *(str(getattr(getattr(way, part), field)).lower() for _, way, _ in advised))
    console.print(table)
