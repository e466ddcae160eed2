"""What `--explain` says: what is kept, what will run, and what cannot be known before that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from curation.engine.explain import Forecast, explain
from curation.engine.runner import run
from curation.engine.stage import Fold, Plan, Reject, Stage, plan
from curation.engine.store import Store

SOURCE = pa.schema([("path", pa.string()), ("film_id", pa.string()), ("parts", pa.int64())])
ROWS = [{"path": f"{name}.mp4", "film_id": name, "parts": 2} for name in ("a", "b")]
PART = pa.schema([*SOURCE, ("segment_id", pa.string())])


@dataclass(frozen=True, kw_only=True)
class Apart(Fold):
    name: ClassVar = "apart"
    grain: ClassVar = "segment"
    reads: ClassVar = ("film_id", "parts")
    emits: ClassVar = PART

    def fold(self, rows):
        return [{**r, "segment_id": f"{r['film_id']}{n}"} for r in rows for n in range(r["parts"])]


@dataclass(frozen=True, kw_only=True)
class Look(Stage):
    name: ClassVar = "look"
    reads: ClassVar = ("segment_id",)
    writes: ClassVar = pa.schema([("seen", pa.string())])
    fails_on: str = ""
    sharp: int = 1

    def worker(self):
        def work(row, folder):
            if row["segment_id"] == self.fails_on:
                raise KeyboardInterrupt
            return {"seen": f"{row['segment_id']} {self.sharp % 2}"}

        return work


@dataclass(frozen=True, kw_only=True)
class Together(Fold):
    name: ClassVar = "together"
    grain: ClassVar = "film"
    reads: ClassVar = ("film_id", "seen")
    emits: ClassVar = pa.schema([*SOURCE, ("all_seen", pa.string())])

    def fold(self, rows):
        films = {r["film_id"]: r for r in rows}
        return [
            {**{c: film[c] for c in (*SOURCE.names, "status", "stage", "reason", "detail")}}
            | {"all_seen": ",".join(sorted(r["seen"] for r in rows if r["film_id"] == name))}
            for name, film in films.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Judge(Stage):
    name: ClassVar = "judge"
    reads: ClassVar = ("all_seen",)
    writes: ClassVar = pa.schema([("verdict", pa.string())])
    refuses: str = "nobody"

    def worker(self):
        def work(row, folder):
            if row["all_seen"].startswith(self.refuses):
                raise Reject("unwanted")
            return {"verdict": row["all_seen"]}

        return work


@dataclass(frozen=True, kw_only=True)
class Scenes(Fold):
    name: ClassVar = "scenes"
    grain: ClassVar = "sequence"
    reads: ClassVar = ("film_id", "verdict")
    emits: ClassVar = pa.schema([("film_id", pa.string()), ("sequence_id", pa.string())])

    def fold(self, rows):
        kept = (r for r in rows if r["status"] == "kept")
        return [{"film_id": r["film_id"], "sequence_id": f"{r['film_id']}-{n}"} for r in kept for n in "xyz"]


@dataclass(frozen=True, kw_only=True)
class Cut(Stage):
    name: ClassVar = "cut"
    reads: ClassVar = ("sequence_id",)
    writes: ClassVar = pa.schema([("file", pa.string())])
    size: int = 1

    def worker(self):
        return lambda row, folder: {"file": row["sequence_id"] * self.size}


@dataclass(frozen=True, kw_only=True)
class Tell(Stage):
    name: ClassVar = "tell"
    reads: ClassVar = ("file",)
    writes: ClassVar = pa.schema([("words", pa.string())])

    def worker(self):
        return lambda row, folder: {"words": row["file"]}


def steps(look: Look | None = None, judge: Judge | None = None, cut: Cut | None = None) -> Plan:
    made = (Apart(), look or Look(), Together(), judge or Judge(), Scenes(), cut or Cut(), Tell())
    return plan(made, SOURCE)


def told(forecasts: list[Forecast]) -> dict[str, tuple[int, int, int, int]]:
    return {f.stage: (f.reused, f.runs.total(), f.unknown, f.unlisted) for f in forecasts}


def test_before_the_first_run_only_the_first_stage_is_known(tmp_path: Path) -> None:
    found = explain(steps(), ROWS, Store(tmp_path))
    assert told(found) == {
        "look": (0, 4, 0, 0),
        "judge": (0, 0, 2, 0),
        "cut": (0, 0, 0, 2),
        "tell": (0, 0, 0, 2),
    }
    assert [f.grain for f in found] == ["segment", "film", "sequence", "sequence"]
    assert [f.after for f in found] == [(), ("look",), ("look",), ("look",)]


def test_after_a_run_everything_is_kept(tmp_path: Path) -> None:
    run(steps(), ROWS, Store(tmp_path), on_ray=False)
    assert told(explain(steps(), ROWS, Store(tmp_path))) == {
        "look": (4, 0, 0, 0),
        "judge": (2, 0, 0, 0),
        "cut": (6, 0, 0, 0),
        "tell": (6, 0, 0, 0),
    }


def test_a_new_film_is_told_apart_from_those_that_are_kept(tmp_path: Path) -> None:
    run(steps(), ROWS[:1], Store(tmp_path), on_ray=False)
    assert told(explain(steps(), ROWS, Store(tmp_path))) == {
        "look": (2, 2, 0, 0),
        "judge": (1, 0, 1, 0),
        "cut": (3, 0, 0, 1),
        "tell": (3, 0, 0, 1),
    }


def test_a_film_of_which_some_segments_are_missing_waits_as_a_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(steps(look=Look(fails_on="b1")), ROWS, store, on_ray=False)
    again = explain(steps(look=Look(fails_on="b1")), ROWS, store)
    assert told(again)["look"] == (3, 1, 0, 0)
    assert told(again)["judge"] == (0, 1, 1, 0)


def test_a_change_in_the_middle_leaves_what_is_above_and_opens_what_is_below(tmp_path: Path) -> None:
    run(steps(), ROWS, Store(tmp_path), on_ray=False)
    changed = explain(steps(cut=Cut(size=2)), ROWS, Store(tmp_path))
    assert told(changed)["cut"] == (0, 6, 0, 0)
    assert told(changed)["tell"] == (0, 0, 6, 0)
    assert changed[3].after == ("cut",)
    judged = explain(steps(judge=Judge(refuses="a")), ROWS, Store(tmp_path))
    assert told(judged)["judge"] == (0, 2, 0, 0)
    assert told(judged)["cut"] == (0, 0, 0, 2)


def test_every_film_and_sequence_with_work_begins_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = explain(steps(), ROWS, store)
    assert [(f.stage, sorted(f.begun)) for f in first if f.begun] == [("look", ["a", "b"])]
    run(steps(), ROWS, store, on_ray=False)
    assert not any(f.begun for f in explain(steps(), ROWS, store))
    changed = explain(steps(cut=Cut(size=2)), ROWS, store)
    six = ["a-x", "a-y", "a-z", "b-x", "b-y", "b-z"]
    assert [(f.stage, sorted(f.begun)) for f in changed if f.begun] == [("cut", six)]


@dataclass(frozen=True, kw_only=True)
class Rank(Fold):
    """Where each film stands among all of them."""

    name: ClassVar = "rank"
    grain: ClassVar = "film"
    reads: ClassVar = ("film_id", "verdict")
    writes: ClassVar = pa.schema([("place", pa.int64())])
    cached: ClassVar = True
    best: int = 1

    def fold(self, rows):
        kept = [r for r in rows if r["status"] == "kept"]
        order = sorted(kept, key=lambda r: r["verdict"], reverse=True)
        return [{**r, "place": self.best + order.index(r) if r in order else None} for r in rows]


def ranked(judge: Judge | None = None, rank: Rank | None = None, look: Look | None = None) -> Plan:
    return plan((Apart(), look or Look(), Together(), judge or Judge(), rank or Rank()), SOURCE)


def test_a_kept_fold_is_made_once_for_the_same_rows(tmp_path: Path, monkeypatch) -> None:
    store = Store(tmp_path)
    first = run(ranked(), ROWS[::-1], store, on_ray=False)
    assert [r["place"] for r in first.tables["film"]] == [2, 1]
    assert (first.made["rank"], first.reused["rank"]) == (1, 0)
    assert first.counters["rank"].keys() == {"seconds"}
    monkeypatch.delattr(Rank, "fold")
    again = run(ranked(), ROWS, store, on_ray=False)
    assert again.tables == first.tables
    assert again.counters["rank"] == first.counters["rank"]
    assert (again.made["rank"], again.reused["rank"]) == (0, 1)


def test_a_settled_row_has_no_part_in_a_kept_fold(tmp_path: Path) -> None:
    for made in (1, 0):
        out = run(ranked(Judge(refuses="a")), ROWS, Store(tmp_path), on_ray=False)
        assert [(r["status"], r["place"]) for r in out.tables["film"]] == [("rejected", None), ("kept", 1)]
        assert out.made["rank"] == made


def test_a_kept_fold_is_one_result_of_all_films(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert told(explain(ranked(), ROWS, store))["rank"] == (0, 0, 1, 0)
    run(ranked(), ROWS[:1], store, on_ray=False)
    waits = explain(ranked(), ROWS, store)[-1]
    assert (waits.stage, waits.unknown, waits.after) == ("rank", 1, ("look",))
    run(ranked(), ROWS, store, on_ray=False)
    assert told(explain(ranked(), ROWS, store))["rank"] == (1, 0, 0, 0)
    changed = explain(ranked(rank=Rank(best=0)), ROWS, store)[-1]
    assert (dict(changed.runs), changed.begun) == ({"setting rank.best: 1 -> 0": 1}, {})
    assert told(explain(ranked(Judge(refuses="a")), ROWS, store))["rank"] == (0, 0, 1, 0)
