import itertools
import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.packing import Role, Rules, Shots, Value, Window, exact, pack, possible, roles
from curation.presets import PRESETS
from tests.support import shared

TENTH = Fraction(1, 10)


def shots_of(lengths, *, gaps=None, usable=None, boundaries=None, tick_s=TENTH):
    """Shots from lengths and gaps in ticks."""
    start, end, at = [], [], 0
    for length, gap in zip(lengths, gaps or [0] * len(lengths), strict=True):
        start.append(at + gap)
        at += gap + length
        end.append(at)
    n = len(lengths)
    return Shots(start, end, usable or [True] * n, boundaries or [2, *[1] * (n - 1), 2], tick_s)


def spans(windows):
    return [(w.first, w.end, w.context) for w in windows]


# -- independent restatement of the rules, by brute force ---------------------------------------


def allowed(shots, rules, first, end):
    """The window's value, or None if the rules forbid it; written without regard to the search."""
    seconds = [(shots.end[i] - shots.start[i]) * shots.tick_s for i in range(first, end)]
    span = (shots.end[end - 1] - shots.start[first]) * shots.tick_s
    gaps = [(shots.start[i] - shots.end[i - 1]) * shots.tick_s for i in range(first + 1, end)]
    short = [s < exact(rules.min_shot_s) for s in seconds]
    clips = [s for s, is_short in zip(seconds, short, strict=True) if not is_short]
    context = [s for s, is_short in zip(seconds, short, strict=True) if is_short]
    fine = (
        all(shots.usable[first:end])
        and exact(rules.min_window_s) <= span <= exact(rules.max_window_s)
        and rules.min_clips <= len(clips) <= rules.max_clips
        and all(s <= exact(rules.max_shot_s) for s in clips)
        and all(g <= exact(rules.max_gap_s) for g in gaps)
        and not short[0]
        and not short[-1]
        and (not context or rules.max_context_share > 0)
        and sum(context) <= exact(rules.max_context_share) * span
    )
    if not fine:
        return None
    ends = 4 - shots.boundaries[first] - shots.boundaries[end]
    inside = sum(b == 2 for b in shots.boundaries[first + 1 : end])
    return Value(int(sum(clips) / shots.tick_s), -(ends + inside), -1)


def best_value(shots, rules):
    """The highest value of any set of disjoint windows, over all such sets."""
    n = len(shots)
    values = {
        (a, b): v
        for a, b in itertools.combinations(range(n + 1), 2)
        if (v := allowed(shots, rules, a, b)) is not None
    }

    def explore(at):
        if at == n:
            yield (0, 0, 0)
            return
        yield from explore(at + 1)
        for (a, b), value in values.items():
            if a == at:
                for rest in explore(b):
                    yield tuple(x + y for x, y in zip(value, rest, strict=True))

    return max(explore(0))


@st.composite
def problems(draw):
    n = draw(st.integers(1, 9))
    ticks = st.integers(1, 90)
    lengths = draw(st.lists(ticks, min_size=n, max_size=n))
    gaps = draw(st.lists(st.sampled_from([0, 0, 0, 3, 40]), min_size=n, max_size=n))
    usable = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=n, max_size=n))
    boundaries = draw(st.lists(st.integers(0, 2), min_size=n + 1, max_size=n + 1))
    low, clips = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rules = Rules(
        min_window_s=low,
        max_window_s=low + draw(st.integers(0, 20)),
        min_shot_s=draw(st.sampled_from([0.5, 1.0, 2.0])),
        max_shot_s=draw(st.sampled_from([4.0, 9.0])),
        min_clips=clips,
        max_clips=clips + draw(st.integers(0, 4)),
        max_context_share=draw(st.sampled_from([0.0, 0.1, 0.5])),
        max_gap_s=draw(st.sampled_from([0.0, 1.0, 5.0])),
    )
    return shots_of(lengths, gaps=gaps, usable=usable, boundaries=boundaries), rules


@settings(max_examples=300, deadline=None)
@given(problems())
def test_no_set_of_windows_is_better(problem):
    shots, rules = problem

    windows = pack(shots, rules)

    values = [allowed(shots, rules, w.first, w.end) for w in windows]
    assert None not in values, "a window breaks the rules"
    assert all(a.end <= b.first for a, b in itertools.pairwise(windows))
    total = tuple(map(sum, zip(*values, strict=True))) if values else (0, 0, 0)
    assert total == best_value(shots, rules)


@settings(max_examples=100, deadline=None)
@given(problems())
def test_possible_windows_are_those_the_rules_allow(problem):
    shots, rules = problem

    found = {(w.first, w.end): v for w, v in possible(shots, rules)}

    n = len(shots)
    wanted = {
        (a, b): v
        for a, b in itertools.combinations(range(n + 1), 2)
        if (v := allowed(shots, rules, a, b)) is not None
    }
    assert found == wanted


# -- single properties --------------------------------------------------------------------------


