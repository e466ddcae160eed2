import itertools
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import rows
from curation.config import merge, parse_overrides
from curation.engine.stage import KEPT, REJECTED, plan
from curation.presets import PRESETS, settings_of
from curation.stages.sequences import (
    Sequences,
    ToSequences,
    combine_aesthetics,
    combine_scores,
    film_verdict,
    scene_boundaries,
    without_tails,
)
from tests.curation.judged_film import GOOD, film, noisy, random_hashes, usable
from tests.support import scratch


def sequenced(row, tmp_path, **settings):
    """The row after the stage, through Arrow as in a run."""
    stage = Sequences(**settings)
    written = stage.worker()({c: row[c] for c in stage.reads}, scratch(tmp_path))
    table = pa.Table.from_pylist([written], schema=stage.writes)
    return {**row, **table.to_pylist()[0]}


def account(row):
    return [
        (round(s["end_s"] - s["start_s"], 3), s["used_by"] is not None, s["reason"]) for s in row["coverage"]
    ]


def test_frames_with_two_shots_fields_are_accounted_for(tmp_path):
    tick = 1 / 24
    row = usable(film([9, 8, 9, 7], gaps_s=[0, tick, 1, tick], transitions={2: "fade"}))
    row["stream"]["interlaced"] = True

    (window,) = sequenced(row, tmp_path)["windows"]

    assert window["num_shots"] == 4
    spans = account(sequenced(row, tmp_path))
    reasons = [(length, reason) for length, _, reason in spans if reason]
    assert reasons == [(0.042, "mixed_fields"), (1.0, "transition"), (0.042, "mixed_fields")]
    row["stream"]["interlaced"] = False
    assert {s["reason"] for s in sequenced(row, tmp_path)["coverage"]} == {None, "transition"}


def test_windows_and_coverage(tmp_path):
    row = film([3, 8, 9, 7, 8, 20, 8, 2], gaps_s=[0, 0, 0, 1, 0, 0, 0, 0])
    row = usable(row, {5: "too_dark"})

    out = sequenced(row, tmp_path)

    (window,) = out["windows"]
    assert (window["start_s"], window["end_s"], window["num_shots"]) == (3.0, 36.0, 4)
    assert [c["shot_index"] for c in window["clips"]] == [1, 2, 3, 4]
    assert account(out) == [
        (3.0, False, "shot_too_short"),
        (8.0, True, None),
        (9.0, True, None),
        (1.0, False, "transition"),
        (7.0, True, None),
        (8.0, True, None),
        (20.0, False, "too_dark"),
        (8.0, False, "no_window"),
        (2.0, False, "shot_too_short"),
    ]


def test_context_is_used_and_marked(tmp_path):
    row = usable(film([10, 2, 10, 10]))

    out = sequenced(row, tmp_path, max_context_share=0.1)

    (window,) = out["windows"]
    assert window["num_shots"] == 3
    assert [c["is_context"] for c in window["clips"]] == [False, True, False, False]
    assert account(out)[1] == (2.0, True, "context")


def test_too_long_and_the_end_of_the_film(tmp_path):
    row = usable(film([10, 70, 10]))
    row["stream"]["duration_s"] = 95.0

    out = sequenced(row, tmp_path)

    assert out["windows"] == []
    assert account(out)[1:] == [
        (70.0, False, "shot_too_long"),
        (10.0, False, "no_window"),
        (5.0, False, "transition"),
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 800), st.sampled_from([0, 0, 12, 300]), st.booleans()),
        min_size=0,
        max_size=25,
    ),
    st.sampled_from(list(PRESETS)),
)
def test_every_second_is_used_or_has_a_reason(tmp_path_factory, drawn, preset):
    row = film([d / 24 for d, _, _ in drawn], gaps_s=[g / 24 for _, g, _ in drawn])
    row = usable(row, {i: "blurred" for i, (_, _, bad) in enumerate(drawn) if bad})

    out = sequenced(row, tmp_path_factory.getbasetemp(), **PRESETS[preset])

    tiles = out["coverage"]
    assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(tiles))
    assert (tiles[0]["start_s"] if tiles else 0.0) == 0.0
    assert (tiles[-1]["end_s"] if tiles else 0.0) == pytest.approx(row["stream"]["duration_s"])
    assert all(t["end_s"] > t["start_s"] for t in tiles)
    assert all((t["used_by"] is None) <= (t["reason"] is not None) for t in tiles)
    clips = sum(t["end_s"] - t["start_s"] for t in tiles if t["used_by"] and not t["reason"])
    kept = next(p for p in out["preset_coverage"] if p["preset"] == preset)
    assert (kept["num_sequences"], kept["covered_s"]) == (len(out["windows"]), pytest.approx(clips))


