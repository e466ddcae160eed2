"""Answers of servers that keep to no schema: values or one clear fault, and keys that tell requests apart."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.answers import (
    MAX_CHARS,
    AnswerError,
    answer_key,
    read_caption,
    read_object,
    read_story,
    storable,
)
from curation.captions.lint import LintSettings
from curation.captions.schemas import caption_schema, story_schema
from curation.models.chat import ChatRequest, Picture, Text, Video

A, B = "[Person A]", "[Animal B]"
LABELS = [A, B]


def test_the_answer_asked_for_is_read():
    text = json.dumps({"subjects": {B: "a  dog", A: "a man\n"}, "story": " It\nrains. "})
    assert read_story(text, LABELS) == ("It rains.", [(A, "a man"), (B, "a dog")])
    assert read_caption('{"caption": "A \\u00e9t\\u00e9."}') == "A \u00e9t\u00e9."


@pytest.mark.parametrize(
    "around",
    [
        "@",
        "```json\n@\n```",
        "Here is the caption {as asked}:\n@\nI hope that helps! :-}",
        "<think>A set {1, 2} of things</think>@",
        "\ufeff@",
    ],
)
def test_words_and_fences_around_the_object_are_forgiven(around):
    one = '{"caption": "A {curly} dog."}'
    assert read_caption(around.replace("@", one)) == "A {curly} dog."
    with pytest.raises(AnswerError, match="more than one JSON object"):
        read_caption(around.replace("@", one + one))


def test_other_forms_of_an_inventory_are_forgiven():
    listed = {"story": "x", "subjects": [{"label": "Animal B", "description": "a dog"}]}
    assert read_story(json.dumps(listed), LABELS) == ("x", [(B, "a dog")])
    assert read_story('{"story": "x"}', []) == ("x", [])
    unknown = {"story": "x", "subjects": {"[Person Z]": "a man", B: "a dog"}}
    assert read_story(json.dumps(unknown), LABELS)[1] == [(B, "a dog"), ("[Person Z]", "a man")]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the answer is empty"),
        (" \n\t", "the answer is empty"),
        ("No.", "no complete JSON object with `caption`: No."),
        ('{"caption": "A dog', "no complete JSON object"),
        ('{"caption": "A dog",}', "no complete JSON object"),
        ("[1, 2]", "no complete JSON object"),
        ('{"text": "A dog"}', "no complete JSON object with `caption`"),
        ('{"caption": "a", "caption": "b"}', "the key caption twice"),
        ('{"caption": "a", "mood": "b"}', "the unknown key mood: use only `caption`"),
        ('{"caption": null}', "`caption` must be text, not an object or null"),
        ('{"caption": 3}', "`caption` must be text, not a number"),
        ('{"caption": true}', "`caption` must be text, not a truth value"),
        ('{"caption": ["a"]}', "`caption` must be text, not a list"),
        ('{"caption": {"a": "b"}}', "`caption` must be text, not an object"),
        ('{"caption": "a \ufffd b"}', "`caption` holds characters that are no text"),
        ("x" * (MAX_CHARS + 1), f"longer than {MAX_CHARS} characters"),
        ("{" * MAX_CHARS, "no complete JSON object"),
        ('{"a":' * 4000, "no complete JSON object"),
        ('{"caption":' + "[" * 15_000, "no complete JSON object"),
    ],
)
def test_everything_else_is_one_short_clear_fault(text, fault):
    with pytest.raises(AnswerError) as raised:
        read_caption(text)
    assert fault in str(raised.value)
    assert len(str(raised.value)) < 200
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("subjects", "fault"),
    [
        ('"none"', "`subjects` must be an object with a description for each label"),
        ("[1]", "`subjects` must be an object"),
        ('[{"label": "[Person A]"}]', "`subjects` must be an object"),
        ('{"[Person A]": 5}', "the description of [Person A] must be text, not a number"),
        ('{"[Person A]": "a", "[Person A]": "b"}', "the key [Person A] twice"),
    ],
)
def test_a_damaged_inventory_is_a_fault(subjects, fault):
    with pytest.raises(AnswerError) as raised:
        read_story(f'{{"story": "x", "subjects": {subjects}}}', LABELS)
    assert fault in str(raised.value)
    with pytest.raises(AnswerError, match="lacks `story`"):
        read_story('{"subjects": {}}', LABELS)


@given(st.text(st.characters(), max_size=300))
def test_no_text_breaks_the_reader_or_what_is_kept(text):
    try:
        found = read_object(text, {"caption"}, set())
    except AnswerError as error:
        storable(str(error)).encode()
    else:
        assert set(found) == {"caption"}
    kept = storable(text)
    kept.encode()
    assert len(kept) == len(text)
    assert storable(kept) == kept


# -- schemas ----------------------------------------------------------------------------------------


def test_the_schema_demands_every_label_and_bounds_every_text():
    lint = LintSettings()
    schema = story_schema(LABELS, lint)
    assert list(schema["properties"]) == ["subjects", "story"]  # who is who comes before what happens
    assert schema["properties"]["subjects"]["required"] == LABELS
    assert schema["properties"]["subjects"]["additionalProperties"] is False
    assert schema["properties"]["story"]["maxLength"] > lint.story_max_chars
    assert list(story_schema([], lint)["properties"]) == ["story"]
    assert caption_schema(100)["properties"]["caption"]["maxLength"] == 125


# -- keys -------------------------------------------------------------------------------------------

MODEL = {"backend": "test", "model": "m", "revision": "1", "sampling": {"temperature": 0.0}}


def frames(value=0, number=2):
    return np.full((number, 32, 32, 3), value, np.uint8)


def asked(**more):
    made = ChatRequest(
        system="s",
        prefix=(Video(frames(), 2.0), Text("facts")),
        question=(Text("why?"),),
        schema=caption_schema(100),
        max_tokens=10,
    )
    return replace(made, **more)


def test_equal_requests_share_a_key_and_any_difference_parts_them():
    assert answer_key(asked(), MODEL) == answer_key(asked(), dict(MODEL))
    picture = Picture(frames()[0])
    others = [
        asked(system="t"),
        asked(prefix=(Video(frames(1), 2.0), Text("facts"))),
        asked(prefix=(Video(frames(), 4.0), Text("facts"))),
        asked(prefix=(Video(frames(number=4), 2.0), Text("facts"))),
        asked(prefix=(Video(frames(), 2.0), Text("other facts"))),
        asked(prefix=(Text("facts"), Video(frames(), 2.0))),
        asked(prefix=(Video(frames(), 2.0),), question=(Text("facts"), Text("why?"))),
        asked(question=(Text("who?"),)),
        asked(question=(picture, Text("why?"))),
        asked(schema={}),
        asked(max_tokens=11),
    ]
    keys = {answer_key(one, MODEL) for one in [asked(), *others]}
    for name, value in (("backend", "x"), ("model", "x"), ("revision", "x"), ("sampling", {"seed": 1})):
        keys.add(answer_key(asked(), {**MODEL, name: value}))
    assert len(keys) == 1 + len(others) + 4


def test_names_of_media_are_made_once():
    video = Video(frames(), 2.0)
    before = video.name
    video.frames_thwc_u8[:] = 9
    assert video.name == before  # hashing tens of megabytes for every call of a sequence would show
