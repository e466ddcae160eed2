"""The one crop of a sequence: the rectangle of the trainer's shape that avoids obstacles and keeps subjects.

Everything is in source pixels. The shape is meant for the displayed picture, so with non-square pixels the
rectangle in the source has another one. The search goes over every even height. At each, the places that can
be best are known: the largest rectangle touches an edge of the picture or of an obstacle on both axes, and a
smaller one may move freely, for which a grid of places is tried besides. What is maximised is

    area / area of the largest rectangle without obstacles + subject_weight * share of subjects inside
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.engine.stage import Row
from curation.framing.overlays import Inside

HEADED = ("person",)  # classes whose head is above the rest of the box
GRID_WIDTH, GRID_HEIGHT = 128, 72  # cells of a subject map
HEAD_SHARE = 0.7  # of a person's weight lies on the head
UPPER_SHARE, UPPER_PART = 0.5, 0.4  # of any other subject half of the weight lies on the upper two fifths
PLACES = 33  # places tried on each axis besides those at edges
HEADROOM = 0.25  # of the height left off is left off above, where nothing else decides: heads are up there


class Crop(NamedTuple):
    """A rectangle in source pixels, and what it keeps.

    `area_share` is of the picture inside the bars; `kept` as `SubjectMap.kept`.
    """

    x: int
    y: int
    width: int
    height: int
    area_share: float
    kept: float


@dataclass(frozen=True)
class SubjectMap:
    """Where subjects are over a whole sequence.

    Attributes:
        inside: the picture that the map covers.
        edges: float64 [N, 4], left, top, right and bottom of what is to be kept, inside the bars.
        weights: float64 [N].
        summed: float64 [GRID_HEIGHT + 1, GRID_WIDTH + 1], sums of weight over the cells above and left; the
            last is 1, or 0 if there are no subjects.
    """

    inside: Inside
    edges: np.ndarray
    weights: np.ndarray
    summed: np.ndarray

    def covered(self, x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
        """Share of the weight inside rectangles at all pairs of x [X] and y [Y]: float64 [Y, X]."""
        if not len(self.weights):
            return np.ones((len(y), len(x)))
        left = _weights((x - self.inside.left) / self.inside.width, GRID_WIDTH)
        right = _weights((x + width - self.inside.left) / self.inside.width, GRID_WIDTH)
        top = _weights((y - self.inside.top) / self.inside.height, GRID_HEIGHT)
        bottom = _weights((y + height - self.inside.top) / self.inside.height, GRID_HEIGHT)
        return (bottom - top) @ self.summed @ (right - left).T

    def kept(self, x: float, y: float, width: float, height: float) -> float:
        """How much of the subjects a rectangle keeps, 0..1; 1 if there are none.

        Of each its share inside; one that is larger than the rectangle and fills it counts as kept.
        """
        if not len(self.weights):
            return 1.0
        size = np.maximum(self.edges[:, 2:] - self.edges[:, :2], 0)
        low = np.maximum(self.edges[:, :2], (x, y))
        common = np.maximum(np.minimum(self.edges[:, 2:], (x + width, y + height)) - low, 0)
        least = np.minimum(size.prod(axis=1), width * height)
        share = self.weights @ (common.prod(axis=1) / least) / self.weights.sum()
        return min(float(share), 1.0)


def subject_map(boxes: Sequence[Row], inside: Inside) -> SubjectMap:
    """Spread the weight of tracked boxes over the picture.

    Args:
        boxes: `curation.rows.TRACK_BOX` values of the exported clips, at a steady rate, so that time counts.
        inside: the picture inside the black bars. What lies on the bars counts for nothing.

    A box weighs its score times the square root of its share of the picture: a subject twice as tall counts
    twice. Of a person `HEAD_SHARE` of that lies on the head. Any other box weighs less the more of the
    picture it covers, as one that covers all of it says nothing about where to crop.
    """
    placed: list[tuple[np.ndarray, float]] = []
    for box in boxes:
        outline = np.array([box["x"], box["y"], box["width"], box["height"]], np.float64)
        share = min(max(outline[2] * outline[3], 0.0) / (inside.width * inside.height), 1.0)
        weight = box["score"] * math.sqrt(share)
        if box["class_name"] in HEADED:
            upper, part = head(outline), HEAD_SHARE
        else:
            upper, part = outline * (1, 1, 1, UPPER_PART), UPPER_SHARE
            weight *= 1 - share
        placed += [(upper, weight * part), (outline, weight * (1 - part))]
    limits = (inside.left, inside.top, inside.right, inside.bottom)
    corners = [(b[0], b[1], b[0] + b[2], b[1] + b[3]) for b, _ in placed]
    edges = np.asarray(corners, np.float64).reshape(-1, 4)
    edges = np.clip(edges, np.tile(limits[:2], 2), np.tile(limits[2:], 2))
    weights = np.asarray([w for _, w in placed], np.float64)
    counts = (edges[:, 2:] > edges[:, :2]).all(axis=1) & (weights > 0)
    edges, weights = edges[counts], weights[counts]
    across = _cover(edges[:, 0], edges[:, 2], inside.left, inside.width, GRID_WIDTH)
    down = _cover(edges[:, 1], edges[:, 3], inside.top, inside.height, GRID_HEIGHT)
    summed = np.zeros((GRID_HEIGHT + 1, GRID_WIDTH + 1))
    cells = down.T @ (weights[:, None] * across)
    summed[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1) / max(float(weights.sum()), 1e-12)
    return SubjectMap(inside, edges, weights, summed)


def head(box: np.ndarray) -> np.ndarray:
    """The head of a person in the box (x, y, width, height): about .6 of the width of the shoulders high."""
    x, y, width, height = box
    tall = min(height, max(0.22 * height, 0.6 * width))
    return np.array([x + 0.2 * width, y, 0.6 * width, tall])


def find_crop(
    inside: Inside,
    obstacles: np.ndarray,
    subjects: SubjectMap,
    aspect: float,
    *,
    subject_weight: float,
    min_height: int = 2,
) -> Crop | None:
    """The best rectangle, or None if none of the least height avoids the obstacles.

    Args:
        inside: the picture inside the black bars.
        obstacles: float [K, 4], x, y, width, height; the rectangle touches none of them.
        subjects: what should be kept.
        aspect: width over height in source pixels.
        subject_weight: what losing all subjects costs, in units of the largest area.
        min_height: lower rectangles are not looked for.

    Returns:
        Even x, y, width and height. Of equals the larger, then the one nearer the middle and upper part.
    """
    room = _even_edges(inside)
    walls = _clipped(obstacles, inside)
    best, best_value = None, -math.inf
    tallest = min(room[3] - room[1], math.floor((room[2] - room[0]) / aspect))
    largest = None
    for height in range(tallest - tallest % 2, max(min_height, 2) - 1, -2):
        width = 2 * round(aspect * height / 2)
        if width > room[2] - room[0] or width < 2:
            continue
        largest = largest or width * height
        area = width * height / largest
        if area + subject_weight <= best_value:
            break
        found = _best_place(room, walls, subjects, (width, height), subject_weight)
        if found is not None and area + found[2] > best_value + 1e-9:
            best_value = area + found[2]
            share = width * height / (inside.width * inside.height)
            kept = subjects.kept(found[0], found[1], width, height)
            best = Crop(found[0], found[1], width, height, share, kept)
    return best


def _best_place(
    room: tuple[int, int, int, int],
    walls: np.ndarray,
    subjects: SubjectMap,
    size: tuple[int, int],
    subject_weight: float,
) -> tuple[int, int, float] | None:
    """x, y and value (subjects and nearness to the middle) of the best place of a rectangle of `size`."""
    width, height = size
    x = _candidates(room[0], room[2], walls[:, 0], walls[:, 2], width)
    y = _candidates(room[1], room[3], walls[:, 1], walls[:, 3], height)
    hits_x = (x[:, None] < walls[:, 2]) & (x[:, None] + width > walls[:, 0])
    hits_y = (y[:, None] < walls[:, 3]) & (y[:, None] + height > walls[:, 1])
    free = (hits_y.astype(np.int32) @ hits_x.T.astype(np.int32)) == 0
    if not free.any():
        return None
    off_x = np.abs(x - (room[0] + (room[2] - room[0] - width) / 2)) / (room[2] - room[0])
    off_y = np.abs(y - (room[1] + (room[3] - room[1] - height) * HEADROOM)) / (room[3] - room[1])
    value = subject_weight * subjects.covered(x, y, width, height)
    value = value - 1e-4 * (off_x[None, :] + off_y[:, None])
    value[~free] = -np.inf
    row, column = np.unravel_index(int(np.argmax(value)), value.shape)
    return int(x[column]), int(y[row]), float(value[row, column])


def _candidates(low: int, high: int, starts: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Even places of an interval of `length` in [low, high]: at its ends, beside walls, on a grid."""
    grid = np.linspace(low, high - length, PLACES)
    raw = np.concatenate([grid, [low, high - length], np.ceil(ends / 2) * 2, starts - length])
    even = (np.floor(raw / 2) * 2).astype(np.int64)
    return np.unique(even[(even >= low) & (even <= high - length)])


