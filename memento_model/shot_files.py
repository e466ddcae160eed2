"""What a finished shot leaves in its story's folder, and whether what lies there may be used.

    SS_HH.mp4            the video
    SS_HH.json           its record: what it was made from, which memory it saw; written last
    state/SS_HH.safetensors   memory and last frames after it, from which the next shot goes on
    SS_HH_subject.png    the reconstruction slot's picture, where there was one

A record holds the shot's key, a hash over everything that decided it, the shot before included. A shot whose
key or files differ from what is asked for now is made again, and every later one with it: memory cannot be
stale.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from memento_model.conditioning import Memory
from memento_model.memory import MemoryState, Pool, Source


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
        (self.scratch / "state").mkdir(parents=True)
        return self.scratch

    def commit(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Move the files out of the scratch folder, the record last: a shot without record is none."""
        self.record.unlink(missing_ok=True)
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
    save_file(tensors, path, {"pools": json.dumps(pools, sort_keys=True)})


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
