"""Copies of shots across and within films, found by perceptual hashes in sub-quadratic time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import pyarrow as pa

from curation import rows
from curation.copies import preference
from curation.engine.stage import KEPT, Fold, Row
from curation.shots.hashes import MAX_HASHES

BITS, BLOCKS = 128, 10
PROBES = 6
"""Hashes at each end of a shot by which candidates are found."""
NEIGHBOURS = 32
"""Entries of a bucket that each entry is compared with: those before it in order of preference. In a group of
copies each member is compared with so many before it, too, and with so many of the most preferred."""


@dataclass(frozen=True, kw_only=True)
class Duplicates(Fold):
    """Find the pairs of copies among the shots of all films. Which copy stays is decided by `filters`.

    Two shots are copies when the hashes at equal distance from their starts, or from their ends, agree:
    same cut, same pictures. One that lasts less than `min_cover` of the other is a part of it. A shot is
    found if any of its first or last six hashed pictures is within 8 bits of its copy's.

    Attributes:
        max_distance: largest median Hamming distance of copies, of 127 bits; other encodings, sizes,
            letterboxes and burnt-in subtitles of one picture are up to 10 apart, another shot of the same
            camera setup 14 and more (Big Buck Bunny, Sintel). A fifth of the hashes may exceed 1.5 times it.
        max_distance_within: the same inside one film, where setups come back all the time.
        min_frames: fewest hashed pictures to compare; shots under a second are not judged.
        min_cover: a copy shorter than this share of the other is a part of it and goes; of two equals the
            better picture stays.
    """

    max_distance: int = 12
    max_distance_within: int = 4
    min_frames: int = 2
    min_cover: float = 0.8

    name: ClassVar[str] = "duplicates"
    version: ClassVar[int] = 2
    grain: ClassVar[str] = "film"
    reads: ClassVar[tuple[str, ...]] = ("film_id", "path", "stream", "shots", "shot_scores")
    writes: ClassVar[pa.Schema] = pa.schema([("copies", pa.list_(rows.COPY))])
    cached: ClassVar[bool] = True

    def fold(self, rows: list[Row]) -> list[Row]:
        """The film rows with `copies`; null for settled ones."""
        films = [row for row in rows if row["status"] == KEPT]
        found: dict[str, list[Row]] = {row["film_id"]: [] for row in films}
        shots = Shots.of(films)
        pairs, distance = self.copies(shots)
        goes, better, is_part = self.directed(shots, pairs)
        order = np.lexsort((shots.rank[better], goes))
        columns = (values[order].tolist() for values in (goes, better, distance, is_part))
        for i, j, bits, part in zip(*columns, strict=True):
            film, name = shots.ids[i]
            copy = {"shot_id": name, "copy_of": shots.ids[j][1], "distance": bits, "is_part": part}
            found[film].append(copy)
        return [{**row, "copies": found[row["film_id"]] if row["status"] == KEPT else None} for row in rows]

    def copies(self, shots: Shots) -> tuple[np.ndarray, np.ndarray]:
        """Pairs [M, 2] of copies, each once, and their distances [M].

        The search leaves gaps in large groups of copies; closed are those to the preferred members and, in
        the order of preference, to the neighbours, so that some copy can stay whichever thresholds reject.
        """
        n = len(shots.ids)
        compared = np.zeros(0, np.int64)
        found, distance = np.zeros((0, 2), np.int64), np.zeros(0)
        a, b = candidates(shots).T
        new = _keys(a, b, n)
        while len(new):
            pairs = np.stack([new // n, new % n], axis=1)
            near = self.match(shots, pairs)
            is_copy = np.isfinite(near)
            found = np.concatenate([found, pairs[is_copy]])
            distance = np.concatenate([distance, near[is_copy]])
            compared = np.union1d(compared, new)
            new = np.setdiff1d(_gaps(shots, self._best(shots, found)), compared, assume_unique=True)
        return found, distance

    def _best(self, shots: Shots, pairs: np.ndarray) -> np.ndarray:
        """The copy [n] that each shot gives way to first, a whole before an equal one; or itself."""
        goes, better, is_part = self.directed(shots, pairs)
        length = np.where(is_part, shots.length[better], 0.0)
        order = np.lexsort((shots.rank[better], -length, goes))
        shot, first = np.unique(goes[order], return_index=True)
        best = np.arange(len(shots.ids))
        best[shot] = better[order][first]
        return best

    def directed(self, shots: Shots, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The shot [M] of each pair that goes, its better copy [M], and whether it is a part of it [M]."""
        a, b = pairs.T
        shorter = np.where(shots.length[a] < shots.length[b], a, b)
        longer = a + b - shorter
        is_part = shots.length[shorter] < self.min_cover * shots.length[longer]
        goes = np.where(is_part, shorter, np.where(shots.rank[a] > shots.rank[b], a, b))
        return goes, a + b - goes, is_part

    def match(self, shots: Shots, pairs: np.ndarray) -> np.ndarray:
        """Distance of each pair [M, 2] of shots, infinite if they are no copies."""
        out = np.full(len(pairs), np.inf)
        for at in range(0, len(pairs), 20_000):
            a, b = pairs[at : at + 20_000].T
            for end in (0, 1):
                distance = self._agreement(shots, a, b, end)
                out[at : at + 20_000] = np.minimum(out[at : at + 20_000], distance)
        return out

    def _agreement(self, shots: Shots, a: np.ndarray, b: np.ndarray, end: int) -> np.ndarray:
        """Median distance [M] of the hashes from one end, infinite where they do not agree."""
        within = shots.film[a] == shots.film[b]
        limit = np.where(within, self.max_distance_within, self.max_distance)
        one, other = shots.hashes[a, end], shots.hashes[b, end]
        known, also = shots.known[a, end], shots.known[b, end]
        both = known & also
        middle, most = _middle_and_most(hamming(one, other), both)
        good = (both.sum(1) >= self.min_frames) & (middle <= limit) & (most <= 1.5 * limit)
        # Takes from one tripod look alike at any delay; a copy agrees best at none.
        late = hamming(one[:, :-1], other[:, 1:])
        elsewhere, _ = _middle_and_most(late, known[:, :-1] & also[:, 1:])
        good &= ~within | (elsewhere > middle + self.max_distance_within)
        return np.where(good, middle, np.inf)


