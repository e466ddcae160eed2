"""The demo film through the whole line on Ray, judged by its exact ground truth."""

from __future__ import annotations

import itertools
import json

import duckdb
import numpy as np
import pytest

from curation.engine.runner import run
from curation.engine.stage import plan
from curation.engine.store import Store
from pipelines.curate import curate, forecast, prepare, resolve
from tests.support import REPOSITORY

CONFIG = REPOSITORY / "datasets.yaml"


@pytest.fixture(scope="session")
def sql(demo_set):
    """Ask the published DuckDB file, as any user would."""
    with duckdb.connect(str(demo_set.job.output / "annotations.duckdb"), read_only=True) as connection:
        yield lambda query: connection.execute(query).fetchall()


def test_every_cut_is_exact_and_every_transition_is_typed(sql, demo_film):
    found = sql("SELECT start_frame, end_frame, transition_in, transition_out FROM shots ORDER BY shot_index")
    true = demo_film.truth.shots
    assert [f[2:] for f in found] == [(t.transition_in, t.transition_out) for t in true]
    for (start, end, kind_in, kind_out), shot in zip(found, true, strict=True):
        slack_in = 0 if kind_in in ("start", "cut") else 6
        slack_out = 0 if kind_out in ("cut", "end") else 6
        assert abs(start - shot.start_frame) <= slack_in, shot.name
        assert abs(end - shot.end_frame) <= slack_out, shot.name


def test_the_dark_and_the_frozen_shot_are_rejected_with_those_reasons(sql, demo_film):
    faults = {
        s.index: {"dark": "too_dark", "frozen": "frozen"}[s.fault] for s in demo_film.truth.shots if s.fault
    }
    assert dict(sql("SELECT shot_index, reason FROM shots WHERE NOT usable")) == faults


def test_films_in_are_films_accounted_for_and_every_second_has_a_use_or_a_reason(sql, demo_film):
    assert sql("SELECT status, count(*) FROM films GROUP BY ALL") == [("kept", 1)]
    spans = sql("SELECT start_s, end_s, used_by, reason FROM coverage ORDER BY start_s")
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(demo_film.truth.duration_s)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all((used is None) != (reason is None) for *_, used, reason in spans)


def test_bars_subtitles_and_logo_are_outside_the_crop_and_signs_do_not_force_it(sql, demo_film):
    truth = demo_film.truth
    sequences = sql(
        "SELECT start_s, end_s, crop_x, crop_y, crop_width, crop_height FROM sequences WHERE status = 'kept'"
    )
    assert len(sequences) == 2
    for start_s, end_s, x, y, width, height in sequences:
        top, bottom, left, right = truth.bars
        assert y >= top
        assert y + height <= truth.size[0] - bottom
        assert x >= left
        assert x + width <= truth.size[1] - right
        assert width / height == pytest.approx(832 / 480, rel=0.01)
        texts = [t for t in truth.subtitles if t.start_s < end_s and t.end_s > start_s]
        assert texts
        for box in [t.box for t in texts] + [truth.logo.box]:
            apart = (
                box.x >= x + width or box.x + box.width <= x or box.y >= y + height or box.y + box.height <= y
            )
            assert apart, (box, (x, y, width, height))
        assert width * height >= 0.4 * truth.size[0] * truth.size[1], "a sign was taken for a subtitle"


