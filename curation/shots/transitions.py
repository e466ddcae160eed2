"""Gradual transitions, typed: fades through an even picture, and dissolves, from thumbs and luma."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curation.shots import likeness

BLOCK_ROWS, BLOCK_COLUMNS = 3, 4  # a thumb in blocks of 6 x 8 pixels
LEAP = 6.0  # luma deviation from which there certainly is a picture
MOTION = 0.45  # share of change that shifting leaves: pans up to 0.35, dissolves from 0.53 on
CHUNK = 2048  # frames per step: memory stays flat in film length


@dataclass(frozen=True, kw_only=True)
class GradualSettings:
    """How gradual transitions are decided; `curation.stages.shots.Shots` says what each setting means."""

    flash_frames: int = 4
    blank_deviation: float = 3.0
    min_fade_s: float = 0.12
    min_dissolve_s: float = 0.3
    max_dissolve_s: float = 4.0
    min_dissolve: float = 0.4
    min_changed_share: float = 0.75
    min_unlike: float = 0.4


@dataclass(frozen=True)
class Gradual:
    """Frames [start, end) that belong to no shot, how the shots beside them end and begin, and how sure.

    Attributes:
        start, end: half-open span of frames.
        out, into: how the shot before ends and the one after begins: cut, fade or dissolve.
        confidence: 0..1.
    """

    start: int
    end: int
    out: str
    into: str
    confidence: float


# -- fades --------------------------------------------------------------------------------------


def blank_runs(deviation: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Half-open runs of frames whose luma deviation is at most `limit`.

    A run goes on until there is a picture: a small title on black may hover around the limit.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], deviation <= limit, [False]])))
    runs: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if runs and deviation[runs[-1][1] : start].max() < LEAP:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((start, end))
    return runs


def fades(
    deviation: np.ndarray, thumbs: np.ndarray, fps: float, settings: GradualSettings
) -> tuple[list[Gradual], list[int]]:
    """Runs of blank frames with the fades that lead into and out of them.

    Args:
        deviation: float [N], standard deviation of luma.
        thumbs: uint8 [N, H, W].
        fps: frames per second.
        settings: see there.

    Returns:
        One entry per run with a fade on a side (the other side may be a cut); and the frames at which
        the film cuts to or from a run without a fade. A run at which nothing leaps (a dark shot that
        passes the limit by a little) is neither.
    """
    shortest = max(3, round(settings.min_fade_s * fps))
    found, cuts = [], []
    for start, end in blank_runs(deviation, settings.blank_deviation):
        before = _fade_beside(deviation[:start][::-1], thumbs[:start][::-1])
        after = _fade_beside(deviation[end:], thumbs[end:])
        lengths = [n if n >= shortest else 0 for n, _ in (before, after)]
        sure = [s for n, s in (before, after) if n >= shortest]
        if sure:
            out, into = ("fade" if n else "cut" for n in lengths)
            confidence = round(min(sure), 3)
            found.append(Gradual(start - lengths[0], end + lengths[1], out, into, confidence))
        elif end - start > settings.flash_frames:
            cuts += [start] if start > 0 and deviation[start - 1] >= LEAP else []
            cuts += [end] if end < len(deviation) and deviation[end] >= LEAP else []
    return found, cuts


def _fade_beside(deviation: np.ndarray, thumbs: np.ndarray) -> tuple[int, float]:
    """How many frames next to a blank one belong to a fade, and its evenness (0 for a cut, 1 at best).

    Index 0 is the frame nearest to the blank one. In a fade luma deviation grows away from the blank
    picture at a steady rate while the pattern stays the same; the fade is over where the growth falls
    under a third of its usual rate.
    """
    longest = min(len(deviation), 512)
    if longest < 2:
        return 0, 0.0
    rise = np.diff(deviation[:longest])
    stop = np.flatnonzero(rise < -0.02 * deviation[: longest - 1] - 0.2)
    grown = int(stop[0]) + 1 if len(stop) else longest
    alike = _alike(thumbs[:grown])
    unlike = np.flatnonzero(alike < 0.7)
    grown = int(unlike[0]) + 1 if len(unlike) else grown
    if grown < 2:
        return 0, 0.0
    rise = np.diff(deviation[:grown])
    total = deviation[grown - 1]
    half = int(np.searchsorted(deviation[:grown], total / 2)) + 1
    usual = total / 2 / half
    smooth = np.convolve(np.pad(rise, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    slow = np.flatnonzero(smooth[half:] < usual / 3) if len(smooth) > half else np.zeros(0, int)
    length = half + int(slow[0]) if len(slow) else grown
    leap = float(np.max(np.diff(deviation[: length + 1], prepend=0.0)) / max(total, 1e-9))
    return (length, 1 - leap) if total >= 6 and leap <= 0.6 else (0, 0.0)


def _alike(thumbs: np.ndarray) -> np.ndarray:
    """Correlation of each thumb with the next, float [N - 1]; 1 where either has no structure."""
    x = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    energy = np.sqrt((x**2).mean(axis=1))
    dot = (x[1:] * x[:-1]).mean(axis=1)
    scale = energy[1:] * energy[:-1]
    flat = np.minimum(energy[1:], energy[:-1]) < 2.0
    return np.where(flat, 1.0, dot / np.maximum(scale, 1e-9))


# -- dissolves ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    centre: int
    half: int
    evidence: float


def dissolves(
    thumbs: np.ndarray,
    fps: float,
    barriers: list[int],
    settings: GradualSettings,
) -> list[Gradual]:
    """Dissolves that lie between neighbouring barriers.

    Args:
        thumbs: uint8 [N, H, W].
        fps: frames per second.
        barriers: ascending frames that no dissolve crosses: 0, cuts, edges of fades, N.
        settings: see there.
    """
    found: list[Gradual] = []
    for start, end in pairwise(barriers):
        if end - start >= 8:
            part = _dissolves_within(thumbs[start:end], fps, settings)
            found += [Gradual(g.start + start, g.end + start, g.out, g.into, g.confidence) for g in part]
    return found


def _dissolves_within(thumbs: np.ndarray, fps: float, settings: GradualSettings) -> list[Gradual]:
    candidates: list[_Candidate] = []
    for half in _halves(fps, settings):
        if 2 * half + 1 > len(thumbs):
            break
        for centre in _mixed(thumbs, half, settings):
            evidence = _evidence(thumbs, int(centre), half)
            if evidence >= settings.min_dissolve and not _is_motion(thumbs, centre, half):
                candidates.append(_Candidate(int(centre), half, evidence))
    candidates.sort(key=lambda c: (-c.evidence * c.half**0.5, c.centre))
    found: list[Gradual] = []
    for candidate in candidates:
        span = _extent(thumbs, candidate)
        if any(span[0] < g.end and g.start < span[1] for g in found):
            continue
        if span[1] - span[0] < settings.min_dissolve_s * fps:
            continue
        kind = _kind(thumbs, span)
        found.append(Gradual(*span, kind, kind, round(min(1.0, candidate.evidence), 3)))
    return sorted(found, key=lambda g: g.start)


def _halves(fps: float, settings: GradualSettings) -> list[int]:
    """Half lengths to try, in frames, growing by about a third."""
    half, longest = max(4.0, settings.min_dissolve_s * fps / 2), settings.max_dissolve_s * fps / 2
    out = []
    while half <= longest:
        out.append(round(half))
        half *= 1.35
    return sorted(set(out))


def _mixed(thumbs: np.ndarray, half: int, settings: GradualSettings) -> np.ndarray:
    """Frames whose picture is a mix of the ones `half` before and after, which are unlike."""
    found = []
    for start in range(0, len(thumbs) - 2 * half, CHUNK):
        part = thumbs[start : start + CHUNK + 2 * half].astype(np.float32)
        found.append(_mixed_in(part, half, settings) + start + half)
    return np.concatenate(found) if found else np.zeros(0, int)


def _mixed_in(part: np.ndarray, half: int, settings: GradualSettings) -> np.ndarray:
    flat = part.reshape(len(part), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    a, m, b = flat[: -2 * half], flat[half:-half], flat[2 * half :]
    aa, bb, mm = _dot(a, a), _dot(b, b), _dot(m, m)
    ab, am, bm = _dot(a, b), _dot(a, m), _dot(b, m)
    det = aa * bb - ab**2 + 1e-3 * (aa + 1) * (bb + 1)
    share_a, share_b = (am * bb - bm * ab) / det, (bm * aa - am * ab) / det
    explained = (share_a * am + share_b * bm) / (mm + 1)
    dip = 2 * mm / (aa + bb + 1)
    unlike = (aa + bb - 2 * ab) / (aa + bb + 4)
    good = (
        (unlike >= settings.min_unlike)
        & (dip >= 0.2)  # a pan across an even wall dips to nothing
        & (dip <= 0.9)
        & (explained >= 0.15)  # low: what moves in the shots is explained by neither end
        & (np.minimum(share_a, share_b) >= 0.0)
        & (np.maximum(share_a, share_b) <= 0.9)
    )
    index = np.flatnonzero(good)
    if not len(index):
        return index
    changed = _changed_share(part[index], part[index + 2 * half])
    return index[changed >= settings.min_changed_share]


def _dot(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", p, q) / p.shape[1]


def _blocks(pictures: np.ndarray) -> np.ndarray:
    count, height, width = pictures.shape
    shape = (count, BLOCK_ROWS, height // BLOCK_ROWS, BLOCK_COLUMNS, width // BLOCK_COLUMNS)
    blocks = pictures.reshape(shape).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(count, BLOCK_ROWS * BLOCK_COLUMNS, -1)


def _changed_share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of blocks whose structure is unlike, float [N]."""
    p, q = _blocks(a), _blocks(b)
    p, q = p - p.mean(axis=2, keepdims=True), q - q.mean(axis=2, keepdims=True)
    energy = (p**2).mean(axis=2) + (q**2).mean(axis=2) + 4
    return (((p - q) ** 2).mean(axis=2) / energy > 0.4).mean(axis=1)


