"""The captioner that asks a vision-language model, through any `curation.models.chat.ChatClient`.

Story, shots and targets of a sequence have their system prompt, video and track facts in common, byte for
byte, so that an engine computes them once. The story is asked first, because its inventory binds the rest;
then every shot and every target is in flight at once, each with its own repair call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from curation.captions.answers import read_caption, read_story
from curation.captions.facts import Scene, Shot, Target
from curation.captions.grammar import compose, global_part, reconstruct_target
from curation.captions.lint import (
    Fault,
    inventory_faults,
    lint_recon,
    lint_shot,
    lint_story,
    prominence_in,
)
from curation.captions.media import picture_of
from curation.captions.prompts import STAGES, Prompts
from curation.captions.questions import ChatSettings, Questions
from curation.models.captioner import ERROR, REFUSED, REJECTED, Answer, Captions, Memory, StoryAnswer, Usage
from curation.models.chat import ChatClient
from curation.models.dialogue import Dialogue, Judged, Settled


class ChatCaptioner:
    """A `curation.models.captioner.Captioner`; all its state is the client's."""

    measures: ClassVar[bool] = False

    def __init__(self, client: ChatClient, prompts: Prompts, settings: ChatSettings) -> None:
        self.backend, self.model_id, self.revision = client.backend, client.model_id, client.revision
        self.sampling: Mapping[str, Any] = dict(client.sampling)
        self._client, self._prompts, self._settings = client, prompts, settings
        self._hashes = {stage: prompts.hash(stage) for stage in STAGES}

    def prompt_hash(self, stage: str) -> str:
        """Hash of the prompt files of a stage."""
        return self._hashes[stage]

    def caption(self, scene: Scene, memory: Memory) -> Captions:
        """Story first, then everything that it binds at once."""
        questions = Questions(scene, self._prompts, self._settings)
        dialogue = Dialogue(self._client, memory, self._prompts)
        story = self._story(scene, questions, dialogue)
        if not story.binds:
            unbound = Answer(
                text=None,
                status=REJECTED,
                faults=(f"story: no usable inventory of subjects ({story.status}), so this was not asked",),
                usage=Usage(attempts=0),
            )
            return Captions(
                story=story, shots=[unbound] * len(scene.shots), recon=[unbound] * len(scene.targets)
            )
        work: list[Callable[[], Answer]] = [
            *(partial(self._shot, shot, story, questions, dialogue) for shot in scene.shots),
            *(partial(self._recon, target, story, questions, dialogue) for target in scene.targets),
        ]
        answers = in_threads(work)
        return Captions(story=story, shots=answers[: len(scene.shots)], recon=answers[len(scene.shots) :])

    # -- one request each -------------------------------------------------------------------------

    def _story(self, scene: Scene, questions: Questions, dialogue: Dialogue) -> StoryAnswer:
        labels, lint = questions.labels, self._settings.lint

        def judge(text: str) -> Judged[tuple[str | None, dict[str, str]]]:
            story, inventory = read_story(text, labels)
            wrong = inventory_faults(inventory, labels, lint)
            told = dict(inventory) if not wrong and _composable(inventory) else {}
            faults = [*wrong, *lint_story(story, inventory, lint)]
            return Judged((None if faults else story, told), tuple(faults))

        settled = dialogue.settle(questions.story(), judge)
        text, told = settled.value or (None, {})
        heard = settled.value is not None and settled.status not in (ERROR, REFUSED)
        return StoryAnswer(
            text=text if settled.sound else None,
            descriptions=told,
            binds=heard and set(told) == set(labels),
            **_facts(settled, questions.shared),
        )

    def _shot(self, shot: Shot, story: StoryAnswer, questions: Questions, dialogue: Dialogue) -> Answer:
        inventory = list(story.descriptions.items())
        prominence = prominence_in(shot)

        def judge(text: str) -> Judged[str]:
            caption = read_caption(text)
            faults = lint_shot(caption, inventory, prominence, self._settings.lint)
            cast = global_part([pair for pair in inventory if pair[0] in prominence])
            return Judged(caption, tuple(faults or _grammar_faults(cast, caption)))

        settled = dialogue.settle(questions.shot(shot, prominence, story), judge)
        return Answer(text=settled.value if settled.sound else None, **_facts(settled))

    def _recon(self, target: Target, story: StoryAnswer, questions: Questions, dialogue: Dialogue) -> Answer:
        inventory, label = list(story.descriptions.items()), target.subject.label

        def judge(text: str) -> Judged[str]:
            caption = read_caption(text)
            faults = lint_recon(caption, inventory, label, target.others, self._settings.lint)
            return Judged(caption, tuple(faults))

        settled = dialogue.settle(questions.recon(target, picture_of(target), story), judge)
        look = reconstruct_target([(label, story.descriptions[label])])
        return Answer(text=f"{look}. {settled.value}" if settled.sound else None, **_facts(settled))


def in_threads(work: list[Callable[[], Answer]]) -> list[Answer]:
    """Do everything at once, in order; the first error ends the rest that has not begun."""
    if not work:
        return []
    with ThreadPoolExecutor(len(work), thread_name_prefix="ask") as pool:
        futures = [pool.submit(each) for each in work]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _composable(inventory: list[tuple[str, str]]) -> bool:
    try:
        global_part(inventory)
    except ValueError:
        return False
    return True


def _grammar_faults(told: str, caption: str) -> list[Fault]:
    """What the trainer's grammar refuses in a caption that the linter's settings let pass."""
    try:
        compose(told, caption)
    except ValueError as error:
        return [Fault("grammar", str(error))]
    return []


def _facts(settled: Settled[Any], shared: str = "") -> dict[str, Any]:
    return {
        "status": settled.status,
        "faults": settled.faults,
        "usage": settled.usage,
        "asked": f"{shared}\n\n{settled.asked}" if shared else settled.asked,
        "answered": settled.answered,
    }
