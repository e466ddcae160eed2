"""What every captioner offers: three kinds of answers about one sequence, story first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from curation.caption_facts import Scene


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one caption call.

    Attributes:
        text: the caption; None unless the status is ok or repaired.
        status: ok, repaired or rejected.
        tokens_in, tokens_out: None where the captioner has no tokens.
        faults: what was found wrong, one line each.
    """

    text: str | None
    status: str = "ok"
    tokens_in: int | None = None
    tokens_out: int | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StoryAnswer(Answer):
    """A story caption and, per label, the fixed description that binds the other captions."""

    descriptions: Mapping[str, str] = field(default_factory=dict)


class Captioner(Protocol):
    """Answers are in the order of `scene.shots` and `scene.targets`.

    Attributes:
        backend, model_id, revision: what answers; written beside every call.
    """

    backend: str
    model_id: str
    revision: str

    def prompt_hash(self, stage: str) -> str:
        """Hash of everything that is asked in a stage (story, shot, recon) besides the sequence itself."""

    def story(self, scene: Scene) -> StoryAnswer:
        """The story of the sequence and its subject inventory."""

    def shots(self, scene: Scene, story: StoryAnswer) -> Sequence[Answer]:
        """One text for each shot, without the global part."""

    def recon(self, scene: Scene, story: StoryAnswer) -> Sequence[Answer]:
        """One text for each reconstruction target."""
