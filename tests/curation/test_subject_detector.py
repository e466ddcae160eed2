import cv2
import numpy as np
import pytest

from curation import weights
from curation.models import moving_regions, yolox
from curation.models.moving_regions import MovingRegions, WithRegions, affine_motion, boxes_of, covered, lit
from curation.models.opencv_detectors import OpenCvDetector, inside_of, merge, person_of_face, to_score
from curation.models.subject_detector import (
    Choice,
    Detections,
    build,
    choose,
    clip_boxes,
    detections,
    iou,
    suppress,
)
from curation.optional import MissingExtra, available
from tests.support import shared


def scene(x: float, y: float, shift: int = 0, size: tuple[int, int] = (180, 320)) -> np.ndarray:
    """A textured background moved by `shift`, with an orange disc at x, y."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 160, (size[0] // 8, size[1] // 8 + 20, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (coarse.shape[1] * 8, size[0]), interpolation=cv2.INTER_CUBIC)
    picture = np.ascontiguousarray(wide[:, 40 + shift : 40 + shift + size[1]])
    cv2.circle(picture, (round(x), round(y)), 28, (20, 130, 240), -1)
    cv2.circle(picture, (round(x) + 8, round(y) - 6), 8, (250, 250, 250), -1)
    return picture


def best_iou(found: Detections, box: tuple[float, float, float, float]) -> float:
    return float(iou(found.boxes, np.array([box])).max()) if len(found) else 0.0


# -- arithmetic ---------------------------------------------------------------------------------


def test_iou_and_suppression_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 10, 9], [50, 50, 4, 4]], np.float32)
    assert iou(boxes[:1], boxes)[0] == pytest.approx([1, 50 / 150, 0.9, 0])
    assert suppress(boxes, np.array([0.5, 0.9, 0.6, 0.1]), 0.5).tolist() == [1, 2, 3]
    assert suppress(boxes[:0], np.zeros(0), 0.5).tolist() == []


def test_detections_are_checked_and_sorted():
    with pytest.raises(ValueError, match="do not belong together"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), ["a"])
    made = detections([[0, 0, 1, 1], [0, 0, 2, 2]], [0.2, 0.9], ["low", "high"])
    assert made.class_names == ["high", "low"]
    assert len(detections([], [], [])) == 0


def test_boxes_are_cut_to_the_picture():
    cut = clip_boxes(np.array([[-5, -5, 20, 20], [95, 40, 20, 20]], np.float32), 50, 100)
    assert cut.tolist() == [[0, 0, 15, 15], [95, 40, 5, 10]]


# -- YOLOX --------------------------------------------------------------------------------------


def test_yolox_decode_by_hand():
    size = (32, 64)
    cells = 4 * 8 + 2 * 4 + 1 * 2
    raw = np.zeros((cells, 5 + 3), np.float32)
    raw[9, :5] = [0.5, 0.25, np.log(2), np.log(3), 0.8]  # stride 8: row 1, column 1
    raw[9, 5:] = [0.1, 0.9, 0.2]
    raw[32 + 8, :5] = [0, 0, 0, 0, 1]  # stride 32: the first cell
    raw[32 + 8, 5:] = [1, 0, 0]
    boxes, scores, classes = yolox.decode(raw, size, 0.25)
    assert boxes[0] == pytest.approx([12 - 8, 10 - 12, 16, 24])
    assert boxes[1] == pytest.approx([-16, -16, 32, 32])
    assert scores == pytest.approx([0.72, 1.0])
    assert classes.tolist() == [1, 0]
    with pytest.raises(ValueError, match="cells"):
        yolox.decode(raw[:-1], size, 0.25)


def test_letterbox_keeps_aspect_and_pads_grey():
    blob, scale = yolox.letterbox(np.full((100, 50, 3), 200, np.uint8), (64, 64))
    assert scale == pytest.approx(0.64)
    assert blob.shape == (1, 3, 64, 64)
    assert (blob[0, :, :, :32] == 200).all()
    assert (blob[0, :, :, 32:] == yolox.PAD).all()


def test_suppression_is_by_class_then_for_near_equal_boxes():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 1, 10, 9], [4, 0, 10, 10]], np.float32)
    kept = yolox.suppress_by_class(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]))
    assert sorted(kept.tolist()) == [0, 3]


def test_there_are_eighty_names():
    assert len(yolox.COCO_NAMES) == len(set(yolox.COCO_NAMES)) == 80
    assert (yolox.COCO_NAMES[0], yolox.COCO_NAMES[5], yolox.COCO_NAMES[79]) == ("person", "bus", "toothbrush")


def test_yolox_on_a_real_photograph():
    picture = cv2.imread(str(shared("images/bus.jpg")))
    path = str(shared("weights/yolox_nano.onnx"))
    detector = build(choose("yolox", path), region_backup=False)
    found = detector.detect(picture)
    best = found.take(np.flatnonzero(found.scores > 0.6))
    assert best.class_names == ["bus", "person", "person", "person"]
    assert best.scores == pytest.approx([0.90, 0.86, 0.81, 0.70], abs=0.01)
    assert best.boxes[0] == pytest.approx([14, 231, 788, 501], abs=3)
    (row,) = detector.describe()
    assert row["tier"] == "full"
    assert row["sha256"] == weights.TABLE["yolox_nano"].sha256
    assert row["revision"] == weights.TABLE["yolox_nano"].revision


# -- moving regions -----------------------------------------------------------------------------


def test_affine_motion_ignores_what_moves_by_itself():
    height, width = 60, 100
    y, x = np.mgrid[:height, :width].astype(np.float32)
    truth = np.stack([2 + 0.02 * x, -1 + 0.01 * y], -1)
    flow = truth.copy()
    flow[20:45, 30:70] += (6, 3)
    fitted = affine_motion(flow, np.ones((height, width), bool))
    assert np.abs(fitted - truth).max() < 0.1


@pytest.mark.parametrize("camera", [0, 3])
def test_a_moving_disc_is_found_also_under_a_moving_camera(camera):
    regions = MovingRegions()
    regions.start_shot()
    assert len(regions.detect(scene(100, 90))) == 0  # the first picture has nothing to move against
    for step in range(1, 6):
        found = regions.detect(scene(100 + 5 * step, 90, camera * step))
    assert found.class_names[0] == "region"
    assert best_iou(found.take([0]), (97, 62, 56, 56)) > 0.5


def test_a_new_shot_forgets_the_old_one():
    regions = MovingRegions()
    for step in range(4):
        regions.detect(scene(100 + 8 * step, 90))
    regions.start_shot()
    assert len(regions.detect(scene(200, 40))) == 0


def test_a_thing_that_pauses_stays_found():
    regions = MovingRegions()
    for x in (80, 88, 96, 104, 104, 104):
        found = regions.detect(scene(x, 90))
    assert best_iou(found, (76, 62, 56, 56)) > 0.4


def test_belief_all_over_the_picture_gives_no_box():
    assert len(boxes_of(np.full((60, 100), 0.6, np.float32), 60, 100)) == 0
    spot = np.full((60, 100), 0.05, np.float32)
    spot[20:40, 30:60] = 0.8
    assert boxes_of(spot, 120, 200).boxes[0] == pytest.approx([60, 40, 60, 40], abs=5)


def test_black_bars_do_not_count():
    grey = np.zeros((50, 80), np.uint8)
    grey[10:40] = 90
    inside = lit(grey)
    assert inside[10:40].all()
    assert not inside[:10].any()
    assert not lit(np.zeros((5, 5), np.uint8)).any()


def test_regions_that_a_detector_explains_are_dropped():
    person = detections([[40, 10, 30, 60]], [0.9], ["person"])
    boxes = [[42, 12, 20, 20], [0, 0, 100, 80], [80, 60, 10, 10]]
    regions = detections(boxes, [0.9, 0.8, 0.7], ["region"] * 3)
    assert covered(person, regions).tolist() == [True, True, False]

    class Fixed:
        def start_shot(self):
            pass

        def detect(self, picture):
            return detections([[90, 55, 80, 70]], [0.9], ["dog"])

        def describe(self):
            return [{"part": "detector"}]

    both = WithRegions(Fixed())
    both.start_shot()
    for step in range(5):
        found = both.detect(scene(100 + 5 * step, 90))
    assert found.class_names == ["dog"]
    assert found.belief is not None
    assert [row["part"] for row in both.describe()] == ["detector", "regions"]


# -- OpenCV -------------------------------------------------------------------------------------


def test_person_from_face_and_score_scale():
    assert person_of_face(np.array([[100.0, 50, 20, 20]])).tolist() == [[80, 40, 60, 150]]
    assert to_score(np.array([2.0, 5, 99, -99]), (2, 8)).tolist() == [0.5, 0.75, 1, 0]


def test_boxes_stay_out_of_black_bars():
    inside = np.zeros((100, 100), bool)
    inside[20:80] = True
    assert inside_of(np.array([[10, 0, 20, 100]], np.float32), inside).tolist() == [[10, 20, 20, 60]]


def test_a_person_takes_the_outline_of_its_region():
    people = detections([[40, 10, 30, 60]], [0.6], ["person"])
    regions = detections([[42, 12, 30, 58], [90, 60, 9, 9]], [0.8, 0.5], ["region", "region"])
    made = merge(people, regions)
    assert made.class_names == ["person", "region"]
    assert made.boxes[0].tolist() == [42, 12, 30, 58]
    assert made.scores[0] == pytest.approx(0.8)


def test_embedded_detector_finds_the_person_who_faces_the_camera():
    picture = cv2.resize(cv2.imread(str(shared("images/zidane.jpg"))), (640, 360))
    detector = build(choose("opencv"))
    detector.start_shot()
    found = detector.detect(picture)
    assert found.class_names[0] == "person"
    assert best_iou(found.take([0]), (344, 18, 231, 335)) > 0.5  # YOLOX's box of him
    assert [row["tier"] for row in detector.describe()] == ["embedded", "embedded"]


def test_embedded_detector_finds_a_face_in_a_free_picture():
    skimage = pytest.importorskip("skimage")
    picture = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
    faces, scores = OpenCvDetector().faces(picture)
    assert best_iou(Detections(faces, scores, ["face"] * len(faces)), (175, 70, 95, 95)) > 0.4


def test_detection_repeats_exactly():
    def run():
        detector = OpenCvDetector()
        detector.start_shot()
        return [detector.detect(scene(100 + 5 * step, 90, step)) for step in range(4)]

    for a, b in zip(run(), run(), strict=True):
        assert a.boxes.tobytes() == b.boxes.tobytes()
        assert a.scores.tobytes() == b.scores.tobytes()


# -- choice -------------------------------------------------------------------------------------


def test_auto_takes_weights_in_the_cache_else_opencv(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    choice = choose("auto")
    assert (choice.backend, choice.path) == ("opencv", None)
    assert "no detector weights" in choice.why
    assert choice.fingerprint.startswith("opencv:")
    real = shared("weights/yolox_nano.onnx")
    (tmp_path / "yolox_nano.onnx").write_bytes(real.read_bytes())
    choice = choose("auto")
    assert choice.backend == "yolox"
    assert choice.fingerprint == f"yolox:{weights.TABLE['yolox_nano'].sha256}"


def test_wrong_choices_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="no subject detector"):
        choose("detectron")
    with pytest.raises(ValueError, match="takes no weights file"):
        choose("opencv", "some.onnx")
    with pytest.raises(weights.WeightsMissing, match="pull yolox_nano"):
        choose("yolox")
    if not available("ultralytics"):
        with pytest.raises(MissingExtra, match="yolo"):
            choose("yolo", "some.pt")
    missing = str(tmp_path / "absent.onnx")
    with pytest.raises(weights.WeightsMissing, match="no file"):
        choose("auto", missing)


def test_ultralytics_backend_takes_a_file(tmp_path):
    ultralytics = pytest.importorskip("ultralytics")
    file = tmp_path / "random.pt"
    ultralytics.YOLO("yolo11n.yaml").save(str(file))  # random weights: only the form can be right
    choice = choose("auto", str(file))
    assert choice.backend == "yolo"
    detector = build(choice, min_score=0.0, region_backup=False)
    found = detector.detect(np.random.default_rng(0).integers(0, 255, (180, 320, 3), dtype=np.uint8))
    assert found.boxes.shape == (len(found), 4)
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= (320.01, 180.01)).all()
    assert detector.describe()[0]["sha256"] == weights.sha256_of(file)


def test_ultralytics_backend_detects():
    pytest.importorskip("ultralytics")
    path = next(iter(weights.folder().glob("yolo*.pt")), None)
    if path is None:
        pytest.skip("no Ultralytics weights in the weights folder")
    picture = cv2.imread(str(shared("images/bus.jpg")))
    found = build(Choice("yolo", path, "test")).detect(picture)
    assert {"bus", "person"} <= set(found.class_names)


def test_working_size_is_small_whatever_the_picture():
    regions = MovingRegions()
    regions.detect(np.zeros((1080, 1920, 3), np.uint8))
    belief = regions.saliency(np.zeros((1080, 1920, 3), np.uint8))
    assert max(belief.shape) == moving_regions.SIDE
