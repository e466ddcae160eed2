"""A local OpenAI-compatible server that answers, or misbehaves, as a script says, and remembers all it saw.

    def script(seen, ordinal):
        return rate_limited(retry_after=0.1) if ordinal == 0 else answer({"story": "..."})

    with ScriptedServer(script) as server:
        client = OpenAIClient(EndpointSettings(url=server.url))
        ...
        assert len(server.seen) == 2

The script is called once for each POST to /v1/chat/completions, in the order of arrival (`ordinal` counts
from 0), by several threads at a time but never by two at once. GET /v1/models answers by itself.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted-vl"
CONTROL = "".join(map(chr, range(32))) + "\x7f\x1b[31m\u202e"


@dataclass(frozen=True)
class Reply:
    """What the server does with one request.

    Attributes:
        status, body, headers: of the HTTP answer; `body` is sent as it is.
        delay_s: waited before the first byte.
        cut_after: bytes of the body after which the connection is dropped (0: before the status line).
        hang: never answer; the connection stays open until the client or the test goes away.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_after: int | None = None
    hang: bool = False


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, and what became of it.

    Attributes:
        ordinal: 0 for the first.
        body: the parsed JSON.
        headers: lower-case names.
        reply: what the script chose.
    """

    ordinal: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    reply: Reply | None = None

    @property
    def parts(self) -> list[Mapping[str, Any]]:
        """The parts of all messages but the system's, in order."""
        content = [m["content"] for m in self.body["messages"] if m["role"] != "system"]
        return [p for c in content for p in ([{"type": "text", "text": c}] if isinstance(c, str) else c)]

    @property
    def texts(self) -> list[str]:
        """The text parts, in order; the question's text is the last."""
        return [part["text"] for part in self.parts if part["type"] == "text"]

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON schema in `response_format`, if there is one."""
        return (self.body.get("response_format") or {}).get("json_schema", {}).get("schema")

    @property
    def digest(self) -> str:
        """Of model and messages: two equal ones are the same question, asked twice."""
        asked = json.dumps([self.body.get("model"), self.body["messages"]], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    @property
    def paid(self) -> bool:
        """Whether a complete answer went out, which is what a provider charges for."""
        reply = self.reply
        return reply is not None and reply.status == 200 and reply.cut_after is None and not reply.hang


Script = Callable[[Seen, int], Reply]

# -- what a script may return -----------------------------------------------------------------------


def answer(said: Any, *, finish: str | None = "stop", **message: Any) -> Reply:
    """A completion.

    Args:
        said: the text, or anything else, which is written as JSON.
        finish: the finish reason.
        message: further fields of the message, e.g. `refusal`.
    """
    text = said if isinstance(said, str) or said is None else json.dumps(said, ensure_ascii=False)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 64}}
    return raw({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})


def raw(body: Any, *, status: int = 200, **more: Any) -> Reply:
    """Any body: bytes as they are, everything else as JSON. `more` are fields of `Reply`."""
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, encoded, **more)


def failure(status: int, message: str = "it failed", *, code: str | None = None, **headers: str) -> Reply:
    """An error in OpenAI's form; `retry_after="1"` becomes the header Retry-After."""
    body = {"error": {"message": message, "type": "scripted", "code": code}}
    return raw(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def rate_limited(retry_after: float | None = None) -> Reply:
    """429, with Retry-After in seconds if given."""
    headers = {} if retry_after is None else {"retry_after": str(retry_after)}
    return failure(429, "too many requests", **headers)


def truncated(text: str = '{"story": "A man in a red coat wal') -> Reply:
    """An answer that max_tokens cut off."""
    return answer(text, finish="length")


def refusal(reason: str = "I cannot help with that.") -> Reply:
    """The model declines, in the field that OpenAI has for it."""
    return answer(None, refusal=reason)


def filtered() -> Reply:
    """A content filter stopped the answer."""
    return answer("A man", finish="content_filter")


def no_response_format(kind: str = "response_format") -> Reply:
    """400: the server cannot constrain answers."""
    return failure(400, f"{kind} is not supported by this server")


def too_long() -> Reply:
    """400: the prompt does not fit, in vLLM's words."""
    return failure(400, "This model's maximum context length is 4096 tokens. Your request has 9000.")


def hang() -> Reply:
    """No answer ever."""
    return Reply(hang=True)


def disconnect(after: int = 0, said: Any = "half an answer") -> Reply:
    """The connection is dropped after so many bytes of the body; 0: before the status line."""
    whole = answer(said)
    return Reply(200, whole.body, cut_after=after)


def slow(seconds: float, said: Any) -> Reply:
    """An answer that takes its time."""
    return Reply(200, answer(said).body, delay_s=seconds)


def huge(size: int = 2**20) -> Reply:
    """An answer of so many characters."""
    return answer("A" * size)


def control_characters() -> Reply:
    """An answer with every control character, a lone surrogate and markup."""
    return answer(CONTROL + "\ud800<script>alert(1)</script>'; DROP TABLE clips; --")


def cycle(replies: Sequence[Reply]) -> Script:
    """A script that goes round the replies by ordinal."""
    return lambda seen, ordinal: replies[ordinal % len(replies)]


# -- the server -------------------------------------------------------------------------------------


class ScriptedServer:
    """See the module; use as a context manager.

    Args:
        script: what to do with each chat request.
        models: names that /v1/models lists; None: it has no such page.
        card: further fields of each model's card.
        key: the bearer token that is demanded, if any.
        port: a fixed port, so that a server can die and another take its place; 0: any free one.

    Attributes:
        url: for the client, with /v1.
        seen: chat requests in order of arrival; a request that is being answered is there already.
        in_flight_most: how many were being answered at the same time, at most.
    """

    def __init__(
        self,
        script: Script,
        *,
        models: Sequence[str] | None = (MODEL,),
        card: Mapping[str, Any] | None = None,
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.seen: list[Seen] = []
        self.in_flight_most = self._in_flight = 0
        self._script, self._models, self._card, self._key = script, models, card or {}, key
        self._lock, self._over = threading.Lock(), threading.Event()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def paid(self) -> list[Seen]:
        """The requests that were answered in full."""
        return [seen for seen in self.seen if seen.paid]

    def die(self) -> None:
        """Stop listening and drop every open connection, as a killed server does."""
        if self._over.is_set():
            return
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_all()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(_Handler):
            scripted = owner

        return Handler

    def choose(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Ask the script and remember the request."""
        with self._lock:
            seen = Seen(len(self.seen), body, headers)
            reply = self._script(seen, seen.ordinal)
            self.seen.append(Seen(seen.ordinal, body, headers, reply))
            return reply

    def busy(self, change: int) -> None:
        """Count requests that are being answered."""
        with self._lock:
            self._in_flight += change
            self.in_flight_most = max(self.in_flight_most, self._in_flight)

    def models(self) -> Reply:
        """The answer to GET /v1/models."""
        if self._models is None:
            return failure(404, "Not Found")
        cards = [{"id": name, "object": "model", "owned_by": "test", **self._card} for name in self._models]
        return raw({"object": "list", "data": cards})

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Whether the key is right."""
        return self._key is None or headers.get("authorization") == f"Bearer {self._key}"

    def wait(self, seconds: float | None) -> None:
        """Sleep, but no longer than the server lives."""
        self._over.wait(seconds)


class _Server(ThreadingHTTPServer):
    """Keeps the open connections, to be able to drop them."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *args: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        for request in list(self._open):
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hung up."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    scripted: ScriptedServer

    def do_GET(self) -> None:
        if not self.scripted.admits(self._headers()):
            self._send(failure(401, "Incorrect API key provided"))
        elif self.path == "/v1/models":
            self._send(self.scripted.models())
        else:
            self._send(failure(404, "Not Found"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.scripted.admits(self._headers()):
            self._send(failure(401, "Incorrect API key provided"))
            return
        if self.path != "/v1/chat/completions":
            self._send(failure(404, "Not Found"))
            return
        self.scripted.busy(+1)
        try:
            self._send(self.scripted.choose(body, self._headers()))
        finally:
            self.scripted.busy(-1)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _send(self, reply: Reply) -> None:
        if reply.hang or reply.delay_s:
            self.scripted.wait(None if reply.hang else reply.delay_s)
        if reply.hang or reply.cut_after == 0:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut_after])
        self.close_connection = self.close_connection or reply.cut_after is not None

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""
