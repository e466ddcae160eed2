"""The caption client's throughput beside vLLM's own benchmark: same model, lengths and limits, same run.

    python -m perf.captions MODEL [--requests 200] [--input 512] [--output 128] [--repeat 3]

MODEL is a folder or a name (`8B`, `Qwen/Qwen3-VL-8B-Instruct`); the device is what vLLM finds. The peer is
`vllm bench throughput` on random prompts of words. Our client answers prompts of the same length through
everything a caption goes through but the schema, each answer as long as the peer's. Both start anew for each
measurement, alternate, and are warmed up. A third measurement is the work itself: story, shots and targets
of sequences with video, schemas and a shared prefix, several sequences at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation import repositories
from curation.models.chat import ChatReply, ChatRequest, Picture, Text, Video
from curation.models.vllm_client import VllmClient, VllmSettings
from curation.optional import available
from curation.weights import WeightsMissing

GOAL = 0.8
"""Least ratio of our output tokens per second to the peer's."""

SHOTS, TARGETS = 8, 2
"""Of the sequences in the third measurement: about what the paper's sets have."""


VLLM_BENCH = """
from vllm.benchmarks.throughput import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""What `vllm bench throughput` runs; the command itself does not start with vLLM's builds for CPUs."""


@dataclass(frozen=True)
class Load:
    """What is measured.

    Attributes:
        model: folder.
        requests: prompts per measurement.
        input: tokens of a prompt.
        output: tokens of an answer.
        sequences: of the third measurement.
        seconds: length of one sequence; 2 frames a second of 256x448.
        eager, dtype, kv_cache_gb, in_flight: as in `VllmSettings`, for both sides.
    """

    model: str
    requests: int
    input: int
    output: int
    sequences: int
    seconds: int
    eager: bool
    dtype: str
    kv_cache_gb: float
    in_flight: int

    def settings(self) -> VllmSettings:
        """The engine's settings, the same for all measurements."""
        return VllmSettings(
            model=self.model,
            eager=self.eager,
            dtype=self.dtype,
            kv_cache_gb=self.kv_cache_gb,
            max_in_flight=self.in_flight,
            max_model_len=max(16384, 2 * (self.input + self.output)),
            temperature=1.0,
        )


# -- what is measured; each runs in a fresh process -----------------------------------------------


class FullLength(VllmClient):
    """Answers up to the token limit whatever the model says, as the peer does."""

    def _parameters(self, request: ChatRequest) -> Any:
        parameters = super()._parameters(request)
        parameters.ignore_eos = not request.schema
        return parameters


def ours(load: Load) -> dict[str, Any]:
    """Words in, words out, all requests at once."""
    client = FullLength(load.settings())
    try:
        asked = [ChatRequest(system="", question=(t,), max_tokens=load.output) for t in words(client, load)]
        client.ask(asked[:4])
        client.forget()
        started = time.perf_counter()
        replies = client.ask(asked)
        elapsed = time.perf_counter() - started
        return {
            "device": device(),
            "elapsed_s": elapsed,
            "tokens_in": statistics.mean(r.tokens_in or 0 for r in replies),
            "output_tokens": total(replies),
            "tokens_per_s": total(replies) / elapsed,
        }
    finally:
        client.close()


