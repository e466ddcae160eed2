"""Arrays on disk that can be trusted: one checked file per video and encoder, replaced as a whole.

    <folder>/<kind>-<hash>/about.json     encoder whose features lie there
    <folder>/<kind>-<hash>/<id>.npy       rows of one video, of one unit of joined videos, or of all texts

A file is an ordinary `.npy` (`numpy.load` opens it) of rows `key`, int32 [k], and `feature`, float32 [d], in
ascending order of keys, with the CRC-32 of all that behind it. A file that is cut off or altered is taken as
absent. Two processes that add rows to a file at once lose none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import mmap
import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Say = Callable[[str], None]
TEXTS = "texts"
"""Name of the file of all texts."""


def write_checked(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` with its CRC-32 behind it; readers see the old file or the new one, never a part."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    data = file.getvalue()
    write_atomic(path, data, zlib.crc32(data).to_bytes(4, "little"))


def write_atomic(path: Path, *parts: bytes | str) -> None:
    """Write a file as a whole, or not at all; text as UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with unfinished.open("wb") as out:
            for part in parts:
                out.write(part.encode() if isinstance(part, str) else part)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_checked(path: Path, say: Say = lambda line: None) -> np.ndarray | None:
    """The array of a file, read-only, None if there is none or it is damaged, which is said."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        say(f"{path}: cannot be read ({error.strerror}): made again")
        return None
    if len(data) < 4 or zlib.crc32(memoryview(data)[:-4]) != int.from_bytes(data[-4:], "little"):
        say(f"{path}: damaged, perhaps cut off: made again")
        return None
    return _array(data)


def _array(data: bytes | mmap.mmap) -> np.ndarray:
    """The array of a `.npy` in memory, not copied; what lies behind it is not looked at.

    Raises:
        ValueError: it is none, or it is cut off.
    """
    start = 12 if data[6:7] > b"\x01" else 10
    start += int.from_bytes(data[8:start], "little")
    dtype, shape = _layout(data[:start])
    return np.frombuffer(data, dtype, int(np.prod(shape)), start).reshape(shape)


@functools.lru_cache(maxsize=1024)
def _layout(head: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape in the head of a `.npy`; thousands of files share a few heads."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError("not an array that is written here")
    return dtype, shape


class Shelf:
    """Features of one encoder.

    Args:
        folder: of all features.
        kind: of the encoder, for people.
        identity: of the encoder; what decides the features besides the pictures.
        say: takes a line for each damaged file.
    """

    def __init__(self, folder: Path, kind: str, identity: str, say: Say = lambda line: None) -> None:
        self.kind, self.identity, self._say = kind, identity, say
        self.folder = folder / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        self._keys: dict[str, np.ndarray] = {}

    def path(self, name: str) -> Path:
        """File of a video, a unit, or texts."""
        return self.folder / f"{name.replace(':', '_')}.npy"

    def keys(self, name: str) -> np.ndarray:
        """Keys that a file holds, int32 [n, k] in ascending order; [0, 0] without a usable file.

        The file is read and checked the first time, and not again unless this process adds to it.
        """
        if name not in self._keys:
            table = read_checked(self.path(name), self._say)
            self._keys[name] = np.zeros((0, 0), np.int32) if table is None else table["key"].copy()
        return self._keys[name]

    def missing(self, name: str, keys: np.ndarray) -> np.ndarray:
        """Bool [n]: which of int32 keys [n, k] a file lacks."""
        return positions(self.keys(name), keys) < 0

    def rows(self, name: str, keys: np.ndarray) -> np.ndarray | None:
        """Rows float32 [n, d] of int32 keys [n, k], read from disk; None if one is missing."""
        for _ in range(2):
            where = positions(self.keys(name), keys)
            if not len(where) or (where < 0).any():
                return None
            with contextlib.suppress(OSError, ValueError, IndexError), self.path(name).open("rb") as file:
                # Only the pages of these rows are read; no file stays open, there may be thousands.
                table = _array(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[where]
                if np.array_equal(table["key"], keys):
                    return np.ascontiguousarray(table["feature"])
            del self._keys[name]  # another process added rows, which moved these
        return None

    def add(self, name: str, keys: np.ndarray, rows: np.ndarray) -> None:
        """Add rows float32 [n, d] under int32 keys [n, k]; keys that are there keep their rows."""
        with self._locked():
            # What another process added meanwhile, too.
            table = read_checked(self.path(name), self._say)
            if table is not None and table["feature"].shape[1:] == rows.shape[1:]:
                keys, rows = np.concatenate([table["key"], keys]), np.concatenate([table["feature"], rows])
            keys, first = np.unique(keys, axis=0, return_index=True)
            made = np.zeros(len(keys), [("key", "<i4", keys.shape[1:]), ("feature", "<f4", rows.shape[1:])])
            made["key"], made["feature"] = keys, rows[first]
            write_checked(self.path(name), made)
        self._keys[name] = keys

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "about.json"
        if not about.exists():
            write_atomic(about, json.dumps({"kind": self.kind, "identity": self.identity}, indent=1) + "\n")
        with (self.folder / ".lock").open("wb") as lock:
            # Where the file system knows no locks, rows can get lost and are encoded again; none is wrong.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def positions(have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row of `have` [n, k] that equals each row of `wanted` [m, k]; -1 where none does. `have` ascends."""
    if not len(have):
        return np.full(len(wanted), -1, np.int64)
    if have.shape[1] == 1:
        where = np.searchsorted(have[:, 0], wanted[:, 0])
        there = have[np.minimum(where, len(have) - 1), 0] == wanted[:, 0]
        return np.where(there, where, -1)
    known = {row.tobytes(): place for place, row in enumerate(have)}
    wanted = np.ascontiguousarray(wanted, have.dtype)
    return np.asarray([known.get(row.tobytes(), -1) for row in wanted], np.int64)


def text_keys(texts: list[str]) -> np.ndarray:
    """Keys of texts: int32 [n, 4], 128 bits of their SHA-256."""
    digests = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
    return np.frombuffer(b"".join(digests), "<i4").reshape(-1, 4)
