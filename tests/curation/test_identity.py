import numpy as np
import pytest

from curation import identity
from curation.identity import Track, apart, class_penalty, join, labels, letters, log_odds, subject_class


def track(i, clip=0, first=0, count=10, name="person", at=(10, 10, 50, 100), score=0.8, **looks) -> Track:
    frames = first + 3 * np.arange(count)
    return Track(
        track_id=i,
        clip_index=clip,
        class_name=name,
        score=score,
        frames=frames,
        boxes=np.tile(np.array(at, float), (count, 1)),
        times_s=frames / 24,
        looks={kind: np.asarray(v, float) / np.linalg.norm(v) for kind, v in looks.items()},
    )


RED, RED_TOO, BLUE = [1, 0, 0.1], [1, 0.1, 0], [0, 0.2, 1]


def ids(clusters):
    return [[t.track_id for t in c.tracks] for c in clusters]


def test_a_subject_is_joined_across_cuts_and_others_are_not():
    tracks = [
        track(0, 0, 0, colour=RED),
        track(1, 1, 100, colour=BLUE),
        track(2, 2, 200, colour=RED_TOO),
        track(3, 3, 300, colour=BLUE),
    ]
    clusters = join(tracks)
    assert ids(clusters) == [[0, 2], [1, 3]]
    assert all(0.9 < c.confidence <= 1 for c in clusters)
    assert ids(join(list(reversed(tracks)))) == ids(clusters)


def test_two_things_seen_at_once_stay_two_however_alike():
    twins = [
        track(0, 0, 0, colour=RED),
        track(1, 0, 0, at=(200, 10, 50, 100), colour=RED),
        track(2, 1, 100, colour=RED),
    ]
    assert apart(twins[0], twins[1])
    assert not apart(twins[0], twins[2])
    clusters = join(twins)
    assert len(clusters) == 2
    assert sorted(len(c.tracks) for c in clusters) == [1, 2]


def test_a_double_box_of_one_thing_does_not_forbid_it():
    assert not apart(track(0), track(1, at=(12, 12, 50, 100)))


def test_cannot_link_holds_for_whole_groups():
    tracks = [
        track(0, 0, 0, colour=RED),
        track(1, 0, 0, at=(200, 10, 50, 100), colour=BLUE),
        track(2, 1, 100, colour=RED),
        track(3, 2, 200, colour=RED),
        track(4, 2, 200, at=(200, 10, 50, 100), colour=RED),
    ]
    for cluster in join(tracks):
        own = cluster.tracks
        assert not any(apart(a, b) for a in own for b in own if a is not b)


def test_no_looks_no_join():
    assert ids(join([track(0), track(1, 1, 100)])) == [[0], [1]]
    assert join([]) == []


def test_a_piece_lost_for_a_moment_is_taken_up_again():
    a = track(0, 0, 0, colour=[1, 0.9, 0])
    near = track(1, 0, 36, colour=[1, 0, 0.2])  # a quarter of a second later at the same place
    far = track(2, 0, 36, at=(300, 10, 50, 100), colour=[1, 0, 0.2])
    assert log_odds(a, near) > log_odds(a, far) + 1
    late = track(3, 0, 300, colour=[1, 0, 0.2])
    assert log_odds(a, late) == pytest.approx(log_odds(a, far))


def test_classes_speak_as_loud_as_the_detector_was_sure():
    cat, dog = track(0, colour=RED, name="cat"), track(1, 1, 100, colour=RED, name="dog")
    car = track(2, 2, 200, colour=RED, name="car")
    unsure = track(3, 2, 200, colour=RED, name="car", score=0.25)
    region = track(4, 3, 300, colour=RED, name="region")
    assert class_penalty(cat, dog) < class_penalty(cat, unsure) < class_penalty(cat, car)
    assert class_penalty(cat, region) == identity.REGION_PENALTY
    assert class_penalty(cat, region, 2.0) == 2.0
    assert log_odds(cat, dog) == pytest.approx(log_odds(cat, car) + 1.8)


def test_unsure_boxes_are_joined_less():
    sure, unsure = track(0, score=0.9, colour=RED), track(1, 1, 100, score=0.4, colour=RED)
    surest = track(2, 2, 200, score=1.0, colour=RED)
    assert log_odds(sure, unsure) == log_odds(surest, unsure) < log_odds(sure, surest)


def test_light_that_changes_from_shot_to_shot_leads_from_one_look_to_another():
    turned = [np.array([np.cos(a), np.sin(a), 0]) for a in np.radians([0, 25, 50])]
    tracks = [track(i, i, 100 * i, colour=look) for i, look in enumerate(turned)]
    assert log_odds(tracks[0], tracks[2]) < 0
    assert ids(join(tracks)) == [[0, 1, 2]]
    assert ids(join([tracks[0], tracks[2]])) == [[0], [2]]


def test_a_face_outweighs_clothes():
    same_face = {"face": [1, 0, 0]}
    a = track(0, colour=RED, **same_face)
    changed = track(1, 1, 100, colour=BLUE, **same_face)
    stranger = track(2, 2, 200, colour=RED, face=[0, 1, 0])
    assert log_odds(a, changed) > 0 > log_odds(a, stranger)


def test_confidence_is_that_of_the_weakest_join():
    middle = identity.EVIDENCE["colour"].middle
    weak = [middle + 0.01, (1 - (middle + 0.01) ** 2) ** 0.5, 0]
    pair = join([track(0, colour=[1, 0, 0]), track(1, 1, 100, colour=weak)])
    assert ids(pair) == [[0, 1]]
    assert 0.5 < pair[0].confidence < 0.6
    assert join([track(0, colour=RED)])[0].confidence == 1


def test_class_of_a_subject_is_voted_by_group():
    tracks = [
        track(0, name="person", count=10),
        track(1, name="dog", count=7),
        track(2, name="sheep", count=6),
        track(3, name="region", count=20),
    ]
    assert subject_class(tracks) == "dog"
    assert subject_class([track(0, name="region", count=20), track(1, name="cup", count=2)]) == "region"


def test_labels_have_letters_unique_over_all_nouns():
    names = ["person", "cat", "region", "car", "person", "cup"]
    assert labels(names) == [
        "[Person A]",
        "[Animal B]",
        "[Subject C]",
        "[Object D]",
        "[Person E]",
        "[Object F]",
    ]
    assert [letters(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"),
    ]
