"""Which text was drawn over the film, and which belongs to the scene: persistence in place over time decides.

What is known of a text box is where it is in each sampled frame. Boxes are linked into runs over successive
samples, across cuts; runs at one place of the picture form a group. Then

* scene text moves with the camera, or is there for the whole of its shot and gone at the cut;
* a logo stays at its place in most shots;
* a subtitle or caption stays in place, low or high in the picture, and lives over a cut, appears or ends
  inside a shot, changes its width from line to line, or is centred;
* a title does one of these in the middle of the picture, or stands on a flat picture (a card), or is one of
  several lines on the picture's middle axis (credits, rolling ones too).

Subtitles, logos and titles are to be kept out of the crop; a title seldom can be, and then the sequence is
rejected (see `curation.stages.crop`). Their boxes are padded for outline, shadow and detector slack, and
their times reach to the neighbouring samples, as text may change anywhere between two. Sampled every half
second, no line of half a second or more is missed for want of a sample.

All boxes are (x, y, width, height) in source pixels; "share" is of the picture inside the black bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from curation.engine.stage import Row

SUBTITLE, LOGO, TITLE, SCENE_TEXT = "subtitle", "logo", "title", "scene_text"
OBSTACLES = (SUBTITLE, LOGO, TITLE)


@dataclass(frozen=True, kw_only=True)
class OverlaySettings:
    """When text counts as drawn over the film.

    Attributes:
        max_line_height: taller boxes (share of height) are no lines; they count only as letters of a title.
        min_line_aspect: a box less wide than this many heights is no line; three quarters of it will do where
            subtitles are centred. Of 38 false boxes of line height the widest had 1.5.
        title_score: such a tall box counts from this score; false ones were seen below 0.8, titles above.
        low: subtitles have their middle in the lower part of the picture, from this share of its height on...
        high: ...or in the upper part, down to this share of its height.
        centred: how far the middle of a centred line may be from the picture's (share of width).
        still: how far a text in place may stray, in heights of its line.
        logo_clips: share of the clips in which a logo must be seen.
        logo_samples: share of all samples in which a logo must be seen (half-transparent ones flicker).
        pad: margin around a box, in its heights. Over 928 drawn lines, outline included, letters reached at
            most 0.05 heights over the edge of their box at top and bottom.
        logo_pad: margin at the sides of a logo, which often has a picture beside the letters.
    """

    max_line_height: float = 0.13
    min_line_aspect: float = 1.6
    title_score: float = 0.8
    low: float = 0.6
    high: float = 0.2
    centred: float = 0.03
    still: float = 0.35
    logo_clips: float = 0.6
    logo_samples: float = 0.5
    pad: float = 0.12
    logo_pad: float = 0.9


@dataclass(frozen=True)
class Inside:
    """The picture inside its black bars, in source pixels: left, top, right and bottom edge (half-open)."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels between the bars at the sides."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels between the bars at top and bottom."""
        return self.bottom - self.top


@dataclass(frozen=True)
class Samples:
    """The sampled frames of a sequence in order of time, and their text boxes.

    Attributes:
        time_s: float64 [S].
        clip: int64 [S], clip index.
        exported: bool [S], whether the clip is exported; text in context shots is no obstacle.
        flat: bool [S], whether the picture is flat but for the text.
        boxes: S arrays of float64 [n, 5], x, y, width, height, score.
    """

    time_s: np.ndarray
    clip: np.ndarray
    exported: np.ndarray
    flat: np.ndarray
    boxes: tuple[np.ndarray, ...]


@dataclass
class Run:
    """One text in place, or drifting slowly, over successive samples."""

    samples: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)

    @property
    def box(self) -> np.ndarray:
        """Median x, y, width, height."""
        return np.median(self.boxes, axis=0)[:4]

    @property
    def outline(self) -> np.ndarray:
        """The box around all its boxes."""
        return union(np.asarray(self.boxes))

    def strays(self) -> float:
        """How far it moves, in heights of its line: 80th percentile of the distance from the median place.

        Of its left edge, middle and right edge the steadiest counts: a line may grow word by word.
        """
        b = np.asarray(self.boxes)
        height = max(float(np.median(b[:, 3])), 1.0)
        x = [_spread(b[:, 0] + share * b[:, 2]) for share in (0.0, 0.5, 1.0)]
        return max(min(x), _spread(b[:, 1] + b[:, 3] / 2)) / height


def read_samples(rows: Sequence[Row], clips: Sequence[Row], flat: Sequence[bool] | None = None) -> Samples:
    """Group `curation.rows.TEXT_BOX` rows by frame.

    Args:
        rows: of one sequence, in any order.
        clips: `curation.rows.CLIP_SPAN` values of the sequence.
        flat: for each sampled frame in order of time, whether its picture is flat; nowhere if None.
    """
    frames: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        frames.setdefault((row["pts"], row["frame"]), []).append(row)
    found = [frames[key] for key in sorted(frames)]
    context = {clip["clip_index"] for clip in clips if clip["is_context"]}
    columns = ("x", "y", "width", "height", "score")
    boxes = tuple(
        np.array([[r[c] for c in columns] for r in rs if r["x"] is not None], np.float64).reshape(-1, 5)
        for rs in found
    )
    clip = np.array([rs[0]["clip_index"] for rs in found], np.int64)
    return Samples(
        time_s=np.array([rs[0]["time_s"] for rs in found], np.float64),
        clip=clip,
        exported=np.array([c not in context for c in clip], bool),
        flat=np.zeros(len(found), bool) if flat is None else np.asarray(flat, bool),
        boxes=boxes,
    )


def find_overlays(samples: Samples, inside: Inside, settings: OverlaySettings) -> list[Row]:
    """All text of the sequence by kind, as `curation.rows.OVERLAY` values in order of time.

    Text that is seen in context shots only is left out. Boxes are padded and may reach over the picture's
    edge; their times reach to the neighbouring samples.
    """
    lines, tall = _lines_and_tall(samples, inside, settings)
    runs = link(lines)
    kinds = _kinds(runs, samples, inside, settings)
    for run in link(tall):
        drawn = len(run.samples) > 1 and run.strays() <= settings.still
        if drawn and (_changes_inside_shot(run.samples, samples) or samples.flat[run.samples].all()):
            runs.append(run)
            kinds.append(TITLE)
    overlays = [
        _overlay(run, kind, samples, settings)
        for run, kind in zip(runs, kinds, strict=True)
        if kind and samples.exported[run.samples].any()
    ]
    return sorted(overlays, key=lambda o: (o["start_s"], o["y"], o["x"], o["kind"], o["width"], o["end_s"]))


def link(boxes: Sequence[np.ndarray], *, min_iou: float = 0.6, gap: int = 2) -> list[Run]:
    """Runs of overlapping boxes in successive samples; the detector may miss `gap` - 1 samples between."""
    runs: list[Run] = []
    for s, found in enumerate(boxes):
        open_runs = [r for r in runs[-400:] if r.samples[-1] >= s - gap and r.samples[-1] != s]
        pairs = [
            (-overlap(run.boxes[-1], box), i, j)
            for i, run in enumerate(open_runs)
            for j, box in enumerate(found)
        ]
        taken_runs: set[int] = set()
        taken_boxes: set[int] = set()
        for negative, i, j in sorted(pairs):
            if -negative < min_iou or i in taken_runs or j in taken_boxes:
                continue
            taken_runs.add(i)
            taken_boxes.add(j)
            open_runs[i].samples.append(s)
            open_runs[i].boxes.append(found[j])
        runs += [Run([s], [box]) for j, box in enumerate(found) if j not in taken_boxes]
    return runs


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    common = _common(a, b)
    return common / max(a[2] * a[3] + b[2] * b[3] - common, 1e-9)


def union(boxes: np.ndarray) -> np.ndarray:
    """The box around boxes [n, 4+]."""
    low, high = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:4]).max(axis=0)
    return np.concatenate([low, high - low])


def _common(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return float(max(width, 0.0) * max(height, 0.0))


def _spread(values: np.ndarray) -> float:
    return float(np.quantile(np.abs(values - np.median(values)), 0.8))


def _lines_and_tall(
    samples: Samples, inside: Inside, settings: OverlaySettings
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Boxes that may be lines, and tall ones that may be letters of a title."""
    limit = settings.max_line_height * inside.height
    lines = [b[b[:, 3] <= limit] for b in samples.boxes]
    tall = [b[(b[:, 3] > limit) & (b[:, 4] >= settings.title_score)] for b in samples.boxes]
    return lines, tall


