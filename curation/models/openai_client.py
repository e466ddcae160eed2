"""A vision-language model behind any OpenAI-compatible server: `vllm serve`, SGLang, a hosted one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, TypeVar

from curation.engine.stage import StopRun
from curation.models.chat import ERROR, REFUSED, ChatReply, ChatRequest
from curation.models.endpoint import KEY_VARIABLE, EndpointSettings
from curation.models.openai_messages import (
    BAD,
    DECLINED,
    FATAL,
    RETRY,
    VIDEO_FIELD,
    Dialect,
    PartEncoder,
    Trouble,
    answer_format,
    card_revision,
    judge,
    messages,
    one_line,
    read_answer,
    read_cards,
    retry_after_s,
    video_options,
)
from curation.optional import require

__all__ = ["EndpointSettings", "OpenAIClient"]

log = logging.getLogger(__name__)

CONNECT_TRIES = 3  # at the start, where the user waits for the message

T = TypeVar("T")
Content = list[dict[str, Any]]


class OpenAIClient:
    """See `curation.models.chat.ChatClient`; the server is reached when the client is made.

    Answers are bound by JSON schema through `response_format`; a server that refuses it is asked in words
    from then on, so answers must be validated by the caller. `revision` is what the server's model card says
    (see `card_revision`), mostly "unknown": a server may change its weights under the same name.

    Raises:
        MissingExtra: the package openai is not installed.
        StopRun: no such server, wrong key, no model named where there are several.
    """

    backend = "openai"

    def __init__(self, settings: EndpointSettings) -> None:
        openai = require("openai", extra="endpoint")
        self._openai, self._settings, self._key = openai, settings, settings.key()
        self._encoder = PartEncoder(settings.media, settings.picture_format, settings.jpeg_quality)
        self._dialect = Dialect()
        self._lost_in_row, self._answered, self._closed = 0, False, False
        self._stop: str | None = None
        self.model_id, self.revision = settings.model or "", "unknown"
        self.sampling: Mapping[str, Any] = settings.sampling()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._gate = _Gate(settings.max_in_flight)
        self._api = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=self._key or "none",
            timeout=openai.Timeout(settings.timeout_s, connect=settings.connect_timeout_s),
            max_retries=0,  # tries are counted here, where a rate limit slows down all requests
        )
        self._listed: list[str] = []
        try:
            self._meet(self._run(self._cards()))
        except BaseException:
            self.close()
            raise

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Answer all requests, concurrently, in their order.

        Raises:
            StopRun: the server answers nobody any more. Requests of other calls that were being answered
                still get their replies.
        """
        if self._closed:
            raise RuntimeError("the client is closed")
        contents = [self._encoder.content((*request.prefix, *request.question)) for request in requests]
        replies = self._run(self._answer_all(requests, contents))
        done = [reply for reply in replies if reply is not None]
        if self._stop is not None and any(r is None or r.finish == ERROR for r in replies):
            raise StopRun(self._stop)
        return done

    def close(self) -> None:
        """Drop what is under way, end the thread."""
        if self._closed:
            return
        self._closed = True

        async def end() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._api.close()

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the client's thread and wait; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    # -- the model -------------------------------------------------------------------------------

    async def _cards(self) -> list[Mapping[str, Any]]:
        """The server's model cards; none if it does not show them.

        Raises:
            StopRun: nobody there, or the key is wrong.
        """
        for number in range(CONNECT_TRIES):
            outcome = await self._call(self._api.models.with_raw_response.list, {}, read_cards)
            if not isinstance(outcome, Trouble):
                return outcome
            if outcome.status in (403, 404, 405):
                return []  # some servers have no such page or keep it from some keys
            if outcome.kind != RETRY or number == CONNECT_TRIES - 1:
                break
            await asyncio.sleep(self._backoff_s(number, outcome.wait_s))
        assert isinstance(outcome, Trouble)
        raise StopRun(self._explain(outcome))

    def _meet(self, cards: Sequence[Mapping[str, Any]]) -> None:
        """Settle on the model.

        Raises:
            StopRun: none was named and there is not exactly one.
        """
        url, wanted = self._settings.url, self._settings.model
        self._listed = [str(card["id"]) for card in cards if card.get("id")]
        if wanted is None and len(self._listed) != 1:
            raise StopRun(f"{url}: name the model with the setting `model`; {self._shown()}")
        if wanted is not None and self._listed and wanted not in self._listed:
            log.warning("%s does not list the model %s; %s", url, wanted, self._shown())
        self.model_id = wanted or self._listed[0]
        for card in cards:
            if card.get("id") == self.model_id:
                self.revision = card_revision(card)

    def _shown(self) -> str:
        if not self._listed:
            return "the server does not say which it has"
        near = get_close_matches(self.model_id, self._listed, 3) if self.model_id else []
        names = near or self._listed[:8]
        more = ", ..." if len(names) < len(self._listed) else ""
        return one_line(f"the server has {', '.join(names)}{more}")

    def _explain(self, trouble: Trouble) -> str:
        """One line for the user: where, what, how to mend."""
        if VIDEO_FIELD in trouble.why:
            mend = "start vLLM with --trust-request-mm-kwargs, or set `media: images`"
        elif trouble.status in (401, 403) and self._key:
            mend = f"the key in {self._settings.key_variable} is not accepted"
        elif trouble.status in (401, 403):
            mend = f"put a key into the environment variable {KEY_VARIABLE}"
        elif trouble.kind == FATAL and (trouble.status in (402, 429) or trouble.wait_s is not None):
            mend = "the account is used up for now; run again later: finished answers are kept"
        elif trouble.kind == FATAL:
            mend = f"check the address and the model {self.model_id}; {self._shown()}"
        elif trouble.kind == BAD:
            mend = "the server takes none of the requests: has it a model that sees, and enough context?"
        elif not self._answered and not self._lost_in_row:
            mend = "nobody answers; start the server or correct the address"
        elif trouble.limited:
            mend = "too many requests for this server, however slowly; lower `max_in_flight` and run again"
        else:
            mend = "the server is gone; run again when it is back: finished answers are kept"
        return f"{self._settings.url}: {mend} ({trouble.why})"

    # -- one request -----------------------------------------------------------------------------

    async def _answer_all(
        self, requests: Sequence[ChatRequest], contents: Sequence[Content]
    ) -> list[ChatReply | None]:
        return await asyncio.gather(*map(self._answer, requests, contents))

    async def _answer(self, request: ChatRequest, content: Content) -> ChatReply | None:
        """The reply, after as many tries as it takes; None once the run must stop."""
        settings, clock = self._settings, self._loop.time
        began, outcome = None, None
        for number in range(settings.max_retries + 1):
            async with self._gate:
                if self._stop is not None:
                    return None
                sent = clock()
                began = began or sent
                if outcome is not None and sent >= began + settings.give_up_s:
                    break
                outcome = await self._try(request, content, began + settings.give_up_s - sent)
                self._gate.learn(sent, outcome)
            if isinstance(outcome, ChatReply) or outcome.kind != RETRY:
                break
            wait_s = self._backoff_s(number, outcome.wait_s)
            if number == settings.max_retries or clock() + wait_s >= began + settings.give_up_s:
                break
            await asyncio.sleep(wait_s)
        assert outcome is not None
        assert began is not None
        return self._settle(outcome, clock() - began)

    def _backoff_s(self, number: int, asked_s: float | None) -> float:
        """Seconds before the next try: doubled each time, or what the server asks for; a part by chance."""
        doubled = min(self._settings.backoff_s * 2.0 ** min(number, 30), self._settings.max_backoff_s)
        if asked_s is not None and asked_s > doubled:
            return asked_s * random.uniform(1.0, 1.1)
        return doubled * random.uniform(0.75, 1.0)

    def _settle(self, outcome: ChatReply | Trouble, seconds: float) -> ChatReply | None:
        """Turn the last outcome into the reply, and see whether the run can go on."""
        if isinstance(outcome, ChatReply):
            self._answered, self._lost_in_row = True, 0
            return replace(outcome, seconds=seconds)
        if outcome.kind == FATAL:
            self._stop = self._stop or self._explain(outcome)
            return None
        if outcome.kind == DECLINED:
            self._lost_in_row = 0
            return ChatReply(text=None, finish=REFUSED, seconds=seconds, error=outcome.why)
        # A server that answers others may refuse one that is too long; if it never answered, it is no use.
        if outcome.kind == RETRY or not self._answered:
            self._lost_in_row += 1
        if self._lost_in_row >= self._settings.stop_after:
            self._stop = self._stop or self._explain(outcome)
        return ChatReply(text=None, finish=ERROR, seconds=seconds, error=outcome.why)

    async def _try(self, request: ChatRequest, content: Content, left_s: float) -> ChatReply | Trouble:
        """Ask once; a field that is refused is changed and, if that helps, for the rest of the run."""
        used = dialect = self._dialect
        while True:
            create = self._api.chat.completions.with_raw_response.create
            outcome = await self._call(create, self._fields(request, content, dialect), read_answer, left_s)
            if not isinstance(outcome, Trouble) or outcome.kind != BAD:
                break
            milder = dialect.milder(outcome.why)
            if milder is None:
                break
            dialect = milder
        if isinstance(outcome, ChatReply) and dialect != used:
            if dialect.answers != used.answers:
                log.warning(
                    "%s refuses answers bound by %s: now %s",
                    self._settings.url,
                    used.answers,
                    dialect.answers,
                )
            self._dialect = dialect
        return outcome

    def _fields(self, request: ChatRequest, content: Content, dialect: Dialect) -> dict[str, Any]:
        sampling = {"temperature": self._settings.temperature, "seed": self._settings.seed}
        fields: dict[str, Any] = {
            "model": self.model_id,
            "messages": messages(request, content, dialect),
            dialect.max_tokens: request.max_tokens,
            **{name: value for name, value in sampling.items() if value is not None},
            **answer_format(request.schema, dialect),
        }
        if self._settings.media == "video":
            fields["extra_body"] = video_options((*request.prefix, *request.question))
        return fields

    async def _call(
        self,
        send: Callable[..., Awaitable[Any]],
        fields: Mapping[str, Any],
        read: Callable[[bytes], T],
        left_s: float = float("inf"),
    ) -> T | Trouble:
        """Send one HTTP request; whatever goes wrong becomes a Trouble."""
        limit_s = min(self._settings.timeout_s, left_s)
        try:
            answer = await asyncio.wait_for(send(**fields), limit_s)
            return read(answer.content)
        except (TimeoutError, self._openai.APITimeoutError):
            return Trouble(RETRY, f"no answer within {limit_s:.3g} s")
        except self._openai.APIStatusError as error:
            wait_s = retry_after_s(error.response.headers)
            trouble = judge(error.status_code, error.body, wait_s)
        except self._openai.APIConnectionError as error:
            return Trouble(RETRY, one_line(f"connection failed: {error.__cause__ or error}"))
        if self._key:
            trouble = replace(trouble, why=trouble.why.replace(self._key, "***"))
        too_long = wait_s is not None and wait_s > self._settings.give_up_s
        return replace(trouble, kind=FATAL) if too_long else trouble


