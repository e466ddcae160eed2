"""What can be measured about a sequence for its captions: who is seen where, and what the picture is like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curation.engine.stage import Row
from curation.looks import Look
from curation.timing import FPS

MIN_INSIDE = 0.3
"""Share of a box that must lie inside the crop for its subject to count as seen."""
PICTURE_SIZE = (60, 104)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A recurring subject. `label` has its brackets; `colours` are names, most common first."""

    subject_id: str
    label: str
    class_name: str
    is_primary: bool
    colours: tuple[str, ...]
    screen_time_s: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A subject in a shot. Places are shares of the exported picture, times seconds since the shot's start.

    Attributes:
        subject: who.
        area: median share of the picture that the box covers.
        height: median height of the box, share of the picture's.
        x, y: median centre.
        start, end: mean centre in the first and the last quarter of the time it is seen.
        growth: area in the last quarter over area in the first.
        first_s, last_s: when it is first and last seen.
        places: (time, left, top, right, bottom) wherever it was found, in order of time.
    """

    subject: Subject
    area: float
    height: float
    x: float
    y: float
    start: tuple[float, float]
    end: tuple[float, float]
    growth: float
    first_s: float
    last_s: float
    places: tuple[tuple[float, float, float, float, float], ...] = ()

    @property
    def label(self) -> str:
        """The subject's label."""
        return self.subject.label


@dataclass(frozen=True, kw_only=True)
class View:
    """What the picture of a shot is like.

    Attributes:
        luma: mean, 0..255.
        contrast: standard deviation of luma over the picture, mean over frames, 0..255.
        chroma: mean difference of the largest and smallest of red, green and blue, 0..255.
        change: mean absolute luma difference of frames a quarter of a second apart, 0..255.
        trend: luma of the last quarter of the shot minus that of the first.
        colours: names of the dominant colours, most common first.
    """

    luma: float
    contrast: float
    chroma: float
    change: float
    trend: float
    colours: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """An exported clip.

    Attributes:
        clip_index: its place in the sequence, from 0, context counted.
        number: its place among the clips, from 1.
        duration_s: seconds.
        seen: subjects in it, by size and time, the most prominent first.
        looks: its pictures, four a second.
        measured: what they are like; None where the captioner looks for itself.
    """

    clip_index: int
    number: int
    duration_s: float
    seen: tuple[Seen, ...]
    looks: tuple[Look, ...]
    measured: View | None = None

    @property
    def view(self) -> View:
        """What its pictures are like, for captioners that cannot look."""
        assert self.measured is not None, f"clip {self.clip_index} was not measured"
        return self.measured


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reconstruction target: its subject in one frame. Places are shares of the exported picture.

    `time_s` counts from the start of the clip; `picture` is the exported frame at full size.
    """

    recon_id: str
    subject: Subject
    shot: Shot
    area: float
    x: float
    y: float
    others: tuple[str, ...]
    time_s: float = 0.0
    picture: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything a captioner may use of a sequence."""

    sequence_id: str
    shots: tuple[Shot, ...]
    subjects: tuple[Subject, ...]
    targets: tuple[Target, ...]


Crop = tuple[int, int, int, int]


