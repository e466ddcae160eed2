"""Captions: the story of a sequence, a caption for each clip, and one for each reconstruction target."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import pyarrow.parquet as pq

from curation import rows
from curation.captions.answers import storable
from curation.captions.facts import Scene, gather_scene, small_pictures, view_of
from curation.captions.grammar import compose, global_part, reconstruct_target
from curation.captions.lint import LintSettings
from curation.captions.media import RATES
from curation.captions.prompts import STAGES, load_prompts
from curation.captions.questions import ChatSettings
from curation.engine.stage import Folder, Resources, Row, Stage, StopRun, Worker
from curation.engine.store import canonical
from curation.looks import Look, read_looks
from curation.models.caption_tier import (
    AUTO,
    DESCRIBE,
    OPENAI,
    VLLM,
    Choice,
    Lazily,
    Tier,
    choose,
    note,
    revision_here,
    server_model,
)
from curation.models.captioner import ERROR, STATUSES, Answer, Captioner
from curation.models.captioner import Captions as Answers
from curation.models.describer import Describer
from curation.models.endpoint import EndpointSettings
from curation.models.vllm_client import VllmSettings
from curation.models.vllm_process import gpus_here

KEPT_CHARS = 4000
"""Of an answer as it was written, in the published table."""


@dataclass(frozen=True, kw_only=True)
class Captions(Stage):
    """Story, shot and target captions that name subjects by label, in the trainer's grammar.

    Attributes:
        captioner: `vllm` asks Qwen3-VL on GPUs of this machine or cluster, `openai` a server (setting
            `openai.url`), `describe` puts measured facts into words and needs no model; `auto` takes vllm
            where a GPU, vLLM and the weights are here, else describe.
        prompts: folder with prompt files of your own; null for ours, as for each file left out
            (docs/captions.md).
        fps: frames a second of the video that is shown: 1, 2 or 4.
        draw_labels: draw boxes and labels of the subjects on the frames of the video.
        story_tokens: most tokens of an answer with story and descriptions.
        shot_tokens: most tokens of the answer about a shot.
        recon_tokens: most tokens of the answer about a reconstruction target.
        sequences_in_flight: sequences that are asked about at a time, by vllm and openai.
        lint: how captions are judged.
        vllm: the engine, for vllm.
        openai: the server, for openai.
    """

    name: ClassVar[str] = "captions"
    version: ClassVar[int] = 4
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
        "recon_images",
        "looks",
    )
    writes: ClassVar = rows.CAPTIONS

    captioner: Tier = AUTO
    prompts: str | None = None
    fps: int = 2
    draw_labels: bool = False
    story_tokens: int = 1200
    shot_tokens: int = 400
    recon_tokens: int = 300
    sequences_in_flight: int = 8
    lint: LintSettings = field(default_factory=LintSettings)
    vllm: VllmSettings = field(default_factory=VllmSettings)
    openai: EndpointSettings = field(default_factory=EndpointSettings)

    def __post_init__(self) -> None:
        """Refuse an unknown captioner, a rate the looks do not have, and prompts that cannot be used."""
        if self.captioner not in (AUTO, DESCRIBE, VLLM, OPENAI):
            raise ValueError(f"captioner: {self.captioner!r} is none of auto, describe, vllm, openai")
        if self.fps not in RATES:
            raise ValueError(f"fps: {self.fps} is none of {', '.join(map(str, RATES))}")
        for name in ("story_tokens", "shot_tokens", "recon_tokens", "sequences_in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        load_prompts(self.prompts)

    # -- what runs ----------------------------------------------------------------------------------

    def choice(self) -> Choice:
        """The captioner that `captioner` stands for on this machine, and why."""
        return choose(self.captioner, self.vllm)

    def settled(self) -> tuple[Captions, str]:
        """With the captioner chosen and, for a server, its model named."""
        choice = self.choice()
        stage, doubt = replace(self, captioner=choice.captioner), ""
        if choice.captioner == OPENAI:
            try:
                stage = replace(stage, openai=replace(self.openai, model=server_model(self.openai)))
            except StopRun as stop:
                if self.openai.model is None:
                    raise
                doubt = f"; not at this moment: {stop}"  # it may be up when the captions' turn comes
        if choice.captioner == VLLM:
            revision_here(self.vllm)  # says at once what is missing
        return stage, note(choice, stage.vllm, stage.openai) + doubt

    def occupies(self) -> Resources:
        """A CPU for the describer; GPUs for an engine; little for waiting on a server.

        Ray Data runs a stage inside the actors of the next one where both ask for the same, so what holds
        actors must not ask for just the one CPU of the stages before it.
        """
        captioner, in_flight = self.choice().captioner, self.sequences_in_flight
        if captioner == DESCRIBE:
            return Resources(cpus=1.0)
        if captioner == VLLM and gpus_here():
            gpus = self.vllm.tensor_parallel
            return Resources(cpus=1.0, gpus=gpus, actors=True, in_flight=in_flight)
        return Resources(cpus=0.5, actors=True, in_flight=in_flight, max_workers=1)

    def deciding(self) -> Row:
        """What changes captions: not how many requests are in flight, nor where the same model is served."""
        captioner = self.choice().captioner
        if captioner == DESCRIBE:
            return {"captioner": captioner}
        sampling = self.openai.sampling() if captioner == OPENAI else self.vllm.sampling
        return {"captioner": captioner, "sampling": dict(sampling), **asdict(self._asked())}

    def fingerprint(self) -> dict[str, str]:
        """The model's revision and the hash of each stage's prompts."""
        captioner = self.choice().captioner
        if captioner == DESCRIBE:
            told = Describer()
            prompts = {f"prompt_{stage}": told.prompt_hash(stage) for stage in STAGES}
            return {told.model_id: told.revision, **prompts}
        texts = load_prompts(self.prompts)
        prompts = {f"prompt_{stage}": texts.hash(stage) for stage in STAGES}
        if captioner == VLLM:
            return {self.vllm.model_id: revision_here(self.vllm), **prompts}
        return {self.openai.model or "the only model of the server": "as served", **prompts}

    def _asked(self) -> ChatSettings:
        return ChatSettings(
            fps=self.fps,
            draw_labels=self.draw_labels,
            story_tokens=self.story_tokens,
            shot_tokens=self.shot_tokens,
            recon_tokens=self.recon_tokens,
            lint=self.lint,
        )

    def worker(self) -> Worker:
        """Holds the captioner; an engine is started or a server called when the first row needs it."""
        captioner = self.choice().captioner
        settings = self.vllm if captioner == VLLM else self.openai if captioner == OPENAI else None
        lazy = Lazily(settings, load_prompts(self.prompts), self._asked())
        slots = threading.BoundedSemaphore(self.sequences_in_flight)  # each holds its frames in memory

        def work(row: Row, folder: Folder) -> Row:
            with slots:
                return caption_row(row, folder, lazy.captioner())

        lazy.close_with(work)
        return work


# -- one row --------------------------------------------------------------------------------------


def caption_row(row: Row, folder: Folder, captioner: Captioner) -> Row:
    """Caption a sequence: the columns of `curation.rows.CAPTIONS`, and counters for the run's record."""
    scene = scene_of(row, folder, measured=captioner.measures)
    answers = captioner.caption(scene, folder)
    for name, value in counters(answers).items():
        folder.count(f"caption_{name}", value)
    if any(answer.status == ERROR for answer in answers.answers()):
        folder.unfinished()  # the next run asks again; what was answered is kept by the captioner
    return caption_columns(scene, answers, captioner)


