"""`memento cache`: encode a dataset's videos and captions once, so that training does not have to."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curation.engine.stage import StopRun

if TYPE_CHECKING:
    from memento_model.config import FrameGrid
    from memento_model.training.config import DataConfig, TrainConfig
    from memento_model.training.inputs import TrainInputs


@dataclass(frozen=True, kw_only=True)
class CacheOrder:
    """What the command line says; None leaves the recipe's.

    Attributes:
        recipe: of the training that will read the cache; None is `debug`, with Wan's codec `low_noise_480p`.
        dataset, where, cache, skip_bad: see `memento_model.training.config.DataConfig`.
        codec, text: `wan` or `dct`, `umt5` or `hashed`, or a path of the former of each.
        base: path or name of the base model whose codec and text encoder are used.
        size: FRAMESxHEIGHTxWIDTH of a shot.
        dtype: bf16 or fp32.
    """

    recipe: str | None = None
    dataset: Path | None = None
    where: str | None = None
    cache: Path | None = None
    skip_bad: bool = False
    codec: str | None = None
    text: str | None = None
    base: str | None = None
    size: str | None = None
    dtype: str | None = None


def main(order: CacheOrder, *, on_ray: bool, device: str | None, verify: bool, official: Path | None) -> None:
    """Check the dataset, encode what is missing, say what there is.

    Args:
        order: what to encode, and how.
        on_ray: with Ray Data.
        device: cuda or cpu; None takes CUDA where there is one.
        verify: read every byte of what is there.
        official: also write the sequences there, in the official JSON form.
    """
    from memento_model.packages import require_packages

    require_packages("torch", "safetensors")
    config = make_config(order)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    inputs = _read(config, console)
    if official is not None:
        _write_official(inputs, official)
        console.print(f"written: {official}")
    run(config, inputs, console, on_ray=on_ray, device=device, verify=verify)


def make_config(order: CacheOrder) -> TrainConfig:
    """The settings of the run that will read this cache.

    Raises:
        StopRun: no such recipe, or a size or type that cannot be.
    """
    from memento_model.training.recipes import RECIPES

    wan = order.codec not in (None, "dct")
    recipe = order.recipe or ("low_noise_480p" if wan else "debug")
    if recipe not in RECIPES:
        raise StopRun(f"no recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    config = RECIPES[recipe]()
    changes: dict[str, Any] = {"base": order.base} if order.base else {}
    for what, full, small in (("codec", "wan", "dct"), ("text", "umt5", "hashed")):
        asked = getattr(order, what)
        if asked is not None:
            changes[what] = small if asked == small else full
            changes[f"{what}_path"] = asked if asked not in (full, small) else None
    if order.size is not None:
        changes["grid"] = _grid(order.size)
    return replace(config, data=_data(order, config.data), **changes)


def _data(order: CacheOrder, data: DataConfig) -> DataConfig:
    if order.dtype not in (None, "bf16", "fp32"):
        raise StopRun(f"--dtype is bf16 or fp32, not {order.dtype}")
    changes: dict[str, Any] = {
        "dataset": order.dataset and str(order.dataset),
        "where": order.where,
        "cache": order.cache and str(order.cache),
        "on_bad_sample": "skip" if order.skip_bad else None,
        "cache_dtype": order.dtype,
    }
    return replace(data, **{name: value for name, value in changes.items() if value is not None})


def _grid(size: str) -> FrameGrid:
    from memento_model.config import FrameGrid

    try:
        frames, height, width = (int(part) for part in size.split("x"))
        return FrameGrid(num_frames=frames, height=height, width=width)
    except ValueError as error:
        raise StopRun(f"--size {size}: FRAMESxHEIGHTxWIDTH, e.g. 81x480x832 ({error})") from error


def _read(config: TrainConfig, console: Console) -> TrainInputs:
    from memento_model.training.inputs import read_inputs
    from memento_model.training.samples import samples_of

    inputs = read_inputs(config)
    films = len({s.film_id for s in inputs.sequences})
    console.print(
        f"{config.data.dataset}: {len(inputs.sequences)} sequences of {films} film(s), "
        f"{len(samples_of(inputs.train))} samples to train on, {len(samples_of(inputs.validation))} held out"
    )
    return inputs


def run(
    config: TrainConfig,
    inputs: TrainInputs,
    console: Console,
    *,
    on_ray: bool = False,
    device: str | None = None,
    verify: bool = False,
) -> TrainInputs:
    """Fill a run's cache with a progress bar and print what it holds; what `memento train` does first, too.

    Returns:
        The inputs without the sequences that could not be decoded, where those are skipped.
    """
    from memento_model.training.cache_fill import FillOptions
    from memento_model.training.inputs import cache_folder, fill_cache
    from pipelines.progress import Group, show_progress

    folder, started = cache_folder(config), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    steps = {"text": Group(1, 2, "batch", ("texts",)), "video": Group(2, 2, "clip", ("videos",))}
    with _place(folder, on_ray=on_ray) as place, show_progress(console, steps) as progress:
        if place:
            console.print(place, style="dim")
        options = FillOptions(on_ray=on_ray, device=device, verify=verify)
        left, filled = fill_cache(config, inputs, options, progress)
    for line in filled.mended:
        console.print(f"made again: {line}", style="yellow")
    for line in left.faults:
        console.print(f"skipped: {line}", style="yellow")
    if left.skipped:
        console.print(f"{left.skipped} samples skipped", style="yellow")
    console.print(
        f"{folder}: {_bytes(filled.num_bytes)}; clips: {filled.made_clips} encoded, {filled.reused_clips} "
        f"were there; prompts: {filled.made_prompts} encoded, {filled.reused_prompts} were there; "
        f"{time.perf_counter() - started:.1f} s"
    )
    return left


@contextlib.contextmanager
def _place(folder: Path, *, on_ray: bool) -> Iterator[str | None]:
    if not on_ray:
        yield None
        return
    from curation.engine.cluster import cluster

    with cluster(folder) as place:
        yield place


def _write_official(inputs: TrainInputs, file: Path) -> None:
    """Complete under its name, or not at all."""
    from memento_model.training.data import to_official

    listed: list[dict[str, Any]] = to_official(inputs.sequences, file.absolute().parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, file)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
