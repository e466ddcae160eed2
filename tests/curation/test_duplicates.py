import itertools

import numpy as np
import pytest

from curation import rows
from curation.engine.runner import run
from curation.engine.stage import plan
from curation.engine.store import Store
from curation.rows import SOURCE
from curation.stages.duplicates import NEIGHBOURS, Duplicates, Shots, candidates, hamming
from curation.stages.ingest import Identify, Ingest
from curation.stages.quality import Quality
from curation.stages.scan import Scan, ToFilms, ToSegments
from curation.stages.shots import Shots as ShotStage
from curation.stages.titles import Titles
from tests.curation.copied_films import copy_of, found, hashed_film, looks, settled
from tests.curation.judged_film import film, flipped, noisy, random_hashes, to_hex
from tests.support import shared


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_copies_across_films_point_to_the_larger_picture(rng):
    small = hashed_film(rng, [6, 5, 7], name="a", width=480, height=204)
    large = copy_of(rng, small, [1, 2], name="b", width=854, height=480)

    assert found(small, large) == {("a", 1): ("b", 0), ("a", 2): ("b", 1)}


def test_then_the_longer_film_then_the_path(rng):
    one = hashed_film(rng, [6, 5], name="z")
    shorter = copy_of(rng, one, [0], name="a")
    twin = copy_of(rng, one, [0, 1], name="y")

    assert found(one, shorter) == {("a", 0): ("z", 0)}
    assert found(one, twin) == {("z", 0): ("y", 0), ("z", 1): ("y", 1)}


def test_a_damaged_copy_does_not_displace_a_sound_one(rng):
    small = hashed_film(rng, [6], name="a", width=480, height=204)
    large = copy_of(rng, small, [0], name="b")
    large["shot_scores"][0]["corrupt_share"] = 0.02

    assert found(small, large) == {("b", 0): ("a", 0)}


def test_a_progressive_copy_is_kept_before_a_larger_interlaced_one(rng):
    large = hashed_film(rng, [6, 5], name="a", width=1920, height=1080)
    large["stream"]["interlaced"] = True
    small = copy_of(rng, large, [0, 1], name="b", width=720, height=540)
    small["shot_scores"][1]["corrupt_share"] = 0.02

    assert found(large, small) == {("a", 0): ("b", 0), ("b", 1): ("a", 1)}


def test_of_damaged_copies_the_one_with_the_fewest_corrupt_frames_is_kept(rng):
    large = hashed_film(rng, [6], name="a", width=1920, height=1080)
    small = copy_of(rng, large, [0], name="b", width=720, height=540)
    large["shot_scores"][0]["corrupt_share"] = 0.05
    small["shot_scores"][0]["corrupt_share"] = 0.02

    assert found(large, small) == {("a", 0): ("b", 0)}


def test_distance_is_reported(rng):
    one = hashed_film(rng, [6], name="a")
    other = copy_of(rng, one, [0], bits=6, name="b")

    (pair,) = [p for f in Duplicates().fold([one, other]) for p in f["copies"]]
    (copy,) = settled(one, other)[1]["duplicates"]

    assert pair["distance"] == copy["distance"] == 6.0
    assert not pair["is_part"]


def test_an_excerpt_that_begins_or_ends_inside_a_shot_is_a_part_of_it(rng):
    whole = hashed_film(rng, [10], name="a", width=480, height=204)
    score = whole["shot_scores"][0]
    tail = film(
        [4], name="b", scores={0: {"phash": looks(rng, 4)["phash"], "phash_end": score["phash_end"][:8]}}
    )
    head = film(
        [4], name="c", scores={0: {"phash": score["phash"][:8], "phash_end": looks(rng, 4)["phash_end"]}}
    )

    # Even though its picture is larger: the rest of the shot would be lost.
    assert found(whole, tail, head) == {("b", 0): ("a", 0), ("c", 0): ("a", 0)}


def test_other_shots_of_one_camera_setup_are_no_copies(rng):
    one = hashed_film(rng, [6, 6], name="a")
    alike = copy_of(rng, one, [0, 1], bits=16, name="b")

    assert found(one, alike) == {}


def test_within_a_film_only_the_same_pictures_at_the_same_time(rng):
    row = hashed_film(rng, [6, 5], name="a")
    score = row["shot_scores"][0]
    exact = {end: noisy(rng, score[end], 2) for end in ("phash", "phash_end")}
    near = {end: noisy(rng, score[end], 8) for end in ("phash", "phash_end")}
    still = to_hex(flipped(rng, rng.integers(0, 2, 128), 0))
    tripod = {"phash": noisy(rng, [still] * 12, 2), "phash_end": noisy(rng, [still] * 12, 2)}
    scores = {0: score, 1: exact, 2: near, 3: tripod, 4: tripod}

    assert found(film([6] * 5, name="a", scores=scores)) == {("a", 1): ("a", 0)}


def test_flat_pictures_match_nothing():
    black = {"phash": [None] * 8, "phash_end": [None] * 8}

    assert found(film([4], name="a", scores={0: black}), film([4], name="b", scores={0: black})) == {}


def test_too_few_pictures_to_judge(rng):
    one = hashed_film(rng, [0.6], name="a")

    assert found(one, copy_of(rng, one, [0], name="b")) == {}


def test_many_copies_keep_one(rng):
    first = hashed_film(rng, [6], name="f000")
    others = [copy_of(rng, first, [0], bits=0, name=f"f{i:03d}") for i in range(1, 80)]

    copies = found(first, *others)

    assert NEIGHBOURS < 79
    assert copies == {(f"f{i:03d}", 0): ("f000", 0) for i in range(1, 80)}


