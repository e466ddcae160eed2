import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.identity import Cluster
from curation.models.appearance import Look, save_looks, unit
from curation.models.subject_detector import iou
from curation.stages.subjects import Subjects, box_seconds, inside_share, read_tracks, standing
from tests.support import scratch, shared

CROP = {"crop_x": 0, "crop_y": 20, "crop_width": 400, "crop_height": 160}
RED, BLUE = unit(np.array([1.0, 0, 0.1])), unit(np.array([0, 0.2, 1.0]))


def boxes_of(track_id, clip, first, count, at, name="person", score=0.8):
    """Boxes at 8 a second in a film of 24 frames a second."""
    x, y, w, h = at
    return [
        {
            "track_id": track_id,
            "clip_index": clip,
            "shot_id": f"s{clip}",
            "frame": first + 3 * i,
            "pts": first + 3 * i,
            "time_s": (first + 3 * i) / 24,
            "x": x,
            "y": y,
            "width": w,
            "height": h,
            "score": score,
            "class_name": name,
            "sharpness": 100.0,
        }
        for i in range(count)
    ]


def run(tmp_path, boxes, looks, **settings):
    folder = scratch(tmp_path)
    table = pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX)
    pq.write_table(table, folder.path("boxes.parquet"))
    named = {i: Look(v, None, None, None, ["red" if v is RED else "blue"]) for i, v in looks.items()}
    save_looks(folder.path("looks.npz"), named)
    folder.commit()
    row = {
        "sequence_id": "q1",
        "stream": {},
        "clips": [],
        "boxes": folder.ref("boxes.parquet"),
        "embeddings": folder.ref("looks.npz"),
        **CROP,
    }
    stage = Subjects(**settings)
    assert set(row) == set(stage.reads)
    out = stage.worker()(row, folder)
    pa.Table.from_pylist([out], schema=stage.writes)  # fits the schema
    return out["subjects"]


LARGE, SMALL, OTHER = (100, 40, 100, 120), (300, 100, 20, 30), (250, 40, 80, 100)


def test_recurring_subject_is_one_and_primary(tmp_path):
    boxes = [
        *boxes_of(0, 0, 0, 24, LARGE),
        *boxes_of(1, 0, 0, 24, SMALL, "dog"),
        *boxes_of(2, 1, 100, 24, OTHER, "region"),
        *boxes_of(3, 2, 200, 24, LARGE),
    ]
    found = run(tmp_path, boxes, {0: RED, 1: BLUE, 2: BLUE, 3: RED})
    assert [s["label"] for s in found] == ["[Person A]", "[Animal B]"]
    first, second = found
    assert first["subject_id"] == "q1-p00"
    assert first["track_ids"] == [0, 3]
    assert first["clip_indices"] == [0, 2]
    assert first["screen_time_s"] == pytest.approx(6.0)
    assert first["is_primary"]
    assert first["colours"] == ["red"]
    assert second["track_ids"] == [1, 2]
    assert not second["is_primary"]


def test_noise_is_dropped(tmp_path):
    boxes = [
        *boxes_of(0, 0, 0, 24, LARGE),
        *boxes_of(1, 0, 0, 3, OTHER),  # short
        *boxes_of(2, 0, 0, 24, (10, 50, 5, 5)),  # tiny
        *boxes_of(3, 0, 0, 24, (10, 185, 60, 15)),  # outside of the crop
        *boxes_of(4, 0, 0, 24, (320, 30, 60, 60), "broccoli"),  # no subject of a story
    ]
    found = run(tmp_path, boxes, {i: RED if i % 2 else BLUE for i in range(5)})
    assert [s["track_ids"] for s in found] == [[0]]
    groups = ("person", "animal", "vehicle", "region", "object")
    found = run(tmp_path / "all", boxes, {i: RED if i % 2 else BLUE for i in range(5)}, groups=groups)
    assert [s["label"] for s in found] == ["[Person A]", "[Object B]"]


def test_a_region_is_joined_to_a_person_if_that_costs_little(tmp_path):
    boxes = [*boxes_of(0, 0, 0, 24, LARGE), *boxes_of(1, 1, 100, 24, LARGE, "region")]
    for penalty, expected in ((0.35, [[0, 1]]), (4.5, [[0], [1]])):
        found = run(tmp_path / str(penalty), boxes, {0: RED, 1: RED}, region_penalty=penalty)
        assert [s["track_ids"] for s in found] == expected


