"""A story, shot by shot: recall, condition, sample, decode, remember.

Only the state of the last shot is held, so a story of any length needs the memory of a short one. A story's
folder holds what `memento_model.story.shot_files` says, and `story.mp4`, the film of all shots.

Axes: b batch, c channels, t pixel frames or rows of text, f latent frames, h and w rows and columns, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from curation.stories.script import StoryScript
from memento_model.codecs.codec import Codec
from memento_model.codecs.text import TextEncoder
from memento_model.conditioning import (
    Conditioning,
    Given,
    Memory,
    condition_shot,
    given_frames,
    reference_memory,
)
from memento_model.config import Compat, Expert, Layout, ModelConfig
from memento_model.distributed.launch import World
from memento_model.flow import MEMENTO, STORYMEM, WAN_T2V, Schedule
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.story.memory import (
    EXPERTS,
    ComingShot,
    MadeShot,
    MemoryPolicy,
    MemoryState,
    Pool,
    Recall,
    Source,
)
from memento_model.story.plan import MOTION_FRAMES, NEGATIVE_PROMPT, GenerateSettings, ShotPlan, plan_story
from memento_model.story.sampler import Experts, Sampling, ShotText
from memento_model.story.shot_files import ShotFiles, ShotState, chain, load_state, save_state, set_aside
from memento_model.story.together import ShotWork, lead
from memento_model.story.video import (
    from_pixels,
    join,
    to_pixels,
    write_picture,
    write_pictures,
    write_shot,
)

VERSION = 2
"""Raised whenever the same story, settings and weights give another film."""
FILM, REFERENCES = "story.mp4", "references"
"""Names in a story's folder: the film of all shots, and the pictures it began with."""
NUM_STILLS, STILL_HEIGHT = 8, 240
"""Small pictures kept of a shot besides the remembered frames, and their height in pixels."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """Everything a story is made with.

    Attributes:
        experts: of the model with memory.
        first_shot: Wan's T2V experts for shots that a prompt alone decides; None lets `experts` make them.
        codec, text: of the model.
        config: of the experts.
        compat: choices on which releases differ.
        revision: of all weights together; part of every shot's key.
        device: where latents live.
        world: the processes that sample together; None is this one alone.
    """

    experts: Experts
    first_shot: Experts | None
    codec: Codec
    text: TextEncoder
    config: ModelConfig
    compat: Compat
    revision: str
    device: torch.device | str = "cpu"
    world: World | None = None


class Watcher(Protocol):
    """Is told how far the story is."""

    def story(self, plans: Sequence[ShotPlan], aside: Sequence[str]) -> None:
        """The work begins: the shots to be made, and the stems of old ones that were put aside."""

    def begin(self, plan: ShotPlan) -> None:
        """A shot is made now."""

    def step(self, plan: ShotPlan, number: int, steps: int, preview: Callable[[], np.ndarray]) -> None:
        """A solver step is done; `preview` decodes the first frame as predicted now, uint8 [h, w, 3]."""

    def shot(self, plan: ShotPlan, record: Mapping[str, Any], *, reused: bool) -> None:
        """A shot is done or was there already."""


class QueryElection:
    """One expert's learned queries as the memory asks them."""

    def __init__(self, query: KeyframeQuery, embed_text: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self._query, self._embed_text = query, embed_text

    @torch.inference_mode()
    def __call__(
        self, memory: Memory, positions: Sequence[int], coming: ComingShot
    ) -> tuple[list[int], dict[str, Any]]:
        """Indices of the picked candidates and, rounded, every candidate's scores and the margin."""
        candidates = memory.latents_cmhw[None]
        made = self._query(
            candidates,
            torch.tensor([list(positions)], device=candidates.device),
            self._embed_text([coming.text_td]),
            self._embed_text([coming.global_text_td]),
            straight_through=False,
        )
        facts = {
            "local_scores": _rounded(made.local_scores_bf[0]),
            "global_scores": _rounded(made.global_scores_bf[0]),
            "picked": made.picked_bk[0].tolist(),
            "num_local": made.num_local,
            "margin": float(f"{float(made.margin_b[0]):.4g}"),
        }
        return made.picked_bk[0].tolist(), facts


def _rounded(scores_f: Tensor) -> list[float]:
    return [float(f"{score:.5g}") for score in scores_f.tolist()]


class StoryGenerator:
    """Makes the shots of one story into a folder; stopped at any time, it goes on at the shot it was at."""

    def __init__(
        self,
        models: Models,
        memory: MemoryPolicy,
        settings: GenerateSettings,
        folder: Path,
        watcher: Watcher | None = None,
    ) -> None:
        self._models, self._memory, self._settings = models, memory, settings
        self._folder, self._watcher = folder, watcher
        self._grey = models.codec.grey(settings.grid)

    def run(
        self, story: StoryScript, references_nchw: Tensor | None = None, *, num_shots: int | None = None
    ) -> Path:
        """Make every shot and the film of all.

        Args:
            story: what to make.
            references_nchw: pictures in [-1, 1] of the shot's size, remembered before the first shot.
            num_shots: make only so many, the first ones; finished later ones are left alone.

        Returns:
            The film.

        Raises:
            ValueError: a story without shots, or references that this memory cannot take.
        """
        plans = plan_story(
            story, self._settings, self._models.compat, has_references=references_nchw is not None
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        keys = list(accumulate((asdict(plan) for plan in plans), chain, initial=self._start(references_nchw)))
        aside = set_aside(self._folder, {plan.stem: key for plan, key in zip(plans, keys[1:], strict=True)})
        plans, film = plans[:num_shots], self._folder / FILM
        if self._watcher is not None:
            self._watcher.story(plans, aside)
        before: ShotFiles | None = None
        stale, shots = False, []
        for plan, key in zip(plans, keys[1:], strict=False):
            files = ShotFiles(self._folder, plan.stem)
            record = None if stale else files.finished(key)
            reused, stale = record is not None, record is None
            if record is None:
                film.unlink(missing_ok=True)  # of other shots
                if self._watcher is not None:
                    self._watcher.begin(plan)
                state = load_state(before.state, self._models.device) if before else None
                record = self._make(plan, files, key, state)
            if self._watcher is not None:
                self._watcher.shot(plan, record, reused=reused)
            shots.append(files.video)
            before = files
        join(shots, film)
        return film

    def _start(self, references_nchw: Tensor | None) -> str:
        deciding = {
            "version": VERSION,
            "settings": asdict(self._settings),
            "negative_prompt": self._negative,
            "memory": self._memory.name,
            "compat": asdict(self._models.compat),
            "models": self._models.revision,
            "codec": [self._models.codec.name, self._models.codec.revision],
            "text": [self._models.text.name, self._models.text.revision],
        }
        if references_nchw is not None:
            pixels = to_pixels(references_nchw.transpose(0, 1))
            deciding["references"] = [list(pixels.shape), hashlib.sha256(pixels.tobytes()).hexdigest()]
            write_pictures(self._folder / REFERENCES, pixels)
            images_nchw = from_pixels(pixels).transpose(0, 1)
            self._memory.start(self._references(images_nchw), images_nchw)
        else:
            write_pictures(self._folder / REFERENCES, ())
        return chain("", deciding)

    def _references(self, images_nchw: Tensor) -> Pool:
        memory = reference_memory(self._models.codec, images_nchw.to(self._models.device))
        return Pool(memory=memory, sources=tuple(Source("", i) for i in range(len(memory.times))))

    @property
    def _negative(self) -> str:
        return self._settings.negative_prompt or NEGATIVE_PROMPT.read_text(encoding="utf-8").strip()

    # -- one shot ---------------------------------------------------------------------------------

    def _make(self, plan: ShotPlan, files: ShotFiles, key: str, before: ShotState | None) -> dict[str, Any]:
        if before is not None:
            self._memory.restore(before.memory)
        text, coming = self._encode_text(plan)
        recalls = _level(self._memory.recall(coming))
        conditionings = self._condition(plan, recalls, before)
        latents = self._sample(plan, conditionings, text, files)
        layout = conditionings["low"].layout
        video_cthw = self._models.codec.decode(latents[:, :, layout.target])[0]
        pixels = to_pixels(video_cthw)
        scratch = files.open_scratch()
        if layout.identity_frames:
            subject = self._models.codec.decode(latents[:, :, layout.identity])[0]
            write_picture(scratch / files.subject.name, to_pixels(subject)[0])
        write_shot(scratch / files.video.name, pixels[plan.num_dropped :], self._settings.crf)
        self._remember(plan, pixels)
        memory = self._memory.state()
        stills = _stills(plan, memory, len(pixels))
        for frame in stills:
            height = min(STILL_HEIGHT, self._settings.grid.height)
            write_picture(scratch / "stills" / files.still(frame).name, pixels[frame], height)
        save_state(
            scratch / "state" / files.state.name,
            ShotState(memory=memory, last_frames_thwc_u8=pixels[-MOTION_FRAMES:]),
        )
        return files.commit({"key": key, **asdict(plan), "memory": _remembered(recalls), "stills": stills})

    def _encode_text(self, plan: ShotPlan) -> tuple[ShotText, ComingShot]:
        prompts = [plan.prompt, self._negative, plan.global_prompt]
        if plan.identity_prompt is not None:
            prompts += [plan.identity_prompt, ""]
        rows = [r.to(self._models.device) for r in self._models.text.encode(prompts)]
        text = ShotText(prompt_td=rows[0], negative_td=rows[1])
        if plan.identity_prompt is not None:
            text = replace(text, identity_td=rows[3], identity_negative_td=rows[4])
        coming = ComingShot(start_frame=plan.start_frame, text_td=rows[0], global_text_td=rows[2])
        return text, coming

    def _condition(
        self, plan: ShotPlan, recalls: Mapping[Expert, Recall], before: ShotState | None
    ) -> dict[Expert, Conditioning]:
        alone = plan.task == "T2V"
        given: Given | None = None
        if plan.continues:
            assert before is not None, "the first shot continues nothing"
            last = from_pixels(before.last_frames_thwc_u8[-self._settings.continuation_frames :])
            given = given_frames(self._models.codec, last.to(self._models.device), self._settings.grid)
        made: dict[Expert, Conditioning] = {}
        for expert in EXPERTS:
            pool = recalls[expert].pool
            made[expert] = condition_shot(
                self._grey,
                memory=None if alone or pool is None else pool.memory,
                given=given,
                start_frame=plan.start_frame,
                num_identities=0 if plan.identity_prompt is None else 1,
                compat=self._models.compat,
                has_condition=not (alone and self._models.first_shot is not None),
            )
        return made

    def _sample(
        self,
        plan: ShotPlan,
        conditionings: Mapping[Expert, Conditioning],
        text: ShotText,
        files: ShotFiles,
    ) -> Tensor:
        alone = plan.task == "T2V" and self._models.first_shot is not None
        experts = self._models.first_shot if alone else self._models.experts
        assert experts is not None
        schedule = self._schedule(alone=alone)
        mode = self._settings.mode
        sampling = Sampling(
            schedule=schedule,
            guidance=dict.fromkeys(EXPERTS, plan.guidance),
            attention="joint" if alone else self._settings.attention_form,
            reimpose=mode == "memento",
            batch_guidance=self._settings.batch_guidance,
        )

        def on_step(number: int, steps: int, clean_bcfhw: Tensor) -> None:
            if self._watcher is not None:
                self._watcher.step(plan, number, steps, lambda: self._preview(clean_bcfhw))

        work = ShotWork(
            name=f"shot {plan.stem}",
            alone=alone,
            conditionings=conditionings,
            text=text,
            noise_bcfhw=self._noise(plan, conditionings["low"].layout),
            sampling=sampling,
        )
        return lead(self._models.world, experts, work, on_step)

    def _schedule(self, *, alone: bool) -> Schedule:
        schedule = WAN_T2V if alone else STORYMEM if self._settings.mode == "storymem" else MEMENTO
        return schedule if self._settings.steps is None else replace(schedule, steps=self._settings.steps)

    def _noise(self, plan: ShotPlan, layout: Layout) -> Tensor:
        """Noise of the whole layout; the shot's part does not depend on how much is remembered."""
        generator = torch.Generator().manual_seed(plan.seed)
        channels, frames, height, width = self._settings.grid.latent_shape
        target = torch.randn(1, channels, frames, height, width, generator=generator)
        others = layout.num_frames - frames
        rest = torch.randn(1, channels, others, height, width, generator=generator)
        return torch.cat((rest, target), dim=2).to(self._models.device)

    def _preview(self, clean_bcfhw: Tensor) -> np.ndarray:
        return to_pixels(self._models.codec.decode(clean_bcfhw[:, :, :1])[0])[0]

    def _remember(self, plan: ShotPlan, pixels_thwc_u8: np.ndarray) -> None:
        # from pixels, not from the decoder's own numbers: what is remembered is what was saved
        video = from_pixels(pixels_thwc_u8).to(self._models.device)
        self._memory.add(
            MadeShot(
                name=plan.stem,
                start_frame=plan.start_frame,
                video_cthw=video,
                encode=self._models.codec.encode_images,
            )
        )


def _level(recalls: Mapping[Expert, Recall]) -> dict[Expert, Recall]:
    """Both experts with equally many frames; the larger pool loses its oldest."""
    sizes = {expert: len(recall.pool or ()) for expert, recall in recalls.items()}
    least = min(sizes.values())
    out: dict[Expert, Recall] = {}
    for expert, recall in recalls.items():
        pool = recall.pool
        if pool is not None:
            pool = pool.take(range(sizes[expert] - least, sizes[expert])) if least else None
        out[expert] = replace(recall, pool=pool)
    return out


def _stills(plan: ShotPlan, memory: MemoryState, num_frames: int) -> list[int]:
    """Frames of a shot of which pictures are kept: evenly spaced ones, and those that are remembered."""
    spaced = np.linspace(0, num_frames - 1, min(NUM_STILLS, num_frames)).round().astype(int).tolist()
    kept = [s.frame for pool in memory.pools.values() for s in pool.sources if s.shot == plan.stem]
    return sorted({*spaced, *kept})


def _remembered(recalls: Mapping[Expert, Recall]) -> dict[str, Any]:
    return {
        expert: {"frames": [[s.shot, s.frame] for s in _sources(recall)], **recall.facts}
        for expert, recall in recalls.items()
    }


def _sources(recall: Recall) -> Iterator[Source]:
    return iter(recall.pool.sources if recall.pool is not None else ())
