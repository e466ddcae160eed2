"""The one analysis pass over a sequence: text boxes, tracked subjects and what these look like."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import rows, timing, weights
from curation.engine.stage import Folder, Resources, Row, Stage, Worker
from curation.framing.pictures import jpeg
from curation.models import subject_detector, text_detector
from curation.models.appearance import Appearance, save_looks
from curation.models.shot_tracks import Collector
from curation.models.text_detector import TextDetector, TextSettings
from curation.models.tracker import Tracker, TrackSettings
from curation.optional import require
from curation.video.decode import decode_span, fit_size, seconds, to_bgr
from curation.video.decord_frames import decord_span

log = logging.getLogger(__name__)
APPEARANCES = ("auto", "embedded", "full")
DECODERS = ("pyav", "decord")
RATES = (1, 2, 4, 8, 16)
STILL_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Analyse(Stage):
    """Detects text and subjects and tracks the subjects inside each shot, in a single decode of the span.

    Attributes:
        analysis_side: longest side of the pictures that detectors see, pixels.
        track_fps: pictures a second for subjects; they are frames that the exported clip has too.
        text_fps: pictures a second for text.
        detector: auto, opencv (needs no file), yolox or yolo; auto takes the best that needs no download.
        detector_weights: file for yolox (.onnx) or yolo (.pt); empty for the weights cache.
        min_score: least score of a box of yolox or yolo; weak ones only prolong tracks.
        region_backup: with yolox and yolo, also follow salient moving regions where they see nothing.
        appearance: auto, embedded (colours and outline) or full (adds person and face networks); auto takes
            the networks whose weights are in the cache.
        reid_weights: file of the network that knows persons again (osnet_x0_25); empty for the weights cache.
        face_detector_weights: file of the face detector (face_yunet); empty for the weights cache.
        face_weights: file of the network that knows faces again (mobilefacenet); empty for the weights cache.
        track_start_score: a track starts with a box of at least this score.
        track_high_score: boxes of at least this score join tracks first, weaker ones what is left.
        track_min_iou: least overlap of a box with where its track is expected, as intersection over union.
        track_keep_s: seconds that a track outlives its last box.
        tracker: core (trackers' ByteTrack) or ultralytics (its own; extra `yolo`).
        stills_per_clip: small pictures kept of every clip, for the search of logos and the review page.
        text_backend: rapidocr (weights in its package) or paddleocr (extra `ocr-gpu`, needs `text_model`).
        text_model: rapidocr: another PP-OCR text detector, an ONNX file. paddleocr: the folder of a PP-OCR
            detection model. Empty for the one in RapidOCR's package.
        text_device: where paddleocr runs, cpu or gpu:0; rapidocr always runs on the CPU.
        text_min_score: boxes under this mean text probability are dropped.
        decoder: pyav, or decord (extra `decord`) for MP4 and Matroska files: the same frames, scaled after
            instead of before the conversion to RGB. Scan and export need YUV and always use pyav.
    """

    name: ClassVar[str] = "analyse"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("sequence_id", "film_id", "stream", "clips")
    locates: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar[pa.Schema] = rows.ANALYSIS
    resources: ClassVar[Resources] = Resources(cpus=1, actors=True)

    analysis_side: int = 640
    track_fps: int = 8
    text_fps: int = 2
    detector: str = "auto"
    detector_weights: str = ""
    min_score: float = 0.2
    region_backup: bool = True
    appearance: str = "auto"
    reid_weights: str = ""
    face_detector_weights: str = ""
    face_weights: str = ""
    track_start_score: float = 0.4
    track_high_score: float = 0.35
    track_min_iou: float = 0.2
    track_keep_s: float = 1.0
    tracker: str = "core"
    stills_per_clip: int = 4
    text_backend: str = "rapidocr"
    text_model: str = ""
    text_device: str = "cpu"
    text_min_score: float = 0.5
    decoder: str = "pyav"

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"analyse.decoder is {self.decoder!r}; use one of {', '.join(DECODERS)}")
        if self.track_fps not in RATES or self.text_fps not in RATES:
            raise ValueError(
                f"track_fps and text_fps must divide the export rate: one of {RATES}, got {self.track_fps} "
                f"and {self.text_fps}"
            )
        if self.detector not in subject_detector.BACKENDS:
            raise ValueError(f"detector must be one of {subject_detector.BACKENDS}")
        if self.appearance not in APPEARANCES:
            raise ValueError(f"appearance must be one of {APPEARANCES}")
        if self.analysis_side < 128:
            raise ValueError(f"analysis_side must be at least 128 pixels, got {self.analysis_side}")

    def text_settings(self) -> TextSettings:
        """The text detector's part of the settings."""
        return TextSettings(
            backend=self.text_backend,
            model=self.text_model,
            device=self.text_device,
            max_side=self.analysis_side,
            min_score=self.text_min_score,
        )

    def choice(self) -> subject_detector.Choice:
        """The subject detector that these settings mean here."""
        return subject_detector.choose(self.detector, self.detector_weights or None)

    def appearance_files(self) -> dict[str, Path | None]:
        """Weights of the appearance networks that these settings mean here, None for those not used."""
        given = {
            "reid": ("osnet_x0_25", self.reid_weights),
            "face_detector": ("face_yunet", self.face_detector_weights),
            "face": ("mobilefacenet", self.face_weights),
        }
        if self.appearance == "embedded":
            return dict.fromkeys(given)
        look = weights.resolve if self.appearance == "full" else weights.find
        return {part: look(name, path or None) for part, (name, path) in given.items()}

    def fingerprint(self) -> dict[str, str]:
        """Hashes and versions of the models in use."""
        text = text_detector.describe(self.text_settings())
        made = {"detector": self.choice().fingerprint, "text": f"{text['revision']}:{text['sha256']}"}
        for part, path in self.appearance_files().items():
            if path is not None:
                made[part] = weights.sha256_of(path)
        if self.decoder == "decord":
            made["decoder"] = f"decord {require('decord', extra='decord').__version__}"
        return made

    def worker(self) -> Worker:
        """Loads the models once."""
        import cv2

        if self.decoder == "decord":
            require("decord", extra="decord")
        cv2.setNumThreads(1)  # the stage asks for one core, and one thread gives the same floats everywhere
        return _Models(self).analyse


class Moment(NamedTuple):
    """A decoded frame of a clip and what it is wanted for."""

    frame: Any
    frame_index: int
    clip: Row
    first: bool  # of its clip
    wants_text: bool
    wants_boxes: bool


def moments(
    frames: Iterator[Any], stream: Row, clips: Sequence[Row], text_fps: int, track_fps: int
) -> Iterator[Moment]:
    """The frames of exported clips that are on screen at multiples of 1/text_fps or 1/track_fps of the clip.

    Args:
        frames: decoded frames from the first clip's first frame on, in presentation order.
        stream: `curation.rows.STREAM` values.
        clips: `curation.rows.CLIP_SPAN` values in order; context is passed over.
        text_fps: pictures a second for text, a divisor of the export rate.
        track_fps: pictures a second for subjects, the same; so every frame taken is in the exported clip.
    """
    index, begun = clips[0]["start_frame"] - 1, -1
    for frame, next_pts in _with_next(frames):
        index += 1
        clip = next((c for c in clips if c["start_pts"] <= frame.pts < c["end_pts"]), None)
        if clip is None or clip["is_context"]:
            continue
        end = clip["end_pts"] if next_pts is None else min(next_pts, clip["end_pts"])
        low = timing.frame_index_16fps(stream, clip["start_pts"], frame.pts)
        high = timing.frame_index_16fps(stream, clip["start_pts"], end)
        text = _holds_multiple(low, high, timing.FPS // text_fps)
        boxes = _holds_multiple(low, high, timing.FPS // track_fps)
        if text or boxes:
            yield Moment(frame, index, clip, clip["clip_index"] != begun, text, boxes)
            begun = clip["clip_index"]


def _with_next(frames: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Each frame with the timestamp of the one after it."""
    before = None
    for frame in frames:
        if before is not None:
            yield before, frame.pts
        before = frame
    if before is not None:
        yield before, None


def _holds_multiple(low: int, high: int, step: int) -> bool:
    """Whether [low, high) holds a multiple of `step`."""
    return -(-low // step) * step < high


class _Models:
    """The loaded models, and the pass itself."""

    def __init__(self, stage: Analyse) -> None:
        self.stage = stage
        choice = stage.choice()
        log.info("subject detector: %s (%s)", choice.backend, choice.why)
        self.detector = subject_detector.build(
            choice, min_score=stage.min_score, region_backup=stage.region_backup
        )
        self.appearance = Appearance(**stage.appearance_files())
        self.text = TextDetector(stage.text_settings())
        self.tracks = TrackSettings(
            start_score=stage.track_start_score,
            high_score=stage.track_high_score,
            min_iou=stage.track_min_iou,
            keep_s=stage.track_keep_s,
        )

    def analyse(self, row: Row, folder: Folder) -> Row:
        """One decode of the sequence; memory holds one frame and a few small crops per track."""
        stream, clips = row["stream"], sorted(row["clips"], key=lambda c: c["clip_index"])
        size = fit_size(stream, self.stage.analysis_side)
        scale = np.array([stream["width"] / size[1], stream["height"] / size[0]] * 2)
        tracker = Tracker(self.stage.track_fps, self.tracks, self.stage.tracker)
        collected, text_rows, stills, seen = (
            Collector(scale),
            [],
            Stills(self.stage.stills_per_clip, folder),
            0,
        )
        decode = decord_span if self.stage.decoder == "decord" else decode_span
        frames = _counted(decode(row["path"], stream, *_span(clips)), clips, folder)
        for moment in moments(frames, stream, clips, self.stage.text_fps, self.stage.track_fps):
            seen += 1
            picture = to_bgr(moment.frame, stream, size)
            if moment.wants_text:
                text_rows.extend(self._text(picture, moment, stream, scale))
                stills.offer(picture, moment, stream)
            if moment.first:
                collected.end_shot(self.appearance)
                self.detector.start_shot()
                tracker.start_shot()
            if moment.wants_boxes:
                found = self.detector.detect(picture)
                place = _place(moment, stream)
                collected.add(picture, place, found, tracker.update(found))
        collected.end_shot(self.appearance)
        _write(folder.path("text_boxes.parquet"), text_rows, rows.TEXT_BOX)
        _write(folder.path("boxes.parquet"), collected.rows, rows.TRACK_BOX)
        save_looks(folder.path("looks.npz"), collected.looks)
        return {
            "text_boxes": folder.ref("text_boxes.parquet"),
            "boxes": folder.ref("boxes.parquet"),
            "embeddings": folder.ref("looks.npz"),
            "stills": stills.kept,
            "analysed_frames": seen,
            "analysis_models": [
                self.text.describe(),
                *self.detector.describe(),
                tracker.describe(),
                *self.appearance.describe(),
            ],
        }

    def _text(self, picture: np.ndarray, moment: Moment, stream: Row, scale: np.ndarray) -> list[Row]:
        place = _place(moment, stream)
        del place["shot_id"]
        boxes = self.text.detect(picture)
        names = ("x", "y", "width", "height", "score")
        if not len(boxes):
            return [{**place, **dict.fromkeys(names)}]
        table = np.concatenate([boxes[:, :4] * scale, boxes[:, 4:]], 1).tolist()
        return [{**place, **dict(zip(names, line, strict=True))} for line in table]


class Stills:
    """Keeps the first text picture in each of `number` equal parts of a clip."""

    def __init__(self, number: int, folder: Folder) -> None:
        self.number, self.folder = number, folder
        self.kept: list[Row] = []
        self._taken: set[tuple[int, int]] = set()

    def offer(self, picture: np.ndarray, moment: Moment, stream: Row) -> None:
        """Write the picture if it is the first of its part."""
        clip, pts = moment.clip, moment.frame.pts
        part = (pts - clip["start_pts"]) * self.number // (clip["end_pts"] - clip["start_pts"])
        if (clip["clip_index"], part) in self._taken:
            return
        self._taken.add((clip["clip_index"], part))
        name = f"still-{clip['clip_index']:02d}-{part}.jpg"
        self.folder.path(name).write_bytes(jpeg(picture, STILL_QUALITY))
        place = _place(moment, stream)
        del place["shot_id"]
        self.kept.append({**place, "image": self.folder.ref(name)})


def _place(moment: Moment, stream: Row) -> Row:
    return {
        "clip_index": moment.clip["clip_index"],
        "shot_id": moment.clip["shot_id"],
        "frame": moment.frame_index,
        "pts": moment.frame.pts,
        "time_s": seconds(stream, moment.frame.pts),
    }


def _span(clips: Sequence[Row]) -> tuple[int, int]:
    return clips[0]["start_pts"], clips[-1]["end_pts"]


def _counted(frames: Iterator[Any], clips: Sequence[Row], folder: Folder) -> Iterator[Any]:
    """The frames of the sequence's span; what was decoded is counted."""
    count = 0
    for frame in frames:
        count += 1
        yield frame
    folder.count("decoded_s", clips[-1]["end_s"] - clips[0]["start_s"])
    folder.count("decoded_frames", count)


def _write(path: Path, table: list[Row], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path)
