"""A sequence as a vision-language model gets it: its looks as one video, and what the tracks say in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation import looks
from curation.captions.facts import Scene, Seen, Shot, Target
from curation.looks import Look
from curation.models.chat import Picture, Video

RATES = tuple(rate for rate in range(1, looks.FPS + 1) if looks.FPS % rate == 0)
"""Frames a second that can be taken from the looks without making any up."""
FAR = 0.1
"""Share of the picture that a subject must move for two boxes to be told."""
GROWTH = 1.5
NEAR_S = 0.2
"""A box is drawn on a look only if the tracker saw it so near in time."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the picture."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where a shot lies in the video, in seconds of the video."""

    shot: Shot
    start_s: float
    end_s: float

    def at(self, time_s: float) -> float:
        """A time since the shot's start as a time of the video."""
        return min(max(self.start_s, self.start_s + time_s), self.end_s)


def chosen_looks(shot: Shot, fps: int) -> list[Look]:
    """The looks of a shot at a rate, an even number: a pair of frames must not straddle a cut.

    Qwen3-VL makes one token of each place in two frames. The last look is left out where the number would be
    odd, and a lone one is taken twice.

    Args:
        shot: with its looks.
        fps: one of `RATES`.
    """
    chosen = list(shot.looks[:: looks.FPS // fps])
    if len(chosen) == 1:
        return chosen * 2
    return chosen[: len(chosen) - len(chosen) % 2]


def timeline(scene: Scene, fps: int) -> list[Span]:
    """Where each shot lies in the video that `video_of` makes."""
    spans, start = [], 0
    for shot in scene.shots:
        end = start + len(chosen_looks(shot, fps))
        spans.append(Span(shot=shot, start_s=start / fps, end_s=end / fps))
        start = end
    return spans


def video_of(scene: Scene, fps: int, *, draw_labels: bool = False) -> Video:
    """The looks of all clips back to back.

    Args:
        scene: of which clips follow one another as they do in the film.
        fps: one of `RATES`.
        draw_labels: draw the subjects' boxes and labels on the frames.
    """
    frames = []
    for shot in scene.shots:
        for look in chosen_looks(shot, fps):
            picture = look.rgb_hwc_u8()
            frames.append(labelled(picture, look, shot, scene) if draw_labels else picture)
    return Video(np.stack(frames), float(fps))


def picture_of(target: Target) -> Picture:
    """The exported frame of a reconstruction target."""
    from PIL import Image

    assert target.picture is not None, f"{target.recon_id} has no picture"
    with Image.open(target.picture) as opened:
        return Picture(np.asarray(opened.convert("RGB")))


def labelled(rgb_hwc_u8: np.ndarray, look: Look, shot: Shot, scene: Scene) -> np.ndarray:
    """The look of a shot with the boxes and labels of its subjects drawn on it."""
    from curation.framing.pictures import draw_boxes
    from curation.timing import FPS

    boxes = []
    for seen in shot.seen:
        near = min(seen.places, key=lambda place: abs(place[0] - look.frame / FPS), default=None)
        if near is not None and abs(near[0] - look.frame / FPS) <= NEAR_S:
            _, left, top, right, bottom = near
            box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            boxes.append({"subject_id": seen.subject.subject_id, **box})
    subjects = [{"subject_id": s.subject_id, "label": s.label} for s in scene.subjects]
    bgr = np.ascontiguousarray(rgb_hwc_u8[:, :, ::-1])
    return np.ascontiguousarray(draw_boxes(bgr, boxes, subjects, (0, 0, 1, 1))[:, :, ::-1])


# -- words ----------------------------------------------------------------------------------------


def shot_facts(span: Span) -> str:
    """Who is where in a shot and when, one line: `Shot 2, 5.0 to 9.0 s: [Person A] 5.0 to 8.2 s at [...]`."""
    who = "; ".join(_seen_facts(seen, span) for seen in span.shot.seen)
    return (
        f"Shot {span.shot.number}, {span.start_s:.1f} to {span.end_s:.1f} s: {who or 'no labelled subject'}"
    )


def _seen_facts(seen: Seen, span: Span) -> str:
    when = f"{span.at(seen.first_s):.1f} to {span.at(seen.last_s):.1f} s"
    first, *last = rough_boxes(seen)
    where = (
        f"{_thousandths(first)} at first, {_thousandths(last[0])} at last" if last else _thousandths(first)
    )
    return f"{seen.label} {when} at {where}"


def rough_boxes(seen: Seen) -> list[Box]:
    """One box, or for a subject that moves or comes nearer one for its first and its last quarter."""
    boxes = np.array([place[1:] for place in seen.places]) if seen.places else np.array([_median_box(seen)])
    quarter = max(1, len(boxes) // 4)
    first, last = boxes[:quarter].mean(axis=0), boxes[-quarter:].mean(axis=0)
    moved = np.abs((first[:2] + first[2:]) / 2 - (last[:2] + last[2:]) / 2).max()
    if moved > FAR or not 1 / GROWTH < seen.growth < GROWTH:
        return [_box(first), _box(last)]
    return [_box(np.median(boxes, axis=0))]


def _median_box(seen: Seen) -> Box:
    width = seen.area / max(seen.height, 1e-6)
    return (
        seen.x - width / 2, seen.y - seen.height / 2, seen.x + width / 2, seen.y + seen.height / 2,
    )  # fmt: skip


def _box(sides: Sequence[float] | np.ndarray) -> Box:
    left, top, right, bottom = (min(1.0, max(0.0, float(side))) for side in sides)
    return left, top, right, bottom


def _thousandths(box: Box) -> str:
    return f"[{', '.join(str(round(1000 * side)) for side in box)}]"
