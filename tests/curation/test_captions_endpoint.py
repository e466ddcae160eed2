"""The captions stage against a server that misbehaves in every way: all is accounted for, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pytest

from curation import rows
from curation.engine.runner import run
from curation.engine.stage import StopRun, plan
from curation.engine.store import Store
from curation.models.captioner import STATUSES
from curation.stages.captions import Captions
from tests.curation import scripted_server as server
from tests.curation.exported_sequence import exported_sequence
from tests.curation.scripted_server import ScriptedServer
from tests.curation.well_spoken import answer_to

pytest.importorskip("openai", reason="needs the extra endpoint")

SOURCE = pa.unify_schemas(
    [rows.SEQUENCE_ROW, rows.ANALYSIS, rows.CROP, rows.SUBJECTS, rows.RECON, rows.EXPORT]
)
SEQUENCES = 4
REQUESTS = 4 * SEQUENCES  # a story, two shots and a target each


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Some exported sequences in one store."""
    folder = tmp_path_factory.mktemp("sequences")
    return folder, [exported_sequence(folder, seed=10 * i) for i in range(SEQUENCES)]


def well(seen, ordinal=0):
    """A good answer to any request."""
    return server.answer(answer_to(seen.schema, "".join(seen.texts)))


def stage_for(url, **more):
    openai = {
        "url": url, "model": server.MODEL, "timeout_s": 10.0, "give_up_s": 15.0, "max_retries": 2,
        "backoff_s": 0.01, "max_backoff_s": 0.05, "stop_after": 1000, **more.pop("openai", {}),
    }  # fmt: skip
    from curation.config import build

    return build(Captions, {"captioner": "openai", "openai": openai, **more}, "test")


def captioned(exported, answers, stage):
    """Run the stage over the sequences; answers and results are kept in `answers`."""
    folder, sequences = exported
    for name in (".work",):
        for made in (folder / name).iterdir():
            if made.name.startswith(("analyse", "export")) and not (answers / name / made.name).exists():
                (answers / name).mkdir(parents=True, exist_ok=True)
                (answers / name / made.name).symlink_to(made)
    return run(plan([stage], SOURCE), sequences, Store(answers / ".work"), on_ray=False)


def accounts(outcome):
    """Statuses of all calls; checks that the counters of the run say the same."""
    calls = [call for row in outcome.tables["film"] for call in row["caption_calls"]]
    counted = outcome.counters["captions"]
    by_status = Counter(call["status"] for call in calls)
    assert len(calls) == counted["caption_requests"] == REQUESTS
    assert {s: counted[f"caption_{s}"] for s in STATUSES} == {s: by_status[s] for s in STATUSES}
    assert sum(by_status.values()) == sum(by_status[s] for s in STATUSES)
    for row in outcome.tables["film"]:
        assert row["status"] == "kept"
        texts = [c["caption"] for c in [*row["shot_captions"], *row["recon_captions"]]]
        good = [c["status"] in ("ok", "repaired") for c in row["caption_calls"][1:]]
        assert [t is not None for t in texts] == good
    return by_status


def test_a_good_server_captions_everything(exported, tmp_path):
    with ScriptedServer(lambda seen, ordinal: server.slow(0.1, well_said(seen))) as there:
        outcome = captioned(exported, tmp_path, stage_for(there.url))
        assert accounts(outcome) == {"ok": REQUESTS}
        assert len(there.seen) == REQUESTS
        assert there.in_flight_most > SEQUENCES  # shots and targets of a sequence go together
        calls = [call for row in outcome.tables["film"] for call in row["caption_calls"]]
        assert {call["model_id"] for call in calls} == {server.MODEL}
        assert outcome.counters["captions"]["caption_tokens_in"] == 100 * REQUESTS
        assert outcome.counters["captions"]["caption_tokens_cached"] == 64 * REQUESTS
        again = captioned(exported, tmp_path, stage_for(there.url))
        assert again.reused["captions"] == SEQUENCES
        assert len(there.seen) == REQUESTS


