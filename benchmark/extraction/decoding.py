"""One pass over each video: the small pictures of every encoder and the weight-free numbers of its shots.

Decoder threads run ahead of whoever takes what they made, by a bounded number of chunks.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.encoders.base import PixelRecipe
from benchmark.frames import opened
from benchmark.submission import Clip
from benchmark.weight_free import ShotNumbers, Watching
from benchmark.words import counted

VERSION = 1
"""Changes whenever frames come out of the same file with other pixels."""
CHUNK = 8
"""Frames that are resized together."""
WAITING = 8
"""Chunks that wait to be taken, for each thread."""
UNTAGGED = (0, 2)
"""Matrix tags that name none: then BT.601 is meant, as every common decoder reads such files."""


@dataclass(frozen=True, kw_only=True)
class FileWork:
    """What one pass over a file has to give.

    Attributes:
        sha256: of the file.
        path: one of those where it lies.
        measure: shots to measure without weights.
        frames: who wants pictures -> frames of the file, int64, ascending. In a job it is a kind of encoder,
            for a decoder a pixel recipe, which several encoders may share.
    """

    sha256: str
    path: Path
    measure: tuple[Clip, ...] = ()
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Pictures of one recipe: uint8 [t, h, w, 3] of `frames`, int64 [t]."""

    sha256: str
    recipe: str
    frames: np.ndarray
    pictures_thwc: np.ndarray


@dataclass(frozen=True, kw_only=True)
class FileEnd:
    """A file was read to its end, or as far as it went.

    Attributes:
        sha256: of the file.
        frames: that came out.
        numbers: of `FileWork.measure`, None where the file ends before a shot begins.
        fault: why it cannot be used; empty if it can.
        lasting: the fault is one of the file's content, not of reading it.
        seconds: that decoding, resizing and measuring took.
    """

    sha256: str
    frames: int
    numbers: tuple[ShotNumbers | None, ...]
    fault: str = ""
    lasting: bool = False
    seconds: float = 0.0


def decode_file(work: FileWork, recipes: Mapping[str, PixelRecipe]) -> Iterator[Chunk | FileEnd]:
    """One pass over a file; its end comes last, in any case."""
    from curation.engine.stage import BadInput

    busy, count, damaged, fault, lasting, watching = 0.0, 0, 0, "", True, None
    wanted = {name: set(frames.tolist()) for name, frames in work.frames.items()}
    waiting: list[tuple[int, np.ndarray]] = []
    started = time.perf_counter()
    try:
        stream, decoded = opened(work.path)
        watching = Watching(work.measure, stream) if work.measure else None
        for frame in decoded:
            damaged += frame.is_corrupt
            if watching:
                watching.see(count, frame)
            if any(count in frames for frames in wanted.values()):
                rgb = rgb_of(frame, stream)
                if len(waiting) == CHUNK or (waiting and waiting[0][1].shape != rgb.shape):
                    made = list(_chunks(work.sha256, waiting, wanted, recipes))
                    busy += time.perf_counter() - started
                    yield from made
                    waiting, started = [], time.perf_counter()
                waiting.append((count, rgb))
            count += 1
    except BadInput as bad:
        fault, lasting = bad.detail or f"{work.path}: {bad.reason}", bad.reason == "cannot_decode"
    except OSError as error:
        fault, lasting = f"{work.path}: cannot be read ({error})", False
    if damaged and not fault:
        fault = f"{work.path}: {damaged} of {counted(count, 'frame is', 'frames are')} damaged"
    made = list(_chunks(work.sha256, waiting, wanted, recipes))
    numbers = tuple(watching.seen()) if watching and not fault else (None,) * len(work.measure)
    busy += time.perf_counter() - started
    yield from made
    yield FileEnd(
        sha256=work.sha256,
        frames=count,
        numbers=numbers,
        fault=fault,
        lasting=bool(fault) and lasting,
        seconds=busy,
    )


def rgb_of(frame: Any, stream: Mapping[str, Any]) -> np.ndarray:
    """An `av.VideoFrame` as uint8 [h, w, 3], upright; its own colour matrix, BT.601 if it names none."""
    from av.video.reformatter import Colorspace

    from curation.video.decode import ROTATE

    explicit = {"src_colorspace": Colorspace.ITU601} if _untagged(frame) else {}
    picture = frame.reformat(format="rgb24", **explicit).to_ndarray()
    turns = ROTATE[stream["rotation"]]
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def decode_files(
    files: Sequence[FileWork], recipes: Mapping[str, PixelRecipe], threads: int
) -> Iterator[Chunk | FileEnd]:
    """One pass over each of several files, some at a time.

    An error that is no fault of a file is raised here, after which no thread goes on.
    """
    ahead = _Ahead(files, recipes, max(1, min(threads, len(files))))
    try:
        yield from ahead.events()
    finally:
        ahead.stop()


class _Ahead:
    """Threads that decode, as far ahead as there is room."""

    def __init__(self, files: Sequence[FileWork], recipes: Mapping[str, PixelRecipe], threads: int) -> None:
        self._recipes = recipes
        self._todo: queue.SimpleQueue[FileWork] = queue.SimpleQueue()
        for work in files:
            self._todo.put(work)
        self._ready: queue.Queue[Chunk | FileEnd | BaseException | None] = queue.Queue(WAITING * threads)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def events(self) -> Iterator[Chunk | FileEnd]:
        """What the threads make, until all files are read."""
        running = len(self._threads)
        while running:
            event = self._ready.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                running -= 1
            else:
                yield event

    def stop(self) -> None:
        """Let no thread go on."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                for event in decode_file(self._todo.get_nowait(), self._recipes):
                    if not self._give(event):
                        return
        except queue.Empty:
            self._give(None)
        except BaseException as error:  # noqa: BLE001 - raised again where events are taken
            self._give(error)

    def _give(self, event: Chunk | FileEnd | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(event, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def _chunks(
    sha256: str,
    waiting: Sequence[tuple[int, np.ndarray]],
    wanted: Mapping[str, set[int]],
    recipes: Mapping[str, PixelRecipe],
) -> Iterator[Chunk]:
    for name, frames in wanted.items():
        taken = [(index, rgb) for index, rgb in waiting if index in frames]
        if taken:
            pictures = recipes[name].pictures(np.stack([rgb for _, rgb in taken]))
            indices = np.asarray([index for index, _ in taken], np.int64)
            yield Chunk(sha256=sha256, recipe=name, frames=indices, pictures_thwc=pictures)


def _untagged(frame: Any) -> bool:
    tag = frame.colorspace
    return not frame.format.is_rgb and (tag is None or int(tag) in UNTAGGED)
