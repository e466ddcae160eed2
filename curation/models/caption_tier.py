"""Which captioner runs: what `auto` stands for on this machine, and a captioner that is built when needed."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from curation import repositories
from curation.captions.prompts import Prompts
from curation.captions.questions import ChatSettings
from curation.engine.stage import StopRun
from curation.models.captioner import Captioner
from curation.models.chat import ChatClient
from curation.models.chat_captioner import ChatCaptioner
from curation.models.describer import Describer
from curation.models.endpoint import EndpointSettings
from curation.models.vllm_client import VllmSettings, obstacle
from curation.models.vllm_process import gpus_here, without_vllm
from curation.optional import MissingExtra, available
from curation.weights import WeightsMissing

Tier = Literal["auto", "describe", "vllm", "openai"]
AUTO: Tier = "auto"
DESCRIBE: Tier = "describe"
VLLM: Tier = "vllm"
OPENAI: Tier = "openai"


@dataclass(frozen=True)
class Choice:
    """Which captioner runs, and why where that was not said: empty where it was."""

    captioner: Tier
    why: str = ""


def choose(captioner: Tier, vllm: VllmSettings) -> Choice:
    """Settle `auto`: vllm where a GPU, the package and the weights are here, else the describer.

    Args:
        captioner: auto, describe, vllm or openai.
        vllm: settings of the engine.
    """
    if captioner != AUTO:
        return Choice(captioner)
    if not gpus_here():  # the extra and the weights are gigabytes that would not help
        return Choice(DESCRIBE, "no GPU here; a model's captions need one, or a server: --endpoint URL")
    if why := obstacle(vllm):
        return Choice(DESCRIBE, why)
    return Choice(VLLM, f"a GPU, vLLM and {vllm.model_id} are here")


def note(choice: Choice, vllm: VllmSettings, openai: EndpointSettings) -> str:
    """One line for the terminal: what writes the captions and, if that was not said, why."""
    because = f" (auto: {choice.why})" if choice.why else ""
    if choice.captioner == VLLM:
        return f"captions by {vllm.model_id} in vLLM{because}"
    if choice.captioner == OPENAI:
        return f"captions by {openai.model} at {openai.base_url}"
    return f"captions by the embedded describer, from measured facts{because}; docs/captions.md"


@functools.lru_cache(maxsize=64)
def revision_here(settings: VllmSettings) -> str:
    """Revision of the weights on this machine, fetched if the settings allow it.

    Raises:
        WeightsMissing: they are not here.
        MissingExtra: vLLM is not installed.
    """
    if not available("vllm"):
        raise MissingExtra(without_vllm())
    folder = repositories.resolve(settings.model, settings.revision, allow_download=settings.allow_download)
    return repositories.revision_of(folder)


def server_model(settings: EndpointSettings) -> str:
    """The name of a server's only model.

    Raises:
        StopRun: nobody there, or it has several; the message says how to mend it.
        MissingExtra: the package openai is not installed.
    """
    client = _openai(settings)
    try:
        return client.model_id
    finally:
        client.close()


class Lazily:
    """A captioner that is built by the first row that needs it: a run that only reuses results builds none.

    Args:
        settings: of the engine or server; None for the describer.
        prompts: what is asked.
        asked: how.
    """

    def __init__(
        self, settings: VllmSettings | EndpointSettings | None, prompts: Prompts, asked: ChatSettings
    ) -> None:
        self._settings, self._prompts, self._asked = settings, prompts, asked
        self._lock = threading.Lock()
        self._made: Captioner | None = Describer() if settings is None else None
        self._failed: StopRun | None = None
        self._clients: list[ChatClient] = []

    def captioner(self) -> Captioner:
        """The captioner; what could not be built is not tried again by every row.

        Raises:
            StopRun: no such server, no weights, an engine that does not start.
        """
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self._made is None:
                assert self._settings is not None
                try:
                    client = _client(self._settings)
                except StopRun as stop:
                    self._failed = stop
                    raise
                except (MissingExtra, WeightsMissing) as missing:
                    self._failed = StopRun(str(missing))
                    raise self._failed from missing
                self._clients.append(client)
                self._made = ChatCaptioner(client, self._prompts, self._asked)
            return self._made

    def close_with(self, owner: Callable[..., Any]) -> None:
        """Close the client when `owner` is gone or the process ends."""
        weakref.finalize(owner, _close, self._clients)


def _close(clients: list[ChatClient]) -> None:
    while clients:
        clients.pop().close()


def _client(settings: VllmSettings | EndpointSettings) -> ChatClient:
    if isinstance(settings, EndpointSettings):
        return _openai(settings)
    from curation.models.vllm_client import VllmClient

    return VllmClient(settings)


def _openai(settings: EndpointSettings) -> ChatClient:
    from curation.models.openai_client import OpenAIClient

    return OpenAIClient(settings)