def _kinds(runs: Sequence[Run], samples: Samples, inside: Inside, settings: OverlaySettings) -> list[str]:
    """The kind of each run; empty for one that is probably no text at all."""
    kinds = [""] * len(runs)
    credits_at = _credits(samples, inside, settings)
    moving = [run for run in runs if run.strays() > settings.still]
    still = [not any(run is m or _continues(run, m) for m in moving) for run in runs]
    for group in _places(runs):
        kind = _group_kind([runs[i] for i in group if still[i]], samples, inside, settings)
        for i in group:
            kinds[i] = _run_kind(runs[i], kind, still[i], credits_at)
    return kinds


def _continues(a: Run, b: Run) -> bool:
    """Whether one run takes over where the other ends: text that begins or stops moving."""
    first, then = (a, b) if a.samples[-1] < b.samples[0] else (b, a)
    soon = 0 < then.samples[0] - first.samples[-1] <= 2
    return soon and overlap(first.boxes[-1], then.boxes[0]) > 0.1


def _places(runs: Sequence[Run]) -> list[list[int]]:
    """Runs that share a line of the picture: level with each other, and one within the other's width."""
    places: list[list[int]] = []
    boxes = [run.box for run in runs]
    for i, box in enumerate(boxes):
        for place in places:
            if any(_same_place(box, boxes[j]) for j in place):
                place.append(i)
                break
        else:
            places.append([i])
    return places


