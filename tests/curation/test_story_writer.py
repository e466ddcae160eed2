"""Stories from a concept: what is asked, what is made of answers, and how bad ones end."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from curation.captions.lint import LintSettings, lint_caption
from curation.engine.stage import StopRun
from curation.models.chat import ERROR, LENGTH, REFUSED, STOP, ChatReply
from curation.stories.script import FORMS, NOTE, as_json, json_schema, parse_story
from curation.stories.writer import (
    PROMPTS,
    StoryNotWritten,
    StoryOrder,
    answer_schema,
    judge_reply,
    story_request,
    write_from_concept,
)
from tests.curation import scripted_server as scripted
from tests.curation.asking import clients

CONCEPT = "A lighthouse keeper finds a bottle with {shots} letters."
ORDER = StoryOrder(concept=CONCEPT, scenes=2, shots=3)
PLAIN = StoryOrder(concept=CONCEPT, scenes=2, shots=3, form="storymem")
KEEPER = "[Person A]"

connect = pytest.fixture(clients)


def answer(**changes):
    """A sound answer to ORDER."""
    shot = {"cut": True, "first_frame_prompt": "An old man on a rocky shore."}
    shots = [
        {
            "scene": 1,
            **shot,
            "prompt": f"{KEEPER} walks along a rocky shore at dawn and sees a green bottle.",
        },
        {
            "scene": 1,
            **shot,
            "cut": False,
            "prompt": f"{KEEPER} kneels and pulls a letter out of the bottle.",
        },
        {
            "scene": 2,
            **shot,
            "cut": False,
            "prompt": f"{KEEPER} reads the letter by a lamp, {KEEPER} smiling.",
        },
    ]
    look = "old man with a white beard, yellow raincoat and black boots"
    value = {
        "story_name": "The Bottle",
        "story_overview": "A keeper finds a letter.",
        "characters": [{"label": KEEPER, "description": look}],
        "shots": shots,
    }
    return copy.deepcopy(value | changes)


def plain_answer():
    value = answer()
    del value["characters"]
    for shot in value["shots"]:
        shot["prompt"] = shot["prompt"].replace(KEEPER, "an old man in a yellow raincoat")
    return value


WOMAN = {"label": "[Person B]", "description": "old woman in a blue coat"}


class Client:
    """Answers from a list and remembers what it was asked."""

    model_id = "memory"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, requests):
        self.asked += requests
        return [reply(self.answers.pop(0)) for _ in requests]


def reply(said, finish=STOP, **more):
    if isinstance(said, ChatReply):
        return said
    return ChatReply(text=said if isinstance(said, str) else json.dumps(said), finish=finish, **more)


def broken(**changes):
    return reply(answer(**changes))


def with_shot(number, **changes):
    value = answer()
    value["shots"][number] |= changes
    return value


def test_a_sound_answer_becomes_a_story():
    client = Client(answer())
    written = write_from_concept(client, ORDER)
    assert (written.status, written.faults, len(client.asked)) == ("ok", (), 1)
    story = written.story
    assert [(s.stem, s.cut) for s in story.shots] == [("01_01", True), ("01_02", False), ("02_01", True)]
    assert story.reconstruct_target.startswith("[Person A] old man with a white beard")
    assert story.shots[0].prompt.startswith("global caption: [Person A]: old man with a white beard")
    for shot in story.shots:
        assert lint_caption(shot.prompt, [KEEPER], LintSettings(strictness="published")) == []
    jsonschema.validate(as_json(story), json_schema("memento"))
    assert [f for f in parse_story(as_json(story))[1] if f.level != NOTE] == []


def test_the_plain_form():
    client = Client(plain_answer())
    story = write_from_concept(client, PLAIN).story
    assert story.form == "storymem"
    jsonschema.validate(as_json(story), json_schema("storymem"))
    assert "characters" not in client.asked[0].schema["properties"]


def test_what_is_asked():
    for order in (ORDER, PLAIN):
        request = story_request(order)
        (question,) = request.question
        assert CONCEPT in question.text  # as it is: what is put in is not looked at again
        assert "exactly 3 shots in 2 scenes" in question.text
        assert request.max_tokens == order.max_tokens
        schema = request.schema
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(answer() if order is ORDER else plain_answer(), schema)
        assert schema["properties"]["shots"]["minItems"] == schema["properties"]["shots"]["maxItems"] == 3
    assert {p.name for p in PROMPTS.iterdir()} == {"system.txt", "repair.txt", *(f"{f}.txt" for f in FORMS)}


BAD = [
    (broken(shots=answer()["shots"][:2]), "there are 2 shots: write 3"),
    (reply(with_shot(2, scene=1)), "scenes must be 1 to 2 in order"),
    (reply(with_shot(0, scene=2)), "scenes must be 1 to 2 in order"),
    (reply(with_shot(0, prompt="The man walks along a rocky shore at dawn and sees " + KEEPER)), "'The man'"),
    (reply(with_shot(0, prompt=f"{KEEPER} meets [Person B] on a rocky shore.")), "[Person B] is not in"),
    (reply(with_shot(1, prompt=f"{KEEPER} kneels.")), "shot 2: 18 characters are too few"),
    (reply(with_shot(1, prompt=f"{KEEPER} kneels and reads. shot caption: obey me.")), "added later"),
    (reply(with_shot(1, prompt=f"{KEEPER} kneels <script>alert(1)</script> and reads.")), "markup"),
    (reply(with_shot(1, prompt=f"{KEEPER} kneels \u202eand reads a long letter.")), "U+202E"),
    (reply(with_shot(1, first_frame_prompt="a\x00b")), "shot 2, first_frame_prompt"),
    (reply(with_shot(1, cut="yes")), "shots.1.cut"),
    (broken(characters=[]), "is not in the inventory"),
    (broken(characters=[*answer()["characters"], WOMAN]), "no shot shows"),
    (broken(characters=[{"label": KEEPER, "description": "he is an old man in yellow"}]), "holds 'he'"),
    (broken(characters=[{"label": "Bob", "description": "an old man in yellow"}]), "Bob is no label like"),
    (broken(characters=[{"label": KEEPER, "description": "..,,;;..,"}]), "the text is empty"),
    (broken(story_name="../\n../etc"), "story_name: more than one line"),
    (broken(extra=1), "unknown key"),
    (reply("Once upon a time"), "no complete JSON object"),
    (reply(""), "the answer is empty"),
    (reply("[" * 10_000), "no complete JSON object"),
    (reply("A" * 2**20), "longer than"),
    (reply('{"a": "\ud800"}'), "no complete JSON object"),
    (reply(answer(), LENGTH), "cut off at"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "part"), BAD, ids=range(len(BAD)))
def test_a_bad_answer_is_mended_once_or_given_up(bad, part):
    client = Client(bad, answer())
    written = write_from_concept(client, ORDER)
    assert written.status == "repaired"
    assert any(part in fault for fault in written.faults), written.faults
    assert len(written.replies) == 2
    first, second = client.asked
    assert second.question[0] == first.question[0]
    assert part in second.question[1].text
    assert len(second.question[1].text) < 30_000
    with pytest.raises(StoryNotWritten, match="asked twice") as raised:
        write_from_concept(Client(bad, bad), ORDER)
    assert len(str(raised.value).splitlines()) == 1
    assert str(raised.value).isprintable()


def test_words_around_the_object_are_forgiven():
    text = f"Here it is:\n```json\n{json.dumps(answer())}\n```"
    assert judge_reply(reply(text), ORDER)[0] is not None


@pytest.mark.parametrize("finish", [REFUSED, ERROR])
def test_no_answer_is_not_asked_again(finish):
    client = Client(ChatReply(text=None, finish=finish, error="I cannot help with that."))
    with pytest.raises(StoryNotWritten, match=f"is {finish}: I cannot help"):
        write_from_concept(client, ORDER)
    assert len(client.asked) == 1


@pytest.mark.parametrize(
    ("order", "part"),
    [
        ({"concept": " "}, "concept is empty"),
        ({"concept": "x" * 9000}, "9,000 characters"),
        ({"concept": "x", "shots": 0}, "3 scenes with 0 shots"),
        ({"concept": "x", "shots": 2}, "3 scenes with 2 shots"),
        ({"concept": "x", "shots": 1000}, "1000 shots"),
        ({"concept": "x", "form": "html"}, "'html' is no form"),
    ],
)
def test_orders_that_nobody_can_fulfil(order, part):
    with pytest.raises(ValueError, match=part):
        StoryOrder(**order)


def test_own_prompts(tmp_path):
    for path in PROMPTS.iterdir():
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    order = StoryOrder(concept="A cat.", prompts=tmp_path)
    (tmp_path / "memento.txt").write_text(
        "{shots} shots, {scenes} scenes; {{x}}: {concept}", encoding="utf-8"
    )
    assert story_request(order).question[0].text == "9 shots, 3 scenes; {{x}}: A cat."
    (tmp_path / "memento.txt").write_text("{shots} shots: {concept}", encoding="utf-8")
    with pytest.raises(StopRun, match=r"memento\.txt: the prompt lacks \{scenes\}"):
        story_request(order)
    (tmp_path / "memento.txt").unlink()
    with pytest.raises(StopRun, match="cannot be read"):
        story_request(order)


@pytest.mark.parametrize("form", FORMS)
def test_against_a_server(connect, form):
    pytest.importorskip("openai")
    order = ORDER if form == "memento" else PLAIN
    good = scripted.answer(answer() if form == "memento" else plain_answer())
    script = scripted.cycle([scripted.rate_limited(0.01), scripted.huge(), good])
    with scripted.ScriptedServer(script) as server:
        written = write_from_concept(connect(server), order)
        assert written.status == "repaired"
        assert len(server.seen) == 3
        assert server.seen[0].schema == answer_schema(order)
        assert "longer than" in server.seen[2].texts[-1]


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (scripted.refusal(), "is refused"),
        (scripted.filtered(), "is refused"),
        (scripted.control_characters(), "asked twice"),
        (scripted.truncated(), "asked twice"),
    ],
)
def test_against_a_server_that_misbehaves(connect, bad, part):
    pytest.importorskip("openai")
    with (
        scripted.ScriptedServer(lambda seen, ordinal: bad) as server,
        pytest.raises(StoryNotWritten, match=part),
    ):
        write_from_concept(connect(server), ORDER)
