"""Numbers of a shot that need no learned weights, from one pass over its frames.

Luma is full-range 0-255, averaged down to 320 pixels of width; thumbnails are RGB of 48 x 27. For frame t:

    step         mean |luma(t) - luma(t - 1)|
    thumb step   the same of the thumbnails

and per shot:

    luma         mean luma / 255
    clipped      share of pixels below 4 or above 251
    sharpness    median over frames of the variance of the Laplacian (Pech-Pacheco, ICPR 2000), (/255)^2
    flicker      median of |m(t) - (m(t - 1) + m(t + 1)) / 2| of the mean luma m, /255: alternation, not drift
    freeze       share of steps below 0.2 / 255
    motion       mean length of the optical flow (DIS) over an eighth of a second, % of the width per second
    inner cuts   thumb steps of at least 12 / 255 that are the largest of seven in a row, three times the mean
                 of the three before or after, and half as large again as that of the others (a calm shot
                 may meet a wild one)

Steps over inner cuts count in none of them. A boundary is the step between the last frame of a shot and the
first of the next: a cut by the same rule, a repeat where the step is close to 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.features import Unit
from benchmark.frames import opened
from benchmark.stories import ShotKey, Story
from benchmark.submission import Clip, Submission

VERSION = 1
"""Changes whenever a video gets other numbers."""
WIDTH = 320
THUMB = (27, 48)
CUT_STEP, CUT_REACH = 12.0, 3
CUT_RATIO, CUT_OTHER_RATIO = 3.0, 1.5
FROZEN_STEP = 0.2
DARK, BRIGHT = 4, 251
FLOW_S = 0.125


@dataclass(frozen=True, kw_only=True)
class ShotNumbers:
    """What was measured on a shot. Numbers that a shot is too short for are NaN.

    Attributes:
        fps: frames per second.
        steps: float64 [frames - 1].
        thumb_steps: float64 [frames - 1].
        inner_cuts: first frames after cuts inside the shot.
        first: thumbnail of the first frame, uint8 [27, 48, 3].
        last: of the last.
    """

    frames: int
    fps: float
    steps: np.ndarray
    thumb_steps: np.ndarray
    inner_cuts: tuple[int, ...]
    first: np.ndarray
    last: np.ndarray
    luma: float
    clipped: float
    sharpness: float
    flicker: float
    freeze: float
    motion: float

    @property
    def duration_s(self) -> float:
        """Frames / rate, seconds."""
        return self.frames / self.fps

    def features(self) -> dict[str, np.ndarray]:
        """Kind -> array, as `benchmark.features` names them; without what is NaN."""
        names = ("luma", "clipped", "sharpness", "flicker", "freeze", "motion", "duration_s")
        found = {f"stat_{name}": np.asarray(getattr(self, name)) for name in names}
        found = {kind: number for kind, number in found.items() if np.isfinite(number)}
        return {**found, "stat_inner_cuts": np.asarray(self.inner_cuts, np.int64)}


def find_cuts(thumb_steps: np.ndarray) -> tuple[int, ...]:
    """First frames after hard cuts.

    Args:
        thumb_steps: float [frames - 1], entry t - 1 is the step to frame t.
    """
    found = []
    for place in np.flatnonzero(thumb_steps >= CUT_STEP):
        step = thumb_steps[place]
        sides = (thumb_steps[max(0, place - CUT_REACH) : place], thumb_steps[place + 1 :][:CUT_REACH])
        if any(len(side) and side.max() > step for side in sides):
            continue
        means = sorted(float(side.mean()) for side in sides if len(side)) or [0.0]
        if step >= CUT_RATIO * means[0] and step >= CUT_OTHER_RATIO * means[-1]:
            found.append(int(place) + 1)
    return tuple(found)


def boundary(before: ShotNumbers, after: ShotNumbers) -> tuple[bool, float]:
    """(whether there is a cut, thumb step /255) from the last frame of a shot to the first of the next."""
    step = _difference(before.last, after.first)
    left = before.thumb_steps[-CUT_REACH:]
    cuts = find_cuts(np.concatenate([left, [step], after.thumb_steps[:CUT_REACH]]))
    return len(left) + 1 in cuts, step


def measure_frames(frames: Iterable[tuple[np.ndarray, np.ndarray]], fps: float) -> ShotNumbers:
    """Measure a shot.

    Args:
        frames: (luma uint8 [h, w], thumbnail uint8 [27, 48, 3]) of each frame, in order.
        fps: frames per second.

    Raises:
        ValueError: there is no frame.
    """
    measuring = _Measuring(fps)
    for luma, thumb in frames:
        measuring.add(luma, thumb)
    return measuring.numbers()


def measure_clips(clips: Sequence[Clip]) -> list[ShotNumbers]:
    """Measure shots of one file in a single pass over it.

    Args:
        clips: of the same file, in ascending, separate ranges.

    Raises:
        BadInput: the file cannot be decoded.
        ValueError: the file ends before a range begins.
    """
    stream, frames = opened(clips[0].path)
    watching = Watching(clips, stream)
    for index, frame in enumerate(frames):
        watching.see(index, frame)
    return watching.numbers()


class Watching:
    """Measures shots of one file while its frames go by, whoever decodes them.

    Args:
        clips: of the same file.
        stream: of the file, as `curation.video.probe` gives it.
    """

    def __init__(self, clips: Sequence[Clip], stream: Mapping[str, Any]) -> None:
        self._clips = clips
        fps = stream["fps"] or 1 / (stream["duration_s"] or 1.0)
        self._measuring = [_Measuring(fps) for _ in clips]
        self._height = max(2, round(WIDTH * stream["height"] / stream["width"] / 2) * 2)

    def see(self, index: int, frame: Any) -> None:
        """The next frame, an `av.VideoFrame`, and its number in the file."""
        meant = [
            shot
            for clip, shot in zip(self._clips, self._measuring, strict=True)
            if clip.start <= index and (clip.end is None or index < clip.end)
        ]
        if meant:
            luma, thumb = _pictures(frame, self._height)
            for shot in meant:
                shot.add(luma, thumb)

    def numbers(self) -> list[ShotNumbers]:
        """Of each clip.

        Raises:
            ValueError: the file ended before a range began.
        """
        return [shot.numbers() for shot in self._measuring]

    def seen(self) -> list[ShotNumbers | None]:
        """Of each clip, None where the file ended before its range began."""
        return [shot.numbers() if shot.means else None for shot in self._measuring]


def measure(submission: Submission) -> tuple[dict[str, dict[ShotKey, ShotNumbers]], list[str]]:
    """Measure every shot of a method, each file decoded once.

    Returns:
        Story key -> shot -> numbers, and a line for each file that could not be decoded.
    """
    from curation.video.decode import BadInput

    by_file: dict[Path, list[tuple[str, ShotKey, Clip]]] = {}
    for key, shots in submission.clips.items():
        for shot, clip in shots.items():
            by_file.setdefault(clip.path, []).append((key, shot, clip))
    found: dict[str, dict[ShotKey, ShotNumbers]] = {}
    faults = []
    for path, entries in by_file.items():
        entries.sort(key=lambda entry: entry[2].start)
        try:
            numbers = measure_clips([clip for _, _, clip in entries])
        except (BadInput, ValueError) as error:
            faults.append(f"{path}: {getattr(error, 'detail', '') or error}; write the video again")
            continue
        for (key, shot, _), measured in zip(entries, numbers, strict=True):
            found.setdefault(key, {})[shot] = measured
    return found, faults


def story_features(
    story: Story, shots: dict[ShotKey, ShotNumbers]
) -> dict[tuple[str, Unit, str], np.ndarray]:
    """The measured numbers of a story as features, boundaries included, for a `FeatureTable`."""
    found: dict[tuple[str, Unit, str], np.ndarray] = {}
    for shot, numbers in shots.items():
        found |= {(story.key, tuple(shot), kind): array for kind, array in numbers.features().items()}
    for pair in [*story.adjacent_shots(), *story.scene_changes()]:
        if pair.first in shots and pair.second in shots:
            cut, step = boundary(shots[pair.first], shots[pair.second])
            unit = tuple(pair.second)
            found[story.key, unit, "stat_boundary_cut"] = np.asarray(float(cut))
            found[story.key, unit, "stat_boundary_difference"] = np.asarray(step)
    return found


def _pictures(frame: Any, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(luma uint8 [height, 320], thumbnail uint8 [27, 48, 3]) of an `av.VideoFrame`."""
    small = frame.reformat(width=WIDTH, height=height, format="rgb24", interpolation="AREA")
    thumb = small.reformat(width=THUMB[1], height=THUMB[0], interpolation="AREA").to_ndarray()
    return _luma(small.to_ndarray()), thumb


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Full-range BT.601 luma, uint8, of uint8 RGB."""
    import cv2

    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


@dataclass
class _Measuring:
    """Running numbers of one shot."""

    fps: float
    means: list[float] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    thumb_steps: list[float] = field(default_factory=list)
    flows: list[tuple[int, float]] = field(default_factory=list)
    recent: deque[np.ndarray] = field(default_factory=deque)
    first: np.ndarray | None = None
    last: np.ndarray | None = None
    flow: Any = None

    @property
    def lag(self) -> int:
        """Frames between the pictures that motion is measured on."""
        return max(1, round(self.fps * FLOW_S))

    def add(self, luma: np.ndarray, thumb: np.ndarray) -> None:
        """The next frame."""
        import cv2

        if self.last is not None:
            self.steps.append(_difference(self.recent[-1], luma))
            self.thumb_steps.append(_difference(self.last, thumb))
        self.means.append(float(luma.mean()))
        self.clipped.append(float(((luma < DARK) | (luma > BRIGHT)).mean()))
        self.sharpness.append(float(cv2.Laplacian(luma, cv2.CV_16S)[1:-1, 1:-1].var()))
        self.recent.append(luma)
        if len(self.recent) > self.lag + 1:
            self.recent.popleft()
        index = len(self.means) - 1
        if index >= self.lag and index % self.lag == 0:
            self.flow = self.flow or cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
            field_hw2 = self.flow.calc(self.recent[0], luma, None)
            self.flows.append((index, float(np.hypot(field_hw2[..., 0], field_hw2[..., 1]).mean())))
        self.first, self.last = (thumb if self.first is None else self.first), thumb

    def numbers(self) -> ShotNumbers:
        """What was measured."""
        if self.first is None or self.last is None:
            raise ValueError("no frame of the shot is in the file: mend the declared range")
        steps, thumb_steps = np.asarray(self.steps), np.asarray(self.thumb_steps)
        cuts = find_cuts(thumb_steps)
        kept = np.delete(steps, [cut - 1 for cut in cuts])
        means = np.asarray(self.means)
        bends = np.abs(means[1:-1] - (means[:-2] + means[2:]) / 2)
        bends = np.delete(
            bends, sorted({p for cut in cuts for p in (cut - 2, cut - 1) if 0 <= p < len(bends)})
        )
        flows = [size for at, size in self.flows if not any(at - self.lag < cut <= at for cut in cuts)]
        width = self.recent[-1].shape[1]
        return ShotNumbers(
            frames=len(means),
            fps=self.fps,
            steps=steps,
            thumb_steps=thumb_steps,
            inner_cuts=cuts,
            first=self.first,
            last=self.last,
            luma=float(means.mean()) / 255,
            clipped=float(np.mean(self.clipped)),
            sharpness=float(np.median(self.sharpness)),
            flicker=float(np.median(bends)) if len(bends) else np.nan,
            freeze=float((kept < FROZEN_STEP).mean()) if len(kept) else np.nan,
            motion=100 * float(np.mean(flows)) / width * self.fps / self.lag if flows else np.nan,
        )
