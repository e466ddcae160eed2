"""Pictures that show what was found: contact strips, boxes on frames, a crop on its frame. BGR uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curation.engine.stage import Row

COLOURS = ((66, 133, 244), (219, 68, 55), (244, 180, 0), (15, 157, 88), (171, 71, 188), (0, 172, 193))
"""RGB of subjects in order of appearance; the review page uses the same."""
OVERLAY_COLOURS = {
    "subtitle": (219, 68, 55),
    "title": (171, 71, 188),
    "logo": (244, 180, 0),
    "scene_text": (66, 133, 244),
}
"""RGB of the frames around text, by its kind; the review page's legend uses the same."""
GREY = (150, 150, 150)
GAP = 4  # pixels between pictures of a strip

Box = tuple[float, float, float, float]  # x, y, width, height
Crop = tuple[int, int, int, int]


def map_box(box: Mapping[str, Any], crop: Crop) -> Box:
    """A box of source pixels as shares of the cropped picture; parts of it may lie outside 0..1."""
    x, y, width, height = crop
    return (
        (box["x"] - x) / width,
        (box["y"] - y) / height,
        box["width"] / width,
        box["height"] / height,
    )


def resize(picture: np.ndarray, width: int) -> np.ndarray:
    """uint8 [H, W, 3] scaled to a width in pixels, same aspect."""
    import cv2

    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one height in a row, with a white gap."""
    gap = np.full((pictures[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def cut_out(picture: np.ndarray, box: Box, height: int) -> np.ndarray:
    """The part of a picture inside a box (shares of it), scaled to a height; at least 8 pixels a side."""
    import cv2

    rows, columns = picture.shape[:2]
    left, top = max(0, int(box[0] * columns)), max(0, int(box[1] * rows))
    left, top = min(left, columns - 8), min(top, rows - 8)
    right = min(columns, max(left + 8, round((box[0] + box[2]) * columns)))
    bottom = min(rows, max(top + 8, round((box[1] + box[3]) * rows)))
    part = picture[top:bottom, left:right]
    width = max(1, min(3 * height, round(part.shape[1] * height / part.shape[0])))
    return cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)


def draw_boxes(picture: np.ndarray, boxes: Sequence[Row], subjects: Sequence[Row], crop: Crop) -> np.ndarray:
    """Boxes of a frame drawn on its picture: subjects in colour with their labels, others in grey."""
    import cv2

    rows, columns = picture.shape[:2]
    order = {s["subject_id"]: (i, s["label"]) for i, s in enumerate(subjects)}
    picture = picture.copy()
    for box in sorted(boxes, key=lambda b: (b["subject_id"] is not None, b["subject_id"] or "", b["x"])):
        x, y, width, height = map_box(box, crop)
        corner = round(x * columns), round(y * rows)
        other = round((x + width) * columns), round((y + height) * rows)
        if box["subject_id"] is None:
            cv2.rectangle(picture, corner, other, GREY, 1)
            continue
        number, label = order[box["subject_id"]]
        colour = COLOURS[number % len(COLOURS)][::-1]
        cv2.rectangle(picture, corner, other, colour, 2)
        _draw_label(picture, label.strip("[]"), corner, colour)
    return picture


def _draw_label(picture: np.ndarray, text: str, corner: tuple[int, int], colour: Any) -> None:
    import cv2

    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    x = min(max(0, corner[0]), max(0, picture.shape[1] - width - 6))
    y = max(0, corner[1])
    cv2.rectangle(picture, (x, y), (x + width + 6, y + height + 7), colour, -1)
    at = (x + 3, y + height + 3)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def read_picture(path: Path, *, grey: bool = False) -> np.ndarray:
    """A picture file as uint8 [H, W, 3] BGR, or [H, W] luma.

    Raises:
        FileNotFoundError: there is no readable picture.
    """
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{path}: no readable picture")
    return picture


def draw_crop(
    picture: np.ndarray, crop: Crop, overlays: Sequence[Row], time_s: float, width: int
) -> np.ndarray:
    """A frame before and after: what the crop leaves out is dimmed, text found is framed.

    Args:
        picture: the source frame, uint8 [H, W, 3].
        crop: x, y, width, height in source pixels.
        overlays: of the sequence; those on screen at `time_s` have a thick frame and are not dimmed.
        time_s: of the frame, seconds.
        width: of the picture before, pixels; the one after has its height.
    """
    import cv2

    x, y, columns, rows = crop
    after = picture[y : y + rows, x : x + columns]
    before = (picture * 0.35).astype(np.uint8)
    before[y : y + rows, x : x + columns] = after
    for overlay in overlays:
        if overlay["start_s"] <= time_s <= overlay["end_s"]:
            left, top = max(0, int(overlay["x"])), max(0, int(overlay["y"]))
            right, bottom = int(overlay["x"] + overlay["width"]), int(overlay["y"] + overlay["height"])
            before[top:bottom, left:right] = picture[top:bottom, left:right]
    scale = width / picture.shape[1]
    before = resize(before, width)
    for overlay in overlays:
        start = round(overlay["x"] * scale), round(overlay["y"] * scale)
        end = (
            round((overlay["x"] + overlay["width"]) * scale),
            round((overlay["y"] + overlay["height"]) * scale),
        )
        now = overlay["start_s"] <= time_s <= overlay["end_s"]
        colour = OVERLAY_COLOURS.get(overlay["kind"], GREY)[::-1]
        cv2.rectangle(before, start, end, colour, 2 if now else 1)
    corner = round(x * scale), round(y * scale)
    other = round((x + columns) * scale) - 1, round((y + rows) * scale) - 1
    cv2.rectangle(before, corner, other, (255, 255, 255), 1)
    size = max(1, round(columns * before.shape[0] / rows)), before.shape[0]
    return beside([before, cv2.resize(after, size, interpolation=cv2.INTER_AREA)])


def jpeg(picture: np.ndarray, quality: int) -> bytes:
    """The picture as a JPEG file; the same picture gives the same bytes."""
    import cv2

    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return data.tobytes()
