"""Which codec and text encoder fill a cache: named by a run's settings, loaded only where they are needed.

What finds and reads checkpoints is imported with the first use: it brings diffusers along, which takes longer
than encoding a small dataset with the weightless encoders.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from memento_model.checkpoints.released import WeightsMissing, command, find
from memento_model.codecs.codec import Codec, WanCodec
from memento_model.codecs.dct import DctCodec
from memento_model.codecs.hashed import HashedText
from memento_model.codecs.text import UMT5, TextEncoder
from memento_model.errors import CheckpointError, DataError
from memento_model.training.cache_files import CacheKey
from memento_model.training.config import TrainConfig

TILED = "-tiled"
RELEASED = ("wan22_i2v_a14b", "wan22_t2v_a14b")


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The codec and text encoder of a run; small enough to be sent to workers.

    Attributes:
        codec_path, text_path: of their weights; None for those without.
        text_dim, text_len: size of the text encoder's rows.
        tiled: the codec works in tiles, for small GPUs; its latents differ slightly.
    """

    codec_path: Path | None
    text_path: Path | None
    text_dim: int
    text_len: int
    tiled: bool = False

    @classmethod
    def of(cls, config: TrainConfig, device: torch.device | None = None) -> Encoders:
        """Find the weights that the settings name, that lie beside the base model, or that were fetched.

        Raises:
            WeightsMissing: not on this machine.
            CheckpointError: a named path that is not there.
        """
        shape = config.model
        if config.base is not None:
            from memento_model.checkpoints.choice import locate
            from memento_model.checkpoints.forms import open_checkpoint

            with contextlib.suppress(WeightsMissing):  # the encoders may have come alone
                _, shape = open_checkpoint(locate(config.base)).base(config.expert)
        return cls(
            codec_path=_find("codec", config.codec_path, config.base) if config.codec == "wan" else None,
            text_path=_find("text", config.text_path, config.base) if config.text == "umt5" else None,
            text_dim=shape.text_dim,
            text_len=shape.text_len,
            tiled=config.codec == "wan" and _is_small(device or pick_device()),
        )

    def codec(self, device: torch.device) -> Codec:
        """Load the codec."""
        if self.codec_path is None:
            return DctCodec(device)
        return WanCodec.load(self.codec_path, device=device, tiled=self.tiled, sliced=False)

    def text(self, device: torch.device) -> TextEncoder:
        """Load the text encoder.

        Raises:
            CheckpointError: its rows have another width than the model reads.
        """
        if self.text_path is None:
            return HashedText(self.text_dim, self.text_len, device)
        text = UMT5.load(self.text_path, device=device, text_len=self.text_len)
        if text.text_dim != self.text_dim:
            raise CheckpointError(
                f"{self.text_path}: rows of {text.text_dim} numbers, the model reads {self.text_dim}"
            )
        return text

    def codec_mark(self) -> str:
        """Name and revision of the codec, without loading it."""
        if self.codec_path is None:
            return f"{DctCodec.name}-{DctCodec.revision}"
        return f"{WanCodec.name}-{WanCodec.revision_of(self.codec_path)}{TILED if self.tiled else ''}"

    def text_mark(self) -> str:
        """Name, revision and size of the text encoder, without loading it."""
        size = f"{self.text_len}x{self.text_dim}"
        if self.text_path is None:
            return f"{HashedText.name}-{HashedText.revision}-{size}"
        return f"{UMT5.name}-{UMT5.revision_of(self.text_path)}-{size}"

    def key(self, config: TrainConfig) -> CacheKey:
        """What the cache of a run with these encoders is named by."""
        return CacheKey(
            codec=self.codec_mark(),
            text=self.text_mark(),
            grid=config.grid,
            dtype=config.data.cache_dtype,
        )


def pick_device(asked: str | None = None) -> torch.device:
    """The device to encode on: as asked, else CUDA where there is one."""
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


def key_in(folder: Path, config: TrainConfig) -> CacheKey:
    """The key of a run's cache. Where the encoders' weights are not on this machine: the only one there is.

    Raises:
        DataError: no weights here, and the cache holds none or several that could be meant.
    """
    try:
        encoders = Encoders.of(config)
        key = encoders.key(config)
        other = replace(encoders, tiled=not encoders.tiled).key(config)
        here, there = (folder / "latents" / made.latents for made in (key, other))
        return other if there.exists() and not here.exists() else key
    except WeightsMissing:
        size = f"{config.grid.num_frames}x{config.grid.height}x{config.grid.width}"
        return CacheKey(
            codec=_only(folder / "latents", config.codec, f"-{size}-{config.data.cache_dtype}"),
            text=_only(folder / "text", config.text, f"-{config.data.cache_dtype}"),
            grid=config.grid,
            dtype=config.data.cache_dtype,
        )


def _only(folder: Path, name: str, ending: str) -> str:
    form = re.compile(rf"({re.escape(name)}-.+){re.escape(ending)}")
    found = [match[1] for place in folder.glob("*") if (match := form.fullmatch(place.name))]
    if len(found) == 1:
        return found[0]
    there = f"{len(found)} of them ({', '.join(sorted(found))})" if found else "none"
    raise DataError(
        f"{folder}: the weights of {name} are not on this machine, and the cache holds {there} for this run "
        f"({name}...{ending}); run `memento cache` where the weights are, or name them"
    )


def _find(what: Literal["codec", "text"], asked: str | None, base: str | None) -> Path:
    """As named, beside the base model, or in a cache of released weights."""
    from memento_model.checkpoints.choice import locate
    from memento_model.story.loading_parts import TEXT_FILES, WAN_FILES

    files = WAN_FILES if what == "codec" else TEXT_FILES
    if asked is not None:
        return locate(asked)
    folders = []
    if base is not None:
        with contextlib.suppress(WeightsMissing):
            folders.append(locate(base))
    folders += [found for name in RELEASED if (found := find(name))]
    for folder in folders:
        if any((folder / name).exists() for name in files):
            return folder
    raise WeightsMissing(
        f"none of {', '.join(files)} is beside the model or fetched; name the path, or get it with: "
        f"{command(RELEASED[0])}"
    )


def _is_small(device: torch.device) -> bool:
    from memento_model.story.loading_parts import TILED_BELOW

    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < TILED_BELOW
