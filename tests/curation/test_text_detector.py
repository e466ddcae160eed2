import cv2
import numpy as np
import pytest

from curation.models.text_detector import (
    TextDetector,
    TextSettings,
    describe,
    network_size,
    upright,
    weight_file,
)
from curation.optional import MissingExtra, available
from curation.video.decode import decode_at, to_bgr
from curation.video.probe import probe
from tests.support import shared


@pytest.fixture(scope="module")
def detector() -> TextDetector:
    return TextDetector()


def written(text: str, *, size: tuple[int, int] = (360, 640), scale: float = 0.8) -> np.ndarray:
    """A noisy grey picture with one line of white text in black outline, centred at 90 % of its height."""
    height, width = size
    noise = np.random.default_rng(0).integers(60, 120, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    (columns, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    at = ((width - columns) // 2, round(0.9 * height))
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 6, cv2.LINE_AA)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2, cv2.LINE_AA)
    return picture


def test_finds_a_line_of_text_and_nothing_else(detector):
    boxes = detector.detect(written("We leave before dawn"))
    assert boxes.dtype == np.float32
    assert boxes.shape == (1, 5)
    x, y, width, height, score = boxes[0]
    assert x + width / 2 == pytest.approx(320, abs=12)
    assert y < 324 - 15
    assert 320 < y + height < 345
    assert width > 250
    assert 0.5 <= score <= 1
    assert len(detector.detect(np.full((360, 640, 3), 90, np.uint8))) == 0


def test_boxes_are_in_pixels_of_the_picture_given(detector):
    small = written("We leave before dawn")
    large = cv2.resize(small, (1280, 720), interpolation=cv2.INTER_CUBIC)
    assert detector.detect(large)[0, :4] == pytest.approx(detector.detect(small)[0, :4] * 2, abs=14)


def test_same_picture_same_boxes(detector):
    picture = written("Who goes there?")
    np.testing.assert_array_equal(detector.detect(picture), detector.detect(picture))


def test_refuses_a_picture_without_colour(detector):
    with pytest.raises(ValueError, match="expected a picture"):
        detector.detect(np.zeros((360, 640), np.uint8))


def test_describes_what_runs_without_loading_it(detector):
    model = describe(TextSettings())
    assert model == detector.describe()
    assert model["part"] == "text"
    assert (model["tier"], model["backend"]) == ("embedded", "rapidocr")
    assert "det" in model["model_id"]
    assert len(model["sha256"]) == 64


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(1080, 1920, (352, 640)), (204, 480, (192, 480)), (1920, 1080, (640, 352)), (2, 2, (32, 32))],
)
def test_network_size_keeps_the_aspect_in_steps_of_the_stride(height, width, expected):
    assert network_size(height, width, TextSettings()) == expected


def test_small_pictures_are_enlarged_only_when_asked():
    assert network_size(204, 480, TextSettings(max_upscale=2.0)) == (256, 640)


def test_upright_boxes_are_clipped_and_in_reading_order():
    corners = np.array(
        [
            [[10, 50], [30, 40], [34, 48], [14, 58]],
            [[5, 2], [25, 2], [25, 12], [5, 12]],
            [[1, 1], [2, 1], [2, 2], [1, 2]],
            [[30, 60], [60, 60], [60, 80], [30, 80]],
        ]
    )
    boxes = upright(corners, np.array([0.8, 0.9, 0.2, 0.7]), (2.0, 1.0), (70, 100), 0.5)
    expected = [[10, 2, 40, 10, 0.9], [20, 40, 48, 18, 0.8], [60, 60, 40, 10, 0.7]]
    np.testing.assert_allclose(boxes, expected, rtol=1e-6)
    assert upright(np.zeros((0, 4, 2)), np.zeros(0), (1.0, 1.0), (4, 4), 0.5).shape == (0, 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"backend": "tesseract"}, "rapidocr"),
        ({"backend": "paddleocr"}, "model"),
        ({"max_side": 8}, "max_side"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_settings_say_what_would_be_right(settings, words):
    with pytest.raises(ValueError, match=words):
        TextSettings(**settings)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.onnx"):
        weight_file(TextSettings(model=str(tmp_path / "none.onnx")))
    with pytest.raises(ValueError, match="pdiparams"):
        weight_file(TextSettings(backend="paddleocr", model=str(tmp_path)))


@pytest.mark.skipif(available("paddleocr"), reason="paddleocr is installed")
def test_paddleocr_absent_names_its_extra(tmp_path):
    (tmp_path / "inference.pdiparams").write_bytes(b"")
    with pytest.raises(MissingExtra, match="ocr-gpu"):
        TextDetector(TextSettings(backend="paddleocr", model=str(tmp_path)))


@pytest.mark.skipif(not available("paddleocr"), reason="extra ocr-gpu not installed")
def test_paddleocr_finds_what_rapidocr_finds(detector):
    folder = shared("weights/PP-OCR_det_paddle")
    picture = written("We leave before dawn")
    boxes = TextDetector(TextSettings(backend="paddleocr", model=str(folder))).detect(picture)
    assert boxes[:, :4] == pytest.approx(detector.detect(picture)[:, :4], abs=12)


def film_pictures(name: str, times_s: list[float]) -> list[np.ndarray]:
    path = str(shared(name))
    stream, _, _ = probe(path)
    ticks = stream["time_base_den"] / stream["time_base_num"]
    pts = [stream["first_pts"] + round(t * ticks) for t in times_s]
    return [to_bgr(frame, stream) for _, frame in decode_at(path, stream, pts)]


@pytest.mark.parametrize("model", ["", "weights/ch_PP-OCRv3_det.onnx"])
def test_real_burnt_in_lines_are_found(model):
    detector = TextDetector(TextSettings(model=str(shared(model)) if model else ""))
    times = [6.0, 7.0, 13.0, 15.0, 19.5, 24.0, 27.0, 30.0, 33.0, 37.0]
    for picture in film_pictures("derived/sintel_trailer_subs_en.mp4", times):
        low = [b for b in detector.detect(picture) if b[1] > 0.7 * picture.shape[0]]
        assert low
        assert all(b[3] < 0.2 * picture.shape[0] for b in low)