def _same_place(a: np.ndarray, b: np.ndarray) -> bool:
    height = min(a[3], b[3])
    level = abs(a[1] + a[3] / 2 - b[1] - b[3] / 2) <= 0.5 * height
    alike = height >= 0.55 * max(a[3], b[3])
    common = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    return bool(level and alike and common >= 0.7 * min(a[2], b[2]))


def _group_kind(still: Sequence[Run], samples: Samples, inside: Inside, settings: OverlaySettings) -> str:
    """What the runs at one place that stay in place are."""
    seen = sorted({s for run in still for s in run.samples})
    if not seen:
        return SCENE_TEXT
    box = np.median([run.box for run in still], axis=0)
    outer = _is_outer(box, inside, settings)
    off_middle = abs(box[0] + box[2] / 2 - (inside.left + inside.right) / 2)
    centred = off_middle <= settings.centred * inside.width
    if not centred and _is_logo(still, seen, samples, box, inside, settings):
        return LOGO
    aspect = settings.min_line_aspect * (0.75 if centred and outer else 1.0)
    if box[2] < aspect * box[3]:
        return SCENE_TEXT
    if outer and centred:
        return SUBTITLE
    drawn = _changes_width(still) or any(len(set(samples.clip[run.samples])) > 1 for run in still)
    if drawn or (len(seen) > 2 and _changes_inside_shot(seen, samples)):
        return SUBTITLE if outer else TITLE
    if len(seen) > 1 and samples.flat[seen].mean() > 0.5:
        return TITLE
    return SCENE_TEXT


def _is_outer(box: np.ndarray, inside: Inside, settings: OverlaySettings) -> bool:
    middle = (box[1] + box[3] / 2 - inside.top) / inside.height
    return bool(middle >= settings.low or middle <= settings.high)