def scene_of(row: Row, folder: Folder, *, measured: bool) -> Scene:
    """What is known about a sequence, from its row and files.

    Args:
        row: with the columns the stage reads.
        folder: to open artefacts with.
        measured: whether to measure the pictures, which takes a third of a second.
    """
    boxes = pq.read_table(folder.open(row["boxes"])).to_pylist() if row["boxes"] else []
    looks: dict[int, list[Look]] = {}
    for look in read_looks(folder.open(row["looks"])):
        looks.setdefault(look.clip_index, []).append(look)
    views = {index: view_of(small_pictures(seen)) for index, seen in looks.items()} if measured else {}
    pictures = {image["recon_id"]: folder.open(image["image"]) for image in row["recon_images"] or []}
    return gather_scene(row, boxes, looks, views, pictures)


def counters(answers: Answers) -> dict[str, float]:
    """Sums over the requests of a sequence; `requests` is the sum of the statuses."""
    told = answers.answers()
    by_status = Counter(answer.status for answer in told)
    usages = [answer.usage for answer in told]
    known = [u for u in usages if u.tokens_in is not None and u.tokens_cached is not None]
    return {
        "requests": len(told),
        **{status: by_status[status] for status in STATUSES},
        "attempts": sum(u.attempts for u in usages),
        "calls": sum(u.attempts - u.recalled for u in usages),
        "tokens_in": sum(u.tokens_in or 0 for u in usages),
        "tokens_out": sum(u.tokens_out or 0 for u in usages),
        "tokens_cached": sum(u.tokens_cached or 0 for u in known),
        "tokens_computed": sum((u.tokens_in or 0) - (u.tokens_cached or 0) for u in known),
        "seconds": round(sum(u.seconds for u in usages), 3),
    }


def caption_columns(scene: Scene, answers: Answers, captioner: Captioner) -> Row:
    """The answers about a sequence as the columns of `curation.rows.CAPTIONS`."""
    story, told = answers.story, answers.story.descriptions
    calls = [_call(captioner, "story", scene.sequence_id, story)]
    shot_captions, recon_captions = [], []
    for shot, answer in zip(scene.shots, answers.shots, strict=True):
        calls.append(_call(captioner, "shot", str(shot.clip_index), answer))
        # The trainer drops the subjects' table, so the global part says who is in the shot.
        seen = {s.label for s in shot.seen}
        cast = global_part([pair for pair in told.items() if pair[0] in seen]) if story.binds else None
        texts = {"global_caption": cast, "shot_caption": answer.text, "caption": None}
        if answer.text:
            texts["caption"] = compose(cast or "", answer.text)
        shot_captions.append({"clip_index": shot.clip_index, **texts})
    for target, answer in zip(scene.targets, answers.recon, strict=True):
        calls.append(_call(captioner, "recon", target.recon_id, answer))
        recon_captions.append({"recon_id": target.recon_id, "caption": answer.text})
    return {
        "story_caption": story.text,
        "reconstruct_target": reconstruct_target(list(told.items())) if told else None,
        "descriptions": [
            {"subject_id": s.subject_id, "label": s.label, "description": told.get(s.label)}
            for s in scene.subjects
        ],
        "shot_captions": shot_captions,
        "recon_captions": recon_captions,
        "caption_calls": calls,
    }


def _call(captioner: Captioner, stage: str, target: str, answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "stage": stage,
        "target": target,
        "status": answer.status,
        "backend": captioner.backend,
        "model_id": captioner.model_id,
        "revision": captioner.revision,
        "sampling": canonical(dict(captioner.sampling)) if captioner.sampling else None,
        "prompt_hash": captioner.prompt_hash(stage),
        "attempts": usage.attempts,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "faults": list(answer.faults),
        "asked": answer.asked,
        "answered": None if answer.answered is None else storable(answer.answered, KEPT_CHARS),
    }
