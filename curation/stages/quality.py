"""Quality scores of every shot, from what the scan left behind. Measures only; `filters` decides."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import rows
from curation.engine.stage import Folder, Row, Stage, Worker
from curation.shots.hashes import hash_pictures, perceptual_hashes, picture_edges
from curation.shots.scores import (
    exposure,
    film_bars,
    flicker,
    freeze_share,
    median,
    motion,
    shake,
    share,
)
from curation.shots.signals import Signals
from curation.shots.title_scores import first_of_slots, text_free_share
from curation.stages.crop import inside_bars

Bars = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Quality(Stage):
    """Score shots from what the scan and `titles` left, without decoding. No settings: all scores are kept.

    See `curation.rows.SHOT_SCORES` for the meaning and `curation.shots.scores` for the arithmetic.
    """

    name: ClassVar[str] = "quality"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("film_id", "stream", "segments", "signals", "title_texts", "shots")
    writes: ClassVar[pa.Schema] = pa.schema([("shot_scores", pa.list_(rows.SHOT_SCORES))])

    def worker(self) -> Worker:
        """A function from the row's signals to scores aligned with `shots`."""

        def work(row: Row, folder: Folder) -> Row:
            signals = Signals.concat([Signals.load(folder.open(ref)) for ref in row["signals"]])
            texts = [t for ref in row["title_texts"] for t in pq.read_table(folder.open(ref)).to_pylist()]
            return {"shot_scores": score_shots(signals, row["stream"], row["shots"], first_of_slots(texts))}

        return work


def score_shots(signals: Signals, stream: Row, shots: list[Row], texts: list[Row]) -> list[Row]:
    """`rows.SHOT_SCORES` of each shot.

    Args:
        signals: of the whole film.
        stream: `rows.STREAM` values.
        shots: `rows.SHOT` values; their frame indices count the film's frames.
        texts: `rows.STILL_TEXT` values of the film in order of time.
    """
    tick_s = stream["time_base_num"] / stream["time_base_den"]
    times = (signals.pts - stream["first_pts"]) * tick_s
    key_shot = np.full(len(signals.key_frame), -1)
    for i, shot in enumerate(shots):
        inside = (signals.key_frame >= shot["start_frame"]) & (signals.key_frame < shot["end_frame"])
        key_shot[inside] = i
    size = (stream["height"], stream["width"])
    bars = film_bars(signals.bars, signals.luma[signals.key_frame, 0], key_shot, len(shots), size)
    stamps = [row["pts"] for row in texts]
    out = []
    for i, shot in enumerate(shots):
        span = slice(shot["start_frame"], shot["end_frame"])
        part = signals.span(span.start, span.stop)
        scores = _score(part, times[span], shot["end_s"], bars[i], size)
        begin, end = (bisect_left(stamps, shot[f"{edge}_pts"]) for edge in ("start", "end"))
        free = text_free_share(texts[begin:end], part, stream, inside_bars(stream, scores))
        out.append({**scores, "text_free_share": None if free is None else round(free, 6)})
    return out


def _score(shot: Signals, times: np.ndarray, end_s: float, bars: Bars | None, size: tuple[int, int]) -> Row:
    picture = picture_edges(bars, size)
    pictures = hash_pictures(times, end_s, shot.thumbs_u8)
    top, bottom, left, right = bars or (None, None, None, None)
    scores = {
        **exposure(shot.luma),
        "sharpness": median(shot.sharpness),
        "motion": motion(times, shot.thumbs_u8),
        "shake": shake(times, shot.thumbs_u8),
        "freeze_share": freeze_share(np.append(times, end_s), shot.thumbs_u8, shot.content[:, 2]),
        "flicker": flicker(shot.luma[:, 0]),
        "corrupt_share": share(shot.corrupt),
    }
    return {
        # The last digits of a float differ between kinds of processors; what is kept must not.
        **{name: None if value is None else round(value, 6) for name, value in scores.items()},
        "bar_top": top,
        "bar_bottom": bottom,
        "bar_left": left,
        "bar_right": right,
        "phash": perceptual_hashes(pictures[0], picture),
        "phash_end": perceptual_hashes(pictures[1], picture),
    }
