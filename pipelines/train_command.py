"""`memento train`: a recipe to checkpoints, one expert after the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from curation.config import SettingsError
from curation.engine.stage import StopRun
from curation.optional import own_command

if TYPE_CHECKING:
    from memento_model.distributed.launch import World
    from memento_model.training.budget import Machine
    from memento_model.training.config import TrainConfig
    from memento_model.training.inputs import TrainInputs
    from memento_model.training.trainer import Run

DEMO = Path("out/demo")
SHOWN = (
    "scale.shard", "scale.checkpoint_activations", "scale.lean_blocks", "scale.offload_activations",
    "scale.offload_weights", "scale.context_parallel", "scale.compile", "compat.residual", "optim.states",
)  # fmt: skip
"""Settings that a plan shows."""
NEEDS = {
    "weights": "weights that stay", "masters": "trained weights, fp32", "optimiser": "optimiser states",
    "gradients": "gradients", "average": "moving average", "gathered": "a block, gathered",
    "activations": "activations", "reserve": "CUDA and fragments",
}  # fmt: skip
"""What memory is for, in words; by the fields of `memento_model.training.budget.Budget`."""
SMALL_GIB = 8.0
"""Below this nobody has to look for a machine."""


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
    from memento_model.packages import require_packages

    console = console or Console(soft_wrap=True, markup=False, highlight=False)
    require_packages(say=console.print)
    from memento_model.distributed.launch import launched
    from pipelines.only_run import only_run
    from pipelines.train_settings import configs

    asked = configs(order)
    if order.export is not None:
        return export(asked[0], order.export, console)
    if os.environ.get("RANK", "0") == "0":
        show_plan(asked[0], console, whole=order.plan)
    if order.plan:
        return []
    enough_processes(asked[0], order)
    make_demo(asked[0], console)
    if asked[0].scale.backend == "ray":
        from pipelines.train_ray import train_on_ray

        made = train_on_ray(asked, order.resume, console)
        tell_what_next(asked[0], console)
        return made
    made = []
    with launched(context_parallel=asked[0].scale.context_parallel) as world:
        for config in asked:
            with only_run(Path(config.output) / config.expert) if world.is_first else nullcontext():
                made.append(train(config, world, order.resume, console))
    tell_what_next(asked[0], console)
    return made


def tell_what_next(config: TrainConfig, console: Console) -> None:
    """After the last step: which commands show what was learned."""
    from memento_model.checkpoints.choice import TRAINED
    from memento_model.training.retell import FOLDER, REFERENCES, SCRIPT

    if os.environ.get("RANK", "0") != "0":
        return
    output = Path(config.output)
    found = output.is_relative_to(TRAINED)  # where memento generate looks
    model = "" if found else f" --model {output}"
    console.print(f"Tell a story with it: {own_command('generate')}{model}")
    retold = output / FOLDER
    if (retold / SCRIPT).is_file():
        console.print(
            f"Have it tell what it was trained on, in the words it knows: {own_command('generate')} "
            f"{retold / SCRIPT} --reference {retold / REFERENCES}{model}"
        )


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
    if config.train_base:
        console.print(
            f"note: {config.name} trains its base as well, which these files do not hold: they go with "
            f"--model {config.output} only",
            style="yellow",
        )
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
    """Train one expert; returns its last checkpoint.

    Raises:
        KeyboardInterrupt: somebody stopped it; a single process leaves a checkpoint of the last step.
    """
    from memento_model.training import state as train_state
    from memento_model.training.retell import write_retelling
    from memento_model.training.trainer import Feed, build, fit
    from memento_model.training.watch import Recorder
    from pipelines.train_stop import stop_at_a_step

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

    if world.is_first:
        write_retelling(inputs.validation or inputs.train, Path(config.output), config.grid)
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
    with stop_at_a_step(world) as stopped:
        fit(run, watch, train_state.Checkpoints(folder, config.watch.keep_last), stopped)
    last = train_state.step_folders(folder)[-1] if world.is_first else folder
    say(f"checkpoint: {last}")
    if stopped():
        raise KeyboardInterrupt
    if config.watch.sample_every:
        say(f"what it learned, in pictures: {folder / 'pictures'}")
    return last


def read(config: TrainConfig, world: World, console: Console) -> TrainInputs:
    """Samples, checked; the cache filled by the first process."""
    from memento_model.training.inputs import cache_folder, fill_cache, read_inputs

    inputs = None
    if world.is_first:
        inputs = read_inputs(config)
        console.print(f"encoded data are kept in {cache_folder(config)}", style="dim")

        def progress(what: str, done: int, total: int) -> None:
            if 4 * done // total > 4 * (done - 1) // total:  # four lines, however much there is
                unit = {"text": "batches of captions", "video": "clips"}[what]
                console.print(f"  encoding {unit}: {done} of {total}")

        inputs, _ = fill_cache(config, inputs, progress=progress)
        for fault in inputs.faults:
            console.print(f"left out: {fault}", style="yellow")
        console.print(told_split(config, inputs))
    made = world.share(inputs)
    assert made is not None
    return made


def told_split(config: TrainConfig, inputs: TrainInputs) -> str:
    """How many sequences there are for what; and why none is held out, where that is so."""
    num = len(inputs.train)
    told = f"{num} {'sequence' if num == 1 else 'sequences'} to train on, "
    told += f"{len(inputs.validation) or 'none'} held out"
    if inputs.skipped:
        told += f", {inputs.skipped} samples left out"
    if inputs.validation:
        return told
    if not config.data.validation_share:
        why = "data.validation_share is 0 in this run"
    else:
        why = "films are held out whole, and there is only one"
    return f"{told}: {why}, so there is no held-out loss to tell learning from memorising"


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
    """The estimated budget: two lines before a run, the table of all machines with `--plan`."""
    from memento_model.training import config as fields
    from memento_model.training import recipes
    from memento_model.training.budget import MACHINES, budget, cache_bytes, count

    counts = count(config)
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    needs = budget(config, devices)
    console.print(
        f"{config.name}: {(counts.frozen + counts.trained) / 1e6:,.1f} M weights, "
        f"{counts.trained / 1e6:,.1f} M of them trained; a sample has up to {counts.tokens:,} tokens and "
        f"takes {_tera(counts.flops)} TFLOP"
    )
    where = "1 device" if devices == 1 else f"each of {devices} devices"
    fits = "" if whole or needs.total < SMALL_GIB else "; --plan shows what takes less, --memory NAME sets it"
    console.print(
        f"estimated need, as it is set: {needs.total:.2f} GiB of memory on {where}{fits}; about "
        f"{cache_bytes(config, 1000) / 2**30:.1f} GiB of disk for the cache of 1000 clips"
    )
    if whole:
        console.print(f"what {config.name} sets: {recipes.__file__}\nall fields: {fields.__file__}")
        console.print(_plan_table(config))
    if whole and needs.total >= SMALL_GIB:
        for machine in MACHINES:
            console.print(
                f"Train it on {machine.name}: {started_on(machine)} {config.name} --memory {machine.name}"
            )


def started_on(machine: Machine) -> str:
    """How a run on all devices of a machine begins."""
    if machine.devices == 1:
        return own_command("train")
    return f"torchrun --nproc-per-node {machine.devices} $(which memento) train"


def enough_processes(config: TrainConfig, order: Order) -> None:
    """Refuse a run that was fitted to more devices than it has processes.

    Raises:
        SettingsError: with the command that starts as many.
    """
    from memento_model.training.budget import MACHINES

    for machine in MACHINES:
        on_ray = config.scale.backend == "ray"
        num = config.scale.workers if on_ray else int(os.environ.get("WORLD_SIZE", "1"))
        if machine.name == order.memory and num < machine.devices:
            way = (
                f"--set scale.workers={machine.devices}"
                if on_ray
                else f"{started_on(machine)} {config.name} ..."
            )
            raise SettingsError(
                f"--memory {machine.name} is for {machine.devices} processes, here is {num}: {way}"
            )


def _tera(operations: float) -> str:
    """Trillions: `7,970`, `0.00228`."""
    number = operations / 1e12
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _plan_table(config: TrainConfig) -> Table:
    """What a run needs on every machine that has a name, and what `--memory` sets for it."""
    from memento_model.training.budget import GIB, MACHINES, MARGIN, advice, fits

    table = Table(title=f"{config.name}: what it needs, and what --memory sets", title_justify="left")
    table.add_column("GiB on each device (estimated)", overflow="fold", min_width=len(max(SHOWN, key=len)))
    advised = [(machine, *advice(config, machine)) for machine in MACHINES]
    for machine, _, _ in advised:
        table.add_column(machine.name, justify="right", overflow="fold")
    for name, words in NEEDS.items():
        table.add_row(words, *(f"{getattr(needs, name):.2f}" for _, _, needs in advised))
    table.add_row("total", *(f"{needs.total:.1f}" for _, _, needs in advised))
    shares = [needs.total * GIB / (machine.gib * 1e9) for machine, _, needs in advised]
    table.add_row("of the device", *(f"{share:.0%}" for share in shares))
    table.add_row(
        f"fits with {MARGIN:.0%} to spare",
        *("yes" if fits(needs, machine) else "no" for machine, _, needs in advised),
    )
    table.add_row("host memory besides", *(f"{needs.host:.1f}" for _, _, needs in advised), end_section=True)
    for name in SHOWN:
        part, _, field = name.partition(".")
        table.add_row(name, *(str(getattr(getattr(way, part), field)).lower() for _, way, _ in advised))
    return table