def _evidence(thumbs: np.ndarray, centre: int, half: int) -> float:
    """How much the way between two pictures, in eight steps, looks like mixing one into the other.

    A mix goes straight, each step in the direction of the last, and its variance dips to half of the
    ends' where they are unlike; camera and subject motion does none of it.
    """
    at = np.linspace(centre - half, centre + half, 9).round().astype(int)
    points = thumbs[at].reshape(9, -1).astype(np.float64)
    steps, axis = np.diff(points, axis=0), points[-1] - points[0]
    lengths, whole = np.sqrt((steps**2).sum(axis=1)) + 1e-9, np.sqrt((axis**2).sum()) + 1e-9
    along = steps @ axis / (lengths * whole)
    if np.min(along[1:-1]) < 0.2:
        return 0.0
    steady = (steps[1:-2] * steps[2:-1]).sum(axis=1) / (lengths[1:-2] * lengths[2:-1])
    variance = points.var(axis=1)
    dip = 2 * variance[4] / (variance[0] + variance[-1] + 1e-9)
    straight = whole / lengths.sum()
    return float(straight + 0.3 * steady.mean() - max(0.0, dip - 0.5))


def _is_motion(thumbs: np.ndarray, centre: int, half: int) -> bool:
    """Whether shifting the pictures explains most of the change on the way."""
    at = np.linspace(centre - half, centre + half, 9).round().astype(int)
    before, after = thumbs[at[:-1]], thumbs[at[1:]]
    shifted, _ = likeness.structure_shifted(before, after)
    return bool(shifted.sum() < MOTION * likeness.structure(before, after).sum())