def _is_logo(
    still: Sequence[Run],
    seen: Sequence[int],
    samples: Samples,
    box: np.ndarray,
    inside: Inside,
    settings: OverlaySettings,
) -> bool:
    """Of one width, seen in most clips and in enough samples; in a single clip, at a corner."""
    widths = np.concatenate([np.asarray(run.boxes)[:, 2] for run in still])
    steady = _spread(widths) <= 0.15 * float(np.median(widths))
    share = len(seen) / len(samples.time_s)
    clips = len(set(samples.clip))
    if clips > 1:
        in_clips = len(set(samples.clip[list(seen)]))
        return steady and in_clips >= max(2.0, settings.logo_clips * clips) and share >= settings.logo_samples
    middle_x = (box[0] + box[2] / 2 - inside.left) / inside.width
    corner = _is_outer(box, inside, settings) and not 0.3 < middle_x < 0.7
    return steady and corner and share >= 0.8 and len(seen) >= 4


def _changes_width(still: Sequence[Run]) -> bool:
    """Whether two texts of clearly different width stand at the place, one after the other."""
    lasting = [run for run in still if len(run.samples) > 1]
    widths = [run.box[2] for run in lasting]
    apart = len({run.samples[0] for run in lasting}) > 1
    return apart and max(widths) > 1.25 * min(widths)


def _changes_inside_shot(seen: Sequence[int], samples: Samples) -> bool:
    """Whether the text begins or ends inside a shot, with two samples of that shot without it.

    It must be there in four fifths of the samples between: text that the detector finds only now and then
    begins and ends everywhere.
    """
    seen_set = set(seen)
    for clip in sorted(set(samples.clip[list(seen)].tolist())):
        within = np.flatnonzero(samples.clip == clip)
        hits = np.array([int(i) in seen_set for i in within])
        first, last = np.flatnonzero(hits)[[0, -1]]
        dense = hits[first : last + 1].mean() >= 0.8 and last > first
        if dense and (first >= 2 or len(hits) - 1 - last >= 2):
            return True
    return False


def _credits(samples: Samples, inside: Inside, settings: OverlaySettings) -> set[int]:
    """Samples with at least three lines on the middle axis of the picture, not all of them low."""
    middle = (inside.left + inside.right) / 2
    found = set()
    for s, boxes in enumerate(samples.boxes):
        lines = boxes[boxes[:, 3] <= settings.max_line_height * inside.height]
        on_axis = lines[np.abs(lines[:, 0] + lines[:, 2] / 2 - middle) <= settings.centred * inside.width]
        above = on_axis[:, 1] + on_axis[:, 3] / 2 < inside.top + settings.low * inside.height
        if len(on_axis) >= 3 and above.any():
            found.add(s)
    return found


def _run_kind(run: Run, kind: str, still: bool, credits_at: set[int]) -> str:
    """The group's kind unless this run moves; a lone box without support is no text."""
    if credits_at.issuperset(run.samples) and kind != LOGO:
        return TITLE
    if not still:
        return SCENE_TEXT
    if kind == SCENE_TEXT and len(run.samples) == 1:
        return ""
    return kind


def _overlay(run: Run, kind: str, samples: Samples, settings: OverlaySettings) -> Row:
    x, y, width, height = run.outline
    line = float(run.box[3])
    pad_y = max(settings.pad * line, 2.0)
    pad_x = max((settings.logo_pad if kind == LOGO else settings.pad) * line, 2.0)
    first, last = run.samples[0], run.samples[-1]
    return {
        "kind": kind,
        "x": round(float(x - pad_x), 2),
        "y": round(float(y - pad_y), 2),
        "width": round(float(width + 2 * pad_x), 2),
        "height": round(float(height + 2 * pad_y), 2),
        "start_s": float(samples.time_s[max(first - 1, 0)]),
        "end_s": float(samples.time_s[min(last + 1, len(samples.time_s) - 1)]),
    }
