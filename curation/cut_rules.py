"""From cuts and gradual transitions to shots: arithmetic on half-open spans of frames, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.hard_cuts import Cut
from curation.transitions import Gradual

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
    gaps = join(graduals, num_frames, min_frames)
    for cut in cuts:
        if 0 < cut.frame < num_frames and not any(
            g.start <= cut.frame <= g.end for g in gaps if g.end > g.start
        ):
            gaps.append(Gradual(cut.frame, cut.frame, CUT, CUT, cut.confidence))
    gaps.sort(key=lambda g: (g.start, g.end))
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


def join(graduals: Sequence[Gradual], num_frames: int, min_frames: int) -> list[Gradual]:
    """Overlapping transitions, and those with less than `min_frames` between them, as one."""
    joined: list[Gradual] = []
    for g in sorted(graduals, key=lambda g: (g.start, g.end)):
        start = 0 if g.start < min_frames else g.start
        end = num_frames if num_frames - g.end < min_frames else g.end
        last = joined[-1] if joined else None
        if last is None or start - last.end >= min_frames:
            joined.append(Gradual(start, end, g.out, g.into, g.confidence))
            continue
        later = g.end > last.end
        joined[-1] = Gradual(
            last.start,
            max(last.end, end),
            _stronger(last.out, g.out) if g.start <= last.start else last.out,
            _stronger(g.into, last.into) if g.end == last.end else (g.into if later else last.into),
            max(last.confidence, g.confidence),
        )
    return joined


def _stronger(a: str, b: str) -> str:
    return a if b == CUT else b


def split_blanks(
    graduals: Sequence[Gradual], num_frames: int, longest_flash: int
) -> tuple[list[Gradual], list[int]]:
    """Blank stretches without a fade on either side are no transition.

    Returns:
        The transitions; and the frames at which the film cuts to or from a longer blank stretch, which
        counts as a shot (a black one, for the quality stage to reject).
    """
    kept, cuts = [], []
    for g in graduals:
        if g.out != CUT or g.into != CUT:
            kept.append(g)
        elif g.end - g.start > longest_flash:
            cuts += [f for f in (g.start, g.end) if 0 < f < num_frames]
    return kept, sorted(cuts)
