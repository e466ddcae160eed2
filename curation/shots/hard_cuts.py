"""Hard cuts: PySceneDetect's own decision logic, fed with values that the scan already measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.shots import likeness
from curation.shots.signals import Signals

LIKE = 0.15  # structural difference of pictures before and after a flash
CALM = 0.12  # structural change up to which motion need not be looked at


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """How hard cuts are decided; `curation.stages.shots.Shots` says what each setting means."""

    detector: str = "adaptive"
    adaptive_threshold: float = 3.0
    min_content: float = 15.0
    content_threshold: float = 27.0
    structure_ratio: float = 4.2
    min_structure: float = 0.2
    max_alike: float = 0.9
    flash_frames: int = 4

    def __post_init__(self) -> None:
        if self.detector not in ("adaptive", "content"):
            raise ValueError(f"detector is {self.detector!r}; use 'adaptive' or 'content'")


@dataclass(frozen=True)
class Cut:
    """The first frame of a new shot, and how sure that is (0..1; 0.5 at the threshold)."""

    frame: int
    confidence: float


def content_scores(signals: Signals) -> np.ndarray:
    """PySceneDetect's frame score with its default weights, float64 [N]; 0 in the first frame."""
    pixels = 36 * 64
    parts = np.rint(np.nan_to_num(signals.content.astype(np.float64)) * pixels) / pixels
    return parts.sum(axis=1) / 3.0


def structure_scores(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Change of luma structure against the frame before that no shift of the picture explains.

    Args:
        thumbs: uint8 [N, H, W].

    Returns:
        float64 [N], 0 (same) to about 1 (unlike); float64 [N], correlation with the frame before where
        there is change, else 1.
    """
    change, alike = np.zeros(len(thumbs)), np.ones(len(thumbs))
    if len(thumbs) < 2:
        return change, alike
    inside = thumbs[(slice(None), *likeness.lit_box(thumbs))]
    change[1:] = likeness.structure(inside[:-1], inside[1:])
    moved = np.flatnonzero(change > CALM)
    if len(moved):
        change[moved], alike[moved] = likeness.structure_shifted(inside[moved - 1], inside[moved])
    return change, alike


def replay(scores: Sequence[float] | np.ndarray, settings: CutSettings) -> list[int]:
    """Frames at which PySceneDetect's detector cuts when its frame scores are `scores`.

    The detector is PySceneDetect's class; only the computation of the score is replaced, so its
    decisions are its own.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector, ContentDetector

    values = iter([float(s) for s in scores])

    class Replayed(AdaptiveDetector):
        def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
            return next(values)

    class ReplayedContent(ContentDetector):
        def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
            return next(values)

    # Flashes are judged below; a minimum length here would swallow the second of two fast cuts.
    detector: ContentDetector
    if settings.detector == "adaptive":
        detector = Replayed(
            adaptive_threshold=settings.adaptive_threshold,
            min_content_val=settings.min_content,
            min_scene_len=1,
        )
    else:
        detector = ReplayedContent(threshold=settings.content_threshold, min_scene_len=1)
    nothing, found = np.zeros((0, 0, 3), np.uint8), []
    for frame in range(len(scores)):
        found += detector.process_frame(FrameTimecode(frame, 25.0), nothing)
    found += detector.post_process(FrameTimecode(max(len(scores) - 1, 0), 25.0))
    return sorted({cut.frame_num for cut in found})


def hard_cuts(signals: Signals, settings: CutSettings) -> list[Cut]:
    """Hard cuts of a film in ascending order.

    Two looks with the same detector, at content (hue, saturation, value) and at structure; then vetoes:
    the same picture in another light (or chroma noise in black), and flashes.
    """
    content = content_scores(signals)
    structure, alike = structure_scores(signals.thumbs_u8)
    second = CutSettings(
        adaptive_threshold=settings.structure_ratio, min_content=100 * settings.min_structure
    )
    found = {*replay(content, settings), *replay(100 * structure, second)} - {0}
    frames = [f for f in sorted(found) if alike[f] < settings.max_alike]
    frames = _without_flashes(frames, signals.thumbs_u8, structure, settings.flash_frames)
    margin = np.maximum(
        _ratio(content, frames) / settings.adaptive_threshold,
        _ratio(structure, frames) / settings.structure_ratio,
    )
    return [Cut(f, round(float(m / (1 + m)), 3)) for f, m in zip(frames, margin, strict=True)]


def _ratio(scores: np.ndarray, frames: list[int]) -> np.ndarray:
    """Score over the mean of the two neighbours on either side, at most 255."""
    out = np.empty(len(frames))
    for i, frame in enumerate(frames):
        around = np.concatenate([scores[max(0, frame - 2) : frame], scores[frame + 1 : frame + 3]])
        out[i] = min(255.0, scores[frame] / max(float(around.mean()), 1e-5))
    return out


def _without_flashes(frames: list[int], thumbs: np.ndarray, structure: np.ndarray, longest: int) -> list[int]:
    """Drop cuts soon after which the picture is what it was before, and those on the way back."""
    kept: list[int] = []
    back = 0
    for frame in frames:
        if frame <= back:
            continue
        after = thumbs[frame + 1 : frame + 1 + longest]
        before = np.repeat(thumbs[frame - 1 : frame], len(after), axis=0)
        unlike, _ = likeness.structure_shifted(before, after)
        returned = np.flatnonzero(unlike < min(LIKE, structure[frame] / 2))
        if len(returned):
            back = frame + 1 + int(returned[0])
        else:
            kept.append(frame)
    return kept
