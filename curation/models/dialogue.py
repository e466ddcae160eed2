"""One request to its end: ask, judge, ask once more with the faults named, and account for all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from curation.captions.answers import AnswerError, answer_key, storable
from curation.captions.lint import Fault
from curation.captions.prompts import Prompts
from curation.models import chat
from curation.models.captioner import ERROR, OK, REFUSED, REJECTED, REPAIRED, TRUNCATED, Memory, Usage
from curation.models.chat import ChatClient, ChatReply, ChatRequest, Text

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SHOWN = 4000
"""Characters of a faulty answer that the repair call shows to the model."""
AFTER = "after repair: "


@dataclass(frozen=True)
class Judged(Generic[T_co]):
    """What an answer says and what is wrong with it; without faults it is sound."""

    value: T_co
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settled(Generic[T]):
    """The end of a request.

    Attributes:
        value: of the last answer that could be read, sound or not; None if none could.
        status: one of `curation.models.captioner.STATUSES`.
        faults: of all answers, in order; those of the second begin with "after repair".
        usage: of all attempts.
        asked: the words of the first question, without what all requests of the sequence share.
        answered: the last answer's text.
    """

    value: T | None
    status: str
    faults: tuple[str, ...]
    usage: Usage
    asked: str
    answered: str | None

    @property
    def sound(self) -> bool:
        """Whether the value may be used."""
        return self.status in (OK, REPAIRED)


class Dialogue:
    """Asks a client; every paid answer is kept at once, and one that was kept is not asked for again."""

    def __init__(self, client: ChatClient, memory: Memory, prompts: Prompts) -> None:
        self._client, self._memory, self._prompts = client, memory, prompts
        self._model = {
            "backend": client.backend,
            "model": client.model_id,
            "revision": client.revision,
            "sampling": dict(client.sampling),
        }

    def settle(self, request: ChatRequest, judge: Callable[[str], Judged[T]]) -> Settled[T]:
        """Ask, and ask once more if the answer is cut off or has faults.

        Args:
            request: what is asked.
            judge: reads and judges an answer; may raise `AnswerError`.
        """
        reply, recalled = self._ask(request)
        usage = _usage(reply, recalled)
        value, faults = _read(reply, judge)
        told = [str(fault) for fault in faults]
        repaired = False
        if faults:
            reply, recalled = self._ask(self._repair(request, reply, faults))
            usage = _sum(usage, _usage(reply, recalled))
            better, faults = _read(reply, judge)
            value = better if better is not None else value
            told += [AFTER + str(fault) for fault in faults]
            repaired = True
        if reply.error:
            told.append((AFTER if repaired else "") + storable(reply.error, 400))
        return Settled(
            value=value,
            status=_status(reply, faults, repaired=repaired),
            faults=tuple(told),
            usage=usage,
            asked=_words(request),
            answered=reply.text,
        )

    def _ask(self, request: ChatRequest) -> tuple[ChatReply, bool]:
        """The reply, and whether it was kept from an earlier run."""
        key = answer_key(request, self._model)
        kept = self._memory.recall(key)
        if isinstance(kept, Mapping):
            return ChatReply(**kept), True
        (reply,) = self._client.ask([request])
        reply = replace(reply, text=None if reply.text is None else storable(reply.text))
        if _is_paid(reply):
            self._memory.remember(key, _plain(reply))
        return reply, False

    def _repair(self, request: ChatRequest, reply: ChatReply, faults: list[Fault]) -> ChatRequest:
        """The same request with the answer and its faults after it, so that what was computed is reused."""
        answer = storable(reply.text or "", SHOWN).strip()
        if len(reply.text or "") > SHOWN:
            answer += " ..."
        lines = "\n".join(f"- {fault.text}" for fault in faults)
        text = self._prompts.fill("repair", answer=answer or "(nothing)", faults=lines)
        return replace(request, question=(*request.question, Text("\n\n" + text)))


def _read(reply: ChatReply, judge: Callable[[str], Judged[T]]) -> tuple[T | None, list[Fault]]:
    """What a reply says, if it can be read, and what is wrong with it."""
    if reply.finish == chat.LENGTH:
        cut = f"the answer was cut off after {reply.tokens_out or 'too many'} tokens: answer briefly"
        return None, [Fault("answer", cut)]
    if reply.finish != chat.STOP:
        return None, []
    try:
        judged = judge(reply.text or "")
    except AnswerError as error:
        return None, [Fault("answer", storable(str(error)))]
    return judged.value, list(judged.faults)


def _is_paid(reply: ChatReply) -> bool:
    """Whether a model worked for this reply; what got lost on the way is asked for again."""
    return reply.finish in (chat.STOP, chat.LENGTH) or (
        reply.finish == chat.REFUSED and reply.tokens_out is not None
    )


def _plain(reply: ChatReply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "finish": reply.finish,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "tokens_cached": reply.tokens_cached,
        "seconds": round(reply.seconds, 4),
        "error": storable(reply.error, 400),
    }


def _status(reply: ChatReply, faults: list[Fault], *, repaired: bool) -> str:
    if reply.finish == chat.ERROR:
        return ERROR
    if reply.finish == chat.REFUSED:
        return REFUSED
    if reply.finish == chat.LENGTH:
        return TRUNCATED
    if faults:
        return REJECTED
    return REPAIRED if repaired else OK


def _usage(reply: ChatReply, recalled: bool) -> Usage:
    return Usage(
        attempts=1,
        recalled=int(recalled),
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        tokens_cached=reply.tokens_cached,
        seconds=reply.seconds,
    )


def _sum(one: Usage, other: Usage) -> Usage:
    def add(a: int | None, b: int | None) -> int | None:
        return (a or 0) + (b or 0) if a is not None or b is not None else None

    return Usage(
        attempts=one.attempts + other.attempts,
        recalled=one.recalled + other.recalled,
        tokens_in=add(one.tokens_in, other.tokens_in),
        tokens_out=add(one.tokens_out, other.tokens_out),
        tokens_cached=add(one.tokens_cached, other.tokens_cached),
        seconds=one.seconds + other.seconds,
    )


def _words(request: ChatRequest) -> str:
    return "\n\n".join(part.text for part in request.question if isinstance(part, Text))
