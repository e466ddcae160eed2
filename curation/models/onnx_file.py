"""ONNX files on the CPU, so that results repeat, and what to record of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation import weights
from curation.engine.stage import Row


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session with a fixed number of threads: the same floats on every run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


def file_facts(path: Path) -> Row:
    """`model_id`, `revision` and `sha256` of a weights file; from the table if its hash is known there."""
    sha256 = weights.sha256_of(path)
    for made in weights.TABLE.values():
        if made.sha256 == sha256:
            model_id = f"{made.repository}/{made.file}"
            return {"model_id": model_id, "revision": made.revision, "sha256": sha256}
    return {"model_id": path.name, "revision": None, "sha256": sha256}
