"""What is sent and understood, without a client: stamps, pictures, verdicts on errors, the server's card."""

from __future__ import annotations

import gc
import io
import json

import numpy as np
import pytest

from curation.config import SettingsError, build
from curation.models import openai_messages as wire
from curation.models.chat import STOP, ChatReply, ChatRequest, Picture, Text, Video
from curation.models.endpoint import EndpointSettings
from curation.models.openai_messages import BAD, DECLINED, FATAL, FREE, OBJECT, RETRY, Dialect, PartEncoder
from tests.curation import scripted_server as scripted


def test_time_stamps_are_the_middles_of_pairs():
    assert wire.time_stamps(4, 2.0) == ["<0.2 seconds>", "<1.2 seconds>"]
    assert wire.time_stamps(3, 1.0) == ["<0.5 seconds>", "<2.0 seconds>"]  # the last frame stands twice
    assert wire.time_stamps(6, 4.0) == ["<0.1 seconds>", "<0.6 seconds>", "<1.1 seconds>"]


def test_jpeg_keeps_colours_that_halved_chroma_would_mix():
    import base64

    from PIL import Image

    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    file = io.BytesIO(base64.b64decode(wire.encode_picture(stripes, "jpeg", 95)))
    there = np.asarray(Image.open(file)).astype(int)
    assert np.abs(there - stripes).mean() < 8


def test_a_part_is_encoded_once_while_it_lives(monkeypatch):
    made = []
    real = wire.encode_picture
    monkeypatch.setattr(wire, "encode_picture", lambda *a: made.append(1) or real(*a))
    encoder = PartEncoder("images", "jpeg", 95)
    video = Video(np.zeros((4, 32, 32, 3), np.uint8), 2.0)
    first = encoder.content((video, Text("a")))
    assert encoder.content((video, Text("b")))[:-1] == first[:-1]
    assert len(made) == 4
    del video
    gc.collect()
    assert len(encoder._kept) == 0


def test_videos_of_two_rates_have_no_room_in_one_request():
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"2\.0, 4\.0"):
        wire.video_options((Video(frames, 2.0), Text("x"), Video(frames, 4.0)))
    assert wire.video_options((Picture(frames[0]),)) == {}


def test_a_schema_that_cannot_be_enforced_is_told_in_words_last_of_all():
    request = ChatRequest(system="S", schema={"type": "object"})
    content = [{"type": "text", "text": "Q"}]
    plain = wire.messages(request, content, Dialect())
    told = wire.messages(request, content, Dialect(answers=OBJECT))
    assert plain[1]["content"] == content
    assert told[1]["content"][:-1] == content
    assert "JSON" in told[1]["content"][-1]["text"]
    assert '{"type": "object"}' in told[1]["content"][-1]["text"]
    assert wire.answer_format(request.schema, Dialect(answers=OBJECT)) == {
        "response_format": {"type": "json_object"}
    }
    assert wire.answer_format(request.schema, Dialect(answers=FREE)) == {}


@pytest.mark.parametrize(
    ("status", "message", "code", "kind"),
    [
        (400, "bad request", None, BAD),
        (400, "prompt too long", "context_length_exceeded", BAD),
        (422, "field required", None, BAD),
        (400, "filtered", "content_filter", DECLINED),
        (403, "Your input was flagged", None, DECLINED),
        (401, "no", None, FATAL),
        (402, "pay", None, FATAL),
        (403, "no", None, FATAL),
        (404, "no", None, FATAL),
        (400, "no", "model_not_found", FATAL),
        (400, "Per-request media_io_kwargs are disabled by default", None, FATAL),
        (429, "You exceeded your current quota", "insufficient_quota", FATAL),
        (429, "slow down", None, RETRY),
        (408, "", None, RETRY),
        (500, "", None, RETRY),
        (503, "", None, RETRY),
        (529, "overloaded", None, RETRY),
    ],
)
def test_http_errors_are_judged_by_status_and_words(status, message, code, kind):
    body = {"error": {"message": message, "code": code}}
    trouble = wire.judge(status, body, 1.5)
    assert trouble.kind == kind
    assert trouble.limited == (status == 429)
    assert str(status) in trouble.why
    assert message in trouble.why


