"""When an endpoint serves nobody any more: the run stops with one line, and paid answers are kept."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from curation.engine.stage import StopRun
from curation.models.chat import ERROR, STOP
from curation.models.endpoint import KEY_VARIABLE, EndpointSettings
from tests.curation import scripted_server as scripted
from tests.curation.asking import clients, question_of, requests
from tests.curation.scripted_server import ScriptedServer, answer

pytest.importorskip("openai")
connect = pytest.fixture(clients)


def test_a_wrong_key_stops_before_anything_is_asked(connect, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with ScriptedServer(lambda seen, ordinal: answer("x"), key="sesame") as server:
        with pytest.raises(StopRun, match=r"127.0.0.1.*MEMENTO_API_KEY .HTTP 401"):
            connect(server)
        monkeypatch.setenv("SOME_KEY", "wrong-secret")
        with pytest.raises(StopRun, match="the key in SOME_KEY is not accepted") as stopped:
            connect(server, api_key_variable="SOME_KEY")
        assert "wrong-secret" not in str(stopped.value)
        monkeypatch.setenv("SOME_KEY", "sesame\n")
        assert connect(server, api_key_variable="SOME_KEY").ask(requests(1))[0].finish == STOP
        monkeypatch.setenv(KEY_VARIABLE, "sesame")
        assert connect(server).ask(requests(1))[0].finish == STOP
        monkeypatch.delenv("SOME_KEY")
        with pytest.raises(StopRun, match="environment variable SOME_KEY"):
            connect(server, api_key_variable="SOME_KEY")


def test_openais_key_goes_to_openai_alone(connect, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ScriptedServer(lambda seen, ordinal: answer("x")) as server:
        connect(server).ask(requests(1))
    assert "sk-secret" not in str(server.seen[0].headers)
    assert EndpointSettings(url="https://api.openai.com/v1").key() == "sk-secret"
    assert EndpointSettings(url="https://api.openai.com.example.org/v1").key() is None


def test_a_key_that_expires_in_the_middle_stops_the_run_and_keeps_the_answers(connect):
    def script(seen, ordinal):
        if question_of(seen) == 5:
            return scripted.failure(401, "expired")
        return scripted.slow(0.2, f"answer {question_of(seen)}")

    def ask(request):
        try:
            return client.ask([request])[0].text
        except StopRun as stop:
            return str(stop)

    with ScriptedServer(script) as server:
        client = connect(server, max_in_flight=6)
        with ThreadPoolExecutor(20) as pool:
            said = list(pool.map(ask, requests(20)))
        assert said[:5] == [f"answer {n}" for n in range(5)]  # on their way when the key expired
        assert len(server.paid) == sum(text.startswith("answer") for text in said)
        assert all("expired" in text for text in said[5:] if not text.startswith("answer"))
        asked = len(server.seen)
        assert "expired" in ask(requests(1)[0])
        assert len(server.seen) == asked < 20


def test_no_such_model_names_what_there_is(connect):
    def script(seen, ordinal):
        return scripted.failure(404, "The model `scripted-v1` does not exist.")

    with ScriptedServer(script) as server:
        client = connect(server, model="scripted-v1")
        with pytest.raises(StopRun, match=r"scripted-v1; the server has scripted-vl .HTTP 404") as stopped:
            client.ask(requests(1))
    assert "\n" not in str(stopped.value)


def test_nobody_there_is_one_line(connect):
    with ScriptedServer(lambda seen, ordinal: answer("x")) as server:
        pass
    with pytest.raises(StopRun, match=f"127.0.0.1:{server.port}.*start the server or correct the address"):
        connect(server)
    with pytest.raises(StopRun, match=r"no-such-host\.invalid"):
        connect(server, url="http://no-such-host.invalid/v1")


def test_a_server_that_dies_fails_some_requests_then_stops_the_run(connect):
    with ScriptedServer(lambda seen, ordinal: answer("x")) as server:
        client = connect(server)
        assert client.ask(requests(2))[0].finish == STOP
        server.die()
        ended = [client.ask(requests(2)), client.ask(requests(2))]
        assert {r.finish for replies in ended for r in replies} == {ERROR}
        assert "connection failed" in ended[0][0].error
        with pytest.raises(StopRun, match="run again when it is back"):
            client.ask(requests(20))


def test_a_server_that_dies_and_returns_is_waited_for(connect):
    with ScriptedServer(lambda seen, ordinal: answer("first life")) as server:
        client = connect(server, max_retries=40, backoff_s=0.05)
        client.ask(requests(1))
        server.die()
        got = []
        thread = threading.Thread(target=lambda: got.extend(client.ask(requests(8))))
        thread.start()
        time.sleep(0.3)
        with ScriptedServer(lambda seen, ordinal: answer("second life"), port=server.port):
            thread.join(10)
    assert [r.text for r in got] == ["second life"] * 8


def test_one_request_that_always_fails_does_not_stop_the_others(connect):
    def script(seen, ordinal):
        return scripted.failure(500) if question_of(seen) % 2 else answer("x")

    with ScriptedServer(script) as server:
        client = connect(server, stop_after=2)
        finishes = [client.ask([request])[0].finish for request in requests(10)]
    assert finishes == [STOP, ERROR] * 5


def test_a_server_that_takes_nothing_at_all_stops_the_run(connect):
    with ScriptedServer(lambda seen, ordinal: scripted.failure(400, "no pictures, please")) as server:
        with pytest.raises(StopRun, match=r"a model that sees.*no pictures, please"):
            connect(server).ask(requests(50))
        assert len(server.seen) <= 50


@pytest.mark.parametrize("status", [429, 503])
def test_an_hour_of_waiting_is_not_waited_for(connect, status):
    reply = scripted.failure(status, "come back later", retry_after="3600")
    with ScriptedServer(lambda seen, ordinal: reply) as server:
        started = time.monotonic()
        with pytest.raises(StopRun, match="run again later"):
            connect(server).ask(requests(3))
        assert time.monotonic() - started < 3
    with ScriptedServer(
        lambda seen, ordinal: scripted.failure(429, "pay", code="insufficient_quota")
    ) as server:
        with pytest.raises(StopRun, match="used up"):
            connect(server).ask(requests(1))
        assert len(server.seen) == 1
