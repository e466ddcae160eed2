"""The encoders of a preset: found, checked, and loaded once per process, when the first picture comes.

A missing encoder is no error: it is listed with the reason and the command that brings it, and what needs it
has no number. torch is imported when weights are seen for the first time or something is encoded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmark.encoders import aesthetic
from benchmark.encoders.base import ClipEncoder, EncodersMissing, FrameEncoder
from benchmark.encoders.memo import FileFacts
from benchmark.encoders.pixels import VICLIP, Recipe, clip_recipe, dinov2_recipe
from benchmark.encoders.running import PRECISIONS, Clips, Frames, Runner
from benchmark.encoders.weights import NO_PACKAGE, TABLE, find
from benchmark.evaluation import EncoderFact
from benchmark.metrics import readings
from benchmark.presets import Preset, metrics_of
from curation.optional import MissingExtra, available, install_command, require
from curation.weights import WeightsDamaged

LOG = logging.getLogger(__name__)
VERSION = 1
"""Changes whenever our code gives other features from the same weights and pictures."""
PACKAGES = ("torch", "safetensors", "open_clip", "timm", "ftfy")
SEED = 20260101
"""Of made-up weights."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an encoder is used for.

    Attributes:
        module: of this package that builds it.
        kind: of its features; "viclip" for clips and texts.
        width: of its features.
        needed_by: kinds of features in metrics that come from it.
        batches: pictures or clips at once on a CPU and on a GPU. On a CPU larger ones are no faster, and
            the last one is filled up.
    """

    module: str
    kind: str
    width: int
    needed_by: tuple[str, ...]
    batches: tuple[int, int]


_VICLIP_KINDS = ("viclip_8", "viclip_24", "text")
KINDS: dict[str, Kind] = {
    "viclip-b16": Kind(module="viclip", kind="viclip", width=512, needed_by=_VICLIP_KINDS, batches=(1, 32)),
    "viclip-l14": Kind(module="viclip", kind="viclip", width=768, needed_by=_VICLIP_KINDS, batches=(1, 16)),
    "clip-b32": Kind(module="clip", kind="clip_b32", width=512, needed_by=("clip_b32",), batches=(16, 256)),
    "clip-l14": Kind(
        module="clip", kind="clip_l14", width=768, needed_by=tuple(aesthetic.HEADS), batches=(4, 256)
    ),
    "dinov2-b14": Kind(
        module="dinov2", kind="dino_b14", width=768, needed_by=("dino_b14",), batches=(8, 256)
    ),
}
HEADS = {"aes-mlp": "aes_mlp_raw", "aes-linear": "aes_linear_raw"}
"""Name of an aesthetic head -> kind of its scores."""


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """The encoders of a preset.

    Attributes:
        facts: of each encoder that the preset needs, also of missing ones, and of the aesthetic heads.
        frames: those of frames that are there; `clip_l14` gives the features that `aesthetic.scores` takes.
        clips: ViCLIP, None if it is missing or not needed.
        notes: what a reader of scores must know of the weights, a line each.
    """

    facts: tuple[EncoderFact, ...]
    frames: tuple[FrameEncoder, ...]
    clips: ClipEncoder | None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the encoders that are there."""
        return tuple(fact.name for fact in self.facts if not fact.missing)

    @property
    def missing(self) -> dict[str, str]:
        """Name -> why it is not there, and the command that brings it."""
        return {fact.name: fact.missing for fact in self.facts if fact.missing}

    @property
    def weights(self) -> dict[str, str]:
        """Name -> SHA-256 of its weights, of those that are there; `random` for made-up ones."""
        there = [fact for fact in self.facts if not fact.missing]
        return {fact.name: "random" if fact.random else fact.sha256 for fact in there}


def encoders_for(
    preset: Preset,
    *,
    device: str = "auto",
    precision: str | None = None,
    paths: Mapping[str, str] | None = None,
    random: bool = False,
) -> EncoderSet:
    """The encoders that a preset's columns, in any of their readings, need.

    Args:
        preset: names ViCLIP's size and pixels, the crop and the precision.
        device: torch's name of a device such as `cuda:1`; `auto` is the first GPU, else the CPU.
        precision: fp32, bf16 or fp16; None for the preset's. Features are float32 in any case.
        paths: encoder -> file or folder to use instead of searching.
        random: build encoders of real size with made-up numbers instead, to try the machinery.

    Returns:
        The encoders; those whose weights are missing or damaged are listed with the reason.

    Raises:
        ValueError: no such device, precision, or encoder in `paths`.
    """
    precision, paths = precision or preset.precision, paths or {}
    if precision not in PRECISIONS:
        raise ValueError(f"{precision!r} is no precision: use {', '.join(PRECISIONS)}")
    if unknown := sorted(paths.keys() - TABLE.keys()):
        raise ValueError(f"no encoder is called {', '.join(unknown)}; there are {', '.join(TABLE)}")
    place = chosen_device(device)
    facts: list[EncoderFact] = []
    frames: list[FrameEncoder] = []
    clips: ClipEncoder | None = None
    notes: list[str] = []
    for name in needed(preset):
        source = _source(name, paths.get(name, ""), random)
        facts.append(
            EncoderFact(
                name=name,
                sha256=source.sha256,
                precision=precision,
                device=place,
                missing=source.missing,
                random=random,
            )
        )
        notes += [source.note] if source.note else []
        if source.missing:
            continue
        made = _encoder(name, source, preset, place, precision)
        if isinstance(made, Clips):
            clips = made
        else:
            frames.append(made)
    facts += _heads(facts)
    return EncoderSet(facts=tuple(facts), frames=tuple(frames), clips=clips, notes=tuple(notes))