@pytest.mark.parametrize(
    "body",
    [None, "", "<html>\n<b>down</b>", {"message": "x"}, {"detail": [{"msg": "y"}]}, {"error": "z"}, ["w"], 3],
)
def test_error_bodies_of_any_form_make_one_line(body):
    why = wire.judge(500, body, None).why
    assert why.startswith("HTTP 500")
    assert "\n" not in why
    assert len(why) < 400


def test_refused_fields_are_changed_one_at_a_time():
    first = Dialect()
    second = first.milder("response_format of type json_schema is unavailable")
    third = second.milder("'response_format.type' must be text")
    assert [d.answers for d in (first, second, third)] == ["json_schema", OBJECT, FREE]
    assert third.milder("response_format") is None
    assert first.milder("maximum context length is 4096") is None
    newer = first.milder("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    assert (newer.max_tokens, newer.answers) == ("max_completion_tokens", "json_schema")
    assert newer.milder("'max_completion_tokens'") is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 20.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert wire.retry_after_s(headers, now=1445412460.0) == seconds


def test_the_card_may_tell_the_revision():
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert wire.card_revision({"id": "m", "root": f"/hub/models--a--b/snapshots/{commit}"}) == commit
    assert wire.card_revision({"id": "m", "revision": "v2"}) == "v2"
    assert wire.card_revision({"id": "m", "root": "Qwen/Qwen3-VL-8B-Instruct", "created": 1}) == "unknown"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 3}', b'{"data": ["x", {"id": "m"}]}', b"[" * 10**5])
def test_a_list_of_models_may_be_anything(body):
    assert wire.read_cards(body) == ([{"id": "m"}] if b"id" in body else [])


def test_counts_that_are_no_counts_are_unknown():
    data = json.loads(scripted.answer("x").body)
    data["usage"] = {"prompt_tokens": "many", "completion_tokens": -1, "prompt_tokens_details": None}
    reply = wire.read_answer(json.dumps(data).encode())
    assert reply == ChatReply(text="x", finish=STOP)


def test_any_damage_to_an_answer_is_told_and_never_raised():
    whole = scripted.answer({"story": "A \u00e4 tale."}).body
    for cut in range(len(whole)):
        assert isinstance(wire.read_answer(whole[:cut]), wire.Trouble)
    for place in range(len(whole)):
        out = wire.read_answer(whole[:place] + b"\xff" + whole[place + 1 :])
        assert isinstance(out, wire.Trouble | ChatReply)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "localhost:8000"}, "must look like http://host:8000/v1"),
        ({"url": "ftp://host/v1"}, "must look like"),
        ({"url": "https://user:secret@host/v1"}, "no key or password"),
        ({"url": "https://host/v1?key=secret"}, "no key or password"),
        ({"max_in_flight": 0}, "max_in_flight must be at least 1"),
        ({"timeout_s": 0}, "timeout_s must be more than 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be more than 0"),
        ({"jpeg_quality": 101}, "at most 100"),
        ({"max_retries": -1}, "must not be negative"),
        ({"media": "film"}, "media"),
        ({"retries": 3}, "unknown setting 'retries'; did you mean 'max_retries'"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, complaint):
    with pytest.raises(SettingsError, match=complaint):
        build(EndpointSettings, settings, "datasets.yaml: endpoint")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host/v1/", "http://host/v1"),
        ("https://host/api/v3", "https://host/api/v3"),
        ("https://host/v1/chat/completions", "https://host/v1"),
    ],
)
def test_addresses_are_taken_as_people_write_them(url, base):
    assert EndpointSettings(url=url).base_url == base
