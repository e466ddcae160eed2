"""Captions: the story of a sequence, a caption for each clip, and one for each reconstruction target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow.parquet as pq

from curation import rows
from curation.caption_facts import Scene, gather_scene, small_pictures, view_of
from curation.caption_grammar import compose, global_part
from curation.looks import Look, read_looks
from curation.models.captioner import Answer, Captioner
from curation.models.describer import Describer
from curation.stage import Folder, Resources, Row, Stage, Worker

CAPTIONERS: dict[str, Callable[[], Captioner]] = {"describe": Describer}
"""Setting `captioner` -> what makes it."""


@dataclass(frozen=True, kw_only=True)
class Captions(Stage):
    """Story, shot and target captions that name subjects by label, in the trainer's grammar.

    Attributes:
        captioner: `describe` puts measured facts into words and needs no model.
    """

    name: ClassVar[str] = "captions"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = (
        "sequence_id",
        "clips",
        "subjects",
        "recon_targets",
        "boxes",
        "scores",
        "crop_x",
        "crop_y",
        "crop_width",
        "crop_height",
        "stream",
        "clip_files",
        "looks",
    )
    writes: ClassVar = rows.CAPTIONS
    resources: ClassVar[Resources] = Resources(cpus=1.0)

    captioner: str = "describe"

    def __post_init__(self) -> None:
        """Refuse an unknown captioner."""
        if self.captioner not in CAPTIONERS:
            raise ValueError(f"captions.captioner: {self.captioner!r} is none of {sorted(CAPTIONERS)}")

    def fingerprint(self) -> dict[str, str]:
        """The captioner's revision and prompts."""
        captioner = CAPTIONERS[self.captioner]()
        prompts = {f"prompt_{stage}": captioner.prompt_hash(stage) for stage in ("story", "shot", "recon")}
        return {captioner.model_id: captioner.revision, **prompts}

    def worker(self) -> Worker:
        """Holds the captioner."""
        captioner = CAPTIONERS[self.captioner]()

        def work(row: Row, folder: Folder) -> Row:
            return caption_columns(_scene(row, folder), captioner)

        return work


def _scene(row: Row, folder: Folder) -> Scene:
    boxes = pq.read_table(folder.open(row["boxes"])).to_pylist() if row["boxes"] else []
    looks: dict[int, list[Look]] = {}
    for look in read_looks(folder.open(row["looks"])):
        looks.setdefault(look.clip_index, []).append(look)
    views = {index: view_of(small_pictures(of_clip)) for index, of_clip in looks.items()}
    return gather_scene(row, boxes, looks, views)


def caption_columns(scene: Scene, captioner: Captioner) -> Row:
    """Ask a captioner for everything and put the answers into the columns of `curation.rows.CAPTIONS`."""
    story = captioner.story(scene)
    calls = [_call(captioner, "story", scene.sequence_id, story)]
    shot_captions = []
    for shot, answer in zip(scene.shots, captioner.shots(scene, story), strict=True):
        calls.append(_call(captioner, "shot", str(shot.clip_index), answer))
        # The trainer drops the subjects' table, so the global part says who is in the shot.
        cast = sorted((s.label for s in shot.seen), key=lambda label: list(story.descriptions).index(label))
        told = global_part([(label, story.descriptions[label]) for label in cast])
        text = answer.text
        shot_captions.append(
            {
                "clip_index": shot.clip_index,
                "global_caption": told,
                "shot_caption": text,
                "caption": compose(told, text) if text else None,
            }
        )
    recon_captions = []
    for target, answer in zip(scene.targets, captioner.recon(scene, story), strict=True):
        calls.append(_call(captioner, "recon", target.recon_id, answer))
        recon_captions.append({"recon_id": target.recon_id, "caption": answer.text})
    return {
        "story_caption": story.text,
        "descriptions": [
            {
                "subject_id": s.subject_id,
                "label": s.label,
                "description": story.descriptions.get(s.label),
            }
            for s in scene.subjects
        ],
        "shot_captions": shot_captions,
        "recon_captions": recon_captions,
        "caption_calls": calls,
    }


def _call(captioner: Captioner, stage: str, target: str, answer: Answer) -> dict[str, Any]:
    return {
        "stage": stage,
        "target": target,
        "status": answer.status,
        "backend": captioner.backend,
        "model_id": captioner.model_id,
        "revision": captioner.revision,
        "prompt_hash": captioner.prompt_hash(stage),
        "tokens_in": answer.tokens_in,
        "tokens_out": answer.tokens_out,
        "faults": list(answer.faults),
    }