def test_ocr_finds_no_subtitle_or_logo_in_the_exported_clips(demo_set, sql, demo_film):
    """At two pictures a second: a found box that touches where a burnt-in text was is text left over."""
    import av

    from curation.models.text_detector import TextDetector

    detector, shown, left = TextDetector(), 0, 0
    texts = [*demo_film.truth.subtitles, demo_film.truth.logo]
    query = """SELECT video_path, c.start_s, crop_x, crop_y, crop_width, crop_height
        FROM clips c JOIN sequences USING (sequence_id) ORDER BY video_path"""
    for path, start_s, *crop in sql(query):
        with av.open(str(demo_set.job.output / path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index % 8:
                    continue
                time_s = start_s + index / 16
                there = [t.box for t in texts if t.start_s <= time_s < t.end_s]
                found = [in_source(b, crop) for b in detector.detect(frame.to_ndarray(format="bgr24"))[:, :4]]
                shown += len(there)
                left += sum(any(common(f, (t.x, t.y, t.width, t.height)) > 0 for f in found) for t in there)
    assert shown >= 200
    assert left <= 0.02 * shown


def in_source(box, crop):
    """A box of an exported 832x480 picture in source pixels."""
    across, down = crop[2] / 832, crop[3] / 480
    return crop[0] + box[0] * across, crop[1] + box[1] * down, box[2] * across, box[3] * down


def common(one, other):
    """Area that two boxes (x, y, width, height) share."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def test_the_recurring_subject_is_one_subject_and_the_targets_are_on_it(sql, demo_film):
    truth = demo_film.truth
    stars = sql(
        """SELECT s.subject_id, s.sequence_id, list(DISTINCT h.shot_index)
        FROM subjects s JOIN tracks t USING (subject_id) JOIN shots h USING (shot_id)
        WHERE s.is_primary GROUP BY ALL"""
    )
    assert len(stars) == 2
    for subject, sequence, shots in stars:
        boxes = sql(f"SELECT frame, x, y, width, height FROM tracks WHERE subject_id = '{subject}'")
        who = [name for frame, *box in boxes if (name := true_subject(truth, frame, box))]
        star = max(set(who), key=who.count)
        assert who.count(star) >= 0.8 * len(boxes), (subject, star, who.count(star), len(boxes))
        inside = sql(f"SELECT start_frame, end_frame FROM sequences WHERE sequence_id = '{sequence}'")[0]
        true_shots = {
            s.index for s in truth.shots
            if star in s.subjects and inside[0] <= s.start_frame and s.end_frame <= inside[1]
        }  # fmt: skip
        assert len(true_shots & set(shots)) >= 0.7 * len(true_shots), (star, true_shots, shots)
        targets = sql(
            "SELECT r.frame, r.x, r.y, r.width, r.height FROM recon_targets r "
            f"WHERE r.sequence_id = '{sequence}'"
        )
        assert len(targets) == 2
        assert all(true_subject(truth, frame, box) == star for frame, *box in targets)


def true_subject(truth, frame, box):
    """The subject whose true box agrees with a found one at the nearest listed frame, or None."""
    shares = {}
    for subject in truth.subjects:
        if abs(subject.frame - frame) <= 2:
            true = (subject.box.x, subject.box.y, subject.box.width, subject.box.height)
            shares[subject.subject] = common(box, true) / min(box[2] * box[3], true[2] * true[3])
    best = max(shares, key=shares.__getitem__, default=None)
    return best if best and shares[best] > 0.5 else None


def test_the_loop_gives_the_same_tables(demo_set, tmp_path):
    """The same list of steps in a plain loop: equal rows, from an empty store up to the packing."""
    job = demo_set.job
    steps = [s for s in job.plan.steps]
    cut = next(i for i, s in enumerate(steps) if s.name == "to_sequences") + 1
    rows = prepare(job)
    short = plan(steps[:cut], job.plan.source)
    here = run(short, rows, Store(tmp_path), on_ray=False)
    there = demo_set.outcome.tables
    assert here.tables["film"] == there["film"]
    columns = here.tables["sequence"][0].keys() - {"status", "stage", "reason", "detail"}
    assert [{c: r[c] for c in columns} for r in here.tables["sequence"]] == [
        {c: r[c] for c in columns} for r in there["sequence"]
    ]


def test_a_second_run_makes_nothing_and_publishes_the_same_version(demo_set):
    job = demo_set.job
    again = curate(job, prepare(job), on_ray=False)
    cached = {s.name for s in job.plan.steps if getattr(s, "cached", False)}
    assert {name: n for name, n in again.outcome.made.items() if name in cached and n} == {}
    assert again.published.digest == demo_set.published.digest


def test_a_changed_threshold_reruns_only_what_depends_on_it_and_explain_says_so(demo_set):
    """A stricter crop: everything before it is reused; what follows waits for its result."""
    job = demo_set.job
    changed = resolve(
        list(job.sources), CONFIG, output=job.output, preset=job.preset, settings={"crop": {"min_kept": 0.61}}
    )
    before = {f.stage: f for f in forecast(changed)}
    assert all(before[s].runs.total() == 0 for s in ("ingest", "scan", "shots", "quality", "analyse"))
    assert dict(before["crop"].runs) == {"setting crop.min_kept: 0.6 -> 0.61": 2}
    assert before["export"].unknown == 2
    again = curate(changed, prepare(changed), on_ray=False)
    cached = {s.name for s in job.plan.steps if getattr(s, "cached", False)}
    assert {n for n, made in again.outcome.made.items() if made and n in cached} == {"crop"}, (
        "the crops came out the same, so nothing after them had to be done"
    )
    assert again.outcome.tables["sequence"] == demo_set.outcome.tables["sequence"]


def test_decode_passes_are_counted_and_few(demo_set):
    passes = json.loads((demo_set.job.output / "run.json").read_text())["decode_passes"]
    assert passes["not_exported"] == pytest.approx(1, abs=0.02)
    assert 2 <= passes["exported"] <= 3.001  # each stage's share is rounded to a thousandth
    assert passes["by_stage"]["export"] == 1.0
    assert np.isfinite(passes["footage_s"])
