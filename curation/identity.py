"""Joins the tracks of a sequence, which end at every cut, into subjects that recur.

Two tracks are the more likely one subject the nearer their looks are and the surer their boxes; what cannot
be one subject never is: tracks that are visible at the same time in different places. Groups are joined, most
certain pair first, until none is more likely one subject than not; in doubt they stay apart, because a wrong
join spoils captions and training while a split only loses some.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

GROUPS = {
    "person": "person",
    "region": "region",
    **dict.fromkeys(
        ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "teddy bear"),
        "animal",
    ),
    **dict.fromkeys(("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"), "vehicle"),
}
"""Class name -> group; every other class is an `object`."""
NOUNS = {"person": "Person", "animal": "Animal", "vehicle": "Object", "object": "Object", "region": "Subject"}


def group_of(class_name: str) -> str:
    """One of person, animal, vehicle, object and region."""
    return GROUPS.get(class_name, "object")


APART_IOU = 0.5  # two boxes of one frame that overlap less are two things
"""Detectors give one thing two boxes now and then; those overlap more."""


@dataclass(frozen=True)
class Evidence:
    """How a cosine between two looks speaks for one subject.

    Attributes:
        middle: cosine at which it is as likely as not.
        width: a cosine higher by this raises the log-odds by one.
        weight: share in the sum over kinds of looks.
        least: log-odds that it takes off at most; other light or another pose change looks too.
    """

    middle: float
    width: float
    weight: float
    least: float = -3.0


# Set on the labelled tracks that docs/tiers.md counts, for few wrong joins rather than many right ones.
# Networks speak for what they were trained on, people filmed from afar and faces turned to the camera: a face
# in profile is unlike itself, so that a low cosine says little.
EVIDENCE = {
    "colour": Evidence(0.85, 0.03, 1.0),
    "pattern": Evidence(0.85, 0.02, 1.0, -1.0),
    "reid": Evidence(0.68, 0.05, 0.75),
    "face": Evidence(0.50, 0.08, 2.0, -2.5),
}


SURE_SCORE, CERTAINTY = 0.7, 4.0
"""Log-odds fall by `CERTAINTY` for each 1.0 that the lower mean score of two tracks is under `SURE_SCORE`:
weak boxes are background more often than not, and background looks alike everywhere."""
BEST_SHARE = 0.5
"""Two groups are as likely one subject as this share of their most alike pair and the rest of the mean pair:
light changes from shot to shot, so that a subject's darkest shot need not look like its lightest."""
REGION_PENALTY = 0.35
MOST = 4.0  # log-odds that one kind of looks adds at most


@dataclass(frozen=True)
class Track:
    """A track of one shot, as joining needs it.

    Attributes:
        track_id: unique in the sequence.
        clip_index: its shot's place.
        class_name: of the detector.
        score: mean of its boxes.
        frames: int64 [N], presentation indices, ascending.
        boxes: float64 [N, 4], x, y, width, height in source pixels.
        times_s: float64 [N].
        looks: unit vectors by kind (`EVIDENCE`).
    """

    track_id: int
    clip_index: int
    class_name: str
    score: float
    frames: np.ndarray
    boxes: np.ndarray
    times_s: np.ndarray
    looks: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """person, animal, vehicle, object or region."""
        return group_of(self.class_name)


@dataclass(frozen=True)
class Cluster:
    """Tracks of one subject. `confidence` 0..1: how sure the joins are; 1 for a single track."""

    tracks: tuple[Track, ...]
    confidence: float


def apart(a: Track, b: Track) -> bool:
    """Whether the two are seen in one frame in different places, so that they cannot be one subject."""
    if a.clip_index != b.clip_index:
        return False
    _, at_a, at_b = np.intersect1d(a.frames, b.frames, return_indices=True)
    if not len(at_a):
        return False
    shared = [_iou(a.boxes[i], b.boxes[j]) for i, j in zip(at_a, at_b, strict=True)]
    return float(np.median(shared)) < APART_IOU


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    inner = float(np.clip(high - low, 0, None).prod())
    return inner / max(float(a[2:].prod() + b[2:].prod()) - inner, 1e-9)


def log_odds(a: Track, b: Track, region_penalty: float = REGION_PENALTY, max_gap_s: float = 1.5) -> float:
    """Log-odds that two tracks show one subject: looks, scores, class; place for neighbours inside a shot.

    Args:
        a: a track.
        b: another one.
        region_penalty: what it takes off that only one of them has a class.
        max_gap_s: pieces of a shot further apart in time gain nothing by their place.
    """
    total, weights = 0.0, 0.0
    for kind, evidence in EVIDENCE.items():
        if kind in a.looks and kind in b.looks:
            cosine = float(a.looks[kind] @ b.looks[kind])
            odds = (cosine - evidence.middle) / evidence.width
            total += evidence.weight * min(MOST, max(evidence.least, odds))
            weights += evidence.weight
    # Kinds agree with each other in part, so that their sum would count some evidence twice.
    sum_of_kinds = total / max(weights, 1.0) ** 0.5 if weights else -2.0
    sure = CERTAINTY * min(0.0, min(a.score, b.score) - SURE_SCORE)
    return sum_of_kinds + sure - class_penalty(a, b, region_penalty) + continuity(a, b, max_gap_s)


