import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows, timing
from curation.engine.stage import Reject
from curation.stages.recon_targets import ReconTargets
from tests.curation.test_subjects import boxes_of
from tests.support import scratch

STREAM = {"time_base_num": 1, "time_base_den": 24}
CLIPS = [
    {"clip_index": i, "start_pts": 200 * i, "end_pts": 200 * i + 192, "is_context": False} for i in range(3)
]


def subject(n, tracks, *, primary=True, screen=5.0):
    return {"subject_id": f"p{n}", "is_primary": primary, "screen_time_s": screen, "track_ids": tracks}


def run(tmp_path, boxes, subjects, clips=CLIPS, crop=(0, 0, 400, 200), **settings):
    folder = scratch(tmp_path)
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    folder.commit()
    row = {
        "sequence_id": "q1",
        "stream": STREAM,
        "clips": clips,
        "subjects": subjects,
        "boxes": folder.ref("boxes.parquet"),
        **dict(zip(("crop_x", "crop_y", "crop_width", "crop_height"), crop, strict=True)),
    }
    stage = ReconTargets(**settings)
    assert set(row) == set(stage.reads)
    out = stage.worker()(row, folder)
    pa.Table.from_pylist([out], schema=stage.writes)
    return out["recon_targets"]


def grow(track, clip, first, sizes, **other):
    """One box per size, three frames apart."""
    made = []
    for i, size in enumerate(sizes):
        made += boxes_of(track, clip, first + 3 * i, 1, (50, 20, size, size), **other)
    return made


def test_the_two_largest_of_different_clips(tmp_path):
    boxes = [*grow(0, 0, 0, range(60, 100, 2)), *grow(1, 1, 200, range(50, 90, 2))]
    found = run(tmp_path, boxes, [subject(0, [0, 1])])
    assert [(t["clip_index"], t["width"]) for t in found] == [(0, 98), (1, 88)]
    assert [t["recon_id"] for t in found] == ["q1-r00", "q1-r01"]
    assert found[0]["area_share"] == pytest.approx(98 * 98 / (400 * 200))


def test_frames_are_those_of_the_exported_clip(tmp_path):
    found = run(tmp_path, grow(0, 1, 200, range(60, 100, 2)), [subject(0, [0])], count=1)
    (target,) = found
    assert target["pts"] == 200 + 57
    assert target["frame_in_clip_16fps"] == timing.frame_index_16fps(STREAM, 200, 257) == 38


def test_never_in_the_last_clip_nor_past_the_trained_frames(tmp_path):
    late = boxes_of(0, 0, 126, 10, (50, 20, 120, 120))  # 5.25 s into its clip
    last = boxes_of(1, 2, 400, 10, (50, 20, 150, 150))
    good = boxes_of(2, 1, 200, 10, (50, 20, 60, 60))
    found = run(tmp_path, [*late, *last, *good], [subject(0, [0, 1, 2])])
    assert {t["clip_index"] for t in found} == {1}
    assert all(t["frame_in_clip_16fps"] < 81 for t in found)
    with pytest.raises(Reject) as rejected:
        run(tmp_path / "none", [*late, *last], [subject(0, [0, 1])])
    assert rejected.value.reason == "no_recon_target"
    assert run(tmp_path / "kept", [*late, *last], [subject(0, [0, 1])], keep_without=True) == []


def test_context_after_the_last_exported_clip_is_no_successor(tmp_path):
    clips = [*CLIPS[:2], {**CLIPS[2], "is_context": True}]
    boxes = [*boxes_of(0, 0, 0, 9, (50, 20, 60, 60)), *boxes_of(1, 1, 200, 9, (50, 20, 90, 90))]
    found = run(tmp_path, boxes, [subject(0, [0, 1])], clips=clips)
    assert {t["clip_index"] for t in found} == {0}


def test_past_the_end_of_the_exported_clip_is_nothing(tmp_path):
    short = [{**CLIPS[0], "end_pts": 24}, *CLIPS[1:]]  # 16 frames, 13 after trimming to 4n+1
    boxes = boxes_of(0, 0, 0, 8, (50, 20, 60, 60))
    found = run(tmp_path, boxes, [subject(0, [0])], clips=short, min_apart_s=0.1)
    assert max(t["frame_in_clip_16fps"] for t in found) < 13


def test_blurred_cut_off_and_huge_boxes_are_passed_over(tmp_path):
    good = boxes_of(0, 0, 0, 20, (50, 40, 80, 80))
    blurred = [{**b, "sharpness": 20.0} for b in boxes_of(1, 0, 60, 3, (50, 40, 120, 120))]
    cut_off = boxes_of(2, 1, 200, 3, (-60, 40, 140, 140))
    huge = boxes_of(3, 1, 240, 3, (0, 0, 400, 200))
    found = run(tmp_path, [*good, *blurred, *cut_off, *huge], [subject(0, [0, 1, 2, 3])])
    assert {t["width"] for t in found} == {80}
    assert len(found) == 2
    assert abs(found[0]["time_s"] - found[1]["time_s"]) >= 0.75


def test_area_counts_inside_the_crop(tmp_path):
    wide = boxes_of(0, 0, 0, 6, (0, 10, 200, 100))
    inside = boxes_of(0, 0, 30, 6, (220, 10, 120, 120))
    found = run(tmp_path, [*wide, *inside], [subject(0, [0])], crop=(200, 0, 200, 200), count=1)
    assert found[0]["x"] == 220


def test_a_much_larger_frame_of_the_same_clip_beats_a_tiny_one_elsewhere(tmp_path):
    boxes = [*boxes_of(0, 0, 0, 20, (50, 20, 150, 150)), *boxes_of(1, 1, 200, 20, (50, 20, 40, 40))]
    assert {t["clip_index"] for t in run(tmp_path, boxes, [subject(0, [0, 1])])} == {0}


def test_another_subject_where_the_primary_one_has_none(tmp_path):
    boxes = [*boxes_of(0, 2, 400, 9, (50, 20, 90, 90)), *boxes_of(1, 0, 0, 9, (50, 20, 60, 60))]
    subjects = [subject(0, [0]), subject(1, [1], primary=False)]
    assert {t["subject_id"] for t in run(tmp_path, boxes, subjects)} == {"p1"}


def test_no_subject_is_said_so(tmp_path):
    with pytest.raises(Reject) as rejected:
        run(tmp_path, [], [])
    assert rejected.value.detail == "no subject was found in it"


def test_a_sure_box_beats_a_somewhat_larger_doubtful_one(tmp_path):
    doubtful = boxes_of(0, 0, 0, 9, (50, 20, 70, 70), "region", 0.4)
    sure = [*boxes_of(1, 0, 60, 9, (50, 20, 60, 60)), *boxes_of(2, 1, 200, 9, (50, 20, 60, 60))]
    found = run(tmp_path, [*doubtful, *sure], [subject(0, [0, 1, 2])])
    assert {t["width"] for t in found} == {60}
    large = boxes_of(0, 0, 0, 9, (50, 20, 130, 130), "region", 0.4)
    found = run(tmp_path / "large", [*large, *sure], [subject(0, [0, 1, 2])])
    assert 130 in {t["width"] for t in found}
