"""Which shots are good enough. Decides on scores that are kept; computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curation import rows
from curation.engine.stage import Row, Stage, Worker


@dataclass(frozen=True, kw_only=True)
class Filters(Stage):
    """Judge every shot; the first rule that a shot breaks is its reason. None switches a rule off.

    A score that could not be computed breaks no rule. The defaults reject what no person would keep and
    nothing of the night scenes, held poses and soft pictures of real films; `memento refilter` shows what
    other values would keep.

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
        duplicates: `duplicate` if a better copy of the shot is in the set.
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
    reads: ClassVar[tuple[str, ...]] = ("shots", "shot_scores", "aesthetics", "duplicates")
    writes: ClassVar[pa.Schema] = pa.schema([("shot_verdicts", pa.list_(rows.SHOT_VERDICT))])
    cached: ClassVar[bool] = False

    def worker(self) -> Worker:
        """A function of the row alone."""

        def work(row: Row, folder: object) -> Row:
            return {"shot_verdicts": self.judge(row)}

        return work

    def judge(self, row: Row) -> list[Row]:
        """`rows.SHOT_VERDICT` of each shot of a film row."""
        copies = {d["shot_id"]: d for d in row["duplicates"] or []} if self.duplicates else {}
        return [
            self.verdict({**score, "aesthetic": looks}, copies.get(shot["shot_id"]))
            for shot, score, looks in zip(row["shots"], row["shot_scores"], row["aesthetics"], strict=True)
        ]

    def verdict(self, score: Row, copy: Row | None) -> Row:
        """The verdict on one shot."""
        for reason, detail in self._faults(score):
            return {"usable": False, "reason": reason, "detail": detail}
        if copy is not None:
            detail = f"a copy of {copy['duplicate_of']} (distance {copy['distance']:.0f} of 127 bits)"
            return {"usable": False, "reason": "duplicate", "detail": detail}
        return {"usable": True, "reason": None, "detail": None}

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
