"""Facts of videos, remembered: a file is hashed and its packets are counted once, until it changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmark.extraction.shelf import write_atomic
from benchmark.stories import Story
from benchmark.submission import Submission, VideoFacts, probed, video_facts

FILE = "videos.json"
SAVED_EVERY = 50
"""Files after which what was found is put on disk."""


def look_at(submission: Submission, stories: Mapping[str, Story], folder: Path | str) -> Submission:
    """`benchmark.submission.probed`, but files that have not changed since are not opened again.

    Args:
        submission: as it was found.
        stories: by key.
        folder: where features are kept, and facts beside them.
    """
    facts = RememberedFacts(Path(folder))
    facts.look(clip.path for shots in submission.clips.values() for clip in shots.values())
    return probed(submission, stories, look=facts)


class RememberedFacts:
    """Facts by path; they hold as long as size and modification time of the file stay the same.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._known = _read(self._file)
        self._bad: dict[str, str] = {}

    def __call__(self, path: Path) -> VideoFacts | str:
        """Facts of a file, or the line that says why it cannot be scored."""
        self.look([path])
        name = str(path.resolve())
        if name not in self._known:
            return self._bad[name]
        facts = self._known[name]["facts"]
        return VideoFacts(**{**facts, "notes": tuple(facts["notes"])})

    def look(self, paths: Iterable[Path], threads: int = 4) -> None:
        """Look at files that are new or have changed."""
        new = [path for path in dict.fromkeys(path.resolve() for path in paths) if self._is_new(path)]
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(new), SAVED_EVERY):
                part = new[start : start + SAVED_EVERY]
                for path, found in zip(part, pool.map(_looked, part), strict=True):
                    self._take(str(path), found)
                self._save()

    def _is_new(self, path: Path) -> bool:
        name = str(path)
        if name in self._bad:
            return False
        try:
            return name not in self._known or self._known[name]["state"] != _state(path)
        except OSError:
            return True

    def _take(self, name: str, found: dict[str, Any] | str) -> None:
        self._known.pop(name, None)
        if isinstance(found, str):
            self._bad[name] = found
        else:
            self._known[name] = found

    def _save(self) -> None:
        # Another process may have looked at other files meanwhile.
        write_atomic(self._file, json.dumps({**_read(self._file), **self._known}, indent=0))


def _looked(path: Path) -> dict[str, Any] | str:
    try:
        state = _state(path)  # before, so that a change while it is read is seen the next time
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); write the video again"
    facts = video_facts(path)
    return facts if isinstance(facts, str) else {"state": state, "facts": asdict(facts)}


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """What was known; nothing where the file is not there, damaged, or of an older form."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        names = {field.name for field in fields(VideoFacts)}
        return {path: one for path, one in known.items() if set(one["facts"]) == names and one["state"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
