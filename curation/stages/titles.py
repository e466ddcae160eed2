"""Where text stands in the scan's stills, before anything is packed: a title then costs its shot alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import rows
from curation.engine.stage import Folder, Resources, Row, Stage, Worker
from curation.models import text_detector
from curation.models.text_detector import TextDetector, TextSettings
from curation.shots.scan_stills import load_stills


@dataclass(frozen=True, kw_only=True)
class Titles(Stage):
    """Detects text in the stills of the scan; `quality` makes a score per shot of it.

    It sees less than `analyse` does (one small picture a second) but of the whole film, and 12 ms a still
    is a hundredth of what the analysis of a second costs. Letters of a thirtieth of the picture's height
    are found; smaller ones are left to `crop`.

    Attributes:
        text_side: longest side of the pictures that the detector sees, pixels.
        text_min_score: boxes under this text probability are dropped.
    """

    name: ClassVar[str] = "titles"
    reads: ClassVar[tuple[str, ...]] = ("segment_id", "stream", "stills")
    writes: ClassVar[pa.Schema] = rows.TITLES
    resources: ClassVar[Resources] = Resources(cpus=1, actors=True)

    text_side: int = 320
    text_min_score: float = 0.5

    def text_settings(self) -> TextSettings:
        """The text detector's part of the settings; refuses impossible ones."""
        return TextSettings(max_side=self.text_side, min_score=self.text_min_score)

    def __post_init__(self) -> None:
        self.text_settings()

    def fingerprint(self) -> dict[str, str]:
        """Version and hash of the text detector."""
        text = text_detector.describe(self.text_settings())
        return {"text": f"{text['revision']}:{text['sha256']}"}

    def worker(self) -> Worker:
        """Loads the text detector once."""
        import cv2

        cv2.setNumThreads(1)
        detector = TextDetector(self.text_settings())
        model = {**detector.describe(), "part": "titles"}

        def work(row: Row, folder: Folder) -> Row:
            boxes = find_text(detector, folder.open(row["stills"]), row["stream"])
            path = folder.path("title_text.parquet")
            pq.write_table(pa.Table.from_pylist(boxes, schema=rows.STILL_TEXT), path)
            return {"title_texts": folder.ref("title_text.parquet"), "title_models": [model]}

        return work


def find_text(detector: TextDetector, stills: Path, stream: Row) -> list[Row]:
    """`rows.STILL_TEXT` values: boxes in source pixels, and a row without one for a still without text."""
    out: list[Row] = []
    for still in load_stills(stills):
        picture = still.picture()
        scale = np.array([stream["width"] / picture.shape[1], stream["height"] / picture.shape[0]] * 2)
        place = {"slot": still.slot, "pts": still.pts}
        found = detector.detect(picture)
        table = np.concatenate([found[:, :4] * scale, found[:, 4:]], 1).tolist()
        boxes = [dict(zip(rows.BOX_SCORE, line, strict=True)) for line in table]
        out += [{**place, **box} for box in boxes or [dict.fromkeys(rows.BOX_SCORE)]]
    return out
