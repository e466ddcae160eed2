"""The captions stage: facts from files, answers from a captioner, columns of the contract."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from curation import rows
from curation.captions.grammar import parse_reconstruct_target, split_caption
from curation.captions.lint import lint_caption
from curation.engine.stage import plan
from curation.engine.store import recipe
from curation.models.captioner import Answer, StoryAnswer, Usage
from curation.models.captioner import Captions as Answers
from curation.models.describer import Describer
from curation.stages.captions import Captions, caption_row
from curation.stages.export import Export
from tests.curation.exported_sequence import exported_sequence
from tests.support import scratch


@pytest.fixture
def exported(tmp_path):
    return exported_sequence(tmp_path)


@pytest.fixture
def captioned(exported, tmp_path):
    return Captions().worker()(exported, scratch(tmp_path, "captions"))


def test_captions_name_who_is_seen_in_the_clip_and_nobody_else(captioned):
    first, last = captioned["shot_captions"]
    assert (first["clip_index"], last["clip_index"]) == (0, 2)
    assert lint_caption(first["caption"], ["[Person A]"]) == []
    assert lint_caption(last["caption"], ["[Person A]", "[Person B]"]) == []
    assert "[Person B]" in last["shot_caption"]
    for one in (first, last):
        assert split_caption(one["caption"]) == (one["global_caption"], one["shot_caption"])
    assert "[Person C]" not in captioned["story_caption"]


def test_descriptions_bind_all_captions(captioned, exported):
    told = {d["label"]: d["description"] for d in captioned["descriptions"]}
    assert [d["subject_id"] for d in captioned["descriptions"]] == [
        s["subject_id"] for s in exported["subjects"]
    ]
    assert len(set(told.values())) == 3
    assert dict(parse_reconstruct_target(captioned["reconstruct_target"])) == told
    assert told["[Person A]"] in captioned["story_caption"]
    assert told["[Person B]"] in captioned["shot_captions"][1]["global_caption"]
    assert captioned["recon_captions"][0]["recon_id"] == exported["recon_targets"][0]["recon_id"]
    assert captioned["recon_captions"][0]["caption"].startswith(f"[Person A]: {told['[Person A]']}")


def test_every_call_is_recorded(captioned, exported):
    calls = captioned["caption_calls"]
    assert [(c["stage"], c["target"]) for c in calls] == [
        ("story", exported["sequence_id"]),
        ("shot", "0"),
        ("shot", "2"),
        ("recon", exported["recon_targets"][0]["recon_id"]),
    ]
    for call in calls:
        assert (call["status"], call["backend"], call["model_id"]) == ("ok", "describe", "describer")
        assert (call["tokens_in"], call["tokens_out"], call["faults"]) == (None, None, [])
        assert call["prompt_hash"] == Describer().prompt_hash(call["stage"])


def test_columns_fit_the_contract_and_never_change(captioned, exported, tmp_path):
    assert set(captioned) == set(rows.CAPTIONS.names)
    table = pa.Table.from_pylist([captioned], schema=rows.CAPTIONS)
    assert table.to_pylist() == [captioned]
    assert Captions().worker()(exported, scratch(tmp_path, "again")) == captioned


def test_a_sequence_without_subjects_and_targets_is_described(exported, tmp_path):
    bare = {**exported, "subjects": [], "recon_targets": [], "boxes": None}
    columns = Captions().worker()(bare, scratch(tmp_path, "captions"))
    assert [c["global_caption"] for c in columns["shot_captions"]] == ["", ""]
    assert columns["shot_captions"][0]["caption"].startswith("global caption: ; shot caption: ")
    assert len(columns["story_caption"]) >= 80
    assert columns["descriptions"] == columns["recon_captions"] == []


class Refuses(Describer):
    """A captioner that has no answer for the second shot."""

    backend, model_id, sampling = "test", "none", {"temperature": 0}

    def caption(self, scene, memory):
        told = super().caption(scene, memory)
        used = Usage(attempts=2, tokens_in=7, tokens_out=3, tokens_cached=4, seconds=0.5)
        bad = Answer(text=None, status="rejected", faults=("no label",), usage=used, answered="He.")
        return replace(told, shots=[told.shots[0], bad])


def test_a_rejected_answer_leaves_no_caption_but_its_faults(exported, tmp_path):
    folder = scratch(tmp_path)
    columns = caption_row(exported, folder, Refuses())
    assert columns["shot_captions"][1]["caption"] is None
    assert columns["shot_captions"][1]["global_caption"].startswith("[Person A]: ")
    assert columns["shot_captions"][0]["caption"].startswith("global caption: [Person A]: ")
    call = columns["caption_calls"][2]
    assert (call["status"], call["faults"], call["tokens_in"]) == ("rejected", ["no label"], 7)
    assert (call["attempts"], call["answered"], call["sampling"]) == (2, "He.", '{"temperature":0}')
    assert folder.counters["caption_requests"] == 4
    assert folder.counters["caption_ok"] == 3
    assert folder.counters["caption_rejected"] == 1
    assert folder.counters["caption_tokens_computed"] == 3
    assert folder.kept


class Lost(Describer):
    """A captioner whose server was gone when the story was asked for."""

    def caption(self, scene, memory):
        story = StoryAnswer(text=None, status="error", faults=("HTTP 500",), binds=False)
        unbound = Answer(text=None, status="rejected", faults=("no story",), usage=Usage(attempts=0))
        return Answers(story=story, shots=[unbound] * 2, recon=[unbound])


def test_a_sequence_without_an_answer_is_not_kept(exported, tmp_path):
    folder = scratch(tmp_path)
    columns = caption_row(exported, folder, Lost())
    assert not folder.kept
    assert [c["attempts"] for c in columns["caption_calls"]] == [1, 0, 0, 0]
    assert [c["caption"] for c in columns["shot_captions"]] == [None, None]
    assert [c["global_caption"] for c in columns["shot_captions"]] == [None, None]
    assert columns["reconstruct_target"] is None
    assert {d["description"] for d in columns["descriptions"]} == {None}


def test_the_key_holds_captioner_and_phrases(exported):
    stage = Captions()
    made = recipe(stage, exported)
    assert made.settings == {"captioner": "describe"}
    assert made.models["prompt_shot"] == Describer().prompt_hash("shot")
    with pytest.raises(ValueError, match="is none of"):
        Captions(captioner="qwen")
    with pytest.raises(ValueError, match="3 is none of 1, 2, 4"):
        Captions(fps=3)


def test_stages_fit_into_a_plan():
    source = pa.unify_schemas([rows.SEQUENCE_ROW, rows.ANALYSIS, rows.CROP, rows.SUBJECTS, rows.RECON])
    assert plan([Export(), Captions()], source).schemas[-1].names[-1] == "caption_calls"
