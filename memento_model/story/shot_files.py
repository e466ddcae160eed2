"""What a finished shot leaves in its story's folder, and whether what lies there may be used.

    SS_HH.mp4            the video
    SS_HH.json           its record: what it was made from, which memory it saw; written last
    state/SS_HH.safetensors   memory and last frames after it, from which the next shot goes on
    SS_HH_subject.png    the reconstruction slot's picture, where there was one
    stills/SS_HH_FFF.jpg small pictures of some frames, the remembered ones among them

A record holds the shot's key, a hash over everything that decided it, the shot before included. A shot whose
key or files differ from what is asked for now is made again, and every later one with it: memory cannot be
stale. Finished shots of another key are not deleted but put aside, into `earlier/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from memento_model.conditioning import Memory
from memento_model.story.memory import MemoryState, Pool, Source

EARLIER = "earlier"
OURS = re.compile(r"(\d{2,}_\d{2,})(\.mp4|\.json|_subject\.png|_\d{3,}\.jpg|\.safetensors)")
"""Names of the files of shots; the group is the shot's stem."""


@dataclass(frozen=True, kw_only=True)
class ShotState:
    """From what the next shot goes on.

    Attributes:
        memory: what is remembered.
        last_frames_thwc_u8: the shot's last frames, exactly as the next one will see them.
    """

    memory: MemoryState
    last_frames_thwc_u8: np.ndarray


def chain(key_before: str, deciding: Mapping[str, Any]) -> str:
    """Key of a shot: SHA-256 over the key before and whatever decides this one (JSON values)."""
    text = json.dumps([key_before, deciding], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ShotFiles:
    """The files of one shot in a story's folder."""

    folder: Path
    stem: str

    @property
    def video(self) -> Path:
        """The shot."""
        return self.folder / f"{self.stem}.mp4"

    @property
    def subject(self) -> Path:
        """The reconstructed subject."""
        return self.folder / f"{self.stem}_subject.png"

    @property
    def record(self) -> Path:
        """What it was made from."""
        return self.folder / f"{self.stem}.json"

    @property
    def state(self) -> Path:
        """From what the next shot goes on."""
        return self.folder / "state" / f"{self.stem}.safetensors"

    def still(self, frame: int) -> Path:
        """A small picture of one of its frames."""
        return self.folder / "stills" / f"{self.stem}_{frame:03d}.jpg"

    @property
    def scratch(self) -> Path:
        """Where the files of the shot in work are."""
        return self.folder / f".part-{self.stem}"

    def finished(self, key: str) -> dict[str, Any] | None:
        """The record, if this very shot is there and none of its files was touched since."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            if record["key"] != key:
                return None
            same = all(_sha256(self.folder / name) == digest for name, digest in record["files"].items())
            return record if same else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def open_scratch(self) -> Path:
        """An empty folder for the files of the shot."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        for name in ("state", "stills"):
            (self.scratch / name).mkdir(parents=True)
        return self.scratch

    def commit(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Move the files out of the scratch folder, the record last: a shot without record is none."""
        self.record.unlink(missing_ok=True)
        for path in files_of_shots(self.folder).get(self.stem, ()):
            path.unlink()
        made = sorted(p for p in self.scratch.rglob("*") if p.is_file())
        names = [str(path.relative_to(self.scratch)) for path in made]
        whole = {**record, "files": {name: _sha256(self.scratch / name) for name in names}}
        for name in names:
            (self.folder / name).parent.mkdir(exist_ok=True)
            os.replace(self.scratch / name, self.folder / name)
        part = self.record.with_name(f".{self.record.name}")
        part.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, self.record)
        shutil.rmtree(self.scratch)
        return whole


def files_of_shots(folder: Path) -> dict[str, list[Path]]:
    """What lies in a story's folder of each shot, the record first."""
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "state", folder / "stills"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            named = OURS.fullmatch(path.name)
            if named and path.is_file():
                found.setdefault(named[1], []).append(path)
    return {
        stem: sorted(paths, key=lambda path: path.suffix != ".json") for stem, paths in sorted(found.items())
    }


def set_aside(folder: Path, keys: Mapping[str, str]) -> list[str]:
    """Put finished shots that are not asked for now into `earlier/`, delete what is unfinished.

    Args:
        folder: of the story.
        keys: of the shots that are asked for, by stem.

    Returns:
        Stems of the shots that were put aside.
    """
    for scratch in folder.glob(".part-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    gone: list[str] = []
    group: Path | None = None
    for stem, paths in files_of_shots(folder).items():
        key = _key(paths[0])
        if key is None:  # stopped between two files of a shot
            for path in paths:
                path.unlink()
        elif key != keys.get(stem):
            group = group or folder / EARLIER / key[:12]
            for path in reversed(paths):  # the record last: without it the rest would count as unfinished
                target = group / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
            gone.append(stem)
    return gone


def _key(record: Path) -> str | None:
    """The key in a record; None if it is none."""
    try:
        key = json.loads(record.read_text(encoding="utf-8"))["key"] if record.suffix == ".json" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) and re.fullmatch(r"[0-9a-f]{64}", key) else None


def save_state(path: Path, state: ShotState) -> None:
    """Write a state; the same state gives the same bytes."""
    tensors: dict[str, Tensor] = {"last_frames": torch.from_numpy(state.last_frames_thwc_u8.copy())}
    pools: dict[str, Any] = {}
    for name, pool in state.memory.pools.items():
        tensors[f"pool.{name}"] = pool.memory.latents_cmhw.cpu().contiguous()
        pools[name] = {
            "times": list(pool.memory.times),
            "sources": [asdict(source) for source in pool.sources],
        }
    tensors |= {f"tensor.{name}": t.cpu().contiguous() for name, t in state.memory.tensors.items()}
    # through NumPy: the other way leaves a ctypes type behind for every new length, for ever
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    save_file(arrays, path, {"pools": json.dumps(pools, sort_keys=True)})


def load_state(path: Path, device: torch.device | str) -> ShotState:
    """Read a state.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            pools = json.loads(file.metadata()["pools"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not a shot's state ({error}); delete the folder and start again"
        ) from error
    return ShotState(
        memory=MemoryState(
            pools={
                name: Pool(
                    memory=Memory(
                        latents_cmhw=tensors[f"pool.{name}"].to(device), times=tuple(facts["times"])
                    ),
                    sources=tuple(Source(**source) for source in facts["sources"]),
                )
                for name, facts in pools.items()
            },
            tensors={
                name.removeprefix("tensor."): tensor
                for name, tensor in tensors.items()
                if name.startswith("tensor.")
            },
        ),
        last_frames_thwc_u8=tensors["last_frames"].numpy(),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
