"""Which copy of a shot stays, among those that pass the thresholds."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation import rows, schema
from curation.engine.explain import explain
from curation.engine.runner import run
from curation.engine.stage import plan
from curation.engine.store import Store
from curation.publishing.tables import film_row, gather, shot_rows
from curation.refilter import films_from_tables
from curation.stages.duplicates import NEIGHBOURS, Duplicates, Shots, candidates
from curation.stages.filters import Filters
from curation.stages.sequences import Sequences
from tests.curation.copied_films import blurred, copy_of, fates, found, hashed_film
from tests.curation.judged_film import film, noisy, random_hashes, to_hex


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_copy_stays_where_the_better_one_is_rejected(rng):
    small = hashed_film(rng, [6, 5], name="a", width=480, height=204)
    large = blurred(copy_of(rng, small, [0, 1], name="b"), 0)

    assert fates(small, large) == {("a", 0): None, ("a", 1): "duplicate", ("b", 0): "blurred", ("b", 1): None}
    assert found(small, large) == {("b", 0): ("a", 0), ("a", 1): ("b", 1)}
    both = Filters(min_sharpness=None)
    assert fates(small, large, filters=both)["a", 0] == "duplicate", "as soon as the threshold lets it pass"


def test_of_three_copies_the_best_that_passes_stays(rng):
    small = hashed_film(rng, [6], name="a", width=480, height=204)
    middle = copy_of(rng, small, [0], bits=3, name="b", width=854, height=480)
    large = copy_of(rng, small, [0], bits=3, name="c", width=1920, height=1080)

    assert found(small, middle, large) == {("a", 0): ("c", 0), ("b", 0): ("c", 0)}
    assert found(small, middle, blurred(large, 0)) == {("a", 0): ("b", 0), ("c", 0): ("b", 0)}
    assert fates(small, blurred(middle, 0), large) == {
        ("a", 0): None,
        ("b", 0): "blurred",
        ("c", 0): "blurred",
    }
    assert found(blurred(small, 0), middle, large) == {}, "none of them is good enough"


def test_a_faulty_copy_is_rejected_for_its_own_fault(rng):
    large = hashed_film(rng, [6], name="a", width=1920, height=1080)
    small = blurred(copy_of(rng, large, [0], name="b"), 0)

    assert fates(large, small) == {("a", 0): None, ("b", 0): "blurred"}
    assert found(large, small) == {("b", 0): ("a", 0)}


def test_a_part_stays_where_its_whole_is_rejected(rng):
    whole = hashed_film(rng, [10], name="a")
    score = whole["shot_scores"][0]
    tail = film([4], name="b", scores={0: {"phash": [], "phash_end": score["phash_end"][:8]}})
    head = film([4], name="c", scores={0: {"phash": score["phash"][:8], "phash_end": []}})
    again = copy_of(rng, whole, [0], bits=2, name="d", width=480, height=204)

    assert found(whole, tail, head, again).keys() == {("b", 0), ("c", 0), ("d", 0)}
    blurred(whole, 0)
    assert found(whole, tail, head) == {}, "the whole is no copy of a part, nor the parts of each other"
    assert set(fates(whole, tail, head).values()) == {"blurred", None}
    copies = found(whole, tail, head, again)
    assert copies == {(name, 0): ("d", 0) for name in "abc"}, "the other whole takes its place"


@pytest.mark.parametrize(
    ("num", "num_bad"), [(NEIGHBOURS + 1, n) for n in (1, 20, NEIGHBOURS)] + [(120, 1), (120, 31)]
)
def test_of_many_copies_one_stays_whichever_are_rejected(rng, num, num_bad):
    first = hashed_film(rng, [6], name="f000")
    films = [first, *(copy_of(rng, first, [0], bits=2, name=f"f{i:03d}") for i in range(1, num))]
    bad = {0, *rng.choice(range(1, num), num_bad - 1, replace=False).tolist()}

    told = fates(*(blurred(f, 0) if i in bad else f for i, f in enumerate(films)))

    best = min(set(range(num)) - bad)
    wanted = {i: "blurred" if i in bad else None if i == best else "duplicate" for i in range(num)}
    assert {int(name[1:]): reason for (name, _), reason in told.items()} == wanted


def with_wrong(row, bits, **kwargs):
    """A film like one of a single shot, with those bits of every hash wrong."""
    wrong = np.zeros(128, np.uint8)
    wrong[list(bits)] = 1
    mask = int(to_hex(wrong), 16)
    (score,) = row["shot_scores"]
    hashes = {end: [f"{int(h, 16) ^ mask:032x}" for h in score[end]] for end in ("phash", "phash_end")}
    return film([6], scores={0: hashes}, **kwargs)


def test_copies_that_the_search_does_not_pair_are_found_over_a_common_copy(rng):
    """Each has six wrong bits; between them a bit is wrong in all ten blocks by which the search goes."""
    first = hashed_film(rng, [6], name="a")
    films = [first, with_wrong(first, range(6), name="b"), with_wrong(first, range(14, 20), name="c")]
    assert len(candidates(Shots.of(films))) == 2

    assert found(*films) == {("b", 0): ("a", 0), ("c", 0): ("a", 0)}
    blurred(first, 0)
    assert found(*films) == {("a", 0): ("b", 0), ("c", 0): ("b", 0)}


def test_a_copy_of_a_copy_stays_if_it_is_none_of_the_one_that_stays(rng):
    first = hashed_film(rng, [6], name="a")
    films = [first, with_wrong(first, range(8), name="b"), with_wrong(first, range(16), name="c")]

    assert found(*films) == {("b", 0): ("a", 0)}


def test_of_very_many_copies_few_stay_and_never_none(rng):
    first = hashed_film(rng, [6], name="f000")
    others = [copy_of(rng, first, [0], bits=1, name=f"f{i:03d}") for i in range(1, 150)]
    films = [blurred(f, 0) if i < 50 else f for i, f in enumerate([first, *others])]

    kept = [name for (name, _), reason in fates(*films).items() if reason is None]

    assert kept[0] == "f050"
    assert len(kept) <= 100 / NEIGHBOURS + 1


def test_whoever_takes_a_shots_place_is_in_the_set(rng):
    """Whatever the groups: the shot that stays is usable, and no usable shot has another in its place."""
    base = [random_hashes(rng, 20) for _ in range(3)]
    films = []
    for i in range(30):
        shown = [
            noisy(rng, base[k][: rng.integers(6, 21)], rng.integers(0, 7)) for k in rng.integers(0, 3, 4)
        ]
        scores = {k: {"phash": h[:16], "phash_end": h[::-1][:16]} for k, h in enumerate(shown)}
        width = int(rng.choice([480, 1920]))
        row = film([len(h) / 2 for h in shown], name=f"f{i:02d}", scores=scores, width=width)
        films.append(blurred(row, *np.flatnonzero(rng.random(4) < 0.4).tolist()))

    told, copies = fates(*films), found(*films)

    assert {reason for reason in told.values()} == {None, "blurred", "duplicate"}
    assert {told[kept] for kept in copies.values()} == {None}
    assert {shot for shot, reason in told.items() if reason == "duplicate"} <= copies.keys()
    assert all(told[shot] is not None for shot in copies)


# -- kept pairs ----------------------------------------------------------------------------------


JUDGED = pa.schema(
    [
        *(*rows.SOURCE, *rows.IDENTITY, *rows.INGEST, *rows.AESTHETIC),
        ("shots", pa.list_(rows.SHOT)),
        ("shot_scores", pa.list_(rows.SHOT_SCORES)),
    ]
)


def steps(**thresholds):
    return plan([Duplicates(), Filters(**thresholds), Sequences()], JUDGED)


@pytest.fixture
def pair(rng):
    """Two films of equal shots; the first shot of the better one is soft."""
    small = hashed_film(rng, [10] * 5, name="a", width=480, height=204)
    large = copy_of(rng, small, range(5), name="b")
    large["shot_scores"][0]["sharpness"] = 10.0
    return [{name: row.get(name) for name in JUDGED.names} for row in (small, large)]


def usable(outcome):
    return {row["path"][7]: [v["usable"] for v in row["shot_verdicts"]] for row in outcome.tables["film"]}


def test_a_moved_threshold_changes_who_stays_and_compares_nothing_again(pair, tmp_path, monkeypatch):
    store = Store(tmp_path)
    first = run(steps(min_sharpness=20), pair, store, on_ray=False)
    assert usable(first) == {"a": [True] + [False] * 4, "b": [False] + [True] * 4}
    assert (first.made["duplicates"], first.reused["duplicates"]) == (1, 0)

    monkeypatch.delattr(Duplicates, "match")
    (told,) = explain(steps(), pair, store)
    assert (told.stage, told.reused, told.runs.total(), told.unknown) == ("duplicates", 1, 0, 0)
    moved = run(steps(), pair, store, on_ray=False)
    assert usable(moved) == {"a": [False] * 5, "b": [True] * 5}
    assert (moved.made["duplicates"], moved.reused["duplicates"]) == (0, 1)
    back = run(steps(min_sharpness=20), pair, store, on_ray=False)
    assert back.tables == first.tables


def test_another_film_is_compared(pair, tmp_path):
    store = Store(tmp_path)
    run(steps(), pair[:1], store, on_ray=False)

    (told,) = explain(steps(), pair, store)
    assert dict(told.runs) == {"input changed: film_id, path, shot_scores, shots, stream": 1}
    assert run(steps(), pair, store, on_ray=False).made["duplicates"] == 1


@pytest.mark.slow
def test_ray_and_the_loop_keep_the_same_copies(pair, tmp_path, ray_cluster):
    here = run(steps(min_sharpness=20), pair, Store(tmp_path / "loop"), on_ray=False)
    there = run(steps(min_sharpness=20), pair, Store(tmp_path / "ray"), on_ray=True)

    assert there.tables == here.tables
    assert usable(there)["a"][0]


def test_pairs_are_published_and_read_again(pair, tmp_path):
    """What `memento refilter` needs to settle the copies anew."""
    done = run(steps(min_sharpness=20), pair, Store(tmp_path), on_ray=False).tables["film"]
    failed = {**done[0], "film_id": "f", "status": "failed", "copies": None, "duplicates": None}
    world = gather([*done, failed], [], Store(tmp_path))
    films = pa.Table.from_pylist([film_row(world, row) for row in world.shown_films()], schema.FILMS)
    shots = pa.Table.from_pylist(list(shot_rows(world)), schema.SHOTS)

    pairs = {row["film_id"]: row["copies"] for row in done}
    assert sum(map(len, pairs.values())) == 5
    back = films_from_tables(films, shots)
    assert {row["film_id"]: row["copies"] for row in back} == {**pairs, "f": []}
    unknown = shots.filter(pc.field("film_id") == "f")
    assert set(unknown["better_copies"].to_pylist()) == {None}, "not looked for is not none"
    usable_ids = {s["shot_id"] for s in shots.to_pylist() if s["usable"]}
    kept = [name for name in shots["duplicate_of"].to_pylist() if name]
    assert len(kept) == 5
    assert set(kept) <= usable_ids