def test_preset_coverage_does_not_depend_on_the_settings(tmp_path):
    row = usable(film([4] * 10))

    one, other = sequenced(row, tmp_path), sequenced(row, tmp_path, **PRESETS["bridged"])

    assert one["windows"] == []
    assert other["windows"] != []
    assert one["preset_coverage"] == other["preset_coverage"]
    by_name = {p["preset"]: p for p in one["preset_coverage"]}
    assert by_name["paper-text"]["num_sequences"] == 0
    assert by_name["paper-table"] == {
        "preset": "paper-table",
        "num_sequences": 1,
        "covered_s": 40.0,
        "share": 1.0,
    }


class TestSceneBoundaries:
    def scores(self, *hashes):
        return [{**GOOD, "phash": h, "phash_end": h[::-1]} for h in hashes]

    def test_shot_and_reverse_shot_are_one_scene(self):
        rng = np.random.default_rng(0)
        a, b, c = (random_hashes(rng, 4) for _ in range(3))
        hashes = [a, b, noisy(rng, a, 10), noisy(rng, b, 10), c]
        shots = film([5] * 5)["shots"]

        assert scene_boundaries(shots, self.scores(*hashes)) == [2, 0, 0, 0, 1, 2]

    def test_fades_end_scenes(self):
        rng = np.random.default_rng(0)
        a = random_hashes(rng, 4)
        shots = film([5] * 3, transitions={1: "fade", 2: "dissolve"})["shots"]

        assert scene_boundaries(shots, self.scores(a, a, a)) == [2, 2, 2, 2]

    def test_unknown_looks_link_nothing(self):
        shots = film([5] * 2)["shots"]

        assert scene_boundaries(shots, self.scores([], [None])) == [2, 1, 2]
        assert scene_boundaries([], []) == [2]


def test_windows_prefer_scenes(tmp_path):
    row = usable(film([10] * 7, transitions={3: "fade"}))

    out = sequenced(row, tmp_path, max_window_s=30.0)

    assert [w["start_s"] for w in out["windows"]] == [0.0, 30.0]
    row = usable(film([10] * 7, transitions={4: "fade"}))
    assert [w["start_s"] for w in sequenced(row, tmp_path, max_window_s=30.0)["windows"]] == [0.0, 40.0]


def test_film_verdict_says_why_and_what_would_help(tmp_path):
    row = sequenced(usable(film([4] * 10), {0: "static"}), tmp_path)

    status, reason, detail = film_verdict(row)

    assert (status, reason) == (REJECTED, "no_sequence")
    assert "shot_too_short 36.0 s" in detail
    assert "static 4.0 s" in detail
    assert detail.startswith("no window fits (shot_too_short 36.0 s, static 4.0 s)"), "as tables call it"
    assert "paper-table (1 of 36.0 s)" in detail


def test_a_short_film_is_told_what_helps_and_then_what_still_stands_in_the_way(tmp_path):
    """Advice that has been followed does not come again."""
    short, shorter = usable(film([6] * 2)), usable(film([3] * 2))
    told = film_verdict(sequenced(short, tmp_path))[2]
    assert told.endswith(
        "its longest run of usable shots lasts 12.0 s (2 shots); a sequence fits with "
        "--set sequences.min_window_s=8"
    )

    asked = merge(settings_of("paper-table"), parse_overrides(["sequences.min_window_s=8"])["sequences"])
    told = film_verdict(sequenced(short, tmp_path, **asked))[2]
    assert told.endswith("(2 shots); a sequence fits with --set sequences.min_clips=2")

    followed = merge(asked, parse_overrides(re.findall(r"--set (\S+)", told))["sequences"])
    assert film_verdict(sequenced(short, tmp_path, **followed))[0] == KEPT
    told = film_verdict(sequenced(shorter, tmp_path, **followed))[2]
    assert told.endswith("lasts 6.0 s (2 shots); what it does not meet: sequences.min_window_s (8 s)")


