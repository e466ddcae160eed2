"""Whole films through the line, captions by a real vLLM engine: `pytest -m vllm`, where it is installed."""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from dataclasses import replace

import duckdb
import pyarrow.parquet as pq
import pytest

from curation.captions.schemas import STORY
from curation.models import caption_tier
from curation.models.chat import STOP, Text
from tests.curation.conftest import start_engine
from tests.curation.well_spoken import answer_to
from tests.support import REPOSITORY, shared

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("default"),  # vLLM's own and torch's
]

# A trailer has short shots: take them, so that there is a sequence at all.
TRAILER = {"sequences": {"min_shot_s": 1.0, "min_window_s": 12.0, "max_context_share": 0.5}}


class Watched:
    """A real client that keeps what it was asked and what it answered."""

    sound_stories = False
    """Hand on a sound story in place of the random model's, so that what it binds is asked."""

    def __init__(self, client):
        self.client, self.said, self._lock = client, [], threading.Lock()

    def mended(self, request, reply):
        story = STORY in request.schema["properties"]
        return replace(reply, text=json.dumps(answer_to(request.schema, "")), finish=STOP) if story else reply

    def __getattr__(self, name):
        return getattr(self.client, name)

    def ask(self, requests):
        replies = self.client.ask(requests)
        with self._lock:
            self.said += zip(requests, replies, strict=True)
        if self.sound_stories:
            return [self.mended(*pair) for pair in zip(requests, replies, strict=True)]
        return replies

    def close(self):
        """The module's fixture closes the engine."""


@pytest.fixture(scope="module")
def settings(vllm_settings, tmp_path_factory):
    """The tiny model for whole sequences: videos of up to 8192 tokens, which are 73 s."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny_qwen3vl"
    shutil.copytree(vllm_settings.model, folder)
    file = folder / "video_preprocessor_config.json"
    made = json.loads(file.read_text())
    made["size"]["longest_edge"] = 8192 * 32 * 32 * 2
    file.write_text(json.dumps(made))
    return replace(vllm_settings, model=str(folder), max_model_len=12288, kv_cache_gb=0.5)


@pytest.fixture(scope="module")
def engine(settings):
    client = start_engine(settings)
    yield client
    client.close()


@pytest.fixture
def watched(engine, monkeypatch):
    """The engine as the stage gets it."""
    watched = Watched(engine)
    monkeypatch.setattr(caption_tier, "_client", lambda settings: watched)
    return watched


def curated(films, output, settings, *, preset, stages=None):
    """Curate films in a plain loop with captions by vLLM; the published set's folder and the run's record."""
    from pipelines.curate import curate, prepare, resolve

    vllm = {name: getattr(settings, name) for name in ("model", "dtype", "eager", "max_model_len")}
    # Random weights seldom end a text: let the schema end it before the token limit does.
    short = {"lint": {"shot_max_chars": 240, "recon_max_chars": 240}, "shot_tokens": 600, "recon_tokens": 600}
    captions = {"captioner": "vllm", "vllm": vllm, **short}
    job = resolve(
        [str(films)], REPOSITORY / "datasets.yaml", output=output, preset=preset,
        settings={"captions": captions, **(stages or {})},
    )  # fmt: skip
    assert any(note.startswith("captions by ") for note in job.notes)
    return job.output, curate(job, prepare(job), on_ray=False).record


def check_schemas(said):
    """Whatever was not cut off is valid JSON of the form that was asked for."""
    import jsonschema

    for asked, reply in said:
        if reply.finish == STOP:
            jsonschema.validate(json.loads(reply.text), dict(asked.schema))
    assert sum(reply.finish == STOP for _, reply in said) >= 0.9 * len(said)


@pytest.mark.parametrize(("name", "sound_stories"), [("demo", True), ("trailer", False)])
def test_all_stages_end_to_end(name, sound_stories, watched, settings, tmp_path, request):
    """Random weights write nonsense in valid JSON: each request has its status and the linter's verdict.

    The nonsense of a story binds nothing, so the shots and targets after it are not asked for.
    """
    watched.sound_stories = sound_stories
    if name == "demo":
        film = request.getfixturevalue("demo_film").path
        output, record = curated(film, tmp_path / "set", settings, preset="paper-text")
    else:
        film = shared("films/sintel_trailer_480x204.mp4")
        output, record = curated(film, tmp_path / "set", settings, preset="bridged", stages=TRAILER)
    calls = pq.read_table(output / "tables" / "captions.parquet").to_pylist()
    with duckdb.connect(str(output / "annotations.duckdb"), read_only=True) as connection:
        clips = connection.execute("SELECT count(*) FROM clips").fetchone()[0]
        targets = connection.execute("SELECT count(*) FROM recon_targets").fetchone()[0]
        sequences = connection.execute("SELECT count(*) FROM sequences WHERE status = 'kept'").fetchone()[0]
    counted = record["counters"]["captions"]
    assert len(calls) == clips + targets + sequences == counted["caption_requests"]
    statuses = ("ok", "repaired", "rejected", "truncated", "refused", "error")
    assert sum(counted[f"caption_{status}"] for status in statuses) == len(calls)
    assert {call["status"] for call in calls} <= {"ok", "repaired", "rejected", "truncated"}
    assert all(call["faults"] for call in calls if call["status"] != "ok")
    assert {call["backend"] for call in calls} == {"vllm"}
    assert {call["revision"] for call in calls} == {watched.revision}
    assert (output / "review" / "index.html").is_file()
    check_schemas(watched.said)
    for stage, number in (("story", sequences), ("shot", clips), ("recon", targets)):
        told = [call for call in calls if call["stage"] == stage]
        assert len(told) == number > 0
        asked = stage == "story" or sound_stories
        assert all((call["attempts"] > 0) == (call["answered"] is not None) == asked for call in told)
    assert sum(reply.tokens_in for _, reply in watched.said) == counted["caption_tokens_in"]


def test_shots_and_targets_reuse_what_the_story_computed(watched, settings, tmp_path):
    """Prefill computed per sequence: at most 1.1 of one prefix and the suffixes, as the engine counts."""
    watched.sound_stories = True
    film = shared("films/sintel_trailer_480x204.mp4")
    before = watched.client.metrics()
    _, record = curated(film, tmp_path / "set", settings, preset="bridged", stages=TRAILER)
    after = watched.client.metrics()
    check_schemas(watched.said)
    kinds = {tuple(asked.schema["properties"]) for asked, _ in watched.said}
    assert len(watched.said) >= 9
    assert ("caption",) in kinds
    said, by_video = list(watched.said), defaultdict(list)
    for asked, reply in said:
        by_video[asked.prefix[0].name].append((asked, reply))
    for pairs in by_video.values():
        bare = replace(pairs[0][0], question=(Text("."),), schema={}, max_tokens=1)
        prefix = watched.client.ask([bare])[0].tokens_in
        suffixes = sum(reply.tokens_in - prefix for _, reply in pairs)
        computed = sum(reply.tokens_in - reply.tokens_cached for _, reply in pairs)
        assert prefix > 1000
        assert computed <= 1.1 * prefix + suffixes + settings.block_size * len(pairs)
    queried = after["prefix_cache_queries"] - before.get("prefix_cache_queries", 0)
    hit = after["prefix_cache_hits"] - before.get("prefix_cache_hits", 0)
    counted = record["counters"]["captions"]
    print(f"{hit:,.0f} of {queried:,.0f} prompt tokens came from the cache")  # noqa: T201 - shown with -s
    assert queried == counted["caption_tokens_in"]
    assert hit == counted["caption_tokens_cached"]
    assert queried - hit == counted["caption_tokens_computed"]
