"""What earlier runs found out and need not find out again: small texts in a file beside the weights.

Where that cannot be written, everything is done again; a damaged file is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path

from curation import weights


class Memo:
    """Texts by key, in a file of the weights' folder."""

    def __init__(self, name: str) -> None:
        self._path = weights.folder() / name

    def get(self, key: str) -> str:
        """A text, empty if there is none."""
        return self._read().get(key, "")

    def put(self, key: str, text: str) -> None:
        """Keep a text: the file is replaced at once, or not at all."""
        everything = self._read() | {key: text}
        part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex[:8]}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(everything, indent=1))
            os.replace(part, self._path)

    def _read(self) -> dict[str, str]:
        try:
            read = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return {k: v for k, v in read.items() if isinstance(v, str)} if isinstance(read, dict) else {}


class FileFacts:
    """Facts of files, as long as their size and modification time stay the same.

    Hashing and checking gigabytes again would take longer than scoring features that are already there.
    """

    def __init__(self) -> None:
        self._memo = Memo("encoder_files.json")

    def get(self, path: Path, fact: str) -> str:
        """A fact of a file, empty if it is not known."""
        return self._memo.get(_key(path, fact))

    def put(self, path: Path, fact: str, value: str) -> None:
        """Remember a fact of a file."""
        self._memo.put(_key(path, fact), value)


def _key(path: Path, fact: str) -> str:
    whole = path.resolve()
    facts = whole.stat()
    return f"{whole} {facts.st_size} {facts.st_mtime_ns} {fact}"
