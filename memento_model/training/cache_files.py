"""What lies in a cache of latents and text: one file per clip, files of many prompts, all named by content.

    latents/CODEC-SIZE-TYPE/ab/abcd....safetensors    `shot`, `given`, `frame.N` of the clip of that SHA-256
    latents/CODEC-SIZE-TYPE/grey.safetensors          `video`, `frame`: the codec's constants
    text/ENCODER-TYPE/....safetensors                 rows of prompts, named by the prompts' SHA-256
    files.json                                        SHA-256 of videos by path, size and time of change

Files are complete under their name or absent. Each tensor's checksum stands in the header and is compared
whenever the tensor is read.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from memento_model.checkpoints.tensor_files import save_json, save_tensors
from memento_model.config import FrameGrid
from memento_model.errors import DataError

FORMAT = "memento-cache-1"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHOT, GIVEN, FRAME = "shot", "given", "frame."
GREY_VIDEO, GREY_FRAME = "video", "frame"
DIGESTS = "files.json"


@dataclass(frozen=True, kw_only=True)
class CacheKey:
    """What latents and rows were made with; another key is another folder.

    Attributes:
        codec: name and revision.
        text: name, revision and size.
        grid: of shots.
        dtype: of the stored numbers.
    """

    codec: str
    text: str
    grid: FrameGrid
    dtype: Literal["bf16", "fp32"] = "bf16"

    @property
    def latents(self) -> str:
        """Name of the latents' folder, and what its files say of themselves."""
        return f"{self.codec}-{self.grid.num_frames}x{self.grid.height}x{self.grid.width}-{self.dtype}"

    @property
    def texts(self) -> str:
        """The same of the text rows."""
        return f"{self.text}-{self.dtype}"


class Damaged(ValueError):
    """A file of the cache cannot be used: which and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


@dataclass(frozen=True)
class Shard:
    """A file of the cache, its header read: names and checksums of its tensors."""

    path: Path
    checksums: Mapping[str, int]

    @classmethod
    def open(cls, path: Path, made_with: str, content: str | None) -> Shard:
        """Read and check the header.

        Args:
            path: of the file.
            made_with: `CacheKey.latents` or `.texts`.
            content: whose latents these must be; None accepts any.

        Raises:
            FileNotFoundError: not there.
            Damaged: cut short, not ours, or of something else.
        """
        try:
            with safe_open(path, "pt") as file:
                told, names = file.metadata() or {}, set(file.keys())
            checksums = json.loads(told.get("checksums", "{}"))
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, ValueError) as error:
            raise Damaged(path, f"damaged ({str(error).splitlines()[0]})") from error
        if told.get("format") != FORMAT or names != checksums.keys():
            raise Damaged(path, "not a file of this cache")
        if told.get("made_with") != made_with or content not in (None, told.get("content")):
            whose = f"of {str(told.get('content'))[:12]} by {told.get('made_with')}"
            raise Damaged(path, f"foreign: {whose}, not {made_with}")
        return cls(path, checksums)

    def read(self, name: str) -> Tensor:
        """A tensor as it was stored.

        Raises:
            Damaged: the file changed or its bytes are not what was written.
        """
        try:
            with safe_open(self.path, "pt") as file:
                value = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise Damaged(self.path, f"cannot read {name} ({str(error).splitlines()[0]})") from error
        if checksum(value) != self.checksums[name]:
            raise Damaged(self.path, f"{name} is not what was written")
        return value

    def verify(self) -> None:
        """Read everything.

        Raises:
            Damaged: see `read`.
        """
        for name in self.checksums:
            self.read(name)


def checksum(value: Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    return zlib.crc32(value.contiguous().flatten().view(torch.uint8).numpy().data)


def write_shard(path: Path, tensors: Mapping[str, Tensor], made_with: str, content: str) -> int:
    """Write a file, complete or not at all; the same tensors give the same bytes. Returns its size."""
    checksums = {name: checksum(tensors[name]) for name in sorted(tensors)}
    told = {
        "format": FORMAT,
        "made_with": made_with,
        "content": content,
        "checksums": json.dumps(checksums),
    }
    save_tensors(tensors, path, told)
    return path.stat().st_size


def clip_path(folder: Path, key: CacheKey, content: str) -> Path:
    """Where a clip's latents lie."""
    return folder / "latents" / key.latents / content[:2] / f"{content}.safetensors"


def grey_path(folder: Path, key: CacheKey) -> Path:
    """Where the codec's constants lie."""
    return folder / "latents" / key.latents / "grey.safetensors"


def text_folder(folder: Path, key: CacheKey) -> Path:
    """Where rows of prompts lie."""
    return folder / "text" / key.texts


def prompt_name(prompt: str) -> str:
    """A prompt's name in the cache."""
    return hashlib.sha256(prompt.encode()).hexdigest()


def text_index(folder: Path, key: CacheKey) -> tuple[dict[str, Shard], list[Damaged]]:
    """The file of every prompt that is there, by the prompt's name; and files that cannot be used."""
    index: dict[str, Shard] = {}
    faults = []
    for path in sorted(text_folder(folder, key).glob("*.safetensors")):
        try:
            shard = Shard.open(path, key.texts, path.stem)
        except Damaged as error:
            faults.append(error)
            continue
        for name in shard.checksums:
            index.setdefault(name, shard)
    return index, faults


def digests(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of video files by their path; remembered in the cache, and made again when a file changed.

    Raises:
        DataError: a file cannot be read.
    """
    memo = folder / DIGESTS
    try:
        kept = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    made, new = {}, False
    for path in dict.fromkeys(paths):
        file = Path(path)
        try:
            facts = file.stat()
            stamp = [facts.st_size, facts.st_mtime_ns]
            place = str(file.absolute())
            if place not in kept or kept[place][:2] != stamp:
                with file.open("rb") as opened:
                    kept[place] = [*stamp, hashlib.file_digest(opened, "sha256").hexdigest()]
                new = True
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        made[path] = kept[place][2]
    if new:
        save_json(kept, memo)
    return made
