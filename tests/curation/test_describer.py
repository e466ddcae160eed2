"""The describer says what was measured, in sentences that fit the trainer, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from curation.captions.facts import (
    Scene,
    Shot,
    Subject,
    Target,
    View,
    in_picture,
    seen_in,
    view_of,
)
from curation.captions.grammar import labels
from curation.captions.lint import lint_recon, lint_shot, lint_story, prominence_in
from curation.models.describer import TEMPLATES, Describer, describe, describe_all

CROP = (100, 50, 800, 400)
VIEW = View(luma=120, contrast=40, chroma=50, change=2, trend=0, colours=("green", "light blue"))


def subject(letter="A", class_name="person", colours=("dark blue", "orange"), *, is_primary=False):
    return Subject(
        subject_id=f"s{letter}",
        label=f"[Person {letter}]",
        class_name=class_name,
        is_primary=is_primary,
        colours=colours,
        screen_time_s=4.0,
    )


def boxes(places, start_s=10.0, fps=8):
    """Boxes centred at (x, y) of the cropped picture with the given width and height, all in shares."""
    return [
        {
            "time_s": start_s + i / fps,
            "x": CROP[0] + (x - w / 2) * CROP[2],
            "y": CROP[1] + (y - h / 2) * CROP[3],
            "width": w * CROP[2],
            "height": h * CROP[3],
        }
        for i, (x, y, w, h) in enumerate(places)
    ]


def seen(who, places):
    return seen_in(who, boxes(places), CROP, 10.0, 99.0)


def shot(number=1, seen=(), view=VIEW, duration_s=4.0):
    return Shot(
        clip_index=number - 1,
        number=number,
        duration_s=duration_s,
        seen=tuple(seen),
        measured=view,
        looks=(),
    )


def scene(*shots, targets=(), subjects=None):
    cast = {s.subject.label: s.subject for x in shots for s in x.seen}
    cast = subjects if subjects is not None else [cast[label] for label in sorted(cast)]
    return Scene(sequence_id="q", shots=shots, subjects=tuple(cast), targets=tuple(targets))


def told(one):
    whole = scene(one)
    describer = Describer()
    return describer.shots(whole, describer.story(whole))[0].text


STILL = [(0.5, 0.5, 0.2, 0.5)] * 32

# -- facts --------------------------------------------------------------------------------------


def test_boxes_are_measured_in_the_cropped_picture():
    assert in_picture({"x": 300, "y": 150, "width": 400, "height": 200}, CROP) == pytest.approx(
        (0.25, 0.25, 0.75, 0.75)
    )
    half = {"x": 50, "y": 150, "width": 100, "height": 200}
    assert in_picture(half, CROP) == pytest.approx((0, 0.25, 0.0625, 0.75))
    assert in_picture({**half, "x": 10}, CROP) is None
    assert in_picture({**half, "x": 10}, CROP, min_inside=0.0) is not None


def test_a_subject_is_seen_only_inside_crop_and_exported_time():
    who = subject()
    assert seen_in(who, [], CROP, 0, 99) is None
    assert seen_in(who, boxes(STILL, start_s=10), CROP, 14, 20) is None
    assert seen_in(who, boxes([(-0.2, 0.5, 0.1, 0.1)] * 4), CROP, 10, 20) is None
    found = seen_in(who, boxes([(0.2 + i / 50, 0.5, 0.2, 0.5) for i in range(32)]), CROP, 9.5, 13.0)
    assert (found.first_s, found.last_s) == pytest.approx((0.5, 3.375))
    assert found.area == pytest.approx(0.1)
    assert found.start[0] < 0.3 < found.x < found.end[0]
    assert found.growth == pytest.approx(1.0)


def test_pictures_are_measured():
    dark = np.full((8, 60, 104, 3), 10, np.uint8)
    bright = np.zeros((8, 60, 104, 3), np.uint8)
    bright[..., 2] = 200  # red
    view = view_of(np.concatenate([dark, bright]))
    assert view.luma == pytest.approx((10 + 0.2126 * 200) / 2, abs=0.1)
    assert view.chroma == pytest.approx(100)
    assert view.trend == pytest.approx(0.2126 * 200 - 10, abs=0.1)
    assert set(view.colours) == {"black", "red"}
    assert view_of(dark).change == 0


# -- words --------------------------------------------------------------------------------------


def test_descriptions_are_fixed_and_tell_subjects_apart():
    assert describe(subject()) == "person in mostly dark blue and orange tones"
    assert describe(subject(class_name="region", colours=("red",))) == "moving subject in mostly red tones"
    assert describe(subject(colours=())) == "person"
    alike = [subject(letter) for letter in "ABC"]
    left, right = [(0.1, 0.5, 0.2, 0.5)] * 8, [(0.9, 0.5, 0.2, 0.5)] * 8
    whole = scene(shot(1, [seen(alike[0], left), seen(alike[1], right)]), shot(2, [seen(alike[2], left)]))
    texts = list(describe_all(whole).values())
    assert len(set(texts)) == 3
    assert "first seen in shot 2 on the left side" in texts[2]
    same_place = scene(shot(1, [seen(a, left) for a in alike]))
    assert len(set(describe_all(same_place).values())) == 3


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ([(0.5, 0.5, 0.8, 0.9)] * 16, "close-up"),
        ([(0.5, 0.5, 0.1, 0.1)] * 16, "very wide view"),
        ([(0.1, 0.5, 0.1, 0.3)] * 16, "left side of the frame"),
        ([(0.9, 0.9, 0.1, 0.1)] * 16, "lower right of the frame"),
        ([(0.2 + i / 30, 0.5, 0.2, 0.4) for i in range(16)], "to the right"),
        ([(0.8 - i / 30, 0.5, 0.2, 0.4) for i in range(16)], "to the left"),
        ([(0.5, 0.8 - i / 30, 0.2, 0.4) for i in range(16)], "upwards"),
        ([(0.5, 0.5, 0.1 + i / 60, 0.1 + i / 30) for i in range(16)], "grows larger"),
        ([(0.5, 0.5, 0.5 - i / 60, 0.8 - i / 30) for i in range(16)], "becomes smaller"),
        (STILL, "[Person A]"),
    ],
)
def test_place_size_and_movement_are_told(places, says):
    assert says in told(shot(seen=[seen(subject(), places)], duration_s=len(places) / 8)).lower() or (
        says in told(shot(seen=[seen(subject(), places)]))
    )


def test_speed_is_movement_over_time():
    quick = [(0.1 + i / 10, 0.5, 0.1, 0.4) for i in range(8)]
    slow = [(0.1 + i / 400, 0.5, 0.1, 0.4) for i in range(64)]
    assert "quickly" in told(shot(seen=[seen(subject(), quick)])).lower()
    assert "slowly" in told(shot(seen=[seen(subject(), slow)], duration_s=8)).lower()


def test_coming_and_going_are_told():
    late = seen_in(subject(), boxes(STILL[:16], start_s=12), CROP, 10, 14)
    assert "comes into view after 2 seconds" in told(shot(seen=[late]))
    early = seen_in(subject(), boxes(STILL[:9], start_s=10), CROP, 10, 14)
    assert "is last seen 1 second into the shot" in told(shot(seen=[early]))


def test_subjects_are_compared_only_while_both_are_seen():
    lead = seen(subject("A"), STILL)
    other = seen(subject("B"), [(0.9, 0.5, 0.1, 0.2)] * 32)
    assert "[Person B], smaller in the frame, is to the right of [Person A]." in told(
        shot(seen=[lead, other])
    )
    gone = seen_in(subject("A"), boxes(STILL[:8]), CROP, 10, 14)
    later = seen_in(subject("B"), boxes(STILL[:8], start_s=12), CROP, 10, 14)
    text = told(shot(seen=[gone, later]))
    assert "Later, [Person B] is seen near the centre of the frame" in text


def test_shots_without_subjects_are_described_by_light_colour_and_change():
    text = told(shot(view=replace(VIEW, luma=20, chroma=2, change=0.2, trend=-20), duration_s=2.5))
    assert "tracked subject" in text
    for words in (
        "very dark",
        "black and white",
        "Almost nothing changes",
        "darker towards the end",
        "2.5 seconds",
    ):
        assert words in text


def test_the_story_tells_the_seconds_on_screen_that_the_table_has():
    seldom = replace(subject(), screen_time_s=7.75)  # its boxes span four seconds of the shot
    text = Describer().story(scene(shot(seen=[seen(seldom, STILL)]), shot(2))).text
    assert "for about 8 seconds" in text


def long_scene(num_shots=10, num_subjects=6):
    rng = np.random.default_rng(0)
    cast = [
        subject(c, colours=("red", "green")[: 1 + i % 2], is_primary=i == 0) for i, c in enumerate("ABCDEF")
    ]
    shots = []
    for n in range(num_shots):
        present = [c for c in cast[:num_subjects] if rng.random() < 0.4]
        paths = [
            [(x + dx * i, y, 0.2, 0.4) for i in range(32)]
            for x, dx, y in zip(
                rng.uniform(0.2, 0.8, 9), rng.uniform(-0.02, 0.02, 9), rng.uniform(0.2, 0.8, 9), strict=True
            )
        ]
        found = [s for c, p in zip(present, paths, strict=False) if (s := seen(c, p))]
        view = replace(VIEW, luma=float(rng.uniform(20, 220)), change=float(rng.uniform(0, 12)))
        shots.append(shot(n + 1, found, view, float(rng.uniform(2, 8))))
    targets = [
        Target(
            recon_id=f"r{s.number}",
            subject=s.seen[0].subject,
            shot=s,
            area=0.2,
            x=0.3,
            y=0.5,
            others=tuple(x.label for x in s.seen[1:]),
        )
        for s in shots
        if s.seen
    ]
    return scene(*shots, targets=targets[:2], subjects=cast[:num_subjects])


@pytest.mark.parametrize(("num_shots", "num_subjects"), [(2, 0), (2, 1), (6, 2), (16, 6)])
def test_captions_have_the_lengths_of_the_papers_table_3(num_shots, num_subjects):
    whole = long_scene(num_shots, num_subjects)
    describer = Describer()
    story = describer.story(whole)
    assert 80 <= len(story.text) <= 1485
    for answer in describer.shots(whole, story):
        assert 100 <= len(answer.text) <= 999
    for answer in describer.recon(whole, story):
        assert 33 <= len(answer.text) <= 641


def test_only_labels_in_view_are_named_and_never_a_pronoun():
    whole = long_scene()
    describer = Describer()
    story = describer.story(whole)
    inventory = list(story.descriptions.items())
    for one, answer in zip(whole.shots, describer.shots(whole, story), strict=True):
        assert set(labels(answer.text)) == {s.label for s in one.seen}
        assert lint_shot(answer.text, inventory, prominence_in(one)) == []
    for target, answer in zip(whole.targets, describer.recon(whole, story), strict=True):
        assert answer.text.startswith(f"{target.subject.label}: {story.descriptions[target.subject.label]}")
        assert set(labels(answer.text)) == {target.subject.label, *target.others}
        assert lint_recon(answer.text, inventory, target.subject.label, target.others) == []
    assert lint_story(story.text, inventory) == []
    assert set(story.descriptions) == {s.label for s in whole.subjects}


def test_sentences_are_whole_varied_and_always_the_same():
    whole = long_scene()
    describer = Describer()
    texts = [a.text for a in describer.shots(whole, describer.story(whole))]
    assert texts == [a.text for a in Describer().shots(whole, Describer().story(whole))]
    for text in [*texts, describer.story(whole).text]:
        assert "{" not in text
        assert "  " not in text
        for sentence in re.split(r"(?<=\.) ", text):
            assert sentence[0] == sentence[0].upper()
            assert sentence.endswith(".")
    first = [text.split(".")[0].replace(labels(text)[0], "X") for text in texts if labels(text)]
    assert len({re.sub(r"X|(on|near|in) the .*", "", f)[:12] for f in first}) >= 3


def test_prompt_hashes_differ_by_stage():
    assert len({Describer().prompt_hash(stage) for stage in TEMPLATES}) == 3
