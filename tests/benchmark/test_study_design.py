"""Who sees what: every trial once, sides and orders balanced, checks where they belong."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from benchmark.study.design import LEFT, OTHER_STORY, RIGHT, SAME, TIE, pairs, sessions, williams

STORIES = [f"story{i}" for i in range(6)]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
def test_a_williams_square_balances_places_and_neighbours(count):
    rows = williams(count)
    assert all(sorted(row) == list(range(count)) for row in rows)
    repeats = len(rows) // count
    for place in range(count):
        assert Counter(row[place] for row in rows) == dict.fromkeys(range(count), repeats)
    neighbours = Counter(pair for row in rows for pair in pairwise(row))
    assert len(neighbours) == count * (count - 1)
    assert set(neighbours.values()) == {repeats}


def test_a_square_of_one_is_one_row():
    assert williams(1)[0] == [0]


def test_pairs_are_of_all_or_of_a_reference():
    assert pairs(["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs(["a", "b", "c"], "b") == [("b", "a"), ("b", "c")]
    for methods, reference in ((["a"], None), (["a", "a"], None), (["a", "b"], "z")):
        with pytest.raises(ValueError, match=r"two methods|--reference z: there are a, b"):
            pairs(methods, reference)


def sides(shown, first):
    return Counter(trial.left.method == first for trial in shown)


@pytest.mark.parametrize("methods", [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]])
def test_every_rater_sees_every_trial_once_with_sides_balanced(methods):
    compared = pairs(methods)
    for shown in sessions(STORIES, compared, 12, seed=4):
        seen = Counter((t.story, frozenset((t.left.method, t.right.method))) for t in shown)
        assert len(seen) == len(STORIES) * len(compared)
        assert set(seen.values()) == {1}
        assert all(t.left.story == t.right.story == t.story for t in shown)
        for first, second in compared:
            of_pair = [t for t in shown if {t.left.method, t.right.method} == {first, second}]
            left = sides(of_pair, first)
            assert abs(left[True] - left[False]) <= 1
        if len(compared) > 1:
            assert all(a.story != b.story for a, b in pairwise(shown))


@pytest.mark.parametrize("methods", [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]])
@pytest.mark.parametrize("raters", [4, 7, 12])
def test_over_raters_each_trial_has_each_side_equally_often(methods, raters):
    compared = pairs(methods)
    shown = sessions(STORIES, compared, raters, seed=1)
    for story in STORIES:
        for first, second in compared:
            chosen = [
                t
                for trials in shown
                for t in trials
                if t.story == story and {t.left.method, t.right.method} == {first, second}
            ]
            left = sides(chosen, first)
            assert abs(left[True] - left[False]) <= 2 if len(compared) % 2 == 0 else 1


def test_places_of_stories_are_balanced_over_as_many_raters_as_stories():
    shown = sessions(STORIES, [("a", "b")], len(STORIES), seed=9)
    for place in range(len(STORIES)):
        assert len({trials[place].story for trials in shown}) == len(STORIES)


def test_a_shorter_session_is_the_beginning_of_the_whole_one_and_still_balanced():
    whole = sessions(STORIES, [("a", "b")], 6, seed=2)
    part = sessions(STORIES, [("a", "b")], 6, limit=2, seed=2)
    assert part == [trials[:2] for trials in whole]
    assert set(Counter(t.story for trials in part for t in trials).values()) == {2}


def test_seeds_decide_and_more_raters_leave_the_first_ones_as_they_are():
    made = sessions(STORIES, [("a", "b")], 4, checks=2, seed=5)
    assert made == sessions(STORIES, [("a", "b")], 8, checks=2, seed=5)[:4]
    assert made != sessions(STORIES, [("a", "b")], 4, checks=2, seed=6)


def test_checks_have_a_right_answer_and_never_come_first():
    for shown in sessions(STORIES, [("a", "b")], 10, checks=4, seed=3):
        found = [t for t in shown if t.check]
        assert Counter(t.check for t in found) == {SAME: 2, OTHER_STORY: 2}
        assert len(shown) == len(STORIES) + 4
        assert not shown[0].check
        for t in found:
            assert t.left.method == t.right.method
            if t.check == SAME:
                assert t.left == t.right
                assert t.expected == TIE
            else:
                right = t.left if t.expected == LEFT else t.right
                wrong = t.right if t.expected == LEFT else t.left
                assert t.expected in (LEFT, RIGHT)
                assert right.story == t.story != wrong.story


def test_a_study_of_nothing_is_refused():
    for stories, compared, raters in (([], [("a", "b")], 1), (STORIES, [], 1), (STORIES, [("a", "b")], 0)):
        with pytest.raises(ValueError, match="needs a story"):
            sessions(stories, compared, raters)
