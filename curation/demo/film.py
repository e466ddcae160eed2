"""Render the demo film and the exact truth about it: same packages, same bytes.

The film stars subjects that come back over several shots on different sets, in natural camera moves with
film grain, between hard cuts, a fade and a dissolve, under burnt-in subtitles and a corner logo, in a
letterboxed frame; one shot is too dark and one is frozen. See `curation.demo.story` for the screenplay
and `curation.demo.pictures` for the photographs and their licences.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import pi, sin
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange

from curation.demo import effects, sets
from curation.demo.cast import Astronaut, Cat, Pose, Seen
from curation.demo.compose import (
    BAR,
    HEIGHT,
    PICTURE_HEIGHT,
    WIDTH,
    affine,
    apply,
    box_of,
    grain,
    vignette,
)
from curation.demo.lettering import logo, subtitle
from curation.demo.pictures import PICTURES
from curation.demo.story import (
    BLACK_FRAMES,
    DISSOLVE_FRAMES,
    FADE_IN_FRAMES,
    FADE_OUT_FRAMES,
    FPS,
    LINES,
    LOGO,
    SHOTS,
    Shot,
)
from curation.demo.truth import (
    Box,
    GroundTruth,
    TrueShot,
    TrueSign,
    TrueSubject,
    TrueText,
    TrueTransition,
)

FILM_NAME, TRUTH_NAME = "demo_film.mp4", "ground_truth.json"
BOX_STEP = 4  # boxes are written for every fourth frame
DARK_GAIN = 0.06
GRAIN_SHEETS = 6
X264 = f"cpu-independent=1:keyint={2 * FPS}"
BT601 = 6  # ITU-T H.273: what PyAV converts to by default

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all."""


@dataclass(frozen=True)
class DemoFilm:
    """Where the film and its ground truth lie. Its text and its file system path are the film's."""

    path: Path
    truth_path: Path
    truth: GroundTruth

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


