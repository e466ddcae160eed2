import shutil

import pytest

from curation.engine.explain import explain
from curation.engine.runner import run
from curation.engine.stage import StopRun, plan
from curation.engine.store import Store
from tests.curation.toy import ROWS, SOURCE, STEPS, Alone, Double, Even, Halves, Square, Waits, built

PLAN = plan(STEPS, SOURCE)


def loop(tmp_path, rows=ROWS, steps=STEPS):
    return run(plan(steps, SOURCE), rows, Store(tmp_path), on_ray=False)


def test_every_row_is_kept_rejected_or_failed_with_its_reason(tmp_path):
    out = loop(tmp_path)
    films = {r["path"]: (r["status"], r["stage"], r["reason"]) for r in out.tables["film"]}
    assert films == {
        "p4": ("kept", None, None),
        "p10": ("kept", None, None),
        "p3": ("rejected", "even", "odd"),
        "p13": ("failed", "square", "unlucky"),
    }
    assert [r["back"] for r in out.tables["sequence"]] == [100.0, 100.0, 16.0, 16.0]
    assert out.made == {"square": 4, "even": 3, "double": 4}
    assert out.counters["square"]["squared"] == 3


def test_a_second_run_makes_nothing_again_and_gives_the_same_rows(tmp_path):
    first, second = loop(tmp_path), loop(tmp_path)
    assert second.tables == first.tables
    assert second.made["square"] == second.made["double"] == 0
    assert second.reused == {"square": 4, "even": 0, "double": 4}


def test_a_changed_setting_reruns_only_what_depends_on_it(tmp_path):
    loop(tmp_path)
    out = loop(tmp_path, steps=(Square(offset=2), Even(), Halves(), Double()))
    assert out.made["square"] == 4
    assert out.made["double"] == 4
    same = loop(tmp_path, steps=(Square(offset=2), Even(), Halves(), Double()))
    assert sum(same.made.values()) == same.made["even"]


def test_a_bug_escapes_and_a_full_disk_stops_with_one_line(tmp_path):
    with pytest.raises(ZeroDivisionError):
        loop(tmp_path, rows=[{"path": "p", "number": 66}])
    with pytest.raises(StopRun, match=r"disk full: .*run the same command again"):
        loop(tmp_path, rows=[{"path": "p", "number": 99}])
    assert list(tmp_path.glob("scratch/*")) == []


def test_explain_says_what_runs_and_why(tmp_path):
    store = Store(tmp_path)
    assert dict(explain(PLAN, ROWS, store)[0].runs) == {"new": 4}
    loop(tmp_path)
    square, double = explain(PLAN, ROWS, store)
    assert (square.reused, square.runs.total(), double.reused, double.unknown) == (4, 0, 4, 0)
    changed = plan((Square(offset=7), Even(), Halves(), Double()), SOURCE)
    square, double = explain(changed, ROWS, store)
    assert dict(square.runs) == {"setting square.offset: 0 -> 7": 4}
    assert (double.grain, double.unknown, double.unlisted, double.after) == ("sequence", 0, 4, ("square",))


def test_progress_begins_before_the_first_row_and_counts_every_one(tmp_path):
    seen = []

    def entries(names, done, total):
        seen.append((names, done, total, any(tmp_path.rglob("*.json"))))

    run(PLAN, ROWS, Store(tmp_path), on_ray=False, progress=entries)
    first = [now[1:] for now in seen if now[0] == seen[0][0]]
    assert first == [(0, 4, False), *((n, 4, True) for n in (1, 2, 3, 4))]


def test_ray_gives_the_same_tables_as_the_loop(tmp_path, ray_cluster):
    seen = []
    here = loop(tmp_path / "loop")
    there = run(PLAN, ROWS, Store(tmp_path / "ray"), on_ray=True, progress=lambda *now: seen.append(now))
    assert there.tables == here.tables
    assert there.made == here.made
    assert seen[-1][1:] == (4, 4)
    with pytest.raises(StopRun, match=r"disk full"):
        run(PLAN, [{"path": "p", "number": 99}], Store(tmp_path / "ray"), on_ray=True)


def test_rows_are_in_flight_together_and_paid_answers_outlive_them(tmp_path):
    rows = [{"path": f"p{n}", "number": n} for n in range(6)]
    out = loop(tmp_path, rows, (Waits(),))
    assert [r["answer"] for r in out.tables["film"]] == [1, 2, 3, 4, 5, 6]
    assert {r["workers"] for r in out.tables["film"]} == {len(built)}
    assert out.counters["waits"]["paid"] == 6
    shutil.rmtree(tmp_path / "waits")  # the run died before its rows were kept
    again = loop(tmp_path, rows, (Waits(),))
    assert again.made["waits"] == 6
    assert "paid" not in again.counters["waits"]
    assert again.tables["film"] == [{**r, "workers": len(built)} for r in out.tables["film"]]


def test_a_stage_of_one_row_at_a_time_stays_so_beside_one_of_many(tmp_path):
    rows = [{"path": f"p{n}", "number": n} for n in range(6)]
    out = loop(tmp_path, rows, (Alone(), Waits()))
    assert [r["alone"] for r in out.tables["film"]] == [True] * 6
    assert [r["answer"] for r in out.tables["film"]] == [1, 2, 3, 4, 5, 6]


def test_rows_are_in_flight_together_on_ray(tmp_path, ray_cluster):
    rows = [{"path": f"p{n}", "number": n} for n in range(6)]
    out = run(plan((Waits(),), SOURCE), rows, Store(tmp_path), on_ray=True)
    assert [r["answer"] for r in out.tables["film"]] == [1, 2, 3, 4, 5, 6]
    assert {r["workers"] for r in out.tables["film"]} == {1}
