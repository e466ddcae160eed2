"""What is told of a film without a sequence: settings that help do help, and the rest is true."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.config import parse_overrides
from curation.packing import Rules, Shots, pack
from curation.packing_advice import hindrance
from curation.presets import PRESETS

TEXT = Rules(**PRESETS["paper-text"])
EASY = replace(TEXT, min_window_s=8, min_shot_s=2)


def shots(*lengths_s, unusable=(), gap_s=0):
    start, end, at = [], [], 0
    for length in lengths_s:
        start.append(round(1000 * at))
        end.append(round(1000 * (at + length)))
        at += length + gap_s
    usable = [i not in unusable for i in range(len(start))]
    return Shots(start, end, usable, [1] * (len(start) + 1), Fraction(1, 1000))


def followed(told, rules):
    return replace(rules, **parse_overrides(re.findall(r"--set (\S+)", told))["sequences"])


@pytest.mark.parametrize(
    ("film", "rules", "told"),
    [
        (shots(), TEXT, "no shot is usable"),
        (shots(9, 9, unusable=(0, 1)), TEXT, "none of its shots is usable"),
        (shots(40), TEXT, "only one of its shots is usable and a sequence needs two"),
        (
            shots(40, 5, 40, unusable=(1,)),
            TEXT,
            "of its 2 usable shots no two follow each other",
        ),
        (shots(40, 40, gap_s=9), TEXT, "its usable shots are farther apart than sequences.max_gap_s (5 s)"),
        (shots(3, 3), EASY, "6.0 s (2 shots); what it does not meet: sequences.min_window_s (8 s)"),
        (shots(1, 1, 1), EASY, "(8 s), sequences.min_shot_s (2 s; 3 shots are shorter)"),
        (
            shots(6, 1, 6),
            EASY,
            "13.0 s (3 shots); what it does not meet: sequences.min_shot_s (2 s; 1 shot is",
        ),
        (
            shots(70, 9),
            EASY,
            "79.0 s (2 shots); what it does not meet: sequences.max_shot_s (60 s; 1 shot is",
        ),
        (
            shots(40, 40),
            EASY,
            "no part of it has 8 to 60 s (sequences.min_window_s, max_window_s) in 2 to 12",
        ),
        (
            shots(5),
            replace(EASY, min_clips=1),
            "5.0 s (1 shot); what it does not meet: sequences.min_window_s",
        ),
    ],
)
def test_it_says_what_is_true_where_no_setting_helps(film, rules, told):
    assert not pack(film, rules)
    assert told in hindrance(film, rules)
    assert "--set" not in hindrance(film, rules)


@pytest.mark.parametrize(
    ("film", "rules", "settings"),
    [
        (shots(6, 6), TEXT, "--set sequences.min_window_s=8"),
        (shots(9, 3, 30, unusable=(2,)), TEXT, "--set sequences.min_window_s=8 --set sequences.min_shot_s=2"),
        (shots(20, 20), replace(TEXT, min_clips=6), "--set sequences.min_clips=2"),
        (shots(*[3] * 20), TEXT, "--set sequences.min_shot_s=2"),
    ],
)
def test_it_names_the_fewest_settings_that_help(film, rules, settings):
    told = hindrance(film, rules)
    assert told.endswith(f"; a sequence fits with {settings}")
    assert pack(film, followed(told, rules))


@given(
    st.lists(st.tuples(st.floats(0.5, 70), st.booleans()), max_size=7),
    st.sampled_from([TEXT, EASY, Rules(**PRESETS["paper-table"]), Rules(**PRESETS["bridged"])]),
)
def test_there_is_something_to_say_of_any_film_and_advice_helps(lengths, rules):
    film = shots(*(s for s, _ in lengths), unusable=[i for i, (_, bad) in enumerate(lengths) if bad])
    told = hindrance(film, rules)
    if not pack(film, rules) and "--set" in told:
        assert pack(film, followed(told, rules))
