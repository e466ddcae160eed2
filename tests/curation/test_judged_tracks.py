"""Identity on real footage and the demo film, against labels made by looking."""

from collections import defaultdict

import numpy as np
import pytest

from tests.curation.judged_tracks import (
    Pairs,
    count,
    demo_truth,
    judge,
    labelled_truth,
    same,
    sequences,
    who,
)
from tests.support import shared


def boxes(frames, x):
    return [{"frame": f, "x": x, "y": 10, "width": 50, "height": 100} for f in frames]


def test_who_a_track_is_by_the_boxes_it_overlaps():
    truth = labelled_truth(
        [
            {"who": "rabbit", "boxes": [[0, 10, 10, 50, 100], [9, 10, 10, 50, 100]]},
            {"who": "bird", "boxes": [[0, 200, 10, 50, 100]]},
        ]
    )
    assert who(boxes((0, 3, 6, 9), 15), truth, 0.5) == "rabbit"
    assert who(boxes((0, 3), 210), truth, 0.5) == "bird"
    assert who(boxes((0, 9), 400), truth, 0.5) is None
    assert who(boxes((3, 6), 15), truth, 0.5) is None


def test_pairs_that_say_nothing_are_not_counted():
    assert same("rabbit", "rabbit") is True
    assert same("rabbit", "bird") is False
    assert same("rabbit", "-") is False
    assert same("-", "-") is None
    assert same("bird+rabbit", "rabbit") is None
    assert same("bird+rabbit", "bird+rabbit") is None


def test_pairs_are_counted():
    truth = labelled_truth(
        [
            {"who": "rabbit", "boxes": [[f, 10, 10, 50, 100] for f in (0, 9, 18)]},
            {"who": "bird", "boxes": [[9, 200, 10, 50, 100]]},
        ]
    )
    tracks = {0: boxes([0], 10), 1: boxes([9], 10), 2: boxes([18], 10), 3: boxes([9], 200)}
    found = count([{"track_ids": [0, 1, 3]}, {"track_ids": [2]}], tracks, truth, 0.5)
    assert found == Pairs(right=1, wrong=2, missed=2)
    assert (found.precision, found.recall) == (1 / 3, 1 / 3)
    assert np.isnan(Pairs().precision)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_few_wrong_joins_on_real_footage(tmp_path):
    total: Pairs = Pairs()
    kinds = defaultdict(Pairs)
    for sequence in sequences():
        truth = labelled_truth(sequence["tracks"])
        place = tmp_path / sequence["name"]
        found = judge(shared(sequence["film"]), sequence["shots"], truth, "embedded", place)
        kinds[sequence["name"]] = found
        total += found
    assert total.precision >= 0.75, kinds
    assert total.recall >= 0.3, kinds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("tier", "least_recall"), [("embedded", 0.7), ("full", 0.35)])
def test_no_wrong_join_in_the_demo_film(demo_film, tmp_path, tier, least_recall):
    """YOLOX-nano sees a second person in the planet behind the astronaut, so that its recall is less."""
    shots = [s for s in demo_film.truth.shots if s.fault is None]
    for part in (shots[:7], shots[7:]):
        spans = [[s.start_frame, s.end_frame] for s in part]
        place = tmp_path / part[0].name
        found = judge(demo_film.path, spans, demo_truth(demo_film.truth), tier, place, least=0.25)
        assert found.wrong == 0
        assert found.recall >= least_recall