def _extent(thumbs: np.ndarray, candidate: _Candidate) -> tuple[int, int]:
    """Where the steady change from one picture to the other begins and ends."""
    centre, half = candidate.centre, candidate.half
    first, last = max(0, centre - 2 * half), min(len(thumbs), centre + 2 * half + 1)
    flat = thumbs[first:last].reshape(last - first, -1).astype(np.float64)
    axis = flat[centre + half - first] - flat[centre - half - first]
    place = flat @ axis / (axis @ axis)
    width = max(1, half // 8)
    rate = (place[2 * width :] - place[: -2 * width]) / (2 * width)
    middle = centre - first - width
    inner = rate[max(0, middle - half // 2) : middle + half // 2 + 1]
    slow = rate < 0.4 * np.median(inner)
    before, after = np.flatnonzero(slow[:middle]), np.flatnonzero(slow[middle:])
    start = int(before[-1]) + 1 if len(before) else 0
    end = middle + int(after[0]) if len(after) else len(rate)
    return first + start + width, first + end + width


def _kind(thumbs: np.ndarray, span: tuple[int, int]) -> str:
    """A dissolve to or from a picture that is mostly blank (a title on black) is a fade."""
    ends = thumbs[[span[0], min(span[1], len(thumbs) - 1)]].astype(np.float64)
    blank = (_blocks(ends).std(axis=2) < 4).mean(axis=1)
    return "fade" if blank.max() >= 0.6 else "dissolve"
