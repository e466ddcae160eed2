"""The captions stage: facts from files, answers from a captioner, columns of the contract."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import ids, rows
from curation.caption_grammar import caption_faults, split_caption
from curation.models.captioner import Answer, StoryAnswer
from curation.models.describer import Describer
from curation.stage import plan
from curation.stages.captions import Captions, caption_columns
from curation.stages.export import Export
from curation.store import recipe
from tests.curation.tiny_film import sequence_row, shots_of, write_film
from tests.support import scratch

SPANS = [(0, 40), (40, 64), (64, 110)]
CROP = (0, 0, 160, 92)


def subject(sequence, index, letter, tracks):
    return {
        "subject_id": ids.subject_id(sequence, index),
        "label": f"[Person {letter}]",
        "class_name": "person",
        "is_primary": index == 0,
        "screen_time_s": 2.0,
        "track_ids": tracks,
        "clip_indices": [0],
        "confidence": 0.5,
        "colours": ["red"],
    }


def box(track, clip, step, x):
    return {
        "track_id": track,
        "clip_index": clip["clip_index"],
        "shot_id": clip["shot_id"],
        "frame": clip["start_frame"] + 3 * step,
        "pts": clip["start_pts"] + 1536 * step,
        "time_s": clip["start_s"] + step / 8,
        **{"x": x + step, "y": 20.0, "width": 40.0, "height": 60.0},
        **{"score": 0.9, "class_name": "person", "sharpness": 9.0},
    }


@pytest.fixture
def exported(tmp_path):
    """A sequence of two clips around a context shot; A in both, B only in the last, C cropped away."""
    film = write_film(tmp_path / "film.mp4", shots_of([40, 24, 46]))
    row = sequence_row(film, SPANS, context=(1,), targets=[(0, 3)], crop=CROP)
    name, clips = row["sequence_id"], row["clips"]
    row["subjects"] = [
        subject(name, 0, "A", [1, 2]),
        subject(name, 1, "B", [3]),
        subject(name, 2, "C", [4]),
    ]
    frame = {"frame": clips[0]["start_frame"] + 3, "x": 11.0, "y": 20.0, "width": 40.0, "height": 60.0}
    row["recon_targets"][0] |= frame
    folder = scratch(tmp_path, "analyse")
    boxes = [box(1, clips[0], i, 10.0) for i in range(12)]
    boxes += [box(2, clips[2], i, 20.0) for i in range(14)]
    boxes += [box(3, clips[2], i, 100.0) for i in range(14)]
    boxes += [{**box(4, clips[2], i, 100.0), "y": 90.0} for i in range(14)]
    boxes += [box(9, clips[0], i, 100.0) for i in range(12)]  # a track of nobody
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    row["boxes"], row["scores"] = folder.ref("boxes.parquet"), None
    folder.commit()
    folder = scratch(tmp_path, "export")
    row |= Export(height=96, width=160).worker()(row, folder)
    folder.commit()
    return row


@pytest.fixture
def captioned(exported, tmp_path):
    return Captions().worker()(exported, scratch(tmp_path, "captions"))


def test_captions_name_who_is_seen_in_the_clip_and_nobody_else(captioned):
    first, last = captioned["shot_captions"]
    assert (first["clip_index"], last["clip_index"]) == (0, 2)
    assert caption_faults(first["caption"], ["[Person A]"]) == []
    assert caption_faults(last["caption"], ["[Person A]", "[Person B]"]) == []
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


class Refuses:
    """A captioner that has no answer for the second shot."""

    backend, model_id, revision = "test", "none", "0"

    def prompt_hash(self, stage):
        return stage

    def story(self, scene):
        return StoryAnswer(text="A story.", descriptions={s.label: "somebody" for s in scene.subjects})

    def shots(self, scene, story):
        bad = Answer(text=None, status="rejected", faults=("no label",), tokens_in=7, tokens_out=3)
        return [Answer(text="A shot.", tokens_in=5, tokens_out=2), bad]

    def recon(self, scene, story):
        return [Answer(text="A picture.") for _ in scene.targets]


def test_a_rejected_answer_leaves_no_caption_but_its_faults(exported, tmp_path):
    from curation.stages.captions import _scene

    columns = caption_columns(_scene(exported, scratch(tmp_path)), Refuses())
    assert columns["shot_captions"][1]["caption"] is None
    assert columns["shot_captions"][0]["caption"].endswith("shot caption: A shot.")
    call = columns["caption_calls"][2]
    assert (call["status"], call["faults"], call["tokens_in"]) == ("rejected", ["no label"], 7)


def test_the_key_holds_captioner_and_phrases(exported):
    stage = Captions()
    made = recipe(stage, exported)
    assert made.settings == {"captioner": "describe"}
    assert made.models["prompt_shot"] == Describer().prompt_hash("shot")
    with pytest.raises(ValueError, match="is none of"):
        Captions(captioner="qwen")


def test_stages_fit_into_a_plan():
    source = pa.unify_schemas([rows.SEQUENCE_ROW, rows.ANALYSIS, rows.CROP, rows.SUBJECTS, rows.RECON])
    assert plan([Export(), Captions()], source).schemas[-1].names[-1] == "caption_calls"