def test_limits_are_exact():
    """A shot of exactly 5 s and a window of exactly 30 s count, though 0.1 is no binary number."""
    rules = Rules(min_window_s=30, min_shot_s=5)
    tick = Fraction(1, 12800)
    exactly = shots_of([64000] * 6, tick_s=tick)
    below = shots_of([64000] * 5 + [63999], tick_s=tick)

    assert spans(pack(exactly, rules)) == [(0, 6, ())]
    assert pack(below, rules) == []
    assert roles(below, rules)[-1] is Role.TOO_SHORT
    tenth = Rules(min_window_s=0.1, min_shot_s=0.1, min_clips=1)
    assert spans(pack(shots_of([1]), tenth)) == [(0, 1, ())]


def test_scene_boundaries_decide_between_equal_coverage():
    lengths = [100] * 9
    rules = Rules(min_window_s=40, max_window_s=40, min_shot_s=5)
    at_four = shots_of(lengths, boundaries=[2, 1, 1, 1, 2, 1, 1, 1, 1, 2])
    at_five = shots_of(lengths, boundaries=[2, 1, 1, 1, 1, 2, 1, 1, 1, 2])

    assert spans(pack(at_four, rules)) == [(0, 4, ()), (4, 8, ())]
    assert spans(pack(at_five, rules)) == [(0, 4, ()), (5, 9, ())]


def test_seconds_come_before_scenes():
    shots = shots_of([100, 100, 100, 101], boundaries=[2, 1, 1, 2, 2])
    rules = Rules(min_window_s=30, max_window_s=30.1, min_shot_s=5)

    assert spans(pack(shots, rules)) == [(1, 4, ())]


def test_equal_solutions_are_settled_by_length_then_by_time():
    rules = Rules(min_window_s=20, max_window_s=60, min_shot_s=5)
    assert spans(pack(shots_of([100] * 6), rules)) == [(0, 6, ())]

    rules = Rules(min_window_s=20, max_window_s=20, min_shot_s=5)
    assert spans(pack(shots_of([100] * 5, boundaries=[1] * 6), rules)) == [(0, 2, ()), (2, 4, ())]


def test_short_shots_lie_inside_as_context_only():
    rules = Rules(min_window_s=20, max_window_s=60, min_shot_s=5, max_context_share=0.1)
    shots = shots_of([20, 100, 20, 100, 20])

    assert spans(pack(shots, rules)) == [(1, 4, (2,))]
    assert pack(shots, Rules(min_window_s=20, min_shot_s=5)) == []
    assert pack(shots_of([100, 30, 100]), rules) == [], "more than its share"


def test_a_bad_shot_or_a_long_gap_breaks_a_window():
    rules = Rules(min_window_s=20, max_window_s=60, min_shot_s=5, max_gap_s=1)

    assert spans(pack(shots_of([100] * 5, usable=[True, True, False, True, True]), rules)) == [
        (0, 2, ()),
        (3, 5, ()),
    ]
    assert spans(pack(shots_of([100] * 4, gaps=[0, 10, 11, 0]), rules)) == [(0, 2, ()), (2, 4, ())]


def test_no_shots():
    assert pack(shots_of([]), Rules()) == []


def test_rules_refuse_the_impossible():
    with pytest.raises(ValueError, match=r"min_window_s \(70\).*max_window_s"):
        Rules(min_window_s=70)
    with pytest.raises(ValueError, match="max_context_share"):
        Rules(max_context_share=1.0)
    with pytest.raises(ValueError, match="max_gap_s"):
        Rules(max_gap_s=-1)


def test_ten_thousand_shots_are_quick():
    """Windows reach only as far as their longest duration, so the search is linear in the film."""
    shots = shots_of([37, 52, 21, 80, 64] * 2000)
    rules = Rules(**PRESETS["bridged"])

    assert sum(1 for _ in possible(shots, rules)) < 10_000 * 20
    assert len(pack(shots, rules)) > 500


class TestBigBuckBunny:
    """Five minutes with hand-checked cuts: what the presets keep, by exact search."""

    @pytest.fixture
    def shots(self):
        truth = json.loads(shared("annotations/bbb_first300s.cuts.json").read_text())
        cuts = [0, *truth["hard_cuts_first_frame"], truth["frames"]]
        dissolve = next(g["about"] for g in truth["gradual"] if g["shot_boundary"])
        spans = []
        for start, end in itertools.pairwise(cuts):
            inside = start < dissolve[0] < end
            spans += [(start, dissolve[0]), (dissolve[1], end)] if inside else [(start, end)]
        n = len(spans)
        assert n == 76
        starts, ends = [s for s, _ in spans], [e for _, e in spans]
        return Shots(starts, ends, [True] * n, [2, *[1] * (n - 1), 2], Fraction(1, 24))

    @pytest.mark.parametrize(
        ("preset", "seconds"),
        [("paper-text", [40]), ("paper-table", [64, 65]), ("bridged", [64, 63, 62, 61])],
    )
    def test_windows(self, shots, preset, seconds):
        windows = pack(shots, Rules(**PRESETS[preset]))

        lengths = [(shots.end[w.end - 1] - shots.start[w.first]) / 24 for w in windows]
        assert [round(s) for s in lengths] == seconds


def test_window_is_a_value():
    assert Window(1, 3) == Window(1, 3, ())