def needed(preset: Preset) -> tuple[str, ...]:
    """Names of the encoders that a preset's columns need in any of their readings."""
    metrics = metrics_of(preset, weight_free=False)
    columns = {metric.column for metric in metrics if metric.column}
    metrics += [reading for column in columns for reading in readings(column)]
    kinds = {kind for metric in metrics for kind in metric.needs}
    other = {"viclip-b16", "viclip-l14"} - {preset.viclip}
    return tuple(name for name, one in KINDS.items() if name not in other and kinds & set(one.needed_by))


def chosen_device(device: str) -> str:
    """The device that is meant; `auto` is the first GPU, else the CPU.

    Raises:
        ValueError: it is not on this machine.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    torch = require("torch", extra="eval")
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"device {device!r} cannot be used here ({first}); use cpu or auto") from error
    return str(torch.device(device))


def _may_have_gpu() -> bool:
    """Whether it is worth asking torch, whose import takes seconds: a driver makes one of these files."""
    if not Path("/dev/null").exists():
        return True  # no Unix: ask
    return any(
        Path(place).exists() for place in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/proc/driver/nvidia")
    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the weights of an encoder are from: a file, made-up numbers, or nowhere."""

    path: str = ""
    sha256: str = ""
    missing: str = ""
    note: str = ""


def _source(name: str, path: str, random: bool) -> _Source:
    try:
        _require_packages()
        if random:
            return _Source()
        found = find(name, path)
        facts, fact = FileFacts(), f"usable as {name}"
        if facts.get(found.path, fact) != str(VERSION):
            _module(name, str(found.path), found.sha256)
            facts.put(found.path, fact, str(VERSION))
    except (EncodersMissing, WeightsDamaged) as error:
        return _Source(missing=str(error))
    except MissingExtra as error:
        return _Source(missing=f"{name}: {error}")
    return _Source(path=str(found.path), sha256=found.sha256, note=found.note)


def _require_packages() -> None:
    """Raise `MissingExtra` unless all packages are installed; none is imported."""
    if absent := [package for package in PACKAGES if not available(package)]:
        raise MissingExtra(f"{', '.join(absent)} {NO_PACKAGE}; get it with: {install_command('eval')}")


@functools.cache
def _module(name: str, path: str, sha256: str) -> Any:
    """The float32 module on the CPU, of a file, or made up where there is no path."""
    builder = import_module(f"benchmark.encoders.{KINDS[name].module}")
    if not path:
        return builder.random_module(name, SEED)
    from benchmark.encoders.tensors import read_state

    return builder.from_state(name, read_state(Path(path), sha256), path)


@functools.cache
def _placed(name: str, path: str, sha256: str, device: str, precision: str) -> Any:
    import copy

    import torch

    module = _module(name, path, sha256)
    if device == "cpu" and precision == "fp32":
        return module
    LOG.info("%s: to %s as %s", name, device, precision)
    dtype = getattr(torch, PRECISIONS[precision])
    return copy.deepcopy(module).to(device=device, dtype=dtype)


def _encoder(name: str, source: _Source, preset: Preset, device: str, precision: str) -> Frames | Clips:
    one, recipe = KINDS[name], _recipe(name, preset)
    runner = Runner(
        module=functools.partial(_placed, name, source.path, source.sha256, device, precision),
        recipe=recipe,
        device=device,
        precision=precision,
        batch=one.batches[0 if device == "cpu" else 1],
        width=one.width,
    )
    identity = _identity(name, source, recipe, precision)
    return Clips(identity, runner) if one.kind == "viclip" else Frames(one.kind, identity, runner)


def _recipe(name: str, preset: Preset) -> Recipe:
    if name.startswith("viclip"):
        return VICLIP[preset.viclip_pixels]
    return clip_recipe(preset.crop) if name.startswith("clip") else dinov2_recipe(preset.crop)


def _identity(name: str, source: _Source, recipe: Recipe, precision: str) -> str:
    decides = {
        "encoder": name,
        "version": VERSION,
        "weights": source.sha256 or f"made up from {SEED}",
        "pictures": recipe.pixels.name,
        "mean": recipe.mean,
        "std": recipe.std,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _heads(facts: list[EncoderFact]) -> list[EncoderFact]:
    """Facts of the aesthetic heads, which are part of the package but need CLIP L/14's features."""
    found = [fact for fact in facts if fact.name == "clip-l14"]
    return [
        EncoderFact(
            name=name,
            sha256=aesthetic.SOURCE_SHA256[kind],
            precision=fact.precision,
            device=fact.device,
            missing=f"needs clip-l14: {fact.missing}" if fact.missing else "",
            random=fact.random,
        )
        for fact in found
        for name, kind in HEADS.items()
    ]