def _clipped(obstacles: np.ndarray, inside: Inside) -> np.ndarray:
    """Left, top, right and bottom of the obstacles that touch the picture, whole pixels outwards."""
    boxes = np.asarray(obstacles, np.float64).reshape(-1, 4)
    edges = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, :2] + boxes[:, 2:])], axis=1)
    touches = (edges[:, 2] > inside.left) & (edges[:, 0] < inside.right)
    touches &= (edges[:, 3] > inside.top) & (edges[:, 1] < inside.bottom)
    return np.unique(edges[touches], axis=0)


def _even_edges(inside: Inside) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the picture, moved inwards to even pixels."""
    left, top = 2 * math.ceil(inside.left / 2), 2 * math.ceil(inside.top / 2)
    return left, top, 2 * math.floor(inside.right / 2), 2 * math.floor(inside.bottom / 2)


def _weights(place: np.ndarray, cells: int) -> np.ndarray:
    """Rows that read a summed table at fractional places 0..1 along one axis: float64 [N, cells + 1]."""
    at = np.clip(place, 0.0, 1.0) * cells
    lower = np.minimum(np.floor(at).astype(np.int64), cells - 1)
    rows = np.zeros((len(at), cells + 1))
    index = np.arange(len(at))
    rows[index, lower] = 1 - (at - lower)
    rows[index, lower + 1] = at - lower
    return rows


def _cover(start: np.ndarray, end: np.ndarray, low: float, size: float, cells: int) -> np.ndarray:
    """Share of each interval that lies in each of `cells` equal parts of [low, low + size]: [N, cells]."""
    edges = low + size * np.arange(cells + 1) / cells
    common = np.minimum(end[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    return np.maximum(common, 0.0) / (end - start)[:, None]