TROUBLE = {
    "wrong JSON": (lambda: server.answer('{"caption": "A wide view'), "rejected"),
    "other JSON": (lambda: server.answer({"answer": 42}), "rejected"),
    "wrong types": (lambda: server.answer({"caption": ["A"], "story": 3, "subjects": 4}), "rejected"),
    "prose": (lambda: server.answer("I am sorry, I can only help with cooking."), "rejected"),
    "truncated": (server.truncated, "truncated"),
    "refusal": (server.refusal, "refused"),
    "content filter": (server.filtered, "refused"),
    "500": (lambda: server.failure(500), "error"),
    "429": (lambda: server.rate_limited(0.01), "error"),
    "hang": (server.hang, "error"),
    "disconnect before": (server.disconnect, "error"),
    "disconnect inside": (lambda: server.disconnect(20), "error"),
    "no JSON body": (lambda: server.raw(b"<html>502</html>"), "error"),
    "too long": (server.too_long, "error"),
    "1 MB": (server.huge, "rejected"),
    "control characters": (server.control_characters, "rejected"),
    "unknown label": (
        lambda: server.answer({"caption": "[Person Q] walks through a wide valley in evening light. " * 2}),
        "rejected",
    ),
    "pronouns": (
        lambda: server.answer({"caption": "She looks at the man, and he looks at her in the evening. " * 3}),
        "rejected",
    ),
    "instructions": (
        lambda: server.answer({"caption": "Ignore that. </td><script>alert(1)</script> '); DROP TABLE x;"}),
        "rejected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", TROUBLE)
def test_trouble_with_a_shot_ends_in_one_status_and_harms_nothing_else(exported, tmp_path, kind):
    make, status = TROUBLE[kind]

    def script(seen, ordinal):
        text = "".join(seen.texts)
        return make() if "about one shot only: shot 2" in text else well(seen)

    patience = {"timeout_s": 0.5, "max_retries": 1} if kind == "hang" else {}
    with ScriptedServer(script) as there:
        stage = stage_for(there.url, openai=patience)
        outcome = captioned(exported, tmp_path, stage)
        assert accounts(outcome) == {"ok": 3 * SEQUENCES, status: SEQUENCES}
        bad = [r["caption_calls"][2] for r in outcome.tables["film"]]
        assert all(call["faults"] for call in bad)
        assert {call["attempts"] for call in bad} == {2 if status in ("rejected", "truncated") else 1}
        paid = Counter(seen.digest for seen in there.paid)
        again = captioned(exported, tmp_path, stage)
        if status == "error":
            assert accounts(again) == {"ok": 3 * SEQUENCES, "error": SEQUENCES}
            assert again.made["captions"] == SEQUENCES  # not kept, so that it can get well
            answered = {seen.digest for seen in there.paid if b"html" not in seen.reply.body}
            assert all(count == 1 for digest, count in paid.items() if digest in answered)
        else:
            assert again.reused["captions"] == SEQUENCES
            assert Counter(seen.digest for seen in there.paid) == paid
            assert set(paid.values()) == {1}


def test_a_mixed_storm_is_accounted_for_and_the_next_run_heals_what_can_be(exported, tmp_path):
    kinds = [make for make, _ in TROUBLE.values() if make is not server.hang]

    def storm(seen, ordinal):
        return kinds[ordinal // 2 % len(kinds)]() if ordinal % 2 else well(seen)

    with ScriptedServer(storm) as there:
        by_status = accounts(captioned(exported, tmp_path, stage_for(there.url)))
        assert by_status["ok"] < REQUESTS
        first = len(there.paid)
    with ScriptedServer(well) as there:
        outcome = captioned(exported, tmp_path, stage_for(there.url))
        after = accounts(outcome)
        assert after["error"] == 0
        assert len(there.paid) + first >= after["ok"]
        assert after["ok"] >= by_status["ok"]


def test_a_server_that_cannot_bind_answers_is_asked_in_words(exported, tmp_path):
    def script(seen, ordinal):
        if "response_format" in seen.body:
            return server.no_response_format()
        words = seen.texts[-1]
        return server.answer(
            "Here you are:\n```json\n"
            + json.dumps(answer_to(json.loads(words.split("nothing else:\n")[1]), "".join(seen.texts[:-1])))
            + "\n```"
        )

    with ScriptedServer(script) as there:
        assert accounts(captioned(exported, tmp_path, stage_for(there.url))) == {"ok": REQUESTS}


def test_a_server_that_is_not_there_stops_the_run_with_one_line(exported, tmp_path):
    with ScriptedServer(well) as there:
        url = there.url
    with pytest.raises(StopRun, match="start the server or correct the address"):
        captioned(exported, tmp_path, stage_for(url))


def test_a_server_that_dies_stops_the_run_and_what_was_answered_is_kept(exported, tmp_path):
    holder = []

    def script(seen, ordinal):
        if ordinal >= 6:
            holder[0]._over.set()  # from here on no connection is answered
            return server.disconnect()
        return well(seen)

    with ScriptedServer(script) as there:
        holder.append(there)
        with pytest.raises(StopRun, match="the server is gone"):
            captioned(exported, tmp_path, stage_for(there.url, openai={"stop_after": 3}))
        first = {seen.digest for seen in there.paid}
        assert len(first) == 6
    with ScriptedServer(well) as there:
        assert accounts(captioned(exported, tmp_path, stage_for(there.url))) == {"ok": REQUESTS}
        assert len(there.seen) == REQUESTS - 6
        assert not {seen.digest for seen in there.seen} & first


RUN = """
import json, sys
from pathlib import Path
from tests.curation.test_captions_endpoint import captioned, stage_for
films, answers, url = sys.argv[1:]
sequences = json.loads((Path(films) / "rows.json").read_text())
captioned((Path(films), sequences), Path(answers), stage_for(url, openai={"timeout_s": 60.0}))
"""


def test_killed_in_the_middle_and_run_again_no_request_is_paid_twice(exported, tmp_path):
    """SIGKILL while answers are on their way: what arrived is never asked again."""
    with ScriptedServer(lambda seen, ordinal: server.slow(0.3 * (ordinal % 5), well_said(seen))) as there:
        films, rows_there = exported
        (films / "rows.json").write_text(json.dumps(rows_there))
        command = [sys.executable, "-c", RUN, str(films), str(tmp_path / "answers"), there.url]
        with subprocess.Popen(command, start_new_session=True) as process:
            deadline = time.monotonic() + 120
            while not process.poll() and time.monotonic() < deadline:
                if len(list((tmp_path / "answers").rglob("answers/captions/*/*.json"))) >= 6:
                    break
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        kept = list((tmp_path / "answers").rglob("answers/captions/*/*.json"))
        before = Counter(seen.digest for seen in there.seen)
        assert 6 <= len(kept) < REQUESTS
        assert set(before.values()) == {1}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        asked = Counter(seen.digest for seen in there.seen)
        twice = [digest for digest, count in asked.items() if count > 1]
        assert len(asked) == REQUESTS
        assert set(asked.values()) <= {1, 2}
        # only what was on its way when the process died may be asked again
        assert len(twice) == len(there.seen) - REQUESTS <= sum(before.values()) - len(kept)


def well_said(seen):
    return answer_to(seen.schema, "".join(seen.texts))
