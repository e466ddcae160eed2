"""Shots to sequences: windows of consecutive usable shots, and an account of every second of the film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import pyarrow as pa

from curation import ids, rows
from curation.engine.stage import KEPT, REJECTED, Fold, Row, Stage, Worker
from curation.packing import Role, Rules, Shots, Window, pack, roles
from curation.packing_advice import hindrance
from curation.presets import PRESETS
from curation.shots.cut_rules import CUT

CONTEXT, TRANSITION, NO_WINDOW, TRIMMED = "context", "transition", "no_window", "trimmed"
TOO_SHORT, TOO_LONG = Role.TOO_SHORT.value, Role.TOO_LONG.value
MIXED_FIELDS = "mixed_fields"
SOFT = ("fade", "dissolve")

TICK_S = 0.005
"""What rounded timestamps may be off; a shorter rest of a shot is none."""
LOOKS_ALIKE_BITS = 28
"""Perceptual hashes of 128 bits this near show the same camera setup (16-28 bits when it comes back in Big
Buck Bunny); different pictures are about 60 apart."""
LINK_SHOTS = 4
"""A setup that comes back within so many shots holds a scene together (overlapping links: Hanjalic et al.,
"Automated high-level movie segmentation", IEEE Trans. CSVT 9(4), 1999)."""


@dataclass(frozen=True, kw_only=True)
class Sequences(Rules, Stage):
    """Pack the usable shots of a film into sequences by exact search.

    The settings are those of `curation.packing.Rules`; `curation.presets` has named sets of them. Covered
    seconds come first, then windows that start and end at scene boundaries and do not cut through them.
    """

    name: ClassVar[str] = "sequences"
    reads: ClassVar[tuple[str, ...]] = (
        "film_id",
        "stream",
        "shots",
        "shot_verdicts",
        "shot_scores",
    )
    writes: ClassVar[pa.Schema] = pa.schema(
        [
            ("windows", pa.list_(rows.WINDOW)),
            ("coverage", pa.list_(rows.COVERAGE)),
            ("preset_coverage", pa.list_(rows.PRESET_COVERAGE)),
            ("no_window_because", pa.string()),
        ]
    )
    cached: ClassVar[bool] = False

    def worker(self) -> Worker:
        """A function of the row alone."""

        def work(row: Row, folder: object) -> Row:
            shots = searchable(row)
            windows = pack(shots, self)
            return {
                "windows": [window_row(row, w) for w in windows],
                "coverage": coverage(row, shots, self, windows),
                "preset_coverage": preset_coverage(row, shots),
                "no_window_because": None if windows else hindrance(shots, self),
            }

        return work


def searchable(row: Row) -> Shots:
    """The shots of a film row as the search wants them."""
    stream = row["stream"]
    return Shots(
        [s["start_pts"] for s in row["shots"]],
        [s["end_pts"] for s in row["shots"]],
        [v["usable"] for v in row["shot_verdicts"]],
        scene_boundaries(row["shots"], row["shot_scores"]),
        Fraction(stream["time_base_num"], stream["time_base_den"]),
    )


def scene_boundaries(shots: Sequence[Row], scores: Sequence[Row]) -> list[int]:
    """How surely a scene ends before each shot and after the last one: n + 1 strengths.

    2 at a fade or dissolve and at the ends of the film; 0 at a cut over which one and the same camera setup
    is seen on both sides (shot and reverse shot, a cut-in); 1 at any other cut.
    """
    linked = [False] * (len(shots) + 1)
    looks = [_looks(score) for score in scores]
    for later in range(len(shots)):
        for earlier in range(max(0, later - LINK_SHOTS), later):
            if _alike(looks[earlier], looks[later]):
                linked[earlier + 1 : later + 1] = [True] * (later - earlier)
                break
    soft = [s["transition_in"] in SOFT for s in shots]
    inner = [2 if soft[k] else 0 if linked[k] else 1 for k in range(1, len(shots))]
    return [2, *inner, 2] if shots else [2]


def _looks(score: Row) -> list[int]:
    """What a shot looks like near its start, some seconds in, and near its end."""
    first = [h for h in score["phash"] or [] if h is not None]
    last = [h for h in score["phash_end"] or [] if h is not None]
    return [int(h, 16) for h in dict.fromkeys([*first[:1], *first[-1:], *last[:1]])]


def _alike(one: list[int], other: list[int]) -> bool:
    return any((a ^ b).bit_count() <= LOOKS_ALIKE_BITS for a in one for b in other)


def window_row(row: Row, window: Window) -> Row:
    """A window as `rows.WINDOW`."""
    first, last = row["shots"][window.first], row["shots"][window.end - 1]
    clips = [
        {"shot_index": row["shots"][i]["shot_index"], "is_context": i in window.context}
        for i in range(window.first, window.end)
    ]
    span = {f"start_{unit}": first[f"start_{unit}"] for unit in ("pts", "frame", "s")}
    span |= {f"end_{unit}": last[f"end_{unit}"] for unit in ("pts", "frame", "s")}
    return {**span, "num_shots": len(clips) - len(window.context), "clips": clips}


# -- the account of every second ----------------------------------------------------------------


def coverage(row: Row, shots: Shots, rules: Rules, windows: Sequence[Window]) -> list[Row]:
    """Spans that tile the film from 0 to its end: what uses them, or why nothing does.

    `used_by` names the sequence; `reason` is then null, or `context` for a shot that is no clip. Unused
    spans have as reason `transition`, `mixed_fields` (a frame of an interlaced film with fields of two
    shots), `shot_too_short` or `shot_too_long` (for a clip), `no_window` (usable and long enough, but its
    neighbours do not make a sequence with it) or the reason of the quality filter.
    """
    used: dict[int, tuple[str, str | None]] = {}
    for window in windows:
        first, last = row["shots"][window.first], row["shots"][window.end - 1]
        name = ids.sequence_id(row["film_id"], first["start_pts"], last["end_pts"])
        for i in range(window.first, window.end):
            used[i] = (name, CONTEXT if i in window.context else None)
    spans, at = [], 0.0
    unused = _reasons(row, shots, rules)
    for i, shot in enumerate(row["shots"]):
        if shot["start_s"] > at:
            spans.append(_span(at, shot["start_s"], None, _between(row, i)))
        used_by, reason = used.get(i, (None, unused[i]))
        spans.append(_span(shot["start_s"], shot["end_s"], used_by, reason))
        at = shot["end_s"]
    end = row["stream"]["duration_s"] or at
    if end > at + 1e-6:
        spans.append(_span(at, end, None, TRANSITION))
    return spans


def _between(row: Row, i: int) -> str:
    """Why the frames between a shot and the one before it are in neither."""
    before, shot = row["shots"][i - 1] if i else None, row["shots"][i]
    if before is None or not row["stream"]["interlaced"]:
        return TRANSITION
    is_cut = before["transition_out"] == CUT == shot["transition_in"]
    return MIXED_FIELDS if is_cut and shot["start_frame"] - before["end_frame"] <= 2 else TRANSITION


def _span(start_s: float, end_s: float, used_by: str | None, reason: str | None) -> Row:
    return {"start_s": start_s, "end_s": end_s, "used_by": used_by, "reason": reason}


def without_tails(span: Row, tails: Sequence[tuple[float, float]]) -> Iterator[Row]:
    """A span in clips, less the ends of shots that their clips of 4n+1 frames leave out (`trimmed`).

    Args:
        span: of `coverage`, used and no context.
        tails: start and end of what was left out, in seconds and in order; others than the span's too.
    """
    at = span["start_s"]
    for start, end in tails:
        if at <= start and start + TICK_S < end <= span["end_s"]:
            if start > at:
                yield {**span, "start_s": at, "end_s": start}
            yield _span(start, end, None, TRIMMED)
            at = end
    if at < span["end_s"]:
        yield {**span, "start_s": at}


def _reasons(row: Row, shots: Shots, rules: Rules) -> list[str]:
    """Why each shot would be unused."""
    out = []
    for kind, verdict in zip(roles(shots, rules), row["shot_verdicts"], strict=True):
        if kind is Role.UNUSABLE:
            out.append(verdict["reason"])
        elif kind is Role.CLIP:
            out.append(NO_WINDOW)
        else:
            out.append((Role.TOO_SHORT if kind is Role.CONTEXT else kind).value)
    return out


def preset_coverage(row: Row, shots: Shots) -> list[Row]:
    """What each preset would keep of the film: seconds in clips, and their share of its length."""
    duration = row["stream"]["duration_s"] or 0.0
    out = []
    for preset, settings in PRESETS.items():
        windows = pack(shots, Rules(**settings))
        ticks = sum(clip_ticks(shots, w) for w in windows)
        covered = float(ticks * shots.tick_s)
        out.append(
            {
                "preset": preset,
                "num_sequences": len(windows),
                "covered_s": covered,
                "share": covered / duration if duration else None,
            }
        )
    return out


def clip_ticks(shots: Shots, window: Window) -> int:
    """Ticks of a window that lie in clips."""
    clips = (i for i in range(window.first, window.end) if i not in window.context)
    return sum(shots.end[i] - shots.start[i] for i in clips)


# -- film rows to sequence rows -----------------------------------------------------------------


def film_verdict(row: Row) -> tuple[str, str | None, str | None]:
    """(status, reason, detail) of a film after packing: rejected as `no_sequence` if it gave no window."""
    if row["status"] != KEPT or row["windows"]:
        return row["status"], row["reason"], row["detail"]
    lost: dict[str, float] = {}
    for span in row["coverage"] or []:
        lost[span["reason"]] = lost.get(span["reason"], 0.0) + span["end_s"] - span["start_s"]
    by_loss = sorted(lost.items(), key=lambda x: (-x[1], x[0]))
    why = ", ".join(f"{reason} {s:.1f} s" for reason, s in by_loss)
    helps = [p for p in row["preset_coverage"] or [] if p["num_sequences"]]
    advice = row["no_window_because"]
    if helps:
        advice = "would keep something: " + ", ".join(
            f"preset {p['preset']} ({p['num_sequences']} of {p['covered_s']:.1f} s)" for p in helps
        )
    return REJECTED, "no_sequence", f"no window fits ({why or 'no shot'}); {advice}"


WORST = ("freeze_share", "corrupt_share", "dark_share", "bright_share")
LEAST = ("text_free_share",)
LARGEST = ("bar_top", "bar_bottom", "bar_left", "bar_right")


def combine_aesthetics(values: Sequence[float | None]) -> float | None:
    """The aesthetic score of a sequence: the mean of those of its clips that have one."""
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 6) if known else None


def combine_scores(scores: Sequence[Row]) -> Row:
    """The scores of a sequence from those of its clips; null where no clip has the score."""
    out: dict[str, Any] = {}
    for name in (f.name for f in rows.SHOT_SCORES):
        values = [s[name] for s in scores if s[name] is not None]
        if name in ("phash", "phash_end") or not values:
            out[name] = None
        elif name in WORST or name in LARGEST:
            out[name] = max(values)
        elif name in LEAST:
            out[name] = min(values)
        else:
            out[name] = sum(values) / len(values)
    return out


@dataclass(frozen=True, kw_only=True)
class ToSequences(Fold):
    """One row per packed window of the kept films. Films stay in the outcome as the grain that was left."""

    name: ClassVar[str] = "to_sequences"
    grain: ClassVar[str] = "sequence"
    reads: ClassVar[tuple[str, ...]] = (
        "film_id",
        "path",
        "licence",
        "stream",
        "shots",
        "shot_scores",
        "aesthetics",
        "windows",
        "signals",
        "segments",
    )
    emits: ClassVar[pa.Schema | None] = rows.SEQUENCE_ROW

    def fold(self, rows: list[Row]) -> list[Row]:
        """Film rows to sequence rows, in the order of the films and their windows."""
        return [s for row in rows if row["status"] == KEPT for s in sequence_rows(row)]


def sequence_rows(row: Row) -> Iterator[Row]:
    """The sequence rows of one film row."""
    at = {shot["shot_index"]: i for i, shot in enumerate(row["shots"])}
    names = [f.name for f in rows.CLIP_SPAN]
    for window in row["windows"]:
        members = [(c, at[c["shot_index"]]) for c in window["clips"]]
        clips = []
        for index, (clip, i) in enumerate(members):
            whole = {**row["shots"][i], "clip_index": index, "is_context": clip["is_context"]}
            clips.append({name: whole[name] for name in names})
        span = {k: window[k] for k in window if k not in ("clips", "num_shots")}
        shown = [i for clip, i in members if not clip["is_context"]]
        yield {
            "sequence_id": ids.sequence_id(row["film_id"], window["start_pts"], window["end_pts"]),
            **{k: row[k] for k in ("film_id", "path", "licence", "stream", "signals", "segments")},
            **span,
            "num_shots": window["num_shots"],
            "clips": clips,
            "scores": combine_scores([row["shot_scores"][i] for i in shown]),
            "aesthetic": combine_aesthetics([row["aesthetics"][i] for i in shown]),
        }
