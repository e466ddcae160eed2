"""Around vLLM: the environment it wants before it is imported, its chatter in a file, causes of death."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from curation.optional import install_command

ENVIRONMENT = {
    # A forked engine inherits the locks of Ray's, FFmpeg's and our own threads.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Nothing leaves the machine.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # No handlers of its own: `log_to` and `quiet` lead what it says into a file.
    "VLLM_CONFIGURE_LOGGING": "0",
    "TOKENIZERS_PARALLELISM": "false",
}

CHATTY = ("vllm", "transformers")

HINTS = (
    (
        r"out of memory|No available memory for the cache|Free memory on device|KV cache (memory )?is needed",
        "take a smaller model, more GPUs (tensor_parallel), or a lower max_model_len",
    ),
    (
        r"Device string must not be empty|No CUDA GPUs|Found no NVIDIA driver",
        "vLLM found no GPU here; run where there is one or take another captioner",
    ),
)


def prepare_environment() -> None:
    """Set what vLLM reads while it is imported, where the user has not; its processes inherit it."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def gpus_here() -> int:
    """GPUs of this machine by their device files; nothing is imported or started."""
    return len(glob.glob("/dev/nvidia[0-9]*")) or len(glob.glob("/dev/dri/renderD*") if _rocm() else [])


def without_vllm() -> str:
    """What to do where vLLM was asked for and is not installed; without a GPU it is gigabytes for nothing."""
    if gpus_here():
        return f"vLLM is not installed; install it with: {install_command('caption')}"
    return (
        "vLLM needs a GPU, and none is here (nor vLLM); let a server write the captions (--endpoint URL), or "
        "the embedded describer (--captioner describe)"
    )


def _rocm() -> bool:
    return os.path.exists("/dev/kfd")


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what this process and the processes it starts meanwhile print to `log`.

    The file descriptors are redirected, because the engine's processes and their C++ parts write there; what
    another thread prints meanwhile goes to the log as well. A process that was started keeps its descriptors.
    """
    kept: list[tuple[int, int]] = []
    with log.open("ab") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        try:
            for descriptor in (1, 2):
                with contextlib.suppress(OSError):  # a daemon may have closed it
                    kept.append((descriptor, os.dup(descriptor)))
                    os.dup2(opened.fileno(), descriptor)
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for descriptor, copy in kept:
                os.dup2(copy, descriptor)
                os.close(copy)


def log_to(log: Path) -> logging.Handler:
    """From now on this process's vLLM and transformers messages go to `log` instead of the terminal.

    Call it after both were imported: transformers makes a handler of its own then.
    """
    handler = logging.FileHandler(log, delay=True)
    for name in CHATTY:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to`, so that the file can go."""
    for name in CHATTY:
        logging.getLogger(name).removeHandler(handler)
    handler.close()


def cause(log: Path, error: BaseException | None = None) -> str:
    """One line: why the engine is gone, from its log or else the exception, with a hint where we have one."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    found = re.findall(r"(?:^|[\])] |\s)((?:\w+\.)*\w*(?:Error|Exception): \S.*)$", text, re.MULTILINE)
    outer = (
        "Engine core initialization failed",
        "EngineCore encountered an issue",
        "WorkerProc initialization",
    )
    inner = [line.strip() for line in found if not any(words in line for words in outer)]
    fallback = f"{type(error).__name__}: {error}".splitlines()[0] if error else "its process is gone"
    told = (inner[0] if inner else fallback)[:300]
    hint = next((mend for pattern, mend in HINTS if re.search(pattern, told, re.IGNORECASE)), "")
    return f"{told}; {hint}" if hint else told


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, with its kind."""
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0][:300]}" if said else type(error).__name__
