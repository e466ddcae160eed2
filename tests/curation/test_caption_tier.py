"""Which captioner runs and why, what a setting changes, and that nothing is built before it is needed."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from curation.config import SettingsError, build
from curation.engine.stage import StopRun
from curation.models import caption_tier, vllm_process
from curation.models.caption_tier import Lazily
from curation.models.chat_captioner import ChatCaptioner
from curation.models.describer import Describer
from curation.models.endpoint import EndpointSettings
from curation.models.vllm_client import VllmSettings
from curation.optional import MissingExtra
from curation.stages.captions import Captions
from curation.stages.export import Export
from pipelines.curate_command import caption_line, caption_settings
from tests.curation.scripted_server import ScriptedServer, failure

OPENAI = Captions(captioner="openai", openai=EndpointSettings(url="http://localhost:9/v1", model="m"))


@pytest.fixture
def capable(monkeypatch):
    """A machine with a GPU, vLLM and the weights."""
    monkeypatch.setattr(caption_tier, "gpus_here", lambda: 1)
    monkeypatch.setattr(caption_tier, "obstacle", lambda settings: "")
    monkeypatch.setattr("curation.stages.captions.revision_here", lambda settings: "commit")


def test_auto_takes_the_describer_where_something_is_missing_and_says_what(monkeypatch):
    monkeypatch.setattr(caption_tier, "gpus_here", lambda: 1)
    monkeypatch.setattr(caption_tier, "obstacle", lambda settings: "1 GPUs here, 2 needed")
    stage, line = Captions().settled()
    assert stage.captioner == "describe"
    assert "1 GPUs here, 2 needed" in line
    assert Captions().deciding() == Captions(captioner="describe").deciding() == {"captioner": "describe"}
    assert Captions().fingerprint() == Captions(captioner="describe").fingerprint()
    assert Captions(captioner="describe").settled()[1].startswith("captions by the embedded describer")
    assert "auto" not in Captions(captioner="describe").settled()[1]


def test_without_a_gpu_nothing_is_advised_to_be_installed(monkeypatch):
    monkeypatch.setattr(caption_tier, "gpus_here", lambda: 0)
    line = Captions().settled()[1]
    assert "no GPU here" in line
    assert "--endpoint" in line
    assert "install" not in line


def test_auto_takes_vllm_where_it_can_and_says_why(capable):
    stage, line = Captions().settled()
    assert stage.captioner == "vllm"
    assert "Qwen/Qwen3-VL-8B-Instruct" in line
    assert "a GPU" in line
    assert stage.fingerprint()["Qwen/Qwen3-VL-8B-Instruct"] == "commit"
    assert stage.occupies().in_flight == 8


def test_a_stage_travels_to_workers_and_is_a_key(capable):
    stage = Captions().settled()[0]
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert hash(stage) == hash(Captions().settled()[0])


def test_how_answers_are_come_by_is_no_part_of_the_key():
    same = [
        replace(OPENAI, sequences_in_flight=99),
        replace(OPENAI, vllm=VllmSettings(temperature=1.0)),
        *(
            replace(OPENAI, openai=replace(OPENAI.openai, **change))
            for change in (
                {"url": "http://there:8000/v1"}, {"max_in_flight": 2}, {"timeout_s": 1.0}, {"stop_after": 9}
            )
        ),
    ]  # fmt: skip
    for other in same:
        assert other.deciding() == OPENAI.deciding()
        assert other.fingerprint() == OPENAI.fingerprint()


def test_what_changes_answers_is_a_part_of_the_key(tmp_path):
    (tmp_path / "shot.txt").write_text("{number} {inventory} {visible}")
    others = [
        replace(OPENAI, fps=4),
        replace(OPENAI, draw_labels=True),
        replace(OPENAI, shot_tokens=100),
        replace(OPENAI, prompts=str(tmp_path)),
        replace(OPENAI, lint=replace(OPENAI.lint, strictness="off")),
        replace(OPENAI, openai=replace(OPENAI.openai, temperature=0.7)),
        replace(OPENAI, openai=replace(OPENAI.openai, model="other")),
        replace(OPENAI, captioner="describe"),
    ]
    keys = [(one.deciding(), one.fingerprint()) for one in [OPENAI, *others]]
    assert all(keys.count(key) == 1 for key in keys)


def test_a_worker_that_waits_holds_little_and_an_engine_its_gpus(monkeypatch):
    describe, waits = Captions(captioner="describe").occupies(), OPENAI.occupies()
    assert (describe.cpus, describe.in_flight, describe.actors) == (1.0, 1, False)
    assert waits.cpus != Export.resources.cpus  # else Ray Data would run export in the one actor that waits
    assert (waits.in_flight, waits.max_workers, waits.actors) == (8, 1, True)
    engine = Captions(captioner="vllm", vllm=VllmSettings(tensor_parallel=2))
    monkeypatch.setattr("curation.stages.captions.gpus_here", lambda: 4)
    held = engine.occupies()
    assert (held.gpus, held.max_workers, held.actors) == (2, None, True)
    monkeypatch.setattr("curation.stages.captions.gpus_here", lambda: 0)
    assert engine.occupies() == waits


def test_without_vllm_it_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(caption_tier, "available", lambda package: False)
    monkeypatch.setattr(vllm_process, "gpus_here", lambda: 1)
    with pytest.raises(MissingExtra, match="vLLM is not installed; install it with"):
        Captions(captioner="vllm").settled()
    monkeypatch.setattr(vllm_process, "gpus_here", lambda: 0)
    with pytest.raises(MissingExtra, match=r"^vLLM needs a GPU, and none is here.*--endpoint URL") as caught:
        Captions(captioner="vllm").settled()
    assert "install" not in str(caught.value)


def test_nothing_is_built_before_a_row_needs_it_and_a_failure_is_told_once(monkeypatch):
    pytest.importorskip("openai")
    built = []

    class Fails:
        def __init__(self, settings):
            built.append(settings)
            raise StopRun("nobody answers")

    OPENAI.worker()  # there is no such server
    monkeypatch.setattr("curation.models.openai_client.OpenAIClient", Fails)
    lazy = Lazily(OPENAI.openai, None, OPENAI._asked())
    assert built == []
    for _ in range(3):
        with pytest.raises(StopRun, match="nobody answers"):
            lazy.captioner()
    assert len(built) == 1
    assert isinstance(Lazily(None, None, OPENAI._asked()).captioner(), Describer)


def test_a_client_is_closed_when_its_worker_is_gone():
    pytest.importorskip("openai")
    with ScriptedServer(lambda seen, ordinal: failure(500)) as there:
        stage = replace(OPENAI, openai=EndpointSettings(url=there.url)).settled()[0]
        assert stage.openai.model == "scripted-vl"
        from curation.captions.prompts import load_prompts

        lazy = Lazily(stage.openai, load_prompts(), stage._asked())

        def work():
            return lazy.captioner()

        lazy.close_with(work)
        captioner = work()
        assert isinstance(captioner, ChatCaptioner)
        client = captioner._client
        del work
        assert client._closed


def test_a_server_with_several_models_wants_one_named():
    pytest.importorskip("openai")
    with (
        ScriptedServer(lambda seen, ordinal: failure(500), models=("a", "b")) as there,
        pytest.raises(StopRun, match="name the model"),
    ):
        replace(OPENAI, openai=EndpointSettings(url=there.url)).settled()


def test_a_server_that_is_not_up_yet_is_no_obstacle_if_its_model_is_named():
    pytest.importorskip("openai")
    stage, line = OPENAI.settled()
    assert stage == OPENAI
    assert line.startswith("captions by m at http://localhost:9/v1; not at this moment: ")
    with pytest.raises(StopRun, match="start the server or correct the address"):
        replace(OPENAI, openai=replace(OPENAI.openai, model=None)).settled()


def test_the_command_line_has_shorthands_for_settings():
    url = "http://localhost:8000/v1"
    assert caption_settings(None, None, None) == {}
    assert caption_settings("describe", None, None) == {"captions": {"captioner": "describe"}}
    assert caption_settings(None, url, "m") == {
        "captions": {"captioner": "openai", "openai": {"url": url, "model": "m"}}
    }
    for tier in ("vllm", "auto", None):
        settings = caption_settings(tier, None, "4B")["captions"]
        assert build(Captions, settings, "here").vllm.model == "4B"
    with pytest.raises(SettingsError, match="--endpoint goes with --captioner openai, not vllm"):
        caption_settings("vllm", url, None)
    with pytest.raises(SettingsError, match="the describer has no model"):
        caption_settings("describe", None, "4B")


def test_the_summary_tells_how_requests_ended():
    counted = {"caption_requests": 9.0, "caption_ok": 7.0, "caption_repaired": 0.0, "caption_error": 2.0}
    line = caption_line(counted)
    assert "9: 7 ok, 2 error" in line
    assert "run the same command again" in line
    assert "again" not in caption_line({"caption_requests": 9.0, "caption_ok": 9.0})
    assert caption_line({}) == ""
