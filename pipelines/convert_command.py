"""`memento convert`: model weights from one project's form to another's."""

from __future__ import annotations

from pathlib import Path

TYPES = {"keep": None, "bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def main(source: Path, target: Path, to: str, *, merge: Path | None, dtype: str) -> None:
    """Convert and say what was written.

    Args:
        source: weights in any form that `memento_model.checkpoints.forms` knows.
        target: a folder that does not exist yet.
        to: native, diffusers, official, storymem or ours.
        merge: adapters to add into the base weights.
        dtype: keep, bf16, fp16 or fp32.

    Raises:
        CheckpointError: a wrong or partial source, an unknown form or type, or a target that exists.
        MissingExtra: the model's packages are not installed.
    """
    from memento_model.packages import require_packages

    require_packages("torch", "safetensors", "diffusers", "peft")
    import torch

    from memento_model.checkpoints.choice import open_weights
    from memento_model.checkpoints.convert import Options, convert
    from memento_model.errors import CheckpointError

    if dtype not in TYPES:
        raise CheckpointError(f"no type {dtype!r}; there are: {', '.join(TYPES)}")
    chosen = TYPES[dtype]
    options = Options(
        merge=open_weights(merge) if merge else None, dtype=getattr(torch, chosen) if chosen else None
    )
    for line in convert(source, target, to, options):
        print(line)
    print(f"Written: {target}")
