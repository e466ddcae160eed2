"""How much of a shot's picture is free of text that was drawn over the film; null where nothing tells.

The rules that tell a title from text of the scene are those of the crop (`curation.framing.overlays`),
applied to one shot and to a picture a second. A shot whose score is low would cost its whole sequence: one
crop serves all clips of a sequence.

Measured on ten films and clips, the demo film and twenty generated videos: of the shots without a title the
lowest have .58 (two burnt-in lines in 480x204), those without any text 1. The title of Big Buck Bunny, which
fades in over a moving picture, has .07, the credit before it .18 and the Sintel trailer's credits .16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curation.engine.stage import Row
from curation.framing.crop_search import find_crop, subject_map
from curation.framing.overlays import OBSTACLES, Inside, OverlaySettings, find_overlays, read_samples
from curation.shots.signals import Signals
from curation.stages.crop import Crop, flat_pictures, obstacles

CHUNK = 64
"""Stills judged together: rules compare all boxes with one another, and an hour may be one shot."""


def first_of_slots(texts: Sequence[Row]) -> list[Row]:
    """Rows of a film's segments in order, without the second still of a slot that two segments share."""
    owner: dict[int, int] = {}
    for row in texts:
        owner[row["slot"]] = min(row["pts"], owner.get(row["slot"], row["pts"]))
    return sorted((r for r in texts if owner[r["slot"]] == r["pts"]), key=lambda r: r["pts"])


def text_free_share(texts: Sequence[Row], signals: Signals, stream: Row, inside: Inside) -> float | None:
    """The largest crop of the exported shape without drawn text, as a share of the largest there is.

    Args:
        texts: `curation.rows.STILL_TEXT` values of the shot, in order of time.
        signals: of the shot.
        stream: `curation.rows.STREAM` values.
        inside: the picture inside the black bars.
    """
    times = sorted({row["pts"] for row in texts})
    parts = [times[i : i + CHUNK] for i in range(0, len(times), CHUNK)]
    free = [_free([r for r in texts if p[0] <= r["pts"] <= p[-1]], signals, stream, inside) for p in parts]
    return min(free) if free else None


def _free(texts: Sequence[Row], signals: Signals, stream: Row, inside: Inside) -> float:
    if all(row["x"] is None for row in texts):
        return 1.0
    tick_s = stream["time_base_num"] / stream["time_base_den"]
    clip = {"clip_index": 0, "is_context": False}
    placed = [
        {**row, "clip_index": 0, "frame": 0, "time_s": (row["pts"] - stream["first_pts"]) * tick_s}
        for row in texts
    ]
    flat = flat_pictures([signals], sorted({row["pts"] for row in texts}), stream, inside)
    overlays = find_overlays(read_samples(placed, [clip], flat), inside, OverlaySettings())
    walls = obstacles([o for o in overlays if o["kind"] in OBSTACLES], inside)
    if not len(walls):
        return 1.0
    nobody = subject_map([], inside)
    aspect = Crop.aspect_width / Crop.aspect_height * stream["sar_den"] / stream["sar_num"]
    best = find_crop(inside, walls, nobody, aspect, subject_weight=0.0)
    most = find_crop(inside, np.zeros((0, 4)), nobody, aspect, subject_weight=0.0)
    return best.area_share / most.area_share if best and most else 0.0
