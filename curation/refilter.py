"""What would other thresholds keep? Judges and packs again from published scores; decodes nothing.

    films = films_from_tables(films_table, shots_table)
    now = Settings()
    change = compare(films, now, now.changed({"filters": {"min_sharpness": 20}}))
    table = what_if(films, "filters.min_sharpness", [5, 10, 20, 40], now)

It answers for the steps `filters` and `sequences`. What later steps reject (no room for a crop, no
subject) is not repeated, because that takes decoding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import ids, rows
from curation.config import SettingsError, build, suggestion
from curation.engine.stage import KEPT, Row
from curation.packing import Shots, pack
from curation.stages.filters import Filters
from curation.stages.sequences import Sequences as SequenceStage
from curation.stages.sequences import clip_ticks, coverage, searchable


@dataclass(frozen=True)
class Settings:
    """The settings that decide what is kept, without decoding."""

    filters: Filters = field(default_factory=Filters)
    sequences: SequenceStage = field(default_factory=SequenceStage)

    def changed(self, changes: Mapping[str, Mapping[str, Any]]) -> Settings:
        """With some settings changed, by stage name.

        Raises:
            SettingsError: an unknown stage or setting, or a wrong value.
        """
        known = [f.name for f in dataclasses.fields(self)]
        parts = {}
        for stage, values in changes.items():
            if stage not in known:
                raise SettingsError(f"refilter cannot change {stage!r}{suggestion(stage, known)}")
            part = getattr(self, stage)
            parts[stage] = build(type(part), {**dataclasses.asdict(part), **values}, f"refilter: {stage}")
        return dataclasses.replace(self, **parts)


@dataclass(frozen=True)
class Film:
    """A film with what every try needs: its row, and its shots as the search sees them."""

    row: Row
    shots: Shots


@dataclass(frozen=True)
class Packed:
    """A sequence that some settings would keep."""

    sequence_id: str
    film_id: str
    path: str
    start_s: float
    end_s: float
    num_clips: int


@dataclass(frozen=True)
class Selection:
    """What settings would keep of a set of films.

    Attributes:
        sequences: by sequence id, in the order of films and time.
        covered_s: seconds packed: of whole shots, before later stages reject or trim any.
        total_s: seconds of all films.
        lost_s: seconds by the reason for which they are not used, largest first.
    """

    sequences: dict[str, Packed]
    covered_s: float
    total_s: float
    lost_s: dict[str, float]


@dataclass(frozen=True)
class Change:
    """What a change of settings does: sequences that stay, enter and leave, with what was and would be."""

    before: Selection
    after: Selection
    stay: tuple[Packed, ...]
    enter: tuple[Packed, ...]
    leave: tuple[Packed, ...]


@dataclass(frozen=True)
class WhatIf:
    """One line of a what-if table.

    Attributes:
        value: of the setting that is moved.
        num_sequences, num_clips: that would be kept.
        enter, leave: sequences that differ from the settings as they are.
        covered_s, share: seconds packed, and their share of all films.
        usable_shots: shots that pass the filters.
    """

    value: Any
    num_sequences: int
    num_clips: int
    enter: int
    leave: int
    covered_s: float
    share: float | None
    usable_shots: int


def prepare(films: Sequence[Row]) -> list[Film]:
    """Films worth trying: those whose shots were scored.

    Args:
        films: film rows with at least film_id, path, stream (time base, first_pts, duration_s), shots,
            shot_scores, aesthetics and copies; from a run, or from `films_from_tables`.
    """
    out = []
    for row in films:
        if row["status"] == KEPT and row.get("shots") is not None and row.get("shot_scores") is not None:
            blank = [{"usable": True, "reason": None, "detail": None}] * len(row["shots"])
            out.append(Film(row, searchable({**row, "shot_verdicts": blank})))
    return out


def select(films: Sequence[Film], settings: Settings) -> tuple[Selection, int]:
    """What the settings would keep, and how many shots pass the filters."""
    sequences: dict[str, Packed] = {}
    lost: dict[str, float] = {}
    covered = total = 0.0
    num_usable = 0
    judged = settings.filters.judge([film.row for film in films])
    for film, written in zip(films, judged, strict=True):
        row = {**film.row, **written}
        usable = [v["usable"] for v in row["shot_verdicts"]]
        shots = dataclasses.replace(film.shots, usable=usable)
        windows = pack(shots, settings.sequences)
        for window in windows:
            packed = _packed(row, shots, window.first, window.end, len(window.context))
            sequences[packed.sequence_id] = packed
            covered += float(clip_ticks(shots, window) * shots.tick_s)
        for span in coverage(row, shots, settings.sequences, windows):
            length = span["end_s"] - span["start_s"]
            total += length
            if span["reason"] is not None:
                lost[span["reason"]] = lost.get(span["reason"], 0.0) + length
        num_usable += sum(usable)
    ordered = dict(sorted(lost.items(), key=lambda item: (-item[1], item[0])))
    return Selection(sequences, covered, total, ordered), num_usable


def _packed(row: Row, shots: Shots, first: int, end: int, num_context: int) -> Packed:
    name = ids.sequence_id(row["film_id"], shots.start[first], shots.end[end - 1])
    span = (row["shots"][first]["start_s"], row["shots"][end - 1]["end_s"])
    return Packed(name, row["film_id"], row["path"], *span, end - first - num_context)


def compare(films: Sequence[Row] | Sequence[Film], before: Settings, after: Settings) -> Change:
    """Which sequences stay, enter and leave when settings change. A sequence is its span of the film."""
    prepared = _prepared(films)
    (was, _), (would, _) = select(prepared, before), select(prepared, after)
    return Change(
        was,
        would,
        tuple(s for name, s in would.sequences.items() if name in was.sequences),
        tuple(s for name, s in would.sequences.items() if name not in was.sequences),
        tuple(s for name, s in was.sequences.items() if name not in would.sequences),
    )


def what_if(
    films: Sequence[Row] | Sequence[Film], setting: str, values: Sequence[Any], base: Settings | None = None
) -> list[WhatIf]:
    """One line per value of one setting, all others as in `base`.

    Args:
        films: film rows, or what `prepare` made of them.
        setting: stage and name, e.g. `filters.min_sharpness`.
        values: to try, in this order.
        base: the settings as they are.

    Raises:
        SettingsError: the setting does not exist, or cannot have such a value.
    """
    base = base or Settings()
    stage, dot, name = setting.partition(".")
    if not dot:
        raise SettingsError(f"{setting!r}: expected stage.setting, e.g. filters.min_sharpness")
    tries = [(value, base.changed({stage: {name: value}})) for value in values]
    prepared = _prepared(films)
    now, _ = select(prepared, base)
    out = []
    for value, settings in tries:
        then, usable = select(prepared, settings)
        out.append(
            WhatIf(
                value=value,
                num_sequences=len(then.sequences),
                num_clips=sum(s.num_clips for s in then.sequences.values()),
                enter=len(then.sequences.keys() - now.sequences.keys()),
                leave=len(now.sequences.keys() - then.sequences.keys()),
                covered_s=then.covered_s,
                share=then.covered_s / then.total_s if then.total_s else None,
                usable_shots=usable,
            )
        )
    return out


def _prepared(films: Sequence[Row] | Sequence[Film]) -> list[Film]:
    done = [f for f in films if isinstance(f, Film)]
    return done if len(done) == len(films) else prepare([f for f in films if not isinstance(f, Film)])


_STREAM = ("width", "height", "interlaced", "time_base_num", "time_base_den", "first_pts", "duration_s")


def films_from_tables(films: pa.Table, shots: pa.Table) -> list[Row]:
    """Film rows from the published tables `films` and `shots`; films without shots are left out.

    A published film may be rejected because nothing of it was kept; here it counts as tryable again. Tables
    of before `better_copies` know of each copy only the one that stays in its place.

    Raises:
        KeyError: a column is missing.
    """
    span = ["shot_id", "film_id", "shot_index", *(f.name for f in pa.struct(rows.SPAN))]
    scores = [f.name for f in rows.SHOT_SCORES]
    extra = ["transition_in", "transition_out", "confidence"]
    copies = [c for c in ("better_copies", "duplicate_of", "duplicate_distance") if c in shots.column_names]
    by_film: dict[str, list[Row]] = {}
    table = shots.select([*span, *scores, "aesthetic", *extra, *copies]).sort_by(
        [("film_id", "ascending"), ("shot_index", "ascending")]
    )
    for batch in table.to_batches(max_chunksize=10_000):
        for shot in batch.to_pylist():
            by_film.setdefault(shot["film_id"], []).append(shot)
    out, seen = [], set()
    for film in films.select(["film_id", "path", *_STREAM]).to_pylist():
        name = film["film_id"]
        if name not in by_film or name in seen:  # the same bytes found twice are one film
            continue
        seen.add(name)
        members = by_film[name]
        out.append(
            {
                "film_id": name,
                "path": film["path"],
                "status": KEPT,
                "stream": {c: film[c] for c in _STREAM},
                "shots": [{c: s[c] for c in (*span, *extra)} for s in members],
                "shot_scores": [{c: s[c] for c in scores} for s in members],
                "aesthetics": [s["aesthetic"] for s in members],
                "copies": [copy for s in members for copy in _copies(s)],
            }
        )
    return out


def _copies(shot: Row) -> Iterator[Row]:
    """`rows.COPY` of a published shot."""
    if "better_copies" in shot:
        for copy in shot["better_copies"] or []:
            yield {**copy, "shot_id": shot["shot_id"], "copy_of": copy["shot_id"]}
    elif shot["duplicate_of"] is not None:
        known = {"copy_of": shot["duplicate_of"], "distance": shot["duplicate_distance"]}
        yield {"shot_id": shot["shot_id"], **known, "is_part": True}  # goes whichever is the better picture