def test_no_tracks_no_subjects(tmp_path):
    assert run(tmp_path, [], {}) == []


def test_limits(tmp_path):
    boxes = [b for i in range(4) for b in boxes_of(i, 0, 0, 24, (10 + 90 * i, 40, 50 + 10 * i, 100))]
    looks = {i: RED for i in range(4)}
    found = run(tmp_path, boxes, looks, max_subjects=3, max_primary=1)
    assert [s["track_ids"] for s in found] == [[1], [2], [3]]
    assert [s["is_primary"] for s in found] == [False, False, True]
    with pytest.raises(ValueError, match="unknown groups"):
        Subjects(groups=("persons",))


def test_share_inside_the_crop():
    crop = (0, 20, 400, 160)
    table = np.array([[0, 0, 10, 40], [0, 20, 10, 10], [500, 0, 10, 10]], float)
    assert inside_share(table, crop).tolist() == [0.5, 1, 0]


def test_a_frame_with_two_boxes_counts_once():
    boxes = [*boxes_of(0, 0, 0, 9, LARGE), *boxes_of(1, 0, 0, 9, LARGE)]
    tracks = read_tracks(boxes, {})
    assert box_seconds(tracks[0]) == pytest.approx(0.125)
    found = standing(Cluster(tuple(tracks), 1.0), (0, 20, 400, 160))
    assert found.screen_time_s == pytest.approx(9 / 8)
    assert found.size == pytest.approx(100 * 120 / (400 * 160))
    assert found.clips == 1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    from curation.demo.film import render

    return render(tmp_path_factory.mktemp("demo"))


def demo_subjects(demo, tmp_path, settings):
    """The demo film's sound shots as one sequence: its row, boxes and subjects, and its targets."""
    from curation.stages.analyse import Analyse
    from curation.stages.recon_targets import ReconTargets
    from tests.curation.tiny_film import sequence_row

    shots = [s for s in demo.truth.shots if s.fault is None]
    row = sequence_row(demo.path, [(s.start_frame, s.end_frame) for s in shots])
    row |= {"film_id": "film"}
    for stage in (Analyse(**settings), Subjects(), ReconTargets()):
        folder = scratch(tmp_path, stage.name)
        needed = {c: row[c] for c in (*stage.reads, *stage.locates)}
        row |= stage.worker()(needed, folder)
        folder.commit()
    boxes = pq.read_table(folder.open(row["boxes"])).to_pylist()
    return row, boxes


def true_name(demo, frame, box) -> str | None:
    """Which of the true subjects near a frame a box shows: the one whose box it overlaps most."""
    near = [t for t in demo.truth.subjects if abs(t.frame - frame) <= 2]
    own = np.array([[box[k] for k in ("x", "y", "width", "height")]])
    shares = {}
    for truth in near:
        b = truth.box
        shares[truth.subject] = iou(own, np.array([[b.x, b.y, b.width, b.height]], float))[0, 0]
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] > 0.25 else None


def yolox_settings():
    return {
        "detector": "yolox",
        "detector_weights": str(shared("weights/yolox_nano.onnx")),
        "appearance": "full",
        "reid_weights": str(shared("weights/osnet_x0_25_msmt17.onnx")),
        "face_detector_weights": str(shared("weights/face_yunet_dynamic.onnx")),
        "face_weights": str(shared("weights/mobilefacenet.onnx")),
    }


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["embedded", "full"])
def test_the_astronaut_of_the_demo_film_is_one_subject(demo, tmp_path, tier):
    embedded = {"detector": "opencv", "appearance": "embedded"}
    row, boxes = demo_subjects(demo, tmp_path, embedded if tier == "embedded" else yolox_settings())
    first = next(s for s in row["subjects"] if s["is_primary"])
    own = [b for b in boxes if b["track_id"] in first["track_ids"]]
    names = [true_name(demo, b["frame"], b) for b in own]
    assert names.count("astronaut") > 0.9 * len(names)
    shots = [s for s in demo.truth.shots if s.fault is None]
    with_her = {i for i, s in enumerate(shots) if "astronaut" in s.subjects}
    assert set(first["clip_indices"]) == with_her
    for target in row["recon_targets"]:
        assert true_name(demo, target["frame"], target) == "astronaut"
        assert target["subject_id"] == first["subject_id"]
    assert len({t["clip_index"] for t in row["recon_targets"]}) == 2
