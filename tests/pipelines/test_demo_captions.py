"""The demo set captioned anew through a server: no video is touched, and going back costs nothing."""

from __future__ import annotations

import os
import shutil

import duckdb
import pytest

from pipelines.curate import curate, forecast, prepare, resolve
from tests.curation import scripted_server as server
from tests.curation.scripted_server import ScriptedServer
from tests.curation.well_spoken import answer_to
from tests.support import REPOSITORY

pytest.importorskip("openai", reason="needs the extra endpoint")

HOSTILE = "</td><script>alert(1)</script> '); DROP TABLE clips;-- | {{ 7*7 }} \x1b[31m\u202e"


def script(seen, ordinal):
    """Answers well, but for every first shot, about which it says hostile things."""
    text = "".join(seen.texts)
    if "about one shot only: shot 1," in text:
        return server.answer({"caption": HOSTILE + "x" * 200})
    return server.slow(0.3, answer_to(seen.schema, text))  # longer than a busy machine takes to ask


@pytest.fixture
def recaptioned(demo_set, tmp_path):
    """Curate a copy of the demo set's work with these settings of the caption stage."""
    shutil.copytree(demo_set.job.store.root, tmp_path / "set" / ".work", copy_function=os.link)

    def run(captions, *, on_ray=False):
        job = resolve(
            list(demo_set.job.sources), REPOSITORY / "datasets.yaml", output=tmp_path / "set",
            preset=demo_set.job.preset, settings={"captions": captions},
        )  # fmt: skip
        planned = {f.stage: f for f in forecast(job)}
        return planned, curate(job, prepare(job), on_ray=on_ray)

    return run


@pytest.mark.parametrize("on_ray", [False, True], ids=["loop", "ray"])
def test_another_captioner_reruns_captions_only(recaptioned, demo_set, on_ray):
    with ScriptedServer(script) as there:
        openai = {"captioner": "openai", "openai": {"url": there.url}}
        planned, report = recaptioned(openai, on_ray=on_ray)
        assert dict(planned["captions"].runs) == {"setting captions.captioner: describe -> openai": 2}
        assert planned["export"].reused == 2
        cached = {step.name for step in report.job.plan.steps if getattr(step, "cached", False)}
        made = {name: n for name, n in report.outcome.made.items() if n and name in cached}
        assert made == {"captions": 2}
        counted = report.outcome.counters["captions"]
        before = demo_set.outcome.counters["captions"]
        assert counted["caption_requests"] == before["caption_requests"] == len(report_calls(report))
        assert counted["caption_rejected"] == 2
        assert counted["caption_ok"] == counted["caption_requests"] - 2
        assert len(there.seen) == counted["caption_requests"] + 2  # a repair call each
        assert there.in_flight_most > 4  # the two sequences, and the calls of each, go together
        check_published(report)
        asked = len(there.seen)
        _, again = recaptioned(openai)
        assert len(there.seen) == asked
        assert again.published.digest == report.published.digest
        assert report.published.digest != demo_set.published.digest
    _, back = recaptioned({"captioner": "describe"})
    assert {n for name, n in back.outcome.made.items() if name in cached} == {0}
    assert back.published.digest == demo_set.published.digest


def report_calls(report):
    return [call for row in report.outcome.tables["sequence"] for call in row["caption_calls"] or []]


def check_published(report):
    """The tables hold both forms, the page shows hostile words as words, and the views open."""
    output = report.job.output
    with duckdb.connect(str(output / "annotations.duckdb"), read_only=True) as connection:
        captions = connection.execute("SELECT caption, shot_caption FROM clips").fetchall()
        good = [caption for caption, _ in captions if caption]
        assert len(good) == len(captions) - 2
        assert all(c.startswith("global caption: ") and "; shot caption: " in c for c in good)
        lost = connection.execute(
            "SELECT attempts, faults, answered, backend FROM captions WHERE status = 'rejected'"
        ).fetchall()
        assert {(attempts, backend) for attempts, *_, backend in lost} == {(2, "openai")}
        assert all("<script>" in answered and "\x1b" not in answered for _, _, answered, _ in lost)
        targets = connection.execute("SELECT reconstruct_target FROM sequences").fetchall()
        assert all(line.startswith("[") for (text,) in targets for line in text.splitlines())
    pages = list((output / "review").rglob("*.html"))
    assert pages
    for page in pages:
        assert "<script>alert" not in page.read_text()


def test_a_server_in_trouble_leaves_a_dataset_that_the_next_run_completes(recaptioned):
    def sick(seen, ordinal):
        second = "about one shot only: shot 2," in "".join(seen.texts)
        return server.failure(500) if second else script(seen, ordinal)

    with ScriptedServer(sick) as there:
        quick = {"max_retries": 1, "backoff_s": 0.01}
        settings = {"captioner": "openai", "openai": {"url": there.url, **quick}}
        _, report = recaptioned(settings)
        assert report.outcome.counters["captions"]["caption_error"] == 2
        assert report.published.counts["sequences"] == {"kept": 2, "rejected": 0, "failed": 0}
        port = there.port
    with ScriptedServer(script, port=port) as there:
        planned, report = recaptioned(settings)
        assert planned["captions"].runs.total() == 2
        assert report.outcome.counters["captions"]["caption_error"] == 0
        assert len(there.seen) == 2
