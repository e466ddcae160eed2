"""The requests about a sequence: one prefix for all of them, and the question of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curation.captions.facts import Scene, Shot, Target
from curation.captions.grammar import reconstruct_target
from curation.captions.lint import LintSettings
from curation.captions.media import shot_facts, timeline, video_of
from curation.captions.prompts import Prompts
from curation.captions.schemas import caption_schema, story_schema
from curation.models.captioner import StoryAnswer
from curation.models.chat import ChatRequest, Part, Picture, Text

NOBODY = "none"
DRAWN = " Boxes and labels are drawn on the frames; they are not part of the film, so do not mention them."


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """What is asked of the model.

    Attributes:
        fps: frames a second of the video.
        draw_labels: whether boxes and labels are drawn on its frames.
        story_tokens, shot_tokens, recon_tokens: most tokens of an answer.
        lint: how answers are judged.
    """

    fps: int = 2
    draw_labels: bool = False
    story_tokens: int = 1200
    shot_tokens: int = 400
    recon_tokens: int = 300
    lint: LintSettings = field(default_factory=LintSettings)


class Questions:
    """Builds the requests about one sequence.

    Attributes:
        labels: of the subjects that its clips or targets show, in order of appearance.
        shared: the words that all requests have in common, for the record.
    """

    def __init__(self, scene: Scene, prompts: Prompts, settings: ChatSettings) -> None:
        seen = {seen.label for shot in scene.shots for seen in shot.seen}
        seen |= {target.subject.label for target in scene.targets}
        self.labels = [subject.label for subject in scene.subjects if subject.label in seen]
        self._prompts, self._settings = prompts, settings
        spans = timeline(scene, settings.fps)
        self._spans = {span.shot.clip_index: span for span in spans}
        self._system = prompts.fill("system")
        facts = prompts.fill(
            "facts",
            num_shots=len(spans),
            seconds=f"{spans[-1].end_s:.1f}",
            shots="\n".join(shot_facts(span) for span in spans),
            labels=listed(self.labels),
            drawn=DRAWN if settings.draw_labels else "",
        )
        video = video_of(scene, settings.fps, draw_labels=settings.draw_labels)
        # Parts follow one another without a break, so the texts bring their own.
        self._prefix: tuple[Part, ...] = (video, Text(facts + "\n\n"))
        self.shared = f"{self._system}\n\n(the video)\n\n{facts}"

    def story(self) -> ChatRequest:
        """About the whole sequence and who is in it."""
        lint = self._settings.lint
        text = self._prompts.fill(
            "story",
            labels=listed(self.labels),
            min_chars=lint.story_min_chars,
            max_chars=lint.story_max_chars,
            description_max_chars=lint.description_max_chars,
        )
        schema = story_schema(self.labels, lint)
        return self._request((Text(text),), schema, self._settings.story_tokens)

    def shot(self, shot: Shot, prominence: Mapping[str, float], story: StoryAnswer) -> ChatRequest:
        """About one shot.

        Args:
            shot: which.
            prominence: label -> share of time and picture, for each subject seen in it.
            story: its text, if it has one, and its inventory.
        """
        lint, span = self._settings.lint, self._spans[shot.clip_index]
        seen = [label for label in self.labels if label in prominence]
        text = self._prompts.fill(
            "shot",
            number=shot.number,
            start=f"{span.start_s:.1f}",
            end=f"{span.end_s:.1f}",
            visible=listed(seen),
            prominent=listed([label for label in seen if prominence[label] >= lint.min_prominence]),
            min_chars=lint.shot_min_chars,
            max_chars=lint.shot_max_chars,
            **self._bound(story),
        )
        return self._request((Text(text),), caption_schema(lint.shot_max_chars), self._settings.shot_tokens)

    def recon(self, target: Target, picture: Picture, story: StoryAnswer) -> ChatRequest:
        """About a reconstruction target; its picture comes after what all requests share."""
        lint, label = self._settings.lint, target.subject.label
        text = self._prompts.fill(
            "recon",
            label=label,
            description=story.descriptions[label],
            others=listed(target.others),
            number=target.shot.number,
            time=f"{self._spans[target.shot.clip_index].at(target.time_s):.1f}",
            min_chars=lint.recon_min_chars,
            max_chars=lint.recon_max_chars,
            **self._bound(story),
        )
        return self._request(
            (picture, Text(text)), caption_schema(lint.recon_max_chars), self._settings.recon_tokens
        )

    def _bound(self, story: StoryAnswer) -> dict[str, str]:
        inventory = list(story.descriptions.items())
        return {
            "story": story.text or "(not told)",
            "inventory": reconstruct_target(inventory) if inventory else NOBODY,
        }

    def _request(self, question: tuple[Part, ...], schema: Mapping, max_tokens: int) -> ChatRequest:
        return ChatRequest(
            system=self._system, prefix=self._prefix, question=question, schema=schema, max_tokens=max_tokens
        )


def listed(labels: Sequence[str]) -> str:
    """Labels as a list in words, or that there are none."""
    return ", ".join(labels) or NOBODY
