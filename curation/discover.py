"""From what a user types (file, folder, glob, URL) to the list of files, every one of them accounted for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from curation.engine.stage import Row
from curation.optional import install_command, require


class NothingFound(ValueError):
    """A source names no file; the message says which."""


def discover(sources: Iterable[str], licence: str) -> list[Row]:
    """One source row per file, sorted by path; the same path twice is one row.

    Folders are walked recursively, links followed, loops cut; hidden files are left out. A file is taken
    whatever its extension: what is no video is refused by name later, not silently here. So is a folder that
    cannot be listed; its own path stands for what is in it.

    Raises:
        NothingFound: a source matches no file.
    """
    paths: set[str] = set()
    for source in sources:
        found = set(_remote(source) if "://" in source else _local(source))
        if not found:
            empty = "://" not in source and Path(source).expanduser().is_dir()
            why = (
                "the folder holds no file"
                if empty
                else "no such file or folder, and no file matches it as a pattern"
            )
            raise NothingFound(f"{source}: {why}")
        paths |= found
    return [{"path": path, "licence": licence} for path in sorted(map(written, paths))]


def written(path: str) -> str:
    r"""The path as text that every table holds: bytes that are no UTF-8 as `\xff`.

    Such a file is not found under the name that is written; it is renamed or it stays out, and is told of.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _local(source: str) -> Iterator[str]:
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _walk(path)
    elif os.path.lexists(path):
        yield os.path.abspath(path)
    else:
        for match in glob.glob(str(path), recursive=True):
            if os.path.isdir(match):
                yield from _walk(Path(match))
            else:
                yield os.path.abspath(match)


def _walk(folder: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    closed: list[OSError] = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=closed.append):
        info = os.stat(root)
        if (info.st_dev, info.st_ino) in seen:  # a link back up
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.abspath(os.path.join(root, name)) for name in files if not name.startswith("."))
    yield from (os.path.abspath(error.filename) for error in closed)


def _remote(source: str) -> Iterator[str]:
    protocol = source.split("://", 1)[0]
    fsspec = require("fsspec", extra=protocol)
    try:
        system, path = fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise NothingFound(f"{source}: {error}; install it with: {install_command(protocol)}") from error
    matches = system.find(path) if system.isdir(path) else system.glob(path)
    yield from (system.unstrip_protocol(match) for match in matches)