def test_the_order_of_films_does_not_matter(rng):
    films = [hashed_film(rng, [6, 5, 8], name="a")]
    films += [copy_of(rng, films[0], [0, 2], name="b"), copy_of(rng, films[0], [2, 1], name="c")]

    assert found(*films) == found(*films[::-1]) != {}


def test_settled_films_pass_through_untouched(rng):
    good = hashed_film(rng, [6], name="a")
    failed = {**copy_of(rng, good, [0], name="b"), "status": "failed", "shots": None, "shot_scores": None}

    out = settled(good, failed)

    assert [f["copies"] for f in out] == [f["duplicates"] for f in out] == [[], None]
    assert out[1]["shot_verdicts"] is None
    assert out[1]["status"] == "failed"
    assert settled() == []


def test_candidates_hold_every_pair_within_eight_bits(rng):
    """Against all pairs by brute force, with a single hash per shot: nothing else can save a pair."""
    hashes = [random_hashes(rng, 1) for _ in range(150)]
    sets = [hashes, *([noisy(rng, h, bits) for h in hashes] for bits in (7, 8, 11))]
    single = [{"phash": h, "phash_end": []} for some in sets for h in some]
    shots = Shots.of([film([3] * len(single), name="a", scores=dict(enumerate(single)))])

    pairs = {tuple(p) for p in candidates(shots).tolist()}

    distance = hamming(shots.hashes[:, None, 0, 0], shots.hashes[None, :, 0, 0])
    wanted = np.argwhere(np.triu(distance <= 8, 1))
    assert len(wanted) >= 300
    assert {tuple(p) for p in wanted.tolist()} <= pairs
    assert len(pairs) < 600 * 599 / 2 / 20, "not all pairs are compared"


@pytest.mark.parametrize("spared", list(itertools.combinations(range(10), 2)))
def test_eight_wrong_bits_are_found_wherever_they_lie(rng, spared):
    """The worst case of the search: one wrong bit in each of eight blocks, so that two are left."""
    bits = rng.integers(0, 2, 128)
    wrong = bits.copy()
    wrong[[i for i in range(10) if i not in spared]] ^= 1
    scores = {i: {"phash": [to_hex(b)], "phash_end": []} for i, b in enumerate((bits, wrong))}

    assert candidates(Shots.of([film([3, 3], scores=scores)])).tolist() == [[0, 1]]


def test_reads_what_the_row_has():
    assert set(Duplicates.reads) <= {
        *rows.SOURCE.names,
        *rows.IDENTITY.names,
        "stream",
        "shots",
        "shot_scores",
    }


# -- real films ---------------------------------------------------------------------------------


def scored(tmp_path, *names):
    """The real films after scan, shots and quality, and the pairs of copies that are found."""
    head = [Identify(), Ingest(), ToSegments(), Scan(), Titles(), ToFilms()]
    steps = [*head, ShotStage(), Quality(), Duplicates()]
    sources = [{"path": str(shared(name)), "licence": "test"} for name in names]
    made = run(plan(steps, SOURCE), sources, Store(tmp_path / ".work"), on_ray=False)
    films = made.tables["film"]
    place = {s["shot_id"]: (f["path"], s) for f in films for s in f["shots"]}
    copies = [(place[d["shot_id"]], place[d["copy_of"]]) for f in films for d in f["copies"]]
    return films, copies


def test_real_copies_in_other_sizes_letterboxes_and_with_subtitles(tmp_path):
    names = (
        "films/sintel_trailer_480x204.mp4",
        "films/sintel_trailer_854x480_10s_neardup.mp4",
        "derived/sintel_trailer_subs_en.mp4",
        "films/sintel_letterbox_26s.mp4",
        "clips/vsr_subtitled_woman.mp4",
        "clips/nasa_13013.mp4",
    )

    films, copies = scored(tmp_path, *names)

    offset_s = {"sintel_trailer_854x480_10s_neardup.mp4": 122 / 24}
    for (path, shot), (kept_path, kept) in copies:
        assert "sintel_trailer" in path
        assert "sintel_trailer" in kept_path
        start, kept_start = (
            s["start_s"] + next((o for name, o in offset_s.items() if p.endswith(name)), 0.0)
            for p, s in ((path, shot), (kept_path, kept))
        )
        overlap = min(start + shot["end_s"] - shot["start_s"], kept_start + kept["end_s"] - kept["start_s"])
        assert overlap - max(start, kept_start) > 0.5, "other pictures than those it is said to copy"
    lit = [
        shot
        for f in films
        if f["path"].endswith("sintel_trailer_480x204.mp4")
        for shot, score in zip(f["shots"], f["shot_scores"], strict=True)
        if shot["end_s"] - shot["start_s"] > 1.2 and score["luma_p90"] > 8
    ]
    copied = {shot["shot_id"] for pair in copies for _, shot in pair}
    assert len(lit) >= 5
    assert {s["shot_id"] for s in lit} <= copied


@pytest.mark.slow
def test_real_excerpt_in_another_encoding(tmp_path):
    films, copies = scored(tmp_path, "films/bbb_486p_first300s.mp4", "films/bbb_480p_30s_neardup.mp4")

    excerpt = next(f for f in films if f["path"].endswith("neardup.mp4"))
    assert {s["shot_id"] for s in excerpt["shots"]} == {shot["shot_id"] for (_, shot), _ in copies}
    assert all(abs(shot["start_s"] - kept["start_s"]) < 0.2 for (_, shot), (_, kept) in copies)
