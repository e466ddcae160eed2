"""What a worker does: decode its files once, encode what comes out in batches of one size, put it on disk.

Features do not depend on how work is spread. A batch always has the size that its encoder asks for, filled up
with repeats, because matrix products of another shape differ in the last bit; where in a batch a picture
lies, and on how many threads it is multiplied, does not change a bit.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmark.encoders.base import ClipEncoder, FrameEncoder
from benchmark.extraction import decoding
from benchmark.extraction.decoding import Chunk, FileEnd, FileWork, decode_files
from benchmark.extraction.plan import VICLIP
from benchmark.extraction.shelf import TEXTS, Shelf, text_keys, write_atomic, write_checked
from benchmark.extraction.shots import as_record
from benchmark.features import TEXT
from benchmark.submission import Clip

TEXT_BATCH = 64

Tell = Callable[[str, int], None]
"""Takes a kind and how many of its features are on disk now."""


class ExtractionError(RuntimeError):
    """Extraction cannot go on; the message says why. What is on disk stays and is not made again."""


class Encoders(Protocol):
    """Encoders of one process, such as `benchmark.encoders.load.EncoderSet`."""

    @property
    def frames(self) -> Sequence[FrameEncoder]:
        """One feature per frame."""
        ...

    @property
    def clips(self) -> ClipEncoder | None:
        """One feature per clip or text."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """A clip to encode: filed under a unit and a key, int32 [8]; (file, frame) of each of its pictures."""

    unit: str
    key: np.ndarray
    sources: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work that shares files, or texts; no file is in two jobs. Frames are those that encoders lack."""

    files: tuple[FileWork, ...] = ()
    clips: tuple[ClipJob, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What was done. Features are filed by (kind, name): name of a file, a unit, or `TEXTS`.

    Attributes:
        encoded: how many went through an encoder.
        seconds: in it.
        bad: how many of them were not finite, which are not kept.
        ends: SHA-256 -> end of each file that was read.
        notes: damaged files of features, a line each.
    """

    encoded: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    bad: Counter[tuple[str, str]] = field(default_factory=Counter)
    ends: dict[str, FileEnd] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """What another worker did."""
        self.encoded += other.encoded
        for place, seconds in other.seconds.items():
            self.spend(place, seconds)
        self.bad += other.bad
        self.ends |= other.ends
        self.notes += other.notes

    def spend(self, place: tuple[str, str], seconds: float) -> None:
        """Count seconds in an encoder."""
        self.seconds[place] = self.seconds.get(place, 0.0) + seconds


def shelf_of(folder: Path, encoder: FrameEncoder | ClipEncoder, notes: list[str]) -> Shelf:
    """Where an encoder's features of pictures lie."""
    identity = f"{encoder.identity}, frames {decoding.VERSION}"
    return Shelf(folder, encoder.kind, identity, notes.append)


def text_shelf(folder: Path, encoder: ClipEncoder, notes: list[str]) -> Shelf:
    """Where an encoder's features of texts lie."""
    return Shelf(folder, TEXT, encoder.identity, notes.append)


def numbers_path(folder: Path, clip: Clip) -> Path:
    """Where the weight-free numbers of a shot lie."""
    from benchmark.weight_free import VERSION

    return folder / f"numbers-{decoding.VERSION}.{VERSION}" / f"{clip.id.replace(':', '_')}.npy"


def fault_path(folder: Path, sha256: str) -> Path:
    """Where it is said that a file cannot be decoded."""
    return folder / f"broken-{decoding.VERSION}" / f"{sha256}.json"


def work(
    jobs: Sequence[Job],
    encoders: Encoders,
    folder: Path,
    *,
    threads: int = 2,
    tell: Tell = lambda kind, count: None,
) -> Outcome:
    """Do jobs, and put each batch on disk as soon as it is encoded.

    Args:
        jobs: in the order in which they are done; batches run across them.
        encoders: of this process.
        folder: of all features.
        threads: that decode.
        tell: is told of each batch.

    Raises:
        ExtractionError: an encoder fails.
    """
    # MKL chooses by shape and threads how it sums up; so it does not, if nothing was multiplied before.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    outcome = Outcome()
    batches = {
        encoder.kind: _Batches(encoder, shelf_of(folder, encoder, outcome.notes), outcome, tell)
        for encoder in (*encoders.frames, *([encoders.clips] if encoders.clips else []))
    }
    clips = _Clips([clip for job in jobs for clip in job.clips] if VICLIP in batches else [])
    recipes = {one.recipe: one.encoder.pixels for one in batches.values()}
    wanted = {file.sha256: file for job in jobs for file in job.files}
    for event in decode_files(_file_works(wanted, batches, clips), recipes, threads):
        if isinstance(event, FileEnd):
            _keep_end(event, wanted[event.sha256], folder)
            outcome.ends[event.sha256] = event
        else:
            _collect(event, wanted[event.sha256], batches, clips)
    for one in batches.values():
        one.flush()
    texts = list(dict.fromkeys(text for job in jobs for text in job.texts))
    if texts and encoders.clips:
        _encode_texts(texts, encoders.clips, folder, outcome, tell)
    return outcome


class _Batches:
    """Pictures of one encoder until they fill a batch."""

    def __init__(
        self, encoder: FrameEncoder | ClipEncoder, shelf: Shelf, outcome: Outcome, tell: Tell
    ) -> None:
        self.encoder, self.recipe = encoder, encoder.pixels.name
        self._shelf, self._outcome, self._tell = shelf, outcome, tell
        # Pictures of videos of another aspect may have another shape.
        self._waiting: dict[tuple[int, ...], list[tuple[str, np.ndarray, np.ndarray]]] = {}

    def add(self, name: str, key: np.ndarray, picture: np.ndarray) -> None:
        """Take a picture [h, w, 3], or a clip [8, h, w, 3], to be filed under a name and a key."""
        waiting = self._waiting.setdefault(picture.shape, [])
        waiting.append((name, key, picture))
        if len(waiting) == self.encoder.batch:
            self._encode(self._waiting.pop(picture.shape))

    def flush(self) -> None:
        """Encode what waits."""
        for shape in sorted(self._waiting):
            self._encode(self._waiting.pop(shape))

    def _encode(self, entries: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
        pictures = np.stack([picture for _, _, picture in entries])
        kind, size = self.encoder.kind, len(entries)
        filled = pictures[np.minimum(np.arange(self.encoder.batch), size - 1)]
        started = time.perf_counter()
        rows = _checked(partial(self.encoder.encode, filled), kind, len(filled))[:size]
        each = (time.perf_counter() - started) / size
        for name in dict.fromkeys(name for name, _, _ in entries):
            mine = [i for i, entry in enumerate(entries) if entry[0] == name]
            keys = np.stack([entries[i][1] for i in mine])
            _put(self._outcome, self._shelf, name, keys, rows[mine])
            self._outcome.spend((kind, name), each * len(mine))
        self._tell(kind, size)


class _Clips:
    """Clips until all of their pictures, of one file or several, were seen."""

    def __init__(self, clips: Sequence[ClipJob]) -> None:
        self._clips = clips
        self._users: dict[tuple[str, int], list[int]] = {}
        for place, clip in enumerate(clips):
            for source in dict.fromkeys(clip.sources):
                self._users.setdefault(source, []).append(place)
        self._lacking = [len(set(clip.sources)) for clip in clips]
        self._pictures: dict[tuple[str, int], np.ndarray] = {}
        self._uses = {source: len(places) for source, places in self._users.items()}

    def frames(self) -> dict[str, list[int]]:
        """SHA-256 -> frames that are needed of the file."""
        found: dict[str, list[int]] = {}
        for sha256, frame in self._users:
            found.setdefault(sha256, []).append(frame)
        return found

    def see(self, chunk: Chunk) -> list[tuple[ClipJob, np.ndarray]]:
        """Clips that are complete now, with their pictures, uint8 [8, h, w, 3]."""
        complete = []
        for index, picture in zip(chunk.frames.tolist(), chunk.pictures_thwc, strict=True):
            source = (chunk.sha256, index)
            for place in self._users.get(source, ()):
                self._pictures[source] = picture.copy()  # not the whole chunk
                self._lacking[place] -= 1
                if not self._lacking[place]:
                    complete.append(place)
        return [(self._clips[place], self._taken(self._clips[place])) for place in complete]

    def _taken(self, clip: ClipJob) -> np.ndarray:
        pictures = [self._pictures[source] for source in clip.sources]
        if len({picture.shape for picture in pictures}) > 1:
            line = "shots of one scene have different sizes, which these pictures cannot join"
            raise ExtractionError(f"{line}: use crop=center or squash")
        for source in dict.fromkeys(clip.sources):
            self._uses[source] -= 1
            if not self._uses[source]:
                del self._pictures[source]
        return np.stack(pictures)


def _file_works(
    files: Mapping[str, FileWork], batches: Mapping[str, _Batches], clips: _Clips
) -> list[FileWork]:
    in_clips, made = clips.frames(), []
    for sha256, file in files.items():
        frames: dict[str, list[np.ndarray]] = {}
        for kind, taken in file.frames.items():
            if kind in batches:
                frames.setdefault(batches[kind].recipe, []).append(taken)
        if sha256 in in_clips:
            frames.setdefault(batches[VICLIP].recipe, []).append(np.asarray(in_clips[sha256], np.int64))
        wanted = {name: np.unique(np.concatenate(parts)) for name, parts in frames.items()}
        made.append(replace(file, frames=wanted))
    return made


def _collect(chunk: Chunk, file: FileWork, batches: Mapping[str, _Batches], clips: _Clips) -> None:
    """Give pictures to the encoders that read them."""
    for kind, frames in file.frames.items():
        if kind in batches and batches[kind].recipe == chunk.recipe:
            for place in np.flatnonzero(np.isin(chunk.frames, frames)):
                key = chunk.frames[place : place + 1].astype(np.int32)
                batches[kind].add(chunk.sha256, key, chunk.pictures_thwc[place])
    if VICLIP in batches and batches[VICLIP].recipe == chunk.recipe:
        for clip, pictures in clips.see(chunk):
            batches[VICLIP].add(clip.unit, clip.key, pictures)


def _keep_end(end: FileEnd, file: FileWork, folder: Path) -> None:
    """Put on disk what was measured, or why nothing can be."""
    for clip, numbers in zip(file.measure, end.numbers, strict=True):
        if numbers is not None:
            write_checked(numbers_path(folder, clip), as_record(numbers))
    if end.lasting:
        text = json.dumps({"path": str(file.path), "fault": end.fault})
        write_atomic(fault_path(folder, end.sha256), text)


def _encode_texts(texts: list[str], encoder: ClipEncoder, folder: Path, outcome: Outcome, tell: Tell) -> None:
    shelf = text_shelf(folder, encoder, outcome.notes)
    for start in range(0, len(texts), TEXT_BATCH):
        batch = texts[start : start + TEXT_BATCH]
        filled = [batch[min(i, len(batch) - 1)] for i in range(TEXT_BATCH)]
        started = time.perf_counter()
        rows = _checked(partial(encoder.encode_texts, filled), TEXT, TEXT_BATCH)[: len(batch)]
        outcome.spend((TEXT, TEXTS), time.perf_counter() - started)
        _put(outcome, shelf, TEXTS, text_keys(batch), rows)
        tell(TEXT, len(batch))


def _put(outcome: Outcome, shelf: Shelf, name: str, keys: np.ndarray, rows: np.ndarray) -> None:
    """Put finite rows on disk; count all."""
    finite = np.isfinite(rows).all(axis=1)
    outcome.encoded[shelf.kind, name] += len(rows)
    if not finite.all():
        outcome.bad[shelf.kind, name] += int((~finite).sum())
    if finite.any():
        shelf.add(name, keys[finite], rows[finite])


def _checked(encode: Callable[[], np.ndarray], kind: str, count: int) -> np.ndarray:
    try:
        rows = np.asarray(encode(), np.float32)
    except (MemoryError, RuntimeError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExtractionError(f"{kind}: the encoder failed: {first}") from error
    if rows.ndim != 2 or len(rows) != count:
        raise ExtractionError(f"{kind}: the encoder gave {list(rows.shape)} for {count} inputs")
    return rows