def test_film_verdict_leaves_others_alone(tmp_path):
    good = sequenced(usable(film([10] * 5)), tmp_path)
    settled = {**good, "status": "failed", "reason": "cannot_open", "detail": "x", "windows": None}

    assert film_verdict(good) == (KEPT, None, None)
    assert film_verdict(settled) == ("failed", "cannot_open", "x")
    empty = sequenced(usable(film([])), tmp_path)
    assert film_verdict(empty)[1] == "no_sequence"


def test_to_sequences_makes_rows_of_the_sequence_grain(tmp_path):
    scores = {1: {"motion": 4.0, "freeze_share": 0.4, "bar_top": 56}, 2: {"motion": 8.0}}
    row = sequenced(usable(film([10, 2, 10, 10], scores=scores)), tmp_path, max_context_share=0.1)
    settled = {**row, "film_id": "fbad", "status": "failed", "windows": None, "shots": None}

    made = ToSequences().fold([row, settled])

    table = pa.Table.from_pylist(made, schema=rows.SEQUENCE_ROW)
    (sequence,) = table.to_pylist()
    assert set(made[0]) == set(rows.SEQUENCE_ROW.names)
    assert sequence["sequence_id"] == f"{row['film_id']}-q0-{32 * 24}"
    assert sequence["num_shots"] == 3
    assert [c["clip_index"] for c in sequence["clips"]] == [0, 1, 2, 3]
    assert [c["is_context"] for c in sequence["clips"]] == [False, True, False, False]
    assert sequence["clips"][2]["shot_id"] == row["shots"][2]["shot_id"]
    assert sequence["scores"]["motion"] == pytest.approx((12 + 8 + 12) / 3), "context does not count"
    assert sequence["scores"]["bar_top"] == 0
    assert row["coverage"][0]["used_by"] == sequence["sequence_id"]


def test_combined_scores_are_means_but_the_worst_of_shares():
    scores = [
        {
            **GOOD,
            "motion": 2.0,
            "freeze_share": 0.1,
            "dark_share": 0.0,
            "sharpness": None,
            "bar_top": 50,
        },
        {**GOOD, "motion": 4.0, "freeze_share": 0.3, "dark_share": 0.5, "sharpness": 80.0, "bar_top": 56},
    ]

    both = combine_scores(scores)

    assert combine_scores([scores[0] | {"text_free_share": 0.6}, scores[1]])["text_free_share"] == 0.6
    assert (both["motion"], both["freeze_share"], both["dark_share"]) == (3.0, 0.3, 0.5)
    assert (both["sharpness"], both["bar_top"]) == (80.0, 56)
    assert combine_scores([{**one, "shake": None} for one in scores])["shake"] is None
    assert combine_aesthetics([4.0, None, 5.0]) == 4.5
    assert combine_aesthetics([None, None]) is None


def test_columns_fit_together():
    source = pa.schema(
        [
            *rows.SOURCE,
            *rows.IDENTITY,
            *rows.INGEST,
            ("signals", pa.list_(rows.STR)),
            ("shots", pa.list_(rows.SHOT)),
            ("shot_scores", pa.list_(rows.SHOT_SCORES)),
            *rows.AESTHETIC,
            ("shot_verdicts", pa.list_(rows.SHOT_VERDICT)),
        ]
    )

    made = plan([Sequences(), ToSequences()], source)

    assert set(rows.SEQUENCE_ROW.names) <= set(made.schemas[-1].names)


def test_ends_that_clips_leave_out_are_trimmed_and_the_rest_stays_a_clip():
    span = {"start_s": 0.0, "end_s": 10.0, "used_by": "q", "reason": None}
    tails = [(3.9, 4.0), (7.999, 8.0), (9.8, 10.0), (11.9, 12.0)]
    found = [(s["start_s"], s["end_s"], s["used_by"], s["reason"]) for s in without_tails(span, tails)]
    assert found == [
        (0.0, 3.9, "q", None),
        (3.9, 4.0, None, "trimmed"),
        (4.0, 9.8, "q", None),
        (9.8, 10.0, None, "trimmed"),
    ]
    assert list(without_tails(span, [])) == [span]