def render(folder: Path, progress: Progress | None = None) -> DemoFilm:
    """Write `demo_film.mp4` (H.264, 854x480, 24 fps, 89 s) and `ground_truth.json` into `folder`.

    Raises:
        FileNotFoundError: scikit-image's pictures are not there; the message says how to get them.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    film, part = folder / FILM_NAME, folder / f".{FILM_NAME}.part"
    spans, transitions, total = timeline()
    studio = Studio(spans, total)
    try:
        _encode(part, studio.frames(), total, progress)
        os.replace(part, film)
    finally:
        part.unlink(missing_ok=True)
    truth = _truth(studio, transitions)
    truth.save(folder / TRUTH_NAME)
    return DemoFilm(film, folder / TRUTH_NAME, truth)


@dataclass(frozen=True)
class Span:
    """Frames of a shot: [start, end) in full, [first, last) including its share of transitions."""

    shot: Shot
    start: int
    end: int
    first: int
    last: int


def timeline() -> tuple[list[Span], list[TrueTransition], int]:
    """Lay the shots out in time: their spans, the transitions between them, the number of frames."""
    spans: list[Span] = []
    transitions: list[TrueTransition] = []
    at = 0
    for shot in SHOTS:
        length, lead, tail = {
            "start": (0, 0, 0),
            "cut": (0, 0, 0),
            "dissolve": (DISSOLVE_FRAMES,) * 3,
            "fade": (
                FADE_OUT_FRAMES + BLACK_FRAMES + FADE_IN_FRAMES,
                FADE_IN_FRAMES,
                FADE_OUT_FRAMES,
            ),
        }[shot.transition_in]
        if spans:
            transitions.append(TrueTransition(kind=shot.transition_in, start_frame=at, end_frame=at + length))
            spans[-1] = dataclasses.replace(spans[-1], last=spans[-1].end + tail)
        start = at + length
        at = start + shot.frames
        spans.append(Span(shot, start, at, start - lead, at))
    return spans, transitions, at


class Scene:
    """A shot ready to be drawn."""

    def __init__(self, span: Span, place: sets.Set) -> None:
        self.span, self.place = span, place
        makers: dict[str, type[Astronaut | Cat]] = {"astronaut": Astronaut, "cat": Cat}
        light = span.shot.light
        self.puppets = [makers[part.puppet](light) for part in span.shot.parts]
        effect = span.shot.effect
        self.effect: effects.Launch | effects.Steam | None = (
            getattr(effects, effect)(light) if effect else None
        )

    def draw(self, frame: int) -> tuple[np.ndarray, list[Seen], list[tuple[str, Any]]]:
        """The picture uint8 [428, 854, 3] BGR of a film frame, subjects and signs in it."""
        import cv2

        shot, span = self.span.shot, self.span
        local = 0 if shot.fault == "frozen" else frame - span.first
        t, time_s = local / max(span.last - span.first - 1, 1), local / FPS
        t = 0.55 * t + 0.45 * t * t * (3 - 2 * t)
        sway = _hand(time_s, len(shot.name))
        camera = self._camera(t, sway)
        canvas = cv2.warpAffine(
            self.place.picture,
            camera,
            (WIDTH, PICTURE_HEIGHT),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        seen = self._belonging(camera)
        if self.effect:
            seen.append(self.effect.draw(canvas, camera, time_s))
        for part, puppet in zip(shot.parts, self.puppets, strict=True):
            pose = _between(part.start, part.end, t)
            heave = part.bob * sin(2 * pi * 0.33 * time_s + len(part.puppet))
            pose = dataclasses.replace(pose, x=pose.x + 1.4 * sway[0], y=pose.y + heave + 1.4 * sway[1])
            seen.append(puppet.draw(canvas, pose, time_s, part.flip))
        if shot.fault == "dark":
            canvas = cv2.convertScaleAbs(canvas, alpha=DARK_GAIN)
        signs = [
            (text, box_of(apply(camera, np.array([(x, y), (x + w, y + h)], float))))
            for text, (x, y, w, h) in self.place.signs
        ]
        return canvas, [s for s in seen if s], [s for s in signs if s[1]]

    def _camera(self, t: float, sway: tuple[float, float]) -> np.ndarray:
        a, b = self.span.shot.camera
        view = [p + (q - p) * t for p, q in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True)]
        middle = (WIDTH / 2 + sway[0], PICTURE_HEIGHT / 2 + sway[1])
        return affine((view[0], view[1]), middle, view[2])

    def _belonging(self, camera: np.ndarray) -> list[Seen | None]:
        """Subjects that are part of the set."""
        outlines = {name: apply(camera, points) for name, points in self.place.outlines.items()}
        face = box_of(outlines.pop("face")) if "face" in outlines else None
        boxes = {name: box_of(points) for name, points in outlines.items()}
        return [Seen(name, box, face) for name, box in boxes.items() if box]


def _between(start: Pose, end: Pose, t: float) -> Pose:
    return Pose(
        **{
            f.name: getattr(start, f.name) * (1 - t) + getattr(end, f.name) * t
            for f in dataclasses.fields(Pose)
        }
    )


def _hand(time_s: float, seed: int) -> tuple[float, float]:
    """The tremor of a hand-held camera, in pixels."""
    x = 1.1 * sin(2 * pi * 0.37 * time_s + seed) + 0.5 * sin(2 * pi * 0.91 * time_s + 2 * seed)
    y = 0.8 * sin(2 * pi * 0.43 * time_s + 3 * seed) + 0.4 * sin(2 * pi * 1.03 * time_s + seed)
    return x, y


class Studio:
    """Turns the timeline into frames, and remembers what was seen where."""

    def __init__(self, spans: list[Span], total: int) -> None:
        self.spans, self.total = spans, total
        self.places: dict[str, sets.Set] = {}
        self.sheets = [grain(100 + k) for k in range(GRAIN_SHEETS)]
        self.offsets = np.random.default_rng(7).integers(0, 128, (total, 2))
        self.shade = vignette()
        self.subjects: list[TrueSubject] = []
        self.signs: list[TrueSign] = []
        self._scenes: dict[int, Scene] = {}

    def frames(self) -> Iterator[np.ndarray]:
        """Coded frames uint8 [480, 854, 3] BGR in order. The array is reused."""
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        logo_sprite, logo_box = logo(LOGO, WIDTH - 16, BAR + 10)
        for frame in range(self.total):
            canvas[:] = 0
            canvas[BAR : HEIGHT - BAR] = self._picture(frame)
            _stamp(canvas, logo_sprite.bgra_u8, logo_box)
            for start, end, layer, box, _ in self.subtitles:
                if start <= frame < end:
                    _stamp(canvas, layer, box)
            yield canvas

    @cached_property
    def subtitles(self) -> list[tuple[int, int, np.ndarray, tuple[int, int, int, int], str]]:
        """Start frame, end frame, layer, box and text of each subtitle."""
        starts = {span.shot.name: span.start for span in self.spans}
        made = []
        for line in LINES:
            layer, box = subtitle(line.text, line.bottom)
            start = starts[line.shot] + round(line.start_s * FPS)
            end = starts[line.shot] + round(line.end_s * FPS)
            made.append((start, end, layer.bgra_u8, box, line.text))
        return made

    def _picture(self, frame: int) -> np.ndarray:
        import cv2

        shown = [k for k, s in enumerate(self.spans) if s.first <= frame < s.last]
        if not shown:  # the black between fade-out and fade-in
            return np.zeros((PICTURE_HEIGHT, WIDTH, 3), np.uint8)
        for k in [k for k in self._scenes if k < shown[0]]:
            del self._scenes[k]
        pictures = [self._shot(k, frame) for k in shown]
        if len(pictures) == 2:
            after = (frame - self.spans[shown[1]].first + 1) / (DISSOLVE_FRAMES + 1)
            return cv2.addWeighted(pictures[1], after, pictures[0], 1 - after, 0)
        span = self.spans[shown[0]]
        if frame >= span.end:
            return cv2.convertScaleAbs(pictures[0], alpha=1 - (frame - span.end + 1) / (FADE_OUT_FRAMES + 1))
        if frame < span.start:
            return cv2.convertScaleAbs(pictures[0], alpha=(frame - span.first + 1) / (FADE_IN_FRAMES + 1))
        return pictures[0]

    def _shot(self, index: int, frame: int) -> np.ndarray:
        """The picture of one shot with its grain; boxes of full frames are noted."""
        import cv2

        if index not in self._scenes:
            shot = self.spans[index].shot
            if shot.place not in self.places:
                self.places[shot.place] = getattr(sets, shot.place)()
            self._scenes[index] = Scene(self.spans[index], self.places[shot.place])
        span = self.spans[index]
        picture, seen, signs = self._scenes[index].draw(frame)
        if span.start <= frame < span.end and (frame - span.start) % BOX_STEP == 0:
            self._note(frame, index, seen, signs)
        picture = cv2.multiply(picture, self.shade, scale=1 / 255)
        still = span.start if span.shot.fault == "frozen" else frame
        x, y = (int(v) for v in self.offsets[still])
        sheet = self.sheets[still % GRAIN_SHEETS][y : y + PICTURE_HEIGHT, x : x + WIDTH]
        return cv2.addWeighted(picture, 1, sheet, 1, -128)

    def _note(self, frame: int, index: int, seen: list[Seen], signs: list[tuple[str, Any]]) -> None:
        for s in seen:
            face = _as_box(s.face) if s.face else None
            self.subjects.append(
                TrueSubject(frame=frame, shot_index=index, subject=s.subject, box=_as_box(s.box), face=face)
            )
        self.signs += [
            TrueSign(frame=frame, shot_index=index, text=text, box=_as_box(box)) for text, box in signs
        ]


def _stamp(canvas: np.ndarray, layer: np.ndarray, box: tuple[int, int, int, int]) -> None:
    import cv2

    x, y, w, h = box
    blue, green, red, alpha = cv2.split(layer)
    below = cv2.multiply(canvas[y : y + h, x : x + w], cv2.merge([cv2.bitwise_not(alpha)] * 3), scale=1 / 255)
    canvas[y : y + h, x : x + w] = cv2.add(below, cv2.merge([blue, green, red]))


def _as_box(box: tuple[int, int, int, int]) -> Box:
    return Box(x=box[0], y=box[1], width=box[2], height=box[3])


def _encode(path: Path, frames: Iterator[np.ndarray], total: int, progress: Progress | None) -> None:
    muxer = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=muxer) as container:
        # x264's own results vary between runs without `cpu-independent`, and with the thread count.
        tuning = {"preset": "veryfast", "crf": "22", "tune": "film", "x264-params": X264}
        stream: Any = container.add_stream("libx264", rate=FPS, options=tuning)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        context = stream.codec_context
        context.thread_count = 4
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT601
        for k, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
            frame.pts = k
            container.mux(stream.encode(frame))
            if progress and (k % FPS == 0 or k + 1 == total):
                progress(k + 1, total)
        container.mux(stream.encode(None))


def _truth(studio: Studio, transitions: list[TrueTransition]) -> GroundTruth:
    outs = [t.kind for t in transitions] + ["end"]
    shots = tuple(
        TrueShot(
            index=k,
            name=span.shot.name,
            start_frame=span.start,
            end_frame=span.end,
            transition_in=span.shot.transition_in,
            transition_out=outs[k],
            subjects=tuple(sorted({s.subject for s in studio.subjects if s.shot_index == k})),
            fault=span.shot.fault,
        )
        for k, span in enumerate(studio.spans)
    )
    _, logo_box = logo(LOGO, WIDTH - 16, BAR + 10)
    return GroundTruth(
        fps=FPS,
        num_frames=studio.total,
        size=(HEIGHT, WIDTH),
        bars=(BAR, BAR, 0, 0),
        shots=shots,
        transitions=tuple(transitions),
        subtitles=tuple(_true_text(t, a, b, box) for a, b, _, box, t in studio.subtitles),
        logo=_true_text(LOGO, 0, studio.total, logo_box),
        subjects=tuple(studio.subjects),
        signs=tuple(studio.signs),
        pictures=tuple(dataclasses.asdict(p) for p in PICTURES),
    )


def _true_text(text: str, start: int, end: int, box: tuple[int, int, int, int]) -> TrueText:
    return TrueText(
        text=text,
        start_frame=start,
        end_frame=end,
        start_s=start / FPS,
        end_s=end / FPS,
        box=_as_box(box),
    )