def in_picture(
    box: Row, crop: Crop, min_inside: float = MIN_INSIDE
) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of a box as shares of the cropped picture, or None if it is cut off.

    Args:
        box: `x`, `y`, `width`, `height` in source pixels.
        crop: x, y, width, height in source pixels.
        min_inside: share of the box that must lie inside the crop.
    """
    left, top = (box["x"] - crop[0]) / crop[2], (box["y"] - crop[1]) / crop[3]
    right, bottom = left + box["width"] / crop[2], top + box["height"] / crop[3]
    whole = (right - left) * (bottom - top)
    left, top, right, bottom = (min(1.0, max(0.0, v)) for v in (left, top, right, bottom))
    inside = (right - left) * (bottom - top)
    return (left, top, right, bottom) if whole > 0 and inside >= min_inside * whole else None


def seen_in(subject: Subject, boxes: Sequence[Row], crop: Crop, start_s: float, end_s: float) -> Seen | None:
    """Where a subject is in an exported clip, or None if it is not seen in it.

    Args:
        subject: who.
        boxes: its `curation.rows.TRACK_BOX` values in the clip.
        crop: x, y, width, height in source pixels.
        start_s: of the exported span in the film.
        end_s: half-open.
    """
    timed = sorted((b["time_s"], b) for b in boxes if start_s <= b["time_s"] < end_s) if boxes else []
    placed = [(time - start_s, place) for time, b in timed if (place := in_picture(b, crop)) is not None]
    if not placed:
        return None
    times = np.array([time for time, _ in placed])
    sides = np.array([place for _, place in placed])
    centres = np.stack([(sides[:, 0] + sides[:, 2]) / 2, (sides[:, 1] + sides[:, 3]) / 2], axis=1)
    areas = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
    quarter = max(1, len(placed) // 4)
    x, y = np.median(centres, axis=0)
    start, end = centres[:quarter].mean(axis=0), centres[-quarter:].mean(axis=0)
    return Seen(
        subject=subject,
        area=float(np.median(areas)),
        height=float(np.median(sides[:, 3] - sides[:, 1])),
        x=float(x),
        y=float(y),
        start=(float(start[0]), float(start[1])),
        end=(float(end[0]), float(end[1])),
        growth=float(areas[-quarter:].mean() / max(float(areas[:quarter].mean()), 1e-6)),
        first_s=float(times[0]),
        last_s=float(times[-1]),
        places=tuple((float(time), *place) for time, place in placed),
    )


def view_of(pictures_bgr_u8: np.ndarray) -> View:
    """Measure frames sampled four times a second.

    Args:
        pictures_bgr_u8: uint8 [N, H, W, 3], N >= 1.
    """
    from curation.framing.colours import colour_names

    pictures = pictures_bgr_u8.astype(np.float32)
    luma = pictures @ np.array([0.0722, 0.7152, 0.2126], np.float32)
    means = luma.mean(axis=(1, 2))
    quarter = max(1, len(means) // 4)
    step = max(1, len(pictures) // 8)
    weight = np.ones(pictures.shape[1:3], np.float32)
    return View(
        luma=float(means.mean()),
        contrast=float(luma.std(axis=(1, 2)).mean()),
        chroma=float((pictures.max(axis=3) - pictures.min(axis=3)).mean()),
        change=float(np.abs(np.diff(luma, axis=0)).mean()) if len(luma) > 1 else 0.0,
        trend=float(means[-quarter:].mean() - means[:quarter].mean()),
        colours=tuple(colour_names([(p, weight) for p in pictures_bgr_u8[::step]])),
    )


def small_pictures(looks: Iterable[Look]) -> np.ndarray:
    """The looks of a clip as measured here: uint8 [N, 60, 104, 3] BGR."""
    import cv2

    height, width = PICTURE_SIZE
    scaled = (cv2.resize(k.rgb_hwc_u8(), (width, height), interpolation=cv2.INTER_AREA) for k in looks)
    return np.stack([picture[:, :, ::-1] for picture in scaled])


def gather_scene(
    row: Row,
    boxes: Sequence[Row],
    looks: Mapping[int, Sequence[Look]],
    views: Mapping[int, View] | None = None,
    pictures: Mapping[str, Path] | None = None,
) -> Scene:
    """Put together what captioners need.

    Args:
        row: `sequence_id`, `subjects`, `clip_files`, `recon_targets` and crop columns of a sequence.
        boxes: all `curation.rows.TRACK_BOX` values of the sequence.
        looks: clip index -> its pictures.
        views: clip index -> measured pictures, for captioners that cannot look.
        pictures: id of a reconstruction target -> its exported picture.
    """
    views, pictures = views or {}, pictures or {}
    crop = (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"])
    owner = {track: s["subject_id"] for s in row["subjects"] or [] for track in s["track_ids"]}
    of_clip: dict[tuple[str, int], list[Row]] = {}
    for box in boxes:
        if box["track_id"] in owner:
            of_clip.setdefault((owner[box["track_id"]], box["clip_index"]), []).append(box)
    subjects = {s["subject_id"]: _subject(s) for s in row["subjects"] or []}
    shots = []
    for number, made in enumerate(row["clip_files"], start=1):
        index, start_s, end_s = made["clip_index"], made["start_s"], made["end_s"]
        found = (
            seen_in(s, of_clip.get((s.subject_id, index), []), crop, start_s, end_s)
            for s in subjects.values()
        )
        shot = Shot(
            clip_index=index,
            number=number,
            duration_s=made["num_frames"] / made["fps"],
            seen=tuple(sorted((f for f in found if f), key=_prominence)),
            looks=tuple(looks[index]),
            measured=views.get(index),
        )
        shots.append(shot)
    by_index = {shot.clip_index: shot for shot in shots}
    targets = tuple(
        replace(
            _target(t, subjects[t["subject_id"]], by_index[t["clip_index"]], of_clip, crop),
            picture=pictures.get(t["recon_id"]),
        )
        for t in row["recon_targets"] or []
    )
    return Scene(
        sequence_id=row["sequence_id"],
        shots=tuple(shots),
        subjects=tuple(subjects.values()),
        targets=targets,
    )


def _prominence(seen: Seen) -> tuple[float, str]:
    return -seen.area * (seen.last_s - seen.first_s + 0.25), seen.label


def _subject(row: Row) -> Subject:
    return Subject(
        subject_id=row["subject_id"],
        label=row["label"],
        class_name=row["class_name"],
        is_primary=row["is_primary"],
        colours=tuple(row["colours"] or ()),
        screen_time_s=row["screen_time_s"],
    )


def _target(
    row: Row, subject: Subject, shot: Shot, of_clip: Mapping[tuple[str, int], list[Row]], crop: Crop
) -> Target:
    place = in_picture(row, crop, min_inside=0.0)
    assert place is not None, f"{row['recon_id']} has an empty box"
    left, top, right, bottom = place
    others = []
    for seen in shot.seen:
        boxes = of_clip.get((seen.subject.subject_id, shot.clip_index), [])
        if seen.label != subject.label and any(
            b["frame"] == row["frame"] and in_picture(b, crop) for b in boxes
        ):
            others.append(seen.label)
    return Target(
        recon_id=row["recon_id"],
        subject=subject,
        shot=shot,
        area=(right - left) * (bottom - top),
        x=(left + right) / 2,
        y=(top + bottom) / 2,
        others=tuple(others),
        time_s=row["frame_in_clip_16fps"] / FPS,
    )
