"""The exact truth about the demo film, as it is written beside it.

Frames are presentation indices from 0, spans half-open, boxes in pixels of the coded frame, sizes
(height, width). Frames of a gradual transition belong to neither of the shots beside it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle of pixels, left upper corner and size."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class TrueShot:
    """A shot. `fault`: dark, frozen or None. `transition_*`: start, cut, fade, dissolve, end."""

    index: int
    name: str
    start_frame: int
    end_frame: int
    transition_in: str
    transition_out: str
    subjects: tuple[str, ...]
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class TrueTransition:
    """A cut (an empty span at the first frame of the new shot), a fade or a dissolve."""

    kind: str
    start_frame: int
    end_frame: int


@dataclass(frozen=True, kw_only=True)
class TrueText:
    """A subtitle or the logo: letters that keep their place for a while."""

    text: str
    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    box: Box


@dataclass(frozen=True, kw_only=True)
class TrueSubject:
    """Where a subject is in a frame, and its face where it shows one. Every fourth frame is listed."""

    frame: int
    shot_index: int
    subject: str
    box: Box
    face: Box | None


@dataclass(frozen=True, kw_only=True)
class TrueSign:
    """Letters that belong to the scene in a frame (clipped to the picture); not to be cropped away."""

    frame: int
    shot_index: int
    text: str
    box: Box


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Everything known about the film.

    Attributes:
        fps: frames per second, constant.
        num_frames: of the film.
        size: (height, width) of the coded frame.
        bars: black rows at the top and the bottom, black columns at the left and the right.
        shots, transitions, subtitles, logo, subjects, signs: see their classes.
        pictures: file, title, author and licence of each photograph used.
    """

    fps: int
    num_frames: int
    size: tuple[int, int]
    bars: tuple[int, int, int, int]
    shots: tuple[TrueShot, ...]
    transitions: tuple[TrueTransition, ...]
    subtitles: tuple[TrueText, ...]
    logo: TrueText
    subjects: tuple[TrueSubject, ...]
    signs: tuple[TrueSign, ...]
    pictures: tuple[dict[str, str], ...]

    @property
    def duration_s(self) -> float:
        """Length of the film in seconds."""
        return self.num_frames / self.fps

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frame of each shot that begins with a hard cut."""
        return tuple(t.start_frame for t in self.transitions if t.kind == "cut")

    def save(self, path: Path) -> None:
        """Write as JSON."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def ground_truth(path: Path) -> GroundTruth:
    """Read the `ground_truth.json` that `curation.demo.film.render` wrote."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return GroundTruth(
        fps=raw["fps"],
        num_frames=raw["num_frames"],
        size=tuple(raw["size"]),
        bars=tuple(raw["bars"]),
        shots=tuple(TrueShot(**s | {"subjects": tuple(s["subjects"])}) for s in raw["shots"]),
        transitions=tuple(TrueTransition(**t) for t in raw["transitions"]),
        subtitles=tuple(_text(t) for t in raw["subtitles"]),
        logo=_text(raw["logo"]),
        subjects=tuple(
            TrueSubject(**s | {"box": Box(**s["box"]), "face": _box(s["face"])}) for s in raw["subjects"]
        ),
        signs=tuple(TrueSign(**s | {"box": Box(**s["box"])}) for s in raw["signs"]),
        pictures=tuple(raw["pictures"]),
    )


def _box(raw: dict[str, int] | None) -> Box | None:
    return None if raw is None else Box(**raw)


def _text(raw: dict[str, Any]) -> TrueText:
    return TrueText(**raw | {"box": Box(**raw["box"])})
