"""Films found become films known: the hash of their bytes, then what their packets tell."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, ClassVar

from curation import ids, rows
from curation.engine.stage import BadInput, Folder, Row, Stage, Worker
from curation.engine.store import canonical, write_atomic
from curation.video.decode import first_line
from curation.video.probe import probe

CHUNK = 1 << 20
SETTLED_S = 3.0  # a file younger than this may change again without a new time stamp


@dataclass(frozen=True, kw_only=True)
class Identify(Stage):
    """SHA-256 over all bytes of the file; the film's id derives from it.

    A file whose size, time stamp and inode are unchanged is not read again: its hash is remembered in
    the store, which is why this stage needs no kept result of its own.
    """

    name: ClassVar[str] = "identify"
    reads: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar = rows.IDENTITY
    cached: ClassVar[bool] = False

    def worker(self) -> Worker:
        """Hashes one file."""
        return _identify


def _identify(row: Row, folder: Folder) -> Row:
    path = row["path"]
    try:
        stamp, size = _stamp(path)
        memo_file = _memo_of(path, folder.open(""))
        sha256 = _known(memo_file, stamp)
        if sha256 is None:
            sha256 = _hash(path)
            folder.count("hashed_bytes", size)
            _remember(memo_file, stamp, sha256, folder)
    except FileNotFoundError as error:
        if re.search(r"\\x[0-9a-f]{2}", path):
            raise BadInput("bad_name", "its name is not UTF-8; rename it") from error
        raise BadInput("not_found", "no such file; a link may lead nowhere") from error
    except OSError as error:
        mend = (
            "the links lead in a circle" if error.errno == errno.ELOOP else "check permissions and the disk"
        )
        raise BadInput("unreadable", f"{error.strerror or first_line(error)}; {mend}") from error
    if size == 0:
        raise BadInput("empty_file", "the file has no bytes; copy it again")
    return {"film_id": ids.film_id(sha256), "sha256": sha256, "size_bytes": size}


def _stamp(path: str) -> tuple[dict[str, Any] | None, int]:
    """What changes whenever the content does (None if nothing can be trusted to), and the size."""
    if "://" in path:
        import fsspec

        fs, name = fsspec.core.url_to_fs(path)
        info = fs.info(name)
        tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        return ({"tag": str(tag), "size": info["size"]} if tag else None), int(info["size"])
    if os.path.isdir(path):
        os.scandir(path).close()  # a folder that cannot be listed is told of as that
        raise BadInput("not_a_video", "a folder, not a film")
    stat = os.stat(path)
    if not S_ISREG(stat.st_mode):  # a pipe would be waited for, a device read, without an end
        raise BadInput("not_a_video", "a pipe, socket or device, not a file")
    stamp = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    settled = time.time() - stat.st_mtime > SETTLED_S
    return (stamp if settled else None), stat.st_size


def _hash(path: str) -> str:
    if "://" in path:
        import fsspec

        with fsspec.open(path, "rb") as file:
            return _hash_file(file)
    with open(path, "rb") as file:
        return _hash_file(file)


def _hash_file(file: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
    return sha256.hexdigest()


def _memo_of(path: str, root: Path) -> Path:
    name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
    return root / Identify.name / name[:2] / f"{name}.json"


def is_remembered(path: str, root: Path) -> bool:
    """Whether the store at `root` knows the file as it is, so that it need not be read."""
    if "://" in path or not os.path.isfile(path):
        return False
    stamp, _ = _stamp(path)
    return _known(_memo_of(path, root), stamp) is not None


def _known(memo_file: Path, stamp: dict[str, Any] | None) -> str | None:
    if stamp is None:
        return None
    try:
        memo = json.loads(memo_file.read_text())
        return str(memo["sha256"]) if memo["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(memo: Path, stamp: dict[str, Any] | None, sha256: str, folder: Folder) -> None:
    # Without a store there was no run yet and this is only a forecast, which must not begin an output folder.
    if stamp is not None and folder.open("").is_dir():
        with contextlib.suppress(OSError):  # then the file is read again, which is all
            write_atomic(memo, canonical({"stamp": stamp, "sha256": sha256}))


@dataclass(frozen=True, kw_only=True)
class Ingest(Stage):
    """What the film is: its video stream, its clock, and the segments of the scan.

    Attributes:
        segment_s: length of the key-frame-aligned segments that are scanned in parallel, seconds.
        min_segments: a film that would have fewer segments is cut into shorter ones, down to 5 s, so
            that many cores share a short film evenly.
    """

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("film_id",)
    locates: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar = rows.INGEST
    segment_s: float = 60.0
    min_segments: int = 24

    def __post_init__(self) -> None:
        if self.segment_s <= 0:
            raise ValueError(f"ingest.segment_s is {self.segment_s}; set it to seconds above 0")
        if self.min_segments < 1:
            raise ValueError(f"ingest.min_segments is {self.min_segments}; set it to 1 or more")

    def worker(self) -> Worker:
        """Probes one film."""
        return self._ingest

    def _ingest(self, row: Row, folder: Folder) -> Row:
        path = row["path"]
        try:
            stream, segments, notes = probe(path, segment_s=self.segment_s, min_segments=self.min_segments)
        except BadInput as bad:  # the verdict is kept by content and may serve a copy elsewhere
            raise BadInput(bad.reason, bad.detail.removeprefix(f"{path}: ")) from bad
        return {"stream": stream, "segments": segments, "notes": notes}
