import subprocess
import sys

import numpy as np
import pytest

from curation.models.subject_detector import Detections, detections
from curation.models.tracker import Tracker, TrackSettings

SETTINGS = TrackSettings()


def two_things(step: int) -> Detections:
    """One box moving right, one standing; the order of their scores changes."""
    scores = [0.9, 0.8] if step % 2 else [0.7, 0.8]
    return detections([[10 + 4 * step, 20, 40, 60], [200, 30, 50, 50]], scores, ["person", "dog"])


def run(tracker: Tracker, frames: list[Detections]) -> list[list[int]]:
    """Ids of every frame, those learned one frame late included."""
    settled: list[list[int]] = []
    for found in frames:
        update = tracker.update(found)
        if settled:
            settled[-1] = update.earlier.tolist()
        settled.append(update.ids.tolist())
    return settled


def ids_by_class(frames: list[Detections], ids: list[list[int]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for detected, own in zip(frames, ids, strict=True):
        for name, i in zip(detected.class_names, own, strict=True):
            found.setdefault(name, set()).add(i)
    return found


ENGINES = ["core", "ultralytics"]


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param == "ultralytics":
        pytest.importorskip("ultralytics")
    return request.param


def test_one_id_per_thing_from_its_first_box(engine):
    frames = [two_things(s) for s in range(10)]
    ids = ids_by_class(frames, run(Tracker(8, SETTINGS, engine), frames))
    assert ids == {"person": ids["person"], "dog": ids["dog"]}
    assert len(ids["person"]) == len(ids["dog"]) == 1
    assert ids["person"] != ids["dog"]
    assert -1 not in ids["person"] | ids["dog"]


def test_a_gap_is_bridged_and_a_long_one_is_not(engine):
    frames = [two_things(s) for s in range(4)]
    nothing = detections([], [], [])
    tracker = Tracker(8, TrackSettings(keep_s=1.0), engine)
    short = run(tracker, [*frames, *[nothing] * 3, *[two_things(s) for s in range(7, 10)]])
    assert set(short[-1]) == set(short[3])
    tracker = Tracker(8, TrackSettings(keep_s=0.5), engine)
    long = run(tracker, [*frames, *[nothing] * 12, *[two_things(s) for s in range(3, 7)]])
    assert not set(long[-1]) & set(long[3])


def test_ids_go_on_over_a_cut_and_nothing_is_joined_across_it(engine):
    tracker = Tracker(8, SETTINGS, engine)
    first = run(tracker, [two_things(s) for s in range(4)])
    tracker.start_shot()
    second = run(tracker, [two_things(s) for s in range(4)])
    assert sorted(first[-1]) == [0, 1]
    assert sorted(second[-1]) == [2, 3]


def test_weak_boxes_prolong_tracks_but_start_none(engine):
    weak = detections([[10, 10, 50, 50]], [0.2], ["person"])
    strong = detections([[10, 10, 50, 50]], [0.9], ["person"])
    assert run(Tracker(8, SETTINGS, engine), [weak] * 5) == [[-1]] * 5
    ids = run(Tracker(8, SETTINGS, engine), [strong, strong, weak, weak, strong])
    assert ids == [[0]] * 5


def test_crossing_things_keep_their_ids(engine):
    frames = [
        detections([[10 + 10 * s, 40, 40, 80], [210 - 10 * s, 60, 40, 80]], [0.9, 0.8], ["person", "cat"])
        for s in range(20)
    ]
    ids = ids_by_class(frames, run(Tracker(8, SETTINGS, engine), frames))
    assert all(len(own) == 1 for own in ids.values())


def test_same_boxes_in_same_tracks_out():
    pytest.importorskip("ultralytics")
    rng = np.random.default_rng(1)
    frames = []
    for step in range(40):
        boxes = [[20 + 5 * step, 30, 50, 80], [300 - 4 * step, 100, 60, 60], [150, 200 - 3 * step, 40, 40]]
        seen = [i for i in range(3) if rng.random() > 0.15]
        jitter = rng.normal(0, 1, (3, 4))
        frames.append(
            detections(
                [np.add(boxes[i], jitter[i]) for i in seen],
                [float(rng.uniform(0.45, 0.95)) for _ in seen],
                ["abc"[i] for i in seen],
            )
        )
    ours = run(Tracker(8, SETTINGS, "core"), frames)
    theirs = run(Tracker(8, SETTINGS, "ultralytics"), frames)
    pairs = {(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == 3


def test_empty_pictures_are_fine(engine):
    nothing = detections([], [], [])
    assert run(Tracker(8, SETTINGS, engine), [nothing] * 3) == [[], [], []]


def test_description_and_unknown_engine():
    row = Tracker(8, SETTINGS).describe()
    assert row["part"] == "tracker"
    assert row["model_id"].startswith("ByteTrack")
    with pytest.raises(ValueError, match="no tracker"):
        Tracker(8, SETTINGS, "sort")


def test_the_core_engine_needs_no_torch():
    code = (
        "import sys; from curation.models.tracker import Tracker, TrackSettings;"
        "Tracker(8, TrackSettings()); assert 'trackers' in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
