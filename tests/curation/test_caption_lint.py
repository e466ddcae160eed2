"""Each rule of the caption linter, and what the rules together let pass and refuse."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.captions.facts import Seen, Shot, Subject
from curation.captions.grammar import compose, global_part
from curation.captions.lint import (
    ENDLESS,
    MAX_FAULTS,
    Fault,
    LintSettings,
    grammar_faults,
    inventory_faults,
    language_faults,
    length_faults,
    lint_caption,
    lint_recon,
    lint_shot,
    lint_story,
    prominence_in,
    undefined_labels,
    unmentioned_subjects,
    unseen_labels,
    vague_faults,
)

A, B, DOG = "[Person A]", "[Person B]", "[Animal A]"
CAST = [
    (A, "young man with dark hair, grey coat"),
    (B, "woman in a red coat"),
    (DOG, "small brown dog with a collar"),
]
PUBLISHED, OFF = LintSettings(strictness="published"), LintSettings(strictness="off")
GOOD = (
    f"{A} walks along the harbour wall at dusk and stops beside {B}, who holds a letter. Gulls circle above "
    "their heads in the wind."
)


def rules(faults):
    return [fault.rule for fault in faults]


def test_labels_must_be_defined():
    (fault,) = undefined_labels(f"{A} meets [Person Z] and [Person Z].", CAST)
    assert fault == Fault("undefined", f"[Person Z] is not in the inventory; the labels are {A}, {B}, {DOG}")
    assert undefined_labels(f"{A} meets {B}.", CAST) == []
    assert "no labels here" in undefined_labels(A, [])[0].text


def test_labels_must_be_seen():
    text = f"{A} calls {B} and [Person Z]."
    (fault,) = unseen_labels(text, [A], CAST)
    assert fault.rule == "unseen"
    assert B in fault.text
    assert unseen_labels(text, [A, B], CAST) == []


def test_prominent_subjects_must_be_named():
    shares = {A: 0.3, B: 0.05, DOG: 0.01}
    assert rules(unmentioned_subjects("An empty street.", shares, 0.05)) == ["unmentioned"] * 2
    assert A in unmentioned_subjects("An empty street.", shares, 0.05)[0].text  # the largest first
    assert unmentioned_subjects(f"{A} and {B} wait.", shares, 0.05) == []
    assert unmentioned_subjects("An empty street.", {}, 0.0) == []


def test_vague_words_by_strictness():
    text = f"{A} lifts the letter. He reads it. The woman waits."
    lines = [fault.text for fault in vague_faults(text, CAST[:2])]
    assert lines == [
        f"'He' leaves open who is meant: write {A}",
        f"'The woman' leaves open who is meant: write {B}",
    ]
    assert [f.text for f in vague_faults(text, CAST[:2], PUBLISHED)] == lines[1:]
    early = f"As he turns, {A} sees the ship."
    assert rules(vague_faults(early, CAST[:1], PUBLISHED)) == ["vague"]  # before any label
    assert len(vague_faults(f"{A}: he, he, he.", CAST[:1])) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("one\ntwo", "more than one line"),
        ("one\u2028two", "more than one line"),
        ("a\x07b", "U+0007"),
        ("a\u202eb", "U+202E"),
        ("a\ud800b", "U+D800"),
        ("a\u200bb", "U+200B"),
        ("see shot caption: this", "leave"),
        ("Global Caption : this", "leave"),
        ("a <b>bold</b> man", "markup"),
        ("</script><script>alert(1)</script>", "markup"),
        ("**bold**", "markup"),
        ("```json", "markup"),
        ("# Title", "markup"),
        ("a [link](http://x)", "markup"),
        ("a &lt; b", "markup"),
        ("[[Person A]] waits", "square brackets"),
        ("[person a] waits", "square brackets"),
        ("[Person A waits", "square brackets"),
        ("a shot [wide]", "square brackets"),
    ],
)
def test_what_the_grammar_refuses(text, part):
    faults = grammar_faults(text)
    assert any(part in fault.text for fault in faults), faults
    assert all(fault.rule == "grammar" and len(fault.text.splitlines()) == 1 for fault in faults)


def test_what_the_grammar_lets_pass():
    for text in (
        GOOD,
        "3 < 4 men & 2 dogs; it's 50 % \u201cold\u201d caf\u00e9, 5 o'clock - na\u00efve!",
        f"{A}'s hat",
    ):
        assert grammar_faults(text) == []


@pytest.mark.parametrize(
    "text",
    [
        f"{A}\u8d70\u8fdb\u5c71\u8c37\uff0c\u4ed6\u671b\u7740\u8fdc\u5904\u7684\u6cb3\u6d41\u3002",
        f"{A} walks through the valley. \u0417\u0430\u043a\u0430\u0442 \u0441\u043e\u043b\u043d\u0446\u0430.",
        f"{A} geht langsam durch das Tal und bleibt an dem Fluss stehen. Er lacht, waehrend die Sonne hinter "
        "den Bergen untergeht und es dunkel wird.",
        f"{A} marche lentement dans la vallee et s'arrete au bord de la riviere, tandis que le soleil se "
        "couche derriere les montagnes.",
    ],
    ids=["chinese", "mixed", "german", "french"],
)
def test_captions_are_english(text):
    """A model that falls into another language writes pronouns that no rule sees."""
    assert rules(language_faults(text)) == ["language"]
    assert "language" in rules(lint_shot(text, CAST, {A: 0.5}))
    assert "language" in rules(lint_story(text, CAST))
    assert "language" in rules(lint_recon(text, CAST, A))
    assert "language" in rules(lint_caption(compose(global_part(CAST[:1]), text)))
    assert "language" not in rules(lint_shot(text, CAST, {A: 0.5}, OFF))


def test_what_is_english_enough():
    for text in (
        GOOD,
        f"{A} reads a sign, '\u6771\u4eac\u30bf\u30ef\u30fc \u5c55\u671b\u53f0', beside the caf\u00e9.",
        f"A neon sign, \u6771\u4eac, glows red above {A} and {B}, who wait for the last bus in heavy rain, a "
        "small bag between their feet, and look along the empty street.",
        "Slow dolly shot, cold light.",
        "",
    ):
        assert language_faults(text) == []
    (fault,) = inventory_faults([(A, "\u7a7f\u7ea2\u8272\u5916\u5957\u7684\u5e74\u8f7b\u7537\u5b50")], [A])
    assert (fault.rule, f"description of {A}" in fault.text) == ("language", True)


@settings(max_examples=50)
@given(st.text(max_size=300))
def test_any_text_is_judged_in_one_printable_line_each(text):
    for fault in (*grammar_faults(text), *lint_shot(text, CAST, {A: 0.5}), *lint_caption(text)):
        assert str(fault).isprintable()
        assert len(str(fault)) < 400


def test_inventories():
    labels = [label for label, _ in CAST]
    assert inventory_faults(CAST, labels) == []
    assert "has no description" in inventory_faults(CAST[:2], labels)[0].text
    assert "is no label of this sequence" in inventory_faults(CAST, labels[:2])[0].text

    def one(description, settings=None):
        return inventory_faults([(A, description)], [A], settings or LintSettings())

    assert rules(one("")) == ["grammar"]
    assert rules(one("man with his dog, it barks")) == ["vague", "vague"]
    assert rules(one("man with his dog", OFF)) == []
    assert rules(one("friend of [Person B]")) == ["inventory"]
    assert rules(one("man")) == ["length"]
    assert rules(one("man in a coat " * 30)) == ["length"]
    assert rules(one("man in a\nred coat")) == ["grammar"]
    twins = [(A, "Man in a red coat."), (B, "man in a red  coat")]
    assert "same description" in inventory_faults(twins, [A, B])[0].text
    assert inventory_faults(twins, [A, B], OFF) == []
    twice = [(A, "man in a red coat"), (A, "woman in a blue coat")]
    assert "described twice" in inventory_faults(twice, [A])[0].text


def test_lengths():
    assert length_faults("abc", 3, 3) == []
    assert length_faults("  ab ", 3, 9)[0].text == "2 characters are too few: write at least 3"
    assert length_faults("abcd", 1, 3)[0].text == "4 characters are too many: write at most 3"
    assert length_faults("", 3, 9) == []  # the grammar says that it is empty


def test_a_sound_shot_passes():
    assert lint_shot(GOOD, CAST, {A: 0.2, B: 0.1}) == [
        Fault("vague", f"'their' leaves open who is meant: write {A} or {B}")
    ]
    sound = GOOD.replace("their heads", "the wall")
    assert lint_shot(sound, CAST, {A: 0.2, B: 0.1}) == []
    assert rules(lint_shot(sound, CAST, {A: 0.2})) == ["unseen"]
    assert rules(lint_shot(sound, CAST, {A: 0.2, B: 0.1, DOG: 0.4})) == ["unmentioned"]
    assert rules(lint_shot(sound, CAST[:1], {A: 0.2})) == ["undefined"]
    assert rules(lint_shot("x", CAST, {})) == ["length"]


def test_off_refuses_only_what_cannot_be_kept():
    assert lint_shot("He.", CAST, {A: 1.0, B: 1.0}, OFF) == []
    assert lint_story("He.", CAST, OFF) == []
    assert lint_recon("He.", CAST, A, [], OFF) == []
    assert rules(lint_shot("[Person Z]\x00", CAST, {}, OFF)) == ["grammar", "undefined"]


def test_stories_and_targets():
    story = (
        f"{A} looks for {B} in a harbour town, finds a letter, and follows {DOG} to the lighthouse at night."
    )
    assert lint_story(story, CAST) == []
    assert rules(lint_story(story + " She laughs.", CAST)) == ["vague"]
    target = f"{A}, young man with dark hair, grey coat, stands on the left facing the sea."
    assert lint_recon(target, CAST, A) == []
    assert rules(lint_recon(target, CAST, B, [A])) == ["unmentioned"]
    assert rules(lint_recon(target, CAST, B)) == ["unseen", "unmentioned"]


def test_whole_captions():
    caption = compose(global_part(CAST[:2]), f"{A} sees {B}.")
    assert lint_caption(caption) == lint_caption(caption, [A, B]) == []
    assert lint_caption("a man walks")[0].text.startswith("no leading")
    assert rules(lint_caption(caption, [A])) == ["unseen"]
    undefined = compose(global_part(CAST[:1]), f"{A} sees [Person C].")
    assert rules(lint_caption(undefined)) == ["undefined"]
    vague = compose(global_part(CAST[:1]), "He walks.")
    assert rules(lint_caption(vague)) == rules(lint_caption(vague, settings=PUBLISHED)) == ["vague"]
    assert lint_caption(vague, settings=OFF) == []
    after = compose(global_part(CAST[:1]), f"{A} stops. He waits.")
    assert lint_caption(after, settings=PUBLISHED) == []
    assert rules(lint_caption(f"{caption}\u202e")) == ["grammar"]


@pytest.mark.parametrize(
    "text",
    [
        "A" * 2**20,
        "[" * 2**20,
        "he \u201c" * 2**18,
        "it is " + "very " * 2**18,
        "<a" * 2**19,
        "\u202e" * 2**20,
        "[Person A] " * 2**17,
        "a\n" * 2**19,
    ],
    ids=["letters", "brackets", "quotes", "it", "tags", "marks", "labels", "lines"],
)
def test_a_megabyte_is_refused_at_once(text):
    start = time.perf_counter()
    judged = [lint_story(text, CAST), lint_shot(text, CAST, {A: 1.0}), lint_recon(text, CAST, A)]
    judged += [lint_shot(text, CAST, {}, OFF), lint_caption(text)]
    judged += [inventory_faults([(A, text)], [A]), grammar_faults(text)]
    short = text[:ENDLESS]
    judged += [lint_shot(short, CAST, {A: 1.0, B: 1.0}), lint_caption(short)]
    assert time.perf_counter() - start < 10  # a rule of quadratic cost would take hours
    for faults in judged[:6]:
        assert rules(faults) == ["length"]
    assert all(len(faults) <= MAX_FAULTS for faults in judged)


def test_settings_say_what_cannot_be():
    with pytest.raises(ValueError, match="min_prominence: 2"):
        LintSettings(min_prominence=2)
    with pytest.raises(ValueError, match="shot_min_chars: 900 must be"):
        LintSettings(shot_min_chars=900)
    for field in dataclasses.fields(LintSettings):
        assert f"        {field.name}: " in (LintSettings.__doc__ or "")


def test_prominence_is_time_times_picture():
    def seen(label, area, first_s, last_s):
        subject = Subject(
            subject_id=label, label=label, class_name="person", is_primary=True, colours=(), screen_time_s=1
        )
        return Seen(
            subject=subject, area=area, height=0.5, x=0.5, y=0.5, start=(0, 0), end=(0, 0), growth=1.0,
            first_s=first_s, last_s=last_s,
        )  # fmt: skip

    cast = (seen(A, 0.4, 0.0, 5.0), seen(B, 0.4, 1.0, 2.0))
    shot = Shot(clip_index=0, number=1, duration_s=5.0, seen=cast, looks=())
    assert prominence_in(shot) == {A: pytest.approx(0.4), B: pytest.approx(0.08)}
