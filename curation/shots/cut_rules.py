"""From cuts and gradual transitions to shots: arithmetic on half-open spans of frames, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from curation.shots.hard_cuts import Cut
from curation.shots.transitions import Gradual

START, CUT, END = "start", "cut", "end"


@dataclass(frozen=True)
class ShotSpan:
    """Frames [start, end) of one shot, how it begins and ends, and how sure its beginning is (0..1)."""

    start: int
    end: int
    transition_in: str
    transition_out: str
    confidence: float


def shot_spans(
    num_frames: int, cuts: Sequence[Cut], graduals: Sequence[Gradual], *, min_frames: int = 3
) -> list[ShotSpan]:
    """The shots of a film, in order.

    Frames of a gradual transition belong to no shot; one that touches the film's start or end only
    trims it. A cut inside a transition is part of it. What lies between two transitions and is shorter
    than `min_frames` belongs to them.

    Args:
        num_frames: frames of the film.
        cuts: hard cuts, ascending.
        graduals: gradual transitions, in any order; they may overlap.
        min_frames: length from which frames between transitions are a shot.
    """
    breaks = [Gradual(c.frame, c.frame, CUT, CUT, c.confidence) for c in cuts]
    inner = [g for g in breaks if 0 < g.start < num_frames]
    gaps = join([*graduals, *inner], num_frames, min_frames)
    spans: list[ShotSpan] = []
    begin, into, confidence = 0, START, 1.0
    for gap in gaps:
        if gap.start > begin:
            out = END if gap.end >= num_frames and gap.end > gap.start else gap.out
            spans.append(ShotSpan(begin, gap.start, into, out, confidence))
        if gap.end < num_frames and (spans or gap.start > 0):
            into, confidence = gap.into, gap.confidence
        begin = max(begin, gap.end)
    if begin < num_frames:
        spans.append(ShotSpan(begin, num_frames, into, END, confidence))
    return spans


def without_mixed(spans: Sequence[ShotSpan], lower: np.ndarray) -> list[ShotSpan]:
    """The shots of an interlaced film without frames of which one field belongs to the neighbouring shot.

    The cuts are those of the upper field. Where the lower field changes one frame earlier or later, the cut
    lies between the two fields of a frame, and this frame belongs to no shot.

    Args:
        spans: of `shot_spans`.
        lower: uint8 [N, h, w], small pictures of the lower field of all frames.
    """
    out = []
    for span in spans:
        start, end = span.start, span.end
        if span.transition_in == CUT and _change_near(start, lower) > start and end - start > 2:
            start += 1
        if span.transition_out == CUT and _change_near(end, lower) < end and end - start > 2:
            end -= 1
        out.append(replace(span, start=start, end=end))
    return out


def _change_near(cut: int, lower: np.ndarray) -> int:
    """Where the lower field changes most: at the cut, or at the frame before or after it."""
    near = [frame for frame in (cut, cut - 1, cut + 1) if 0 < frame < len(lower)]
    return max(near, key=lambda f: int(np.abs(lower[f].astype(np.int16) - lower[f - 1]).sum()))


def join(breaks: Sequence[Gradual], num_frames: int, min_frames: int) -> list[Gradual]:
    """Breaks in order, where those that overlap a transition or nearly touch it have become one with it.

    Two cuts (breaks without length) stay two however close they are.
    """
    joined: list[Gradual] = []
    for g in sorted(breaks, key=lambda g: (g.start, -g.end)):
        last = joined[-1] if joined else None
        is_cut = g.start == g.end
        if not is_cut and g.start < min_frames:
            g = replace(g, start=0)
        if not is_cut and num_frames - g.end < min_frames:
            g = replace(g, end=num_frames)
        if last is None or g.start - last.end >= min_frames or (is_cut and last.start == last.end):
            joined.append(g)
        else:
            joined[-1] = _one(last, g)
    return joined


def _one(a: Gradual, b: Gradual) -> Gradual:
    """Two breaks as one; `a` starts first, or is the longer of two that start together."""
    confidence = max(a.confidence, b.confidence)
    if b.end <= a.end:
        return replace(a, into=_stronger(a.into, b.into) if a.end == b.end else a.into)
    out = _stronger(a.out, b.out) if a.start == b.start else a.out
    return Gradual(a.start, b.end, out, b.into, confidence)


def _stronger(a: str, b: str) -> str:
    return a if b == CUT else b
