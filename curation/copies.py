"""Which of the copies of a shot stays: the best of those that no threshold rejects. Compares no pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from curation.engine.stage import Row


class Copy(NamedTuple):
    """A shot that another one is a copy of.

    Attributes:
        shot: its id.
        distance: median Hamming distance of the compared hashes, 0..127 bits.
        is_part: whether the other one is only a part of it, and goes whatever its quality.
    """

    shot: str
    distance: float
    is_part: bool


def preference(film: Row, shot: Row, score: Row) -> tuple[Any, ...]:
    """Of two copies of about equal length the one with the smaller value stays.

    Undamaged, progressive, fewest corrupt frames, larger picture, longer film, path, time. A damaged one is
    rejected as a rule, but that is a setting.
    """
    stream = film["stream"]
    num_corrupt = round((score["corrupt_share"] or 0.0) * (shot["end_frame"] - shot["start_frame"]))
    pixels, length = stream["width"] * stream["height"], stream["duration_s"] or 0.0
    is_damaged = num_corrupt > 0
    return is_damaged, stream["interlaced"], num_corrupt, -pixels, -length, film["path"], shot["start_s"]


@dataclass(frozen=True)
class Copies:
    """All pairs of copies among the shots of some films.

    Attributes:
        rank: place in the order of preference of each shot that has a copy; the order of the dictionary.
        length_s: of these shots.
        better: what a shot gives way to, if that is good enough.
        worse: the copies of about equal length that give way to it.
    """

    rank: dict[str, int]
    length_s: dict[str, float]
    better: dict[str, list[Copy]]
    worse: dict[str, list[Copy]]

    @classmethod
    def of(cls, films: Sequence[Row]) -> Copies:
        """From film rows with `path`, `stream`, `shots`, `shot_scores` and `copies` (`rows.COPY`)."""
        pairs = [pair for row in films for pair in row["copies"] or []]
        named = {pair[end] for pair in pairs for end in ("shot_id", "copy_of")}
        prefer: dict[str, tuple[Any, ...]] = {}
        length_s: dict[str, float] = {}
        for row in films:
            for shot, score in zip(row["shots"], row["shot_scores"], strict=True):
                if (name := shot["shot_id"]) in named:
                    prefer[name] = preference(row, shot, score)
                    length_s[name] = shot["end_s"] - shot["start_s"]
        rank = {name: place for place, name in enumerate(sorted(prefer, key=prefer.__getitem__))}
        out = cls(rank, length_s, {name: [] for name in rank}, {name: [] for name in rank})
        for pair in pairs:
            shot, other = pair["shot_id"], pair["copy_of"]
            if other in rank:  # a film that is not there has no part in it
                out.better[shot].append(Copy(other, pair["distance"], pair["is_part"]))
                if not pair["is_part"]:
                    out.worse[other].append(Copy(shot, pair["distance"], False))
        return out

    def settle(self, faulty: Set[str]) -> dict[str, tuple[str, float]]:
        """The copy that stays in place of a shot, and the distance to what led to it.

        Whoever is in `faulty` never stays and never takes the place of another; it has an entry too, if a
        copy of it stays. Every entry names a shot that has none.
        """
        found: dict[str, tuple[str, float]] = {}
        stays: dict[str, str] = {}
        wholes = self._wholes(faulty)
        for shot in self.rank:
            if shot in faulty or shot in wholes:
                continue
            equal = (c for c in self.better[shot] if not c.is_part and stays.get(c.shot) == c.shot)
            self._follow(shot, equal, stays, found)
        for shot in sorted(wholes, key=lambda s: (-self.length_s[s], self.rank[s])):  # before their parts
            self._follow(shot, [wholes[shot]], stays, found)
        kept = dict(stays)
        for shot in self.rank:
            if shot in faulty:
                near = (c for c in (*self.better[shot], *self.worse[shot]) if c.shot in kept)
                self._follow(shot, near, stays, found)
        return found

    def _wholes(self, faulty: Set[str]) -> dict[str, Copy]:
        """The longest sound shot of which a sound one is a part."""
        out = {}
        for shot in self.rank:
            if shot not in faulty:
                longer = [c for c in self.better[shot] if c.is_part and c.shot not in faulty]
                if longer:
                    out[shot] = max(longer, key=lambda c: (self.length_s[c.shot], -self.rank[c.shot]))
        return out

    def _follow(
        self, shot: str, copies: Iterable[Copy], stays: dict[str, str], found: dict[str, tuple[str, float]]
    ) -> None:
        """Let the best of what stays for some copies stay for the shot; without any, the shot itself."""
        best = min(copies, key=lambda c: self.rank[stays[c.shot]], default=None)
        stays[shot] = shot if best is None else stays[best.shot]
        if best is not None:
            found[shot] = (stays[shot], best.distance)