def words(client: VllmClient, load: Load) -> list[Text]:
    """Random words of the model's vocabulary, so many that a whole prompt has `load.input` tokens."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(client.folder)
    template = client.ask([ChatRequest(system="", question=(Text(""),), max_tokens=1)])[0].tokens_in or 0
    plain = [i for i in range(1000, 30000) if tokenizer.decode([i]).strip().isalpha()]
    rng = np.random.default_rng(0)
    return [Text(tokenizer.decode(rng.choice(plain, load.input - template))) for _ in range(load.requests)]


def peer(load: Load) -> dict[str, Any]:
    """`vllm bench throughput` with the same engine settings."""
    settings = load.settings()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-c", VLLM_BENCH]
        command += ["--model", load.model, "--dtype", load.dtype, "--output-json", str(out)]
        command += ["--dataset-name", "random", "--num-prompts", str(load.requests), "--num-warmups", "4"]
        command += ["--random-input-len", str(load.input), "--random-output-len", str(load.output)]
        command += ["--max-model-len", str(settings.max_model_len), "--max-num-seqs", str(load.in_flight)]
        command += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
        command += ["--limit-mm-per-prompt", json.dumps({"video": 1, "image": settings.max_pictures})]
        if load.eager:
            command.append("--enforce-eager")
        if load.kv_cache_gb:
            command += ["--kv-cache-memory-bytes", str(int(load.kv_cache_gb * (1 << 30)))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"vllm bench throughput failed:\n{done.stderr[-3000:]}")
        found = json.loads(out.read_text())
    return {
        "elapsed_s": found["elapsed_time"],
        "output_tokens": load.requests * load.output,
        "tokens_per_s": load.requests * load.output / found["elapsed_time"],
    }


def captions(load: Load) -> dict[str, Any]:
    """Story, then shots and targets, of several sequences at a time, as the caption stage asks them."""
    client = VllmClient(load.settings())
    try:
        one_sequence(client, -1, load)
        before, started = client.metrics(), time.perf_counter()
        with ThreadPoolExecutor(min(16, load.sequences)) as pool:
            each = list(pool.map(lambda i: one_sequence(client, i, load), range(load.sequences)))
        elapsed, after = time.perf_counter() - started, client.metrics()
        replies = [reply for sequence in each for reply in sequence]
        queried, found = (
            after[name] - before.get(name, 0) for name in ("prefix_cache_queries", "prefix_cache_hits")
        )
        return {
            "elapsed_s": elapsed,
            "requests": len(replies),
            "finished": sum(r.finish == "stop" for r in replies),
            "tokens_in": statistics.mean(r.tokens_in or 0 for r in replies),
            "output_tokens": total(replies),
            "tokens_per_s": total(replies) / elapsed,
            "reused": found / queried,
        }
    finally:
        client.close()


def one_sequence(client: VllmClient, index: int, load: Load) -> list[ChatReply]:
    """All calls about one sequence; frames are noise that drifts, so no two sequences share any."""
    rng = np.random.default_rng(index + 1)
    still = rng.integers(0, 256, (256, 448, 3), dtype=np.uint8)
    video = Video(np.stack([np.roll(still, 2 * i, 1) for i in range(2 * load.seconds)]), 2.0)
    prefix = (video, Text("[Person A] is seen in all shots.\n"))
    schema = {
        "type": "object",
        "properties": {"caption": {"type": "string", "minLength": 100, "maxLength": 300}},
        "required": ["caption"],
        "additionalProperties": False,
    }

    def request(question: str, *media: Picture) -> ChatRequest:
        return ChatRequest(
            system="You describe films.",
            prefix=prefix,
            question=(*media, Text(question)),
            schema=schema,
            max_tokens=512,
        )

    picture = Picture(rng.integers(0, 256, (480, 832, 3), dtype=np.uint8))
    rest = [request(f"Describe shot {i}.") for i in range(SHOTS)]
    rest += [request(f"Describe target {i}.", picture) for i in range(TARGETS)]
    return [*client.ask([request("Tell the story.")]), *client.ask(rest)]


def total(replies: list[ChatReply]) -> int:
    return sum(r.tokens_out or 0 for r in replies)


def device() -> str:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return f"{os.cpu_count()} CPU cores"
    return current_platform.get_device_name()


TASKS = {"ours": ours, "peer": peer, "captions": captions}


# -- the session ----------------------------------------------------------------------------------


def measure(task: str, arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "perf.captions", *arguments, "--task", task]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def session(load: Load, arguments: list[str], repeat: int) -> tuple[str, bool]:
    """Measure everything; the report as Markdown and whether the goal was reached."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for _ in range(repeat):
        for task, found in runs.items():
            found.append(measure(task, arguments))
    work = measure("captions", arguments)
    rates = {task: statistics.median(r["tokens_per_s"] for r in found) for task, found in runs.items()}
    ratio = rates["ours"] / rates["peer"]
    first = runs["ours"][0]
    lines = [
        f"{Path(load.model).name}, {first['device']}; {load.requests} requests of {load.input} tokens in and "
        f"{load.output} out, {load.in_flight} at a time, medians of {repeat}:",
        "",
        "| what | output tokens/s | all runs |",
        "|---|---|---|",
    ]
    names = {"ours": "our client", "peer": "`vllm bench throughput`"}
    for task, found in runs.items():
        every = ", ".join(f"{r['tokens_per_s']:.0f}" for r in found)
        lines.append(f"| {names[task]} | {rates[task]:.0f} | {every} |")
    lines += [
        f"| ratio | {ratio:.2f} (goal >= {GOAL}) | |",
        "",
        f"The work itself: {load.sequences} sequences of {load.seconds} s, {work['requests']} requests "
        f"({work['finished']} finished) of {work['tokens_in']:.0f} tokens in on average and "
        f"{work['output_tokens'] / work['requests']:.0f} out, took {work['elapsed_s']:.1f} s: "
        f"{work['tokens_per_s']:.0f} output tokens/s, {work['reused']:.0%} of the prompt tokens reused.",
    ]
    return "\n".join(lines), ratio >= GOAL


def main(arguments: list[str] | None = None) -> int:
    """Measure and print, or run one task for the session; 1 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default=VllmSettings.model)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--input", type=int, default=512)
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=45)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kv-cache-gb", type=float, default=0.0)
    parser.add_argument("--in-flight", type=int, default=VllmSettings.max_in_flight)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(parser.parse_args(given))
    task, repeat = options.pop("task"), options.pop("repeat")
    try:
        options["model"] = str(repositories.resolve(options["model"]))
    except WeightsMissing as missing:
        print(f"Not measured: {missing}")
        return 0
    if not available("vllm"):
        print("Not measured: vLLM is not installed (extra `caption`).")
        return 0
    load = Load(**options)
    if task:
        print(json.dumps(TASKS[task](load)))
        return 0
    report, reached = session(load, given or [options["model"]], repeat)
    print(report)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
