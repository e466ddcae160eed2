"""What a user sets for `memento generate`, checked by name and type."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from curation.config import SettingsError, build, parse_yaml, suggestion
from memento_model.config import Compat, FrameGrid

if TYPE_CHECKING:
    from memento_model.story.loading import Loaded
    from memento_model.story.plan import GenerateSettings
    from pipelines.generate_command import Order

OPTIONS = {"mode": "--mode", "seed": "--seed", "steps": "--steps", "guidance": "--guidance", "grid": "--size"}
"""Fields of the settings that have an option of their own."""
AGAINST = "against_training"
"""A setting that lets other settings contradict the training of the weights."""
MODES = ("memento", "storymem", "wan")
CHOICES = {
    "placement": ("auto", "both", "shard", "one", "layers"),
    "dtype": ("auto", "bf16", "fp32"),
    "attention": ("auto", "sdpa", "cudnn", "flash", "flash3", "sage", "math"),
}
"""What options of the command line may be."""


def check_choices(**given: str) -> None:
    """Check options that have a few values only.

    Raises:
        SettingsError: another value.
    """
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise SettingsError(f"--{name} {value}: there are {', '.join(CHOICES[name])}")


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """`name=value` items of a command line; values are YAML.

    Raises:
        SettingsError: an item has another form.
    """
    made: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise SettingsError(f"--set {item}: expected name=value, e.g. queries=low")
        made[name] = parse_yaml(text, f"--set {item}")
    return made


def compat_of(order: Order) -> dict[str, Any]:
    """The switches that are set, checked.

    Raises:
        SettingsError: a wrong value.
    """
    asked = _split(order.settings)[0]
    made = build(Compat, asked, "settings")
    return {name: getattr(made, name) for name in asked}


def may_contradict(order: Order) -> bool:
    """Whether settings may contradict how the weights were trained.

    Raises:
        SettingsError: neither true nor false.
    """
    value = order.settings.get(AGAINST, False)
    if not isinstance(value, bool):
        raise SettingsError(f"--set {AGAINST}={value}: is true or false")
    return value


def settings_of(order: Order, loaded: Loaded | None) -> GenerateSettings:
    """All settings of a run.

    Args:
        order: what the user asks for.
        loaded: the model, whose own size is the default; None checks the order alone.

    Raises:
        SettingsError: a name that does not exist, or a wrong value.
    """
    from memento_model.story.plan import GenerateSettings

    if order.mode is not None and order.mode not in MODES:
        raise SettingsError(f"--mode {order.mode}: there are {', '.join(MODES)}")
    if order.mode == "wan" and order.references:
        raise SettingsError("--reference: mode wan has no memory; use --mode memento or --mode storymem")
    if order.shots is not None and order.shots < 1:
        raise SettingsError(f"--shots {order.shots}: at least 1")
    _, asked = _split(order.settings)
    asked |= {"mode": order.mode or "memento", "seed": order.seed}
    asked |= {"steps": order.steps} if order.steps is not None else {}
    asked |= {"guidance": order.guidance} if order.guidance is not None else {}
    if loaded is not None:
        asked["mode"] = loaded.mode
        if loaded.trained.attention is not None:
            asked.setdefault("attention", loaded.trained.attention)
        asked.setdefault("reconstruct", loaded.trained.reconstructs)
        if not loaded.trained.guided:
            asked.setdefault("guidance", 1.0)
        # two samples at once fill a small model better
        asked.setdefault("batch_guidance", loaded.models.config.width < 512)
    return build(GenerateSettings, {**asked, "grid": dataclasses.asdict(_grid(order, loaded))}, "settings")


def _grid(order: Order, loaded: Loaded | None) -> FrameGrid:
    grid = loaded.grid if loaded is not None else FrameGrid()
    change: dict[str, int] = {}
    if order.size is not None:
        match = re.fullmatch(r"(\d+)[x*](\d+)", order.size.strip())
        if not match:
            raise SettingsError(f"--size {order.size}: expected HEIGHTxWIDTH, e.g. 480x832")
        change = {"height": int(match[1]), "width": int(match[2])}
    if order.frames is not None:
        change["num_frames"] = order.frames
    try:
        return dataclasses.replace(grid, **change)
    except ValueError as error:
        raise SettingsError(f"--size or --frames: {error}") from error


def _split(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Switches of the model, and settings of the run."""
    from memento_model.story.plan import GenerateSettings
    from memento_model.story.trained import TRAINING_ONLY

    switches = {f.name for f in dataclasses.fields(Compat)} - set(TRAINING_ONLY)
    settings = {f.name for f in dataclasses.fields(GenerateSettings)}
    for name in sorted(asked.keys() - {AGAINST}):
        if name in OPTIONS:
            raise SettingsError(f"--set {name}: use {OPTIONS[name]}")
        if name in TRAINING_ONLY:
            raise SettingsError(f"--set {name}: changes training alone, as compat.{name}; leave it out here")
        if name not in switches | settings:
            known = (switches | settings | {AGAINST}) - OPTIONS.keys()
            raise SettingsError(f"--set {name}: no such setting{suggestion(name, known)}")
    return (
        {k: v for k, v in asked.items() if k in switches},
        {k: v for k, v in asked.items() if k in settings},
    )
