"""What every captioner offers: a story, a caption for each shot and one for each target of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from curation.captions.facts import Scene

OK, REPAIRED, REJECTED = "ok", "repaired", "rejected"
TRUNCATED, REFUSED, ERROR = "truncated", "refused", "error"
STATUSES = (OK, REPAIRED, REJECTED, TRUNCATED, REFUSED, ERROR)
"""Every request ends with exactly one: sound at once, sound after the repair call, faulty after it, cut
off by the token limit after it, declined by model or server, or no answer to be had."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the answer to one request took.

    Attributes:
        attempts: times it was asked; 0 where nothing was sent.
        recalled: of these, how many were answered from what an earlier run had paid for.
        tokens_in, tokens_out: over all attempts; None where the captioner counts none.
        tokens_cached: of tokens_in, computed before for another call; None where unknown.
        seconds: waited for the answers of all attempts.
    """

    attempts: int = 1
    recalled: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one request.

    Attributes:
        text: the caption; None unless the status is ok or repaired.
        status: one of `STATUSES`.
        faults: what was found wrong, repaired or not, one line each.
        usage: what it took.
        asked: the text that was sent first; None where none is.
        answered: the last answer as it was written; None where there is none.
    """

    text: str | None
    status: str = OK
    faults: tuple[str, ...] = ()
    usage: Usage = Usage()
    asked: str | None = None
    answered: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoryAnswer(Answer):
    """A story caption and, per label, the fixed description that binds the other captions.

    Attributes:
        descriptions: sound even where the story is not; empty where they are not sound.
        binds: whether there is a sound description for each label, so that the rest can be asked.
    """

    descriptions: Mapping[str, str] = field(default_factory=dict)
    binds: bool = True


@dataclass(frozen=True, kw_only=True)
class Captions:
    """All answers about a sequence, in the order of `Scene.shots` and `Scene.targets`."""

    story: StoryAnswer
    shots: Sequence[Answer]
    recon: Sequence[Answer]

    def answers(self) -> list[Answer]:
        """All of them, in the order of the stages."""
        return [self.story, *self.shots, *self.recon]


class Memory(Protocol):
    """Where paid answers are kept at once; see `curation.engine.stage.Folder`."""

    def recall(self, key: str) -> Any:
        """What was kept under `key`, or None."""

    def remember(self, key: str, value: Any) -> None:
        """Keep JSON values under `key`."""


class Captioner(Protocol):
    """Safe to use from several threads, one sequence in each.

    Attributes:
        backend, model_id, revision: what answers; written beside every request.
        sampling: settings of the sampling, likewise; empty where nothing is sampled.
        measures: whether it wants `Shot.view`.
    """

    backend: str
    model_id: str
    revision: str
    sampling: Mapping[str, Any]
    measures: ClassVar[bool]

    def prompt_hash(self, stage: str) -> str:
        """Hash of everything that is asked in a stage (story, shot, recon) besides the sequence itself."""

    def caption(self, scene: Scene, memory: Memory) -> Captions:
        """Answer everything about a sequence.

        Raises:
            StopRun: nothing can be answered at all.
        """
