"""The one cheap decode of a film, in key-frame-aligned segments, and the folds around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import av
import numpy as np
import pyarrow as pa

from curation import rows
from curation.engine.stage import KEPT, Fold, Folder, Row, Stage, Worker
from curation.shots import measure
from curation.shots.scan_stills import Still, StillSettings, save_stills, still_picture
from curation.shots.signals import Signals
from curation.stages.same_film import with_failed_copies
from curation.video import tiny
from curation.video.decode import ROTATE, decode_span

BATCH = 64  # frames measured together: what is worked on stays in the cache
SLOT_S = 0.5  # key statistics are taken of the first frame of every half second


class Scanner:
    """Turns the frames of a span, in presentation order, into `Signals`.

    Per frame it only gathers samples; everything else is done on whole batches. `feed` takes the place
    of a scaler and of per-frame arithmetic, which would cost more than the decoder.
    """

    def __init__(self, stream: Row, stills: StillSettings) -> None:
        self._stream, self._turns = stream, ROTATE[stream["rotation"]]
        self._slot_ticks = max(1, round(SLOT_S * stream["time_base_den"] / stream["time_base_num"]))
        self._still_settings = stills
        self.stills: list[Still] = []
        self._batch = tiny.TinyBatch(BATCH)
        self._lower = tiny.TinyBatch(BATCH) if stream["interlaced"] else None
        self._pts: list[int] = []
        self._corrupt: list[bool] = []
        self._content: list[np.ndarray] = [np.full((1, 3), np.nan, np.float32)]
        self._luma: list[np.ndarray] = []
        self._thumbs: list[np.ndarray] = []
        self._lower_thumbs: list[np.ndarray] = []
        self._keys: list[tuple[int, int, float, tuple[int, int, int, int]]] = []
        self._slot: int | None = None
        self._first_hsv = self._last_hsv = np.zeros((0, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)

    def feed(self, frame: av.VideoFrame, is_corrupt: bool) -> bool:
        """Take one frame; false if it was left out because its time does not follow the last one's."""
        pts = frame.pts
        assert pts is not None
        if self._pts and pts <= self._pts[-1]:
            return False
        if not tiny.is_planar(frame.format.name):
            frame = frame.reformat(format="yuv444p")
        planes = frame.planes
        layout = tiny.layout_of(frame, planes)
        batch = self._batch
        if not batch.accepts(layout):
            self._measure()
        if batch.grid is None or batch.grid.layout != layout:
            batch.start(tiny.grid_of(frame, self._stream))
            if self._lower is not None:
                self._lower.start(tiny.grid_of(frame, self._stream, lower_field=True))
        batch.add(planes)
        if self._lower is not None:
            self._lower.add(planes)
        slot = (pts - self._stream["first_pts"]) // self._slot_ticks
        if slot != self._slot:
            self._slot = slot
            self._measure_key(frame, slot)
        self._pts.append(pts)
        self._corrupt.append(is_corrupt)
        return True

    def _measure(self) -> None:
        """Measure the gathered batch."""
        if self._batch.count == 0:
            return
        luma, colour = self._batch.flush()
        hsv = measure.to_hsv(colour)
        if not len(self._first_hsv):
            self._first_hsv = hsv[:1].copy()
        self._content.append(measure.content(np.concatenate([self._last_hsv, hsv])))
        self._last_hsv = hsv[-1:].copy()
        self._luma.append(measure.luma_statistics(luma))
        self._thumbs.append(measure.halve(luma))
        if self._lower is not None:
            self._lower_thumbs.append(measure.halve(self._lower.flush()[0]))

    def _measure_key(self, frame: av.VideoFrame, slot: int) -> None:
        grid = self._batch.grid
        assert grid is not None
        luma = tiny.luma_plane(frame, grid)
        black, scale = tiny.levels(grid)
        found = measure.bars(luma, black=black, scale=scale)
        field = luma[::2] if self._stream["interlaced"] else luma
        value = measure.sharpness(field) / scale**2
        self._keys.append((len(self._pts), slot, value, measure.turn_bars(found, self._turns)))
        self._keep_still(luma, grid.is_full, slot, frame.pts)

    def _keep_still(self, luma: np.ndarray, is_full: bool, slot: int, pts: int | None) -> None:
        every, side = self._still_settings.still_slots, self._still_settings.still_side
        if every == 0 or (self.stills and self.stills[-1].slot == slot // every):
            return
        assert pts is not None
        image = still_picture(luma, is_full=is_full, quarter_turns=self._turns, side=side)
        self.stills.append(Still(slot // every, pts, image))

    def signals(self) -> Signals:
        """Everything measured so far, but for `stills`."""
        self._measure()
        count, keys = len(self._pts), self._keys
        none = np.zeros((0, tiny.HEIGHT // 2, tiny.WIDTH // 2), np.uint8)
        return Signals(
            pts=np.array(self._pts, np.int64),
            content=np.concatenate(self._content)[:count],
            luma=np.concatenate(self._luma or [np.zeros((0, 3), np.float32)]),
            thumbs_u8=np.concatenate(self._thumbs or [none]),
            corrupt=np.array(self._corrupt, bool),
            key_frame=np.array([k[0] for k in keys], np.int64),
            sharpness=np.array([k[2] for k in keys], np.float32),
            bars=np.array([k[3] for k in keys], np.int16).reshape(-1, 4),
            key_slot=np.array([k[1] for k in keys], np.int64),
            edges_hsv=np.concatenate([self._first_hsv, self._last_hsv]),
            lower_u8=np.concatenate(self._lower_thumbs or [none]),
        )


@dataclass
class Tally:
    """What a scan met besides signals."""

    stills: list[Still] = field(default_factory=list)
    frames: int = 0
    errors: int = 0
    out_of_order: int = 0


def scan(
    path: str,
    stream: Row,
    segment: Row,
    *,
    options: dict[str, str] | None = None,
    threads: int = 1,
    stills: StillSettings | None = None,
) -> tuple[Signals, Tally]:
    """Decode a segment once and measure it; what cannot be decoded is skipped and counted.

    Args:
        path: of the film.
        stream: `curation.rows.STREAM` values.
        segment: `curation.rows.SEGMENT` values.
        options: decoder options.
        threads: decoder threads.
        stills: which pictures to keep; as `Scan` has it by default if None.

    Raises:
        BadInput: the file cannot be opened.
    """
    scanner, tally = Scanner(stream, stills or StillSettings()), Tally()
    errors_before = 0
    for frame in _frames(path, stream, segment, options, threads, tally):
        tally.frames += 1
        is_corrupt = frame.is_corrupt or tally.errors > errors_before
        errors_before = tally.errors
        if not scanner.feed(frame, is_corrupt):
            tally.out_of_order += 1
    tally.stills = scanner.stills
    return scanner.signals(), tally


def _frames(
    path: str,
    stream: Row,
    segment: Row,
    options: dict[str, str] | None,
    threads: int,
    tally: Tally,
) -> Iterator[av.VideoFrame]:
    def on_error(error: Exception) -> None:
        tally.errors += 1

    return decode_span(
        path,
        stream,
        segment["start_pts"],
        segment["end_pts"],
        threads=threads,
        options=options,
        on_error=on_error,
    )


@dataclass(frozen=True, kw_only=True)
class Scan(StillSettings, Stage):
    """Measures all that is cheap in one decode: signals of cuts, fades, luma, bars, freeze, motion, hashes.

    Attributes:
        skip_loop_filter: which frames are decoded without the in-loop filter (FFmpeg's option): "all"
            saves a quarter of the time; the tiny pictures hardly change.
        threads: decoder threads; films are parallel by segments already.
    """

    name: ClassVar[str] = "scan"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("film_id", "stream", "segment")
    locates: ClassVar[tuple[str, ...]] = ("path",)
    writes: ClassVar = rows.SIGNALS
    skip_loop_filter: str = "all"
    threads: int = 1

    def __post_init__(self) -> None:
        known = ("none", "default", "noref", "bidir", "nokey", "all")
        if self.skip_loop_filter not in known:
            raise ValueError(
                f"scan.skip_loop_filter is {self.skip_loop_filter!r}; use one of {', '.join(known)}"
            )
        if self.still_slots < 0 or self.still_side < 64:
            raise ValueError("scan.still_slots must be 0 or more and scan.still_side 64 or more")

    def worker(self) -> Worker:
        """Scans one segment, on one core."""
        import cv2

        cv2.setNumThreads(1)
        return self._scan

    def _scan(self, row: Row, folder: Folder) -> Row:
        stream, segment = row["stream"], row["segment"]
        options = {"skip_loop_filter": self.skip_loop_filter}
        signals, tally = scan(
            row["path"], stream, segment, options=options, threads=self.threads, stills=self
        )
        folder.count("decoded_frames", tally.frames)
        folder.count("decoded_s", tally.frames / stream["fps"] if stream["fps"] else 0.0)
        if tally.errors:
            folder.count("decode_errors", tally.errors)
        if tally.out_of_order:
            folder.count("frames_out_of_order", tally.out_of_order)
        signals.save(folder.path("signals.npz"))
        save_stills(folder.path("stills.parquet"), tally.stills)
        return {"signals": folder.ref("signals.npz"), "stills": folder.ref("stills.parquet")}


SEGMENT_COLUMNS = tuple(rows.SEGMENT_ROW.names)
GATHERED = ("signals", "stills", "title_texts")
FILM_COLUMNS = pa.schema(
    [
        *rows.SOURCE,
        *rows.IDENTITY,
        *rows.INGEST,
        *((c, pa.list_(pa.string())) for c in GATHERED),
        rows.TITLES.field("title_models"),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ToSegments(Fold):
    """Film rows to one row per segment; a settled film stays one row without a segment."""

    name: ClassVar[str] = "to_segments"
    grain: ClassVar[str] = "segment"
    reads: ClassVar[tuple[str, ...]] = (
        *rows.SOURCE.names,
        *rows.IDENTITY.names,
        *rows.INGEST.names,
    )
    emits: ClassVar = rows.SEGMENT_ROW

    def fold(self, rows: list[Row]) -> list[Row]:
        """Spread films over their segments."""
        out = []
        for film in rows:
            common = {c: film[c] for c in SEGMENT_COLUMNS if c in film} | _verdict(film)
            if film["status"] != KEPT:
                out.append({**common, "segment_id": None, "segment": None})
                continue
            for segment in film["segments"]:
                name = f"{film['film_id']}-g{segment['index']:04d}"
                out.append({**common, "segment_id": name, "segment": segment})
        return out


@dataclass(frozen=True, kw_only=True)
class ToFilms(Fold):
    """Segment rows back to film rows with the list of their signals; a failed segment fails its film."""

    name: ClassVar[str] = "to_films"
    grain: ClassVar[str] = "film"
    reads: ClassVar[tuple[str, ...]] = (*SEGMENT_COLUMNS, *GATHERED, "title_models")
    emits: ClassVar = FILM_COLUMNS

    def fold(self, rows: list[Row]) -> list[Row]:
        """Gather segments by film, in order."""
        films: dict[Any, list[Row]] = {}
        for row in rows:
            films.setdefault((row["film_id"], row["path"]), []).append(row)
        return with_failed_copies([_film(parts) for parts in films.values()])


def _film(parts: list[Row]) -> Row:
    parts = sorted(parts, key=lambda row: row["segment"]["index"] if row["segment"] else -1)
    first = parts[0]
    common = {c: first[c] for c in FILM_COLUMNS.names if c not in GATHERED}
    bad = next((row for row in parts if row["status"] != KEPT), None)
    if bad is not None:
        return {**common, **_verdict(bad), **dict.fromkeys(GATHERED)}
    return {**common, **_verdict(first), **{c: [row[c] for row in parts] for c in GATHERED}}


def _verdict(row: Row) -> Row:
    return {name: row.get(name) for name in ("status", "stage", "reason", "detail")}