def class_penalty(a: Track, b: Track, region_penalty: float = REGION_PENALTY) -> float:
    """What different classes take off the log-odds; less where the detector was unsure.

    A region has no class of its own; animated animals are taken for several kinds of animals, and for people.
    """
    if a.class_name == b.class_name:
        return 0.0
    if "region" in (a.group, b.group):
        return region_penalty
    if a.group == b.group:
        return 0.2
    both_live = {a.group, b.group} <= {"person", "animal"}
    return (1.0 if both_live else 2.0) * min(1.0, 2 * min(a.score, b.score))


def continuity(a: Track, b: Track, max_gap_s: float) -> float:
    """What place adds for two pieces of one shot that follow each other: a subject lost for a moment."""
    if a.clip_index != b.clip_index:
        return 0.0
    first, second = (a, b) if a.frames[0] <= b.frames[0] else (b, a)
    gap = float(second.times_s[0] - first.times_s[-1])
    if not 0 <= gap <= max_gap_s:
        return 0.0
    end, start = first.boxes[-1], second.boxes[0]
    return 3.0 * _iou(end, start) * (1 - gap / max_gap_s)


def join(
    tracks: Sequence[Track], min_odds: float = 0.0, region_penalty: float = REGION_PENALTY
) -> list[Cluster]:
    """Tracks to subjects.

    Args:
        tracks: of one sequence.
        min_odds: log-odds above which two clusters are joined.
        region_penalty: see `log_odds`.

    Returns:
        Clusters by order of appearance; their tracks by order of appearance.
    """
    tracks = sorted(tracks, key=lambda t: (int(t.frames[0]), t.track_id))
    count = len(tracks)
    odds = np.zeros((count, count))
    never = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(i):
            odds[i, j] = odds[j, i] = log_odds(tracks[i], tracks[j], region_penalty)
            never[i, j] = never[j, i] = apart(tracks[i], tracks[j])
    groups: list[list[int]] = [[i] for i in range(count)]
    weight = np.array([len(t.frames) for t in tracks], np.float64) ** 0.5
    made: dict[int, list[float]] = defaultdict(list)
    while True:
        best, pair = min_odds, None
        for i in range(len(groups)):
            for j in range(i):
                if never[np.ix_(groups[i], groups[j])].any():
                    continue
                value = _between(odds, weight, groups[i], groups[j])
                if value > best:
                    best, pair = value, (j, i)
        if pair is None:
            break
        low, high = pair
        made[groups[low][0]] += [best, *made.pop(groups[high][0], [])]
        groups[low] = sorted(groups[low] + groups.pop(high))
    return [Cluster(tuple(tracks[i] for i in g), _confidence(made.get(g[0], []))) for g in groups]


def _between(odds: np.ndarray, weight: np.ndarray, a: list[int], b: list[int]) -> float:
    """The most alike pair and the mean pair, long tracks counting more in the mean; see `BEST_SHARE`."""
    pairs, table = odds[np.ix_(a, b)], np.outer(weight[a], weight[b])
    mean = float((pairs * table).sum() / table.sum())
    return BEST_SHARE * float(pairs.max()) + (1 - BEST_SHARE) * mean


def _confidence(joins: list[float]) -> float:
    """The least certain join as a probability; 1 where nothing was joined."""
    return float(1 / (1 + np.exp(-min(joins)))) if joins else 1.0


def subject_class(tracks: Sequence[Track]) -> str:
    """The class of a subject: the group with most evidence, then the class in it with most.

    Regions speak only where no detector did.
    """
    votes: dict[str, float] = defaultdict(float)
    for track in tracks:
        votes[track.class_name] += track.score * len(track.frames)
    named = {name: v for name, v in votes.items() if group_of(name) != "region"}
    if sum(named.values()) >= 0.2 * sum(votes.values()):
        votes = defaultdict(float, named)
    by_group: dict[str, float] = defaultdict(float)
    for name, value in votes.items():
        by_group[group_of(name)] += value
    best = min(by_group, key=lambda g: (-by_group[g], g))
    inside = [n for n in votes if group_of(n) == best]
    return min(inside, key=lambda n: (-votes[n], n))


def labels(class_names: Sequence[str]) -> list[str]:
    """[Person A], [Animal B]...: letters by order, unique over all nouns; after Z come AA, AB...

    Args:
        class_names: of the subjects by order of appearance.
    """
    return [f"[{NOUNS[GROUPS.get(name, 'object')]} {letters(i)}]" for i, name in enumerate(class_names)]


def letters(index: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    text, index = "", index + 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = string.ascii_uppercase[rest] + text
    return text