class _Gate:
    """How many requests may be under way: halved by a rate limit, then slowly more again.

    Used in one event loop. Additive increase, multiplicative decrease, as in TCP's congestion avoidance
    (RFC 5681): answers to requests that were sent before the last cut do not cut again.
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit, self._flying = most, float(most), 0
        self._cut_at = self._resume_at = float("-inf")
        self._change = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._change:
            await self._change.wait_for(lambda: self._flying < int(self._limit))
            self._flying += 1
        try:
            clock = asyncio.get_running_loop().time
            while (pause_s := self._resume_at - clock()) > 0:
                await asyncio.sleep(pause_s)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._flying -= 1
        async with self._change:
            self._change.notify(2)  # the freed place, and perhaps one more since the limit grew

    def learn(self, sent: float, outcome: ChatReply | Trouble) -> None:
        """Adapt to the outcome of a request that was sent at a time of the loop's clock."""
        if isinstance(outcome, ChatReply):
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif outcome.limited and outcome.kind == RETRY:
            now = asyncio.get_running_loop().time()
            self._resume_at = max(self._resume_at, now + (outcome.wait_s or 0.0))
            if sent > self._cut_at:
                self._cut_at = now
                self._limit = max(1.0, min(self._limit, self._flying) / 2)
                log.info("rate limit: at most %d requests at a time for now", int(self._limit))
