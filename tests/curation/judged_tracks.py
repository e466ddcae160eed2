"""How well tracks are joined to subjects: pairs of tracks that people told apart, real footage and demo.

`python -m tests.curation.judged_tracks [embedded] [full] [SEQUENCE...]` prints the numbers of docs/tiers.md.
The labels are boxes (`tests/golden/identity_tracks.json`), so that they hold for any detector's tracks: a
track is who its boxes overlap. "-" is no subject; "a+b" is a box with both, of which no pair is counted.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.demo.truth import GroundTruth
from curation.engine.stage import Row
from curation.models.subject_detector import iou
from curation.stages import analyse
from curation.stages.subjects import INTEREST, Subjects
from tests.curation.tiny_film import sequence_row
from tests.support import GOLDEN, scratch, shared

FILE = GOLDEN / "identity_tracks.json"
SIDES = ("x", "y", "width", "height")
NOBODY = "-"
WEIGHTS = {
    "detector_weights": "yolox_nano",
    "reid_weights": "osnet_x0_25_msmt17",
    "face_detector_weights": "face_yunet_dynamic",
    "face_weights": "mobilefacenet",
}
Truth = dict[int, list[tuple[list[float], str]]]
"""Boxes with names by frame."""


class Pairs(NamedTuple):
    """Pairs of tracks: joined rightly, joined wrongly, not joined though one subject."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other) -> Pairs:
        return Pairs(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        """Share of joined pairs that are one subject; NaN if none was joined."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else float("nan")

    @property
    def recall(self) -> float:
        """Share of pairs of one subject that were joined; NaN if there is none."""
        return self.right / (self.right + self.missed) if self.right + self.missed else float("nan")


def settings(tier: str) -> dict[str, str]:
    """Settings of the analysis: `embedded` or `full`, the latter with the small real weights."""
    if tier == "embedded":
        return {"detector": "opencv", "appearance": "embedded"}
    files = {name: str(shared(f"weights/{file}.onnx")) for name, file in WEIGHTS.items()}
    return {"detector": "yolox", "appearance": "full", **files}


def demo_truth(truth: GroundTruth) -> Truth:
    """The demo film's true boxes, every fourth frame and the frames beside it."""
    boxes: Truth = defaultdict(list)
    for seen in truth.subjects:
        b = seen.box
        for frame in range(seen.frame - 2, seen.frame + 2):
            boxes[frame].append(([b.x, b.y, b.width, b.height], seen.subject))
    return boxes


def labelled_truth(tracks: list[Row]) -> Truth:
    """The boxes of a sequence of the file."""
    boxes: Truth = defaultdict(list)
    for track in tracks:
        for frame, *box in track["boxes"]:
            boxes[frame].append((box, track["who"]))
    return boxes


def who(boxes: list[Row], truth: Truth, least: float) -> str | None:
    """The name that most of a track's boxes have, None where that is in doubt."""
    votes: dict[str, int] = defaultdict(int)
    seen = 0
    for box in boxes:
        near = truth.get(box["frame"])
        if not near:
            continue
        seen += 1
        shares = iou(np.array([[box[k] for k in SIDES]]), np.array([b for b, _ in near], float))[0]
        if shares.max() >= least:
            votes[near[int(shares.argmax())][1]] += 1
    best = max(votes, key=lambda name: votes[name], default=None)
    return best if best is not None and votes[best] >= max(1, 0.5 * seen) else None


def same(a: str, b: str) -> bool | None:
    """Whether two names are one subject; None where the pair says nothing."""
    if (a == b == NOBODY) or (a == b and "+" in a):
        return None
    if a == b:
        return True
    return None if set(a.split("+")) & set(b.split("+")) else False


def count(subjects: list[Row], tracks: dict[int, list[Row]], truth: Truth, least: float) -> Pairs:
    """Pairs over the tracks of a sequence that ended up in subjects."""
    names = {t: who(boxes, truth, least) for t, boxes in tracks.items()}
    owner = {t: i for i, subject in enumerate(subjects) for t in subject["track_ids"]}
    total = Pairs()
    for a, b in combinations(sorted(owner), 2):
        first, second = names.get(a), names.get(b)
        one = same(first, second) if first is not None and second is not None else None
        if one is not None:
            joined = owner[a] == owner[b]
            total += Pairs(int(one and joined), int(joined and not one), int(one and not joined))
    return total


class _NoText:
    """Text says nothing about identity, and looking for it takes longer than everything else."""

    def __init__(self, *_):
        pass

    def detect(self, _picture):
        return np.zeros((0, 5))

    def describe(self):
        return {}


def judge(path: Path, spans: list[list[int]], truth: Truth, tier: str, folder: Path, least=0.5) -> Pairs:
    """Analyse shots of a film as one sequence and judge its subjects."""
    row = sequence_row(path, [tuple(s) for s in spans]) | {"film_id": "film"}
    everybody = Subjects(min_screen_s=0, max_subjects=10_000, groups=tuple(INTEREST))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyse, "TextDetector", _NoText)
        for stage in (analyse.Analyse(**settings(tier)), everybody):
            part = scratch(folder, stage.name)
            row |= stage.worker()({c: row[c] for c in (*stage.reads, *stage.locates)}, part)
            part.commit()
    tracks: dict[int, list[Row]] = defaultdict(list)
    for box in pq.read_table(part.open(row["boxes"])).to_pylist():
        tracks[box["track_id"]].append(box)
    return count(row["subjects"], tracks, truth, least)


def sequences() -> list[Row]:
    """The labelled sequences whose films are single files."""
    return [s for s in json.loads(FILE.read_text())["sequences"] if "/" in s["film"]]


def main() -> None:
    """Print the table."""
    tiers = [t for t in ("embedded", "full") if t in sys.argv] or ["embedded"]
    only = [a for a in sys.argv[1:] if a not in ("embedded", "full")]
    with TemporaryDirectory() as scratch_folder:
        for tier in tiers:
            for sequence in sequences():
                if only and sequence["name"] not in only:
                    continue
                truth = labelled_truth(sequence["tracks"])
                place = Path(scratch_folder) / tier / sequence["name"]
                found = judge(shared(sequence["film"]), sequence["shots"], truth, tier, place)
                numbers = f"precision {found.precision:.2f} recall {found.recall:.2f} {tuple(found)}"
                sys.stdout.write(f"{tier} {sequence['name']}: {numbers}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
