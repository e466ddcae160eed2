"""Fixtures of the caption tests: a tiny Qwen3-VL, and one vLLM engine with it for the whole session."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support import shared


def pytest_collection_modifyitems(items):
    """On a busy machine of two cores an engine alone takes minutes to start."""
    for item in items:
        if item.get_closest_marker("vllm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def tiny_qwen3vl(request):
    """The folder of a tiny random Qwen3-VL, kept in pytest's cache between runs by what made it."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from importlib.metadata import version

    from tests.curation import tiny_qwen3vl

    tokenizer = shared("tokenizers/qwen2")
    made_by = hashlib.sha256(Path(tiny_qwen3vl.__file__).read_bytes())
    for package in ("torch", "transformers"):
        made_by.update(f"{package} {version(package)}".encode())
    cache = Path(request.config.cache.mkdir("tiny_qwen3vl"))
    folder = cache / made_by.hexdigest()[:16]
    if not (folder / "config.json").is_file():
        part = Path(tempfile.mkdtemp(prefix="part-", dir=cache))
        tiny_qwen3vl.build(part, tokenizer)
        with contextlib.suppress(OSError):  # another process was faster: its model is the same
            part.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def vllm_settings(tiny_qwen3vl):
    """Settings under which vLLM's CPU build runs the tiny model, small in memory and quick to start."""
    from curation.models.vllm_client import VllmSettings

    return VllmSettings(
        model=str(tiny_qwen3vl),
        dtype="float32",
        eager=True,
        max_model_len=6144,
        kv_cache_gb=0.25,
        block_size=32,
        media_cache_gb=0.25,
    )


@pytest.fixture(scope="session")
def vllm_client(vllm_settings):
    """One engine for the session: it starts in a minute."""
    client = start_engine(vllm_settings)
    yield client
    client.close()


def start_engine(settings):
    """A client of an engine in this process, or skip."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from curation.models.vllm_client import VllmClient

    with pytest.MonkeyPatch.context() as patch:
        # Without it vLLM's CPU build takes one process more, which imports everything once more.
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # Threads that spin for each other on a busy machine cost more than so small a model.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        return VllmClient(settings)
