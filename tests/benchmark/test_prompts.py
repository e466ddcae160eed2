from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.prompts import audit, text_pieces, visibility, windows
from benchmark.stories import load_stories
from tests.benchmark import made
from tests.support import shared


def words(text):
    """A tower that reads words: numbers that are the same in every run."""
    return [sum(map(ord, word)) for word in text.split()]


def test_what_is_read_of_a_prompt():
    prompt = "global caption: [Person A]: a tall man; shot caption: he runs away"
    # 9 words up to the marker's end, 3 after it
    assert visibility(prompt, words, 30).share == 1
    assert visibility(prompt, words, 10).shot_seen == 1
    assert visibility(prompt, words, 9).shot_seen == 0
    assert visibility(prompt, words, 6).seen == 6
    assert visibility("it rains", words, 1).shot_seen is None
    assert visibility("", words).share == 1


def test_shots_that_are_the_same_text_are_said():
    story = made.story(layout=(3,), prompts=["a b c d", "a b c e", "x y z w"], overview="one two three four")
    found = audit(story, words, 3)
    assert found.distinct == 2
    assert [[k.stem for k in group] for group in found.alike] == [["01_01", "01_02"]]
    assert found.overview.seen == 3
    assert found.scenes[1].tokens == 12
    assert found.lines("tale") == [
        "tale: 3 of 3 prompts are cut, 75% is read",
        "tale: the same text to the encoder: 01_01, 01_02",
    ]
    assert audit(story, words, 9).lines("tale") == []


@given(st.text(alphabet="ab .!;", max_size=80), st.integers(1, 9))
def test_windows_hold_every_word_once_and_fit(text, limit):
    pieces = windows(text, words, limit)
    assert " ".join(pieces).split() == text.split()
    assert all(len(words(piece)) <= limit for piece in pieces)


def test_text_modes():
    prompt = "global caption: [Person A]: a man; shot caption: One two. Three."
    assert text_pieces(prompt, "truncate", words) == [prompt]
    assert text_pieces(prompt, "shot-part", words) == ["One two. Three."]
    assert text_pieces("One two. Three.", "windows", words, 2) == ["One two.", "Three."]
    with pytest.raises(ValueError, match="is no text mode"):
        text_pieces(prompt, "all", words)


@pytest.mark.slow
def test_the_benchmark_as_viclip_reads_it():
    tokenizer = pytest.importorskip("open_clip.tokenizer")
    encode = tokenizer.SimpleTokenizer().encode
    rewritten, _ = load_stories([shared("stbench/memento")])
    audits = [audit(story, encode) for story in rewritten.values()]
    assert sum(bool(v.shot_seen) for a in audits for v in a.shots.values()) == 22
    assert sum(a.distinct for a in audits) == 40
    assert sum(a.distinct == 1 for a in audits) == 7
    original, _ = load_stories([shared("stbench/storymem")])
    audits = [audit(story, encode) for story in original.values()]
    assert sum(v.seen < v.tokens for a in audits for v in a.shots.values()) == 295
    shares = [v.share for a in audits for v in a.scenes.values()]
    assert sum(shares) / len(shares) == pytest.approx(0.21, abs=0.005)
