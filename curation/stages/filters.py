"""Which shots are good enough. Decides on scores and copies that are kept; computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curation import rows
from curation.copies import Copies
from curation.engine.stage import KEPT, Fold, Row


@dataclass(frozen=True, kw_only=True)
class Filters(Fold):
    """Judge every shot; the first rule that a shot breaks is its reason. None switches a rule off.

    A score that could not be computed breaks no rule. The defaults reject what no person would keep and
    nothing of the night scenes, held poses and soft pictures of real films; `memento refilter` shows what
    other values would keep.

    Of the copies of a shot one stays, among those that break no rule. One that lasts clearly less than
    another is a part of it and goes; of copies of about equal length an undamaged one stays, then a
    progressive one, then the one with the fewest corrupt frames, then the one with the larger picture, then
    that of the longer film, then the first by path and time.

    Attributes:
        max_corrupt_share: `corrupt` above; a damaged frame shows up in every later stage.
        max_freeze_share: `frozen` above; half of the shot is one repeated picture.
        black_p90: `too_dark` if nine tenths of the picture are below this luma: black, or letters on it.
        dark_p90: `too_dark` too if nine tenths are below this luma...
        dark_contrast: ...and the rest is not bright enough for this deviation: nothing is lit. Night
            scenes with a lit face or lamp are kept (Sintel: 46 and 20, a dark hangar: 21 and 21).
        max_luma: `too_bright` if the mean luma is above: white-outs.
        min_contrast: `low_contrast` below: fog, plain cards, fades.
        min_sharpness: `blurred` below; compressed and soft-focus pictures reach 12-20, so this catches
            little but real blur, and should be raised for high-definition sources.
        min_motion: `static` below: stills and title cards have 0.00, the calmest held pose 0.1.
        max_shake: `shaky` above, share of width: hand-held shots stay below 0.03.
        max_flicker: `flicker` above, grey levels: fast action has up to 11, strobes 40 and more.
        min_text_free_share: `title_over_picture` below: so little of the picture is free of titles, credits
            and other text drawn over it. Shots without a title have .58 and more, titles .18 and less. The
            crop asks for its `min_crop_share` again, of whole sequences; this saves the other shots.
        min_aesthetic: `unaesthetic` below, raw score of LAION's linear head, about 1 to 10; off, and without
            effect on shots that `aesthetic` did not score.
        duplicates: `duplicate` if a better copy of the shot, one that breaks no rule, stays; copies are told
            in the table `shots` even if this is off.
    """

    max_corrupt_share: float | None = 0.0
    max_freeze_share: float | None = 0.5
    black_p90: float | None = 8.0
    dark_p90: float | None = 28.0
    dark_contrast: float | None = 12.0
    max_luma: float | None = 235.0
    min_contrast: float | None = 8.0
    min_sharpness: float | None = 4.0
    min_motion: float | None = 0.03
    max_shake: float | None = 0.04
    max_flicker: float | None = 16.0
    min_text_free_share: float | None = 0.35
    min_aesthetic: float | None = None
    duplicates: bool = True

    name: ClassVar[str] = "filters"
    version: ClassVar[int] = 2
    grain: ClassVar[str] = "film"
    reads: ClassVar[tuple[str, ...]] = ("path", "stream", "shots", "shot_scores", "aesthetics", "copies")
    writes: ClassVar[pa.Schema] = pa.schema(
        [("shot_verdicts", pa.list_(rows.SHOT_VERDICT)), ("duplicates", pa.list_(rows.DUPLICATE))]
    )

    def fold(self, rows: list[Row]) -> list[Row]:
        """The film rows with `shot_verdicts` and `duplicates`; null for settled ones."""
        judged = self.judge([row for row in rows if row["status"] == KEPT])
        empty = dict.fromkeys(self.writes.names)
        return [{**row, **(next(judged) if row["status"] == KEPT else empty)} for row in rows]

    def judge(self, films: Sequence[Row]) -> Iterator[Row]:
        """What is written to each of the kept film rows, which hold all shots that may be copies."""
        faults = [list(self.faults(row)) for row in films]
        faulty = {
            shot["shot_id"]
            for row, told in zip(films, faults, strict=True)
            for shot, fault in zip(row["shots"], told, strict=True)
            if fault is not None
        }
        found = Copies.of(films).settle(faulty)
        for row, told in zip(films, faults, strict=True):
            names = [shot["shot_id"] for shot in row["shots"]]
            copies = [found.get(name) for name in names]
            yield {
                "shot_verdicts": [self.verdict(*both) for both in zip(told, copies, strict=True)],
                "duplicates": [
                    {"shot_id": name, "duplicate_of": copy[0], "distance": copy[1]}
                    for name, copy in zip(names, copies, strict=True)
                    if copy is not None
                ],
            }

    def faults(self, row: Row) -> Iterator[tuple[str, str] | None]:
        """(reason, detail) of the first rule that each shot of a film row breaks, copies apart."""
        for score, looks in zip(row["shot_scores"], row["aesthetics"], strict=True):
            yield next(self._faults({**score, "aesthetic": looks}), None)

    def verdict(self, fault: tuple[str, str] | None, copy: tuple[str, float] | None) -> Row:
        """`rows.SHOT_VERDICT` of a shot, from its first fault and the copy that stays in its place."""
        if fault is None and self.duplicates and copy is not None:
            fault = "duplicate", f"a copy of {copy[0]} (distance {copy[1]:.0f} of 127 bits)"
        reason, detail = fault or (None, None)
        return {"usable": fault is None, "reason": reason, "detail": detail}

    def _faults(self, score: Row) -> Iterator[tuple[str, str]]:
        if _over(score, "corrupt_share", self.max_corrupt_share):
            yield "corrupt", _detail(score, "corrupt_share", ">", self.max_corrupt_share)
        if _under(score, "luma_p90", self.black_p90):
            yield "too_dark", _detail(score, "luma_p90", "<", self.black_p90)
        if _under(score, "luma_p90", self.dark_p90) and _under(score, "contrast", self.dark_contrast):
            both = [("luma_p90", self.dark_p90), ("contrast", self.dark_contrast)]
            yield "too_dark", " and ".join(_detail(score, n, "<", limit) for n, limit in both)
        if _over(score, "luma_mean", self.max_luma):
            yield "too_bright", _detail(score, "luma_mean", ">", self.max_luma)
        if _over(score, "freeze_share", self.max_freeze_share):
            yield "frozen", _detail(score, "freeze_share", ">", self.max_freeze_share)
        for name, reason in (
            ("contrast", "low_contrast"),
            ("sharpness", "blurred"),
            ("motion", "static"),
            ("text_free_share", "title_over_picture"),
            ("aesthetic", "unaesthetic"),
        ):
            limit = getattr(self, f"min_{name}")
            if _under(score, name, limit):
                yield reason, _detail(score, name, "<", limit)
        for name, reason in (("shake", "shaky"), ("flicker", "flicker")):
            limit = getattr(self, f"max_{name}")
            if _over(score, name, limit):
                yield reason, _detail(score, name, ">", limit)


def _over(score: Row, name: str, limit: float | None) -> bool:
    return limit is not None and score[name] is not None and score[name] > limit


def _under(score: Row, name: str, limit: float | None) -> bool:
    return limit is not None and score[name] is not None and score[name] < limit


def _detail(score: Row, name: str, sign: str, limit: Any) -> str:
    return f"{name} {score[name]:.3g} {sign} {limit:g}"