@dataclass(frozen=True)
class Shots:
    """The shots of all films as arrays over n shots.

    Attributes:
        ids: (film id, shot id).
        film: int64 [n], index of the film.
        length: float64 [n], seconds.
        rank: int64 [n], place in the order of preference: undamaged, progressive, fewest corrupt frames,
            larger picture, longer film, path, time.
        hashes: uint16 [n, 2, 16, 8], perceptual hashes from the start and from the end.
        known: bool [n, 2, 16], whether there is such a hash.
    """

    ids: list[tuple[str, str]]
    film: np.ndarray
    length: np.ndarray
    rank: np.ndarray
    hashes: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, films: Sequence[Row]) -> Shots:
        """From film rows."""
        flat = [
            (f, shot, score)
            for f, row in enumerate(films)
            for shot, score in zip(row["shots"], row["shot_scores"], strict=True)
        ]
        prefer = [preference(films[f], shot, score) for f, shot, score in flat]
        rank = np.empty(len(flat), np.int64)
        rank[sorted(range(len(flat)), key=lambda i: prefer[i])] = np.arange(len(flat))
        hashes = np.zeros((len(flat), 2, MAX_HASHES, BITS // 16), np.uint16)
        known = np.zeros((len(flat), 2, MAX_HASHES), bool)
        for i, (_, _, score) in enumerate(flat):
            for end, column in enumerate(("phash", "phash_end")):
                values = (score[column] or [])[:MAX_HASHES]
                have = [k for k, value in enumerate(values) if value is not None]
                raw = bytes.fromhex("".join(values[k] for k in have))
                hashes[i, end, have] = np.frombuffer(raw, np.uint16).reshape(-1, BITS // 16)
                known[i, end, have] = True
        return cls(
            [(films[f]["film_id"], shot["shot_id"]) for f, shot, _ in flat],
            np.array([f for f, _, _ in flat], np.int64),
            np.array([shot["end_s"] - shot["start_s"] for _, shot, _ in flat]),
            rank,
            hashes,
            known,
        )


_POPCOUNT = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def hamming(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Differing bits of hashes [..., 8] of 16-bit words, [...]."""
    return _POPCOUNT[one ^ other].sum(-1, dtype=np.int64)


def _middle_and_most(bits: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower median and 80th percentile along the last axis over the valid ones; infinite without any."""
    ordered = np.sort(np.where(valid, bits, np.inf), axis=1)
    count, lines = valid.sum(1), np.arange(len(bits))
    middle = ordered[lines, (count - 1).clip(0) // 2]
    most = ordered[lines, (-(-4 * count // 5) - 1).clip(0)]
    return middle, most


def candidates(shots: Shots) -> np.ndarray:
    """Pairs [M, 2] of shots worth comparing, each once: some probe agrees in two of ten blocks.

    Multi-index hashing (Norouzi et al., "Fast search in Hamming space", CVPR 2012): if two hashes differ
    in at most eight bits, at least two of their ten blocks are equal, so that one of the 45 tables keyed
    by two blocks has them in one bucket.
    """
    n = len(shots.ids)
    by_rank = np.argsort(shots.rank)
    found = np.zeros(0, np.int64)
    for end in (0, 1):
        for probe in range(PROBES):
            order = by_rank[shots.known[by_rank, end, probe]]
            blocks = _blocks(shots.hashes[order, end, probe])
            pairs = [
                _bucket_pairs(blocks[:, p] << np.uint32(13) | blocks[:, q], order, n)
                for p, q in combinations(range(BLOCKS), 2)
            ]
            found = np.unique(np.concatenate([found, *pairs]))
    return np.stack([found // max(n, 1), found % max(n, 1)], axis=1)


def _keys(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Each pair of two different shots once, as low * n + high, in order."""
    differ = a != b
    return np.unique((np.minimum(a, b) * n + np.maximum(a, b))[differ])


def _gaps(shots: Shots, best: np.ndarray) -> np.ndarray:
    """Pairs (as `_keys`) that copies suggest: a copy of the best copy, and neighbours in a group of copies.

    Args:
        shots: n of them.
        best: int64 [n], the copy that each shot gives way to first, or itself; a group has one in common.
    """
    n = len(shots.ids)
    found = [_keys(np.arange(n), best[best], n)]
    copies = np.flatnonzero(best != np.arange(n))
    centres = np.unique(best[copies])
    group, member = np.concatenate([best[copies], centres]), np.concatenate([copies, centres])
    order = np.lexsort((shots.rank[member], group))
    group, member = group[order], member[order]
    first = np.searchsorted(group, group)
    place = np.arange(len(group)) - first
    for step in range(1, NEIGHBOURS + 1):
        later = np.flatnonzero(place >= step)
        found.append(_keys(member[later], member[later - step], n))
        far = np.flatnonzero(place >= NEIGHBOURS + step)
        found.append(_keys(member[far], member[first[far] + step - 1], n))
    return np.unique(np.concatenate(found))


def _blocks(hashes: np.ndarray) -> np.ndarray:
    """uint32 [n, 10], every tenth bit each, so that all draw from all frequencies: even buckets."""
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    out = np.zeros((len(bits), BLOCKS), np.uint32)
    for i in range(BITS):
        out[:, i % BLOCKS] = out[:, i % BLOCKS] << np.uint32(1) | bits[:, i]
    return out


def _bucket_pairs(key: np.ndarray, order: np.ndarray, n: int) -> np.ndarray:
    """Pairs of equal keys as low * n + high; `order` holds the shots by preference."""
    by_key = np.argsort(key, kind="stable")
    key, shot = key[by_key], order[by_key]
    found = []
    for step in range(1, NEIGHBOURS + 1):
        at = np.flatnonzero(key[step:] == key[:-step]) if len(key) > step else np.zeros(0, np.int64)
        if not len(at):
            break
        a, b = shot[at], shot[at + step]
        found.append(np.minimum(a, b) * n + np.maximum(a, b))
    return np.concatenate(found) if found else np.zeros(0, np.int64)
