"""Questions about one small video, and clients that lose no time, for tests against scripted servers."""

from __future__ import annotations

import numpy as np

from curation.models.chat import ChatRequest, Text, Video
from curation.models.endpoint import EndpointSettings

SCHEMA = {
    "type": "object",
    "properties": {"story": {"type": "string"}},
    "required": ["story"],
    "additionalProperties": False,
}
VIDEO = Video(np.random.default_rng(0).integers(0, 255, (4, 64, 96, 3), np.uint8), 2.0)
FAST = {
    "timeout_s": 2.0,
    "connect_timeout_s": 1.0,
    "backoff_s": 0.01,
    "max_backoff_s": 0.05,
    "give_up_s": 10.0,
    "max_retries": 3,
}


def requests(count, *, schema=SCHEMA):
    """`count` questions about one video."""
    return [
        ChatRequest(
            system="You describe films.",
            prefix=(VIDEO, Text("Facts.")),
            question=(Text(f"Question {number}?"),),
            schema=schema,
        )
        for number in range(count)
    ]


def clients():
    """A fixture that makes clients (`connect = pytest.fixture(clients)`) and closes them."""
    made = []

    def make(server, **settings):
        from curation.models.openai_client import OpenAIClient

        client = OpenAIClient(EndpointSettings(**{"url": server.url, **FAST, **settings}))
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def question_of(seen):
    """The number in the question of a request."""
    return int(next(t for t in seen.texts if t.startswith("Question")).split()[1].rstrip("?"))
