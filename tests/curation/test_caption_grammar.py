"""The caption grammar, against its definition and the published scripts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.grammar import (
    compose,
    global_part,
    hidden_characters,
    labels,
    parse_inventory,
    parse_reconstruct_target,
    reconstruct_target,
    split_caption,
)
from curation.captions.lint import LintSettings, lint_caption
from tests.support import SHARED

OFF = LintSettings(strictness="off")

CAST = [("[Person A]", "man in a red coat, with a hat"), ("[Animal B]", "small brown dog")]
words = st.text("abcdefgh ,.'-", min_size=1, max_size=60).map(str.strip).filter(lambda t: t.strip(" ,.'-"))
clean = words.map(lambda t: t.strip(" ,;"))
inventories = st.lists(
    st.tuples(st.sampled_from([f"[Person {c}]" for c in "ABCDEF"]), clean),
    max_size=5,
    unique_by=lambda p: p[0],
)


def test_the_form():
    assert compose(global_part(CAST), "[Person A] walks [Animal B].") == (
        "global caption: [Person A]: man in a red coat, with a hat, [Animal B]: small brown dog; "
        "shot caption: [Person A] walks [Animal B]."
    )
    assert compose("", "An empty street.") == "global caption: ; shot caption: An empty street."


@given(inventories, clean)
def test_taking_apart_gives_back_what_was_put_together(inventory, shot):
    caption = compose(global_part(inventory), shot)
    head, text = split_caption(caption)
    assert text == shot
    assert parse_inventory(head) == inventory
    assert parse_reconstruct_target(reconstruct_target(inventory)) == inventory


@pytest.mark.parametrize(
    "caption",
    [
        "a man walks",
        "shot caption: a man walks",
        "Global caption: x; shot caption: y",
        "global caption: x; Shot caption: y",
        " global caption: x; shot caption: y",
        "global caption: x; shot caption: y shot caption: z",
        "global caption: x global caption: y; shot caption: z",
    ],
)
def test_what_the_trainer_would_not_split_is_refused(caption):
    with pytest.raises(ValueError, match="caption:"):
        split_caption(caption)


@pytest.mark.parametrize(
    ("inventory", "message"),
    [
        ([("Person A", "x")], "not a label"),
        ([("[person a]", "x")], "not a label"),
        ([("[Person A]", "x"), ("[Person A]", "y")], "described twice"),
        ([("[Person A]", " ")], "needs a description"),
        ([("[Person A]", "like [Person B]")], "needs a description"),
        ([("[Person A]", "x shot caption: y")], "marker of the grammar"),
        ([("[Person A]", "x\ny")], "more than one line"),
    ],
)
def test_inventories_that_cannot_be_read_back_are_refused(inventory, message):
    with pytest.raises(ValueError, match=message):
        global_part(inventory)


def test_empty_or_broken_shot_texts_are_refused():
    for text in ("", "  ", "a\nb", "see shot caption: this"):
        with pytest.raises(ValueError, match=r"empty|one line|marker"):
            compose("", text)


def test_labels():
    assert labels("[Person B] and [Person A], [Person B] [nobody] [Group C] [Person AA]") == [
        "[Person B]",
        "[Person A]",
        "[Group C]",
        "[Person AA]",
    ]


def test_hidden_characters():
    assert hidden_characters("caf\u00e9 \u4e2d\u6587 \U0001f600 - \u201cx\u201d") == []
    told = hidden_characters("\x00a\x1b\u202e\u200b\ud800\ue000\u2028\x00")
    assert told == ["U+0000", "U+001B", "U+202E", "U+200B", "U+D800", "U+E000", "U+2028"]
    for text in ("a\x07b", "a\u202eb", "a\ud800b"):
        with pytest.raises(ValueError, match="hidden characters"):
            compose("", text)


def test_published_scripts_are_read():
    folder = SHARED / "data" / "stbench" / "memento"
    if not folder.exists():
        pytest.skip("scripts not present: stbench/memento")
    read = broken = unlike = 0
    for path in sorted(folder.glob("*.json")):
        story = json.loads(path.read_text())
        parse_reconstruct_target(story["reconstruct_target"])
        for scene in story["scenes"]:
            for prompt in scene["video_prompts"]:
                head, shot = split_caption(prompt)
                inventory = parse_inventory(head)
                read += 1
                broken += bool(lint_caption(prompt, settings=OFF))
                unlike += compose(global_part(inventory), shot) != prompt
    # Slips of theirs: a comma for the semicolon, a label without its colon, one without a description.
    assert (read, broken) == (150, 1)
    assert unlike == 5
