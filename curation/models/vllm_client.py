"""Qwen3-VL (or another vision-language model) in vLLM, in this process: `ask` from any number of threads."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation import repositories
from curation.engine.stage import StopRun
from curation.models import vllm_process
from curation.models.chat import ERROR, LENGTH, STOP, ChatReply, ChatRequest
from curation.models.vllm_prompt import prompt, template_of
from curation.optional import MissingExtra, available, install_command, require
from curation.weights import WeightsMissing

RESENDS = 6
RESEND_SECONDS = 0.05
LOST_MEDIA = "Expected a cached item"
FINISH = {"stop": STOP, "length": LENGTH}
"""vLLM's finish reason -> ours; any other is an error."""


class MediaLost(ValueError):
    """VLLM noted that its engine lacks a request's media while it prepared that request; see `_answer`."""


@dataclass(frozen=True, kw_only=True)
class VllmSettings:
    """How the engine is set up and how it samples.

    Attributes:
        model: a folder, `owner/name` on the hub, or 2B, 4B, 8B, 32B, 30B-A3B for Qwen3-VL of that size.
        revision: commit, tag or branch of the repository; empty for the commit this project was written for.
        allow_download: fetch the model if it is not here; without it a missing model ends the run.
        tensor_parallel: GPUs that hold one copy of the model together, all of one machine.
        max_model_len: tokens of a prompt and its answer together; what the engine's cache must hold at least.
        gpu_memory_utilization: share of each GPU's memory the engine takes.
        kv_cache_gb: size of the engine's cache; 0 lets vLLM take what gpu_memory_utilization leaves.
        prefix_caching: calls about one sequence share the computation of what they have in common.
        block_size: tokens per unit of that sharing; 0 for the device's own (16 on GPUs, 128 on CPUs).
        dtype: of weights and activations; auto is what the model was saved in.
        quantization: `fp8` halves the weights' memory where the card can; empty for the model's own.
        eager: no compilation and no CUDA graphs: a quicker start, slower answers.
        max_pictures: still pictures in one request, beside one video.
        media_cache_gb: prepared videos and pictures kept, so that the calls of a sequence prepare them once.
        max_in_flight: requests the engine works on at a time; as many again wait prepared.
        temperature: 0 takes the likeliest token, so that equal requests get equal answers.
        top_p: share of the probability that is sampled from, where temperature is above 0.
        repetition_penalty: above 1 discourages repeating; 1 leaves the model alone.
        seed: of sampling.
    """

    model: str = "Qwen/Qwen3-VL-8B-Instruct"
    revision: str = ""
    allow_download: bool = False
    tensor_parallel: int = 1
    max_model_len: int = 16384
    gpu_memory_utilization: float = 0.9
    kv_cache_gb: float = 0.0
    prefix_caching: bool = True
    block_size: int = 0
    dtype: str = "auto"
    quantization: str = ""
    eager: bool = False
    max_pictures: int = 4
    media_cache_gb: float = 4.0
    max_in_flight: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the setting's name."""
        for name in ("tensor_parallel", "max_model_len", "max_in_flight"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        for name in ("kv_cache_gb", "block_size", "max_pictures", "media_cache_gb", "temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 0")
        for name in ("gpu_memory_utilization", "top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in (0, 1]")

    @property
    def model_id(self) -> str:
        """What is written beside answers: the repository, or the name of a folder."""
        return repositories.shown_name(self.model)

    @property
    def sampling(self) -> dict[str, Any]:
        """What changes answers besides model and prompt."""
        names = ("temperature", "top_p", "repetition_penalty", "seed", "dtype", "quantization")
        return {name: getattr(self, name) for name in names}


def obstacle(settings: VllmSettings) -> str:
    """Why vLLM cannot be used on this machine, with the command that mends it; empty if it can.

    Nothing heavy is imported. A GPU is asked for here although vLLM has builds for CPUs: those serve tests,
    not films.
    """
    if not available("vllm"):
        return f"vLLM is not installed ({install_command('caption')})"
    if vllm_process.gpus_here() < settings.tensor_parallel:
        return f"{vllm_process.gpus_here()} GPUs here, {settings.tensor_parallel} needed"
    try:
        if not settings.allow_download:
            repositories.resolve(settings.model, settings.revision)
    except WeightsMissing as missing:
        return str(missing)
    return ""


class VllmClient:
    """A `curation.models.chat.ChatClient` whose engine runs in its own processes, fed by an event loop here.

    All requests of all threads are batched continuously by the engine. Building one takes from half a minute
    (small models) to minutes (loading, compilation), and its GPUs are taken until `close`.

    Raises:
        WeightsMissing: the model is not on this machine; the message has the command that fetches it.
        MissingExtra: vLLM is not installed.
        StopRun: the engine does not start here; the message says why.
    """

    backend = "vllm"

    def __init__(self, settings: VllmSettings) -> None:
        if not available("vllm"):
            raise MissingExtra(vllm_process.without_vllm())
        self.settings = settings
        self.folder = repositories.resolve(
            settings.model, settings.revision, allow_download=settings.allow_download
        )
        self.model_id = settings.model_id
        self.revision = repositories.revision_of(self.folder)
        self.sampling: Mapping[str, Any] = settings.sampling
        descriptor, name = tempfile.mkstemp(prefix="memento-vllm-", suffix=".log")
        open(descriptor, "wb").close()
        self._log = Path(name)
        self._logging: Any = None
        self._engine: Any = None
        self._dead = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Answer all requests, concurrently, in their order.

        Raises:
            StopRun: the engine has died.
        """
        future = asyncio.run_coroutine_threadsafe(self._ask_all(requests), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted caller wants no more answers
            raise

    def metrics(self) -> dict[str, float]:
        """The engine's counters since it started, by vLLM's names without the prefix `vllm:`.

        Among them `prompt_tokens`, `generation_tokens`, and `prefix_cache_queries` and `prefix_cache_hits`:
        tokens looked up and found in the prefix cache; what was not found was computed.
        """
        from vllm.v1.metrics.reader import Counter, get_metrics_snapshot

        sums: dict[str, float] = {}
        for metric in get_metrics_snapshot():
            if isinstance(metric, Counter):
                name = metric.name.removeprefix("vllm:")
                sums[name] = sums.get(name, 0) + metric.value
        return sums

    def forget(self) -> None:
        """Empty the prefix cache, so that the next answers are computed whole; nothing may be in flight.

        Raises:
            RuntimeError: requests were in flight.
        """
        future = asyncio.run_coroutine_threadsafe(self._engine.reset_prefix_cache(), self._loop)
        if not future.result():
            raise RuntimeError("the prefix cache cannot be emptied while requests are in flight")

    def close(self) -> None:
        """Stop the engine and free the GPUs; the client cannot be used afterwards."""
        if self._thread.is_alive():
            if self._engine is not None:
                with vllm_process.quiet(self._log):
                    asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        if self._logging is not None:
            vllm_process.stop_logging(self._logging)
            self._logging = None
        if not self._dead:  # the log of a dead engine is named in the message
            self._log.unlink(missing_ok=True)

    # -- below: the engine's life -----------------------------------------------------------------

    def _start(self) -> None:
        vllm_process.prepare_environment()
        with vllm_process.quiet(self._log):
            require("vllm", extra="caption")
            import transformers  # noqa: F401
            from vllm import SamplingParams
            from vllm.platforms import current_platform

            self._sampling_class = SamplingParams
            # A seed of its own frees a sampled answer from its neighbours in the batch. On CPUs vLLM 0.32
            # dies of it (generators there have no offset); the engine's own seed has to do.
            self._seeds_requests = self.settings.temperature > 0 and not current_platform.is_cpu()
            self._logging = vllm_process.log_to(self._log)
            try:
                self._template, self._control = template_of(self.folder)
                asyncio.run_coroutine_threadsafe(self._build(), self._loop).result()
            except Exception as error:  # whatever keeps a foreign engine from starting is told in one line
                self._dead = vllm_process.cause(self._log, error)
                raise StopRun(
                    f"vLLM cannot start {self.model_id} from {self.folder}: {self._dead}; log: {self._log}"
                ) from error

    async def _build(self) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        # Twice what the engine works on: it must find the next ones prepared when it is done with one.
        self._slots = asyncio.Semaphore(2 * self.settings.max_in_flight)
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**_engine_arguments(self.settings, self.folder))
        )

    async def _stop(self) -> None:
        self._engine.shutdown()
        self._engine = None
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # -- below: requests; all of it runs on the event loop ----------------------------------------

    async def _ask_all(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        tasks = [asyncio.ensure_future(self._ask_one(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask_one(self, request: ChatRequest) -> ChatReply:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        started = time.perf_counter()
        error = ""
        async with self._slots:
            if self._engine is None or self._dead:
                raise self._death()
            try:
                output = await self._answer(request)
            except EngineDeadError as dead:
                raise self._death(dead) from dead
            except (VLLMError, ValueError) as refused:
                if self._engine.errored:
                    raise self._death(refused) from refused
                error = vllm_process.one_line(refused.__cause__ or refused)
        seconds = time.perf_counter() - started
        if error:
            return ChatReply(text=None, finish=ERROR, seconds=seconds, error=error)
        return _reply(output, seconds)

    async def _answer(self, request: ChatRequest) -> Any:
        """The last output of a request.

        VLLM sends media to its engine once and then by name. When a request is refused after its media were
        prepared, the engine never gets them; the next request with the same media comes back unanswered, and
        only then does vLLM note what the engine lacks. A third request that is being prepared at that moment
        fails with `LOST_MEDIA`. Both are sent again, a little later each time, until the media have arrived.
        """
        # Hashing and templates take milliseconds each, which the loop has not.
        made = await asyncio.to_thread(prompt, request, self._template, self._control)
        for sent in range(RESENDS):
            with contextlib.suppress(MediaLost):
                output = await self._generate(made, self._parameters(request))
                if output is not None and output.outputs[0].finish_reason in FINISH:
                    return output
            await asyncio.sleep(RESEND_SECONDS * (1 + sent))
        return await self._generate(made, self._parameters(request))

    async def _generate(self, made: dict[str, Any], parameters: Any) -> Any:
        from vllm.exceptions import VLLMError

        output = None
        name = uuid.uuid4().hex
        try:
            async with contextlib.aclosing(
                self._engine.generate(made, parameters, request_id=name)
            ) as outputs:
                async for each in outputs:
                    output = each
        except VLLMError as refused:
            cause = refused.__cause__
            if isinstance(cause, AssertionError) and LOST_MEDIA in str(cause):
                raise MediaLost from cause
            raise
        return output

    def _parameters(self, request: ChatRequest) -> Any:
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        settings, schema = self.settings, None
        if request.schema:
            schema = StructuredOutputsParams(json=dict(request.schema))
        return self._sampling_class(
            temperature=settings.temperature,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
            seed=settings.seed if self._seeds_requests else None,
            max_tokens=request.max_tokens,
            structured_outputs=schema,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _death(self, error: BaseException | None = None) -> StopRun:
        self._dead = self._dead or vllm_process.cause(self._log, error)
        return StopRun(
            f"vLLM's engine with {self.model_id} has died: {self._dead}; log: {self._log}; run the same "
            "command again: finished work is kept; if it dies again, try it with prefix_caching off"
        )


def _reply(output: Any, seconds: float) -> ChatReply:
    """The last output of a request as a reply."""
    if output is None:
        return ChatReply(text=None, finish=ERROR, seconds=seconds, error="vLLM gave no answer")
    answer = output.outputs[0]
    finish = FINISH.get(answer.finish_reason, ERROR)
    return ChatReply(
        text=(answer.text or None) if finish == ERROR else answer.text,
        finish=finish,
        tokens_in=len(output.prompt_token_ids or ()),
        tokens_out=len(answer.token_ids),
        tokens_cached=output.num_cached_tokens,
        seconds=seconds,
        error=f"vLLM ended the answer with {answer.finish_reason!r}" if finish == ERROR else "",
    )


def _engine_arguments(settings: VllmSettings, folder: Path) -> dict[str, Any]:
    """Our settings in vLLM's words; what is not a setting has its reason beside it."""
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": settings.dtype,
        "quantization": settings.quantization or None,
        "seed": settings.seed,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_in_flight,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enable_prefix_caching": settings.prefix_caching,
        "enforce_eager": settings.eager,
        "tensor_parallel_size": settings.tensor_parallel,
        "limit_mm_per_prompt": {"video": 1, "image": settings.max_pictures},
        "mm_processor_cache_gb": settings.media_cache_gb,
        # Frames come sampled and sized; a second resampling would blur them and change the token count.
        "mm_processor_kwargs": {"videos_kwargs": {"do_resize": False}},
        # Blanks between JSON tokens are where a lost model goes on for ever; llguidance leaves them out, has
        # every bound of JSON schema on lengths and counts, and needs no compilation per schema.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "use_tqdm_on_load": False,
    }
    if settings.tensor_parallel > 1:  # inside a Ray actor vLLM would ask Ray for GPUs that the actor holds
        arguments["distributed_executor_backend"] = "mp"
    if settings.kv_cache_gb:
        arguments["kv_cache_memory_bytes"] = int(settings.kv_cache_gb * (1 << 30))
    if settings.block_size:
        arguments["block_size"] = settings.block_size
    return arguments
