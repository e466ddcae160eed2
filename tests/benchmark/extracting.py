"""Small deterministic encoders, and methods with videos, for tests of extraction."""

from __future__ import annotations

import os
import signal
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.submission import probed, read_folder
from tests.benchmark import made

SIDE = 6


@dataclass(frozen=True)
class Pixels:
    """Means of cells; `wide` keeps twice as many columns."""

    columns: int = SIDE

    @property
    def name(self):
        return f"cells-{SIDE}x{self.columns}"

    def pictures(self, frames_thwc):
        frames = frames_thwc.astype(np.float64)
        rows = np.stack([part.mean(axis=1) for part in np.array_split(frames, SIDE, axis=1)], axis=1)
        cells = [part.mean(axis=2) for part in np.array_split(rows, self.columns, axis=2)]
        return np.stack(cells, axis=2).round().astype(np.uint8)


def projection(kind, size, width):
    seed = int.from_bytes(kind.encode(), "little") % 2**32
    return np.random.default_rng(seed).normal(size=(size, width))


@dataclass
class Frames:
    """A random projection of pictures; each row that it encodes is written to `log`, if there is one."""

    kind: str
    width: int = 8
    batch: int = 4
    identity: str = "1"
    pixels: Pixels = Pixels()
    log: Path | None = None
    kill_at: int = 0
    bad_value: int | None = None

    def encode(self, pictures_thwc):
        assert len(pictures_thwc) == self.batch
        flat = pictures_thwc.reshape(len(pictures_thwc), -1).astype(np.float64) / 255 - 0.4
        rows = (flat @ projection(self.kind, flat.shape[1], self.width)).astype(np.float32)
        if self.bad_value is not None:
            rows[pictures_thwc.reshape(len(rows), -1).max(axis=1) <= self.bad_value] = np.nan
        note(self, pictures_thwc)
        return rows


@dataclass
class Clips:
    kind: str = "viclip"
    width: int = 8
    batch: int = 3
    identity: str = "1"
    pixels: Pixels = Pixels()
    log: Path | None = None
    kill_at: int = 0

    def encode(self, pictures_nthwc):
        assert pictures_nthwc.shape[:2] == (self.batch, 8)
        flat = pictures_nthwc.reshape(*pictures_nthwc.shape[:2], -1).mean(axis=1) / 255 - 0.4
        rows = (flat @ projection(self.kind, flat.shape[1], self.width)).astype(np.float32)
        note(self, pictures_nthwc)
        return rows

    def encode_texts(self, texts):
        if self.log:
            with self.log.open("a") as file:
                file.writelines(f"text {text}\n" for text in dict.fromkeys(texts))
        return np.stack([projection(f"text {text}", 1, self.width)[0] for text in texts]).astype(np.float32)

    def tokenize(self, text):
        return [sum(map(ord, word)) for word in text.split()]


def note(encoder, pictures):
    """Write which pictures were encoded; be killed before that where a test wants it."""
    if encoder.log is None:
        return
    lines = encoder.log.read_text().splitlines() if encoder.log.exists() else []
    if (
        encoder.kill_at
        and len([line for line in lines if line.startswith(f"{encoder.kind} batch")]) >= encoder.kill_at
    ):
        os.kill(os.getpid(), signal.SIGKILL)
    seen = dict.fromkeys(picture.tobytes().hex() for picture in pictures)
    with encoder.log.open("a") as file:
        file.write("".join(f"{encoder.kind} {one}\n" for one in seen) + f"{encoder.kind} batch\n")


@dataclass
class Encoders:
    frames: tuple
    clips: object | None


def encoders(device="cpu", **of):
    """A small one of each kind; `of` are fields of all."""
    log = {key: of[key] for key in ("log", "kill_at") if key in of}
    return Encoders(
        (
            Frames("clip_b32", **of),
            Frames("dino_b14", pixels=Pixels(2 * SIDE), **of),
            Frames("clip_l14", width=768, **of),
        ),
        Clips(**log),
    )


def picture(story, key):
    return made.moving(17, seed=zlib.crc32(f"{story} {key.stem}".encode()))


def method(root, stories, shot=picture, **of):
    """A method with a video of each shot, looked at. `shot` gives the pictures, or None for no video."""
    for story in stories.values():
        for one in story.shots:
            pictures = shot(story.key, one.key)
            if pictures is not None:
                made.video(root / story.key / f"{one.key.stem}.mp4", pictures, **of)
    return probed(read_folder(root, stories), stories)


def same(a, b, stories):
    """Whether two stores hold the same bits."""
    for story in stories.values():
        units = [(), *((s.number,) for s in story.scenes), *(tuple(s.key) for s in story.shots)]
        for unit in units:
            for kind in sorted(a.kinds() | b.kinds()):
                x, y = a.get(story.key, unit, kind), b.get(story.key, unit, kind)
                if (x is None) != (y is None) or (x is not None and not np.array_equal(x, y)):
                    return False
    return True
