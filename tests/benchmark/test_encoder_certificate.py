from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch.nn.functional as F

from benchmark.encoders import certificate, pixels, viclip
from benchmark.encoders.certificate import certificate_lines
from benchmark.encoders.memo import Memo
from tests.benchmark.small_encoders import no_weights


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing remembered from earlier."""
    folder = no_weights(monkeypatch, tmp_path)
    clear = certificate.certificate.cache_clear
    clear()
    yield folder
    clear()


def lines_by_name():
    return {line.partition(":")[0]: line for line in certificate_lines()}


def test_this_installation_gives_the_reference_numbers(fresh):
    checks = certificate.certificate()
    assert [check.line for check in checks if not check.ok] == []
    names = [check.name for check in checks]
    assert {"tokenizer", "aesthetic heads", *certificate.TOWERS} < set(names)
    assert sum(name.startswith("pixels ") for name in names) == 7
    assert lines_by_name()["viclip texts"].startswith("viclip texts: features within ")


def test_a_wrong_activation_is_seen(fresh, monkeypatch):
    monkeypatch.setattr(viclip, "quick_gelu", F.gelu)
    lines = lines_by_name()
    for name in ("viclip", "viclip texts"):
        assert "WRONG, at most 1e-05 is in order" in lines[name]
    assert "WRONG" not in lines["clip"]


def test_clips_activation_is_seen(fresh, monkeypatch):
    from torch import nn

    from benchmark.encoders import clip

    monkeypatch.setattr(clip, "QuickGelu", nn.GELU)
    lines = lines_by_name()
    assert "WRONG" in lines["clip"]
    assert "WRONG" in lines["clip full"]


def test_a_wrong_filter_is_seen(fresh, monkeypatch):
    real = F.interpolate
    monkeypatch.setattr(
        F,
        "interpolate",
        lambda *a, **k: real(*a, **{**k, "mode": "nearest", "align_corners": None, "antialias": False}),
    )
    assert "WRONG, at most 1 is in order" in lines_by_name()["pixels squash224-bicubic-aa"]


def test_another_offset_of_positions_is_seen(fresh, monkeypatch):
    from benchmark.encoders import dinov2

    monkeypatch.setattr(dinov2, "OFFSET", 0.0)
    assert "WRONG" in lines_by_name()["dinov2 full"]


def test_what_cannot_be_checked_is_not_in_order(fresh, monkeypatch):
    def absent(*_):
        raise ModuleNotFoundError("no torch here")

    monkeypatch.setitem(certificate.TOWERS, "clip", absent)
    lines = lines_by_name()
    assert "clip" not in lines
    assert certificate_lines()[-1] == "not checked (no torch here): clip"
    (check,) = (c for c in certificate.certificate() if c.name == "clip")
    assert math.isnan(check.drift)
    assert not check.ok


def test_good_results_are_remembered_until_something_changes(fresh, monkeypatch):
    first = certificate_lines()
    monkeypatch.setattr(certificate, "certificate", lambda *a: pytest.fail("computed again"))
    assert certificate_lines() == first
    monkeypatch.setattr(certificate, "VERSION", -1)
    with pytest.raises(pytest.fail.Exception):
        certificate_lines()


def test_bad_results_are_not_remembered(fresh, monkeypatch):
    monkeypatch.setattr(viclip, "quick_gelu", F.gelu)
    certificate_lines()
    assert Memo("encoder_certificate.json").get(certificate._key("cpu", "fp32")) == ""


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_drift_more_but_within_their_bounds(fresh, precision):
    checks = {check.name: check for check in certificate.certificate("cpu", precision)}
    for name in certificate.TOWERS:
        assert checks[name].ok
        assert checks[name].drift > certificate.TOLERANCE["fp32"]


def test_made_up_frames_show_what_filters_do():
    made = certificate.frames(3)
    assert made.shape == (3, 480, 832, 3)
    assert made.dtype == np.uint8
    assert len({frame.tobytes() for frame in made}) == 3
    smooth = pixels.Pixels(shape="squash").pictures(made).astype(int)
    rough = pixels.Pixels(shape="squash", method="bicubic").pictures(made)
    assert np.abs(smooth - rough).max() > 50


def test_the_file_is_small_and_complete():
    kept = certificate.kept()
    assert sum(array.nbytes for array in kept.values()) < 400_000
    assert {f"pixels {recipe.name}" for recipe in certificate.RECIPES} < kept.keys()
    assert certificate.TOWERS.keys() < kept.keys()
