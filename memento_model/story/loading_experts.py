"""The experts of a model from checkpoints to modules on the CPU: sizes checked, adapters merged, or random.

What is wrong with weights is told before any of their values are read.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import torch

from memento_model.checkpoints import released
from memento_model.checkpoints.choice import AUTO, NONE, ModelChoice, Sources, locate
from memento_model.checkpoints.forms import EXPERTS, open_checkpoint
from memento_model.checkpoints.load import LoadedExpert, load_expert, load_transformer
from memento_model.checkpoints.tensor_files import TensorSet, fingerprint
from memento_model.config import Compat, Expert, ModelConfig, debug_model
from memento_model.errors import CheckpointError
from memento_model.nn.keyframe_query import KeyframeQuery
from memento_model.nn.lora import drop_adapters, lora_layers, merge_lora
from memento_model.nn.transformer import MementoTransformer, initialise

RANDOM_SEED = 20260617
"""Of random weights: the same on every machine."""
RANDOM_OUTPUT_STD = 0.05
"""Of the output layer of random weights; Wan's own start, zero, would leave the noise as it is."""
SMALL_BYTES = 4 << 30
"""Weights below this are computed with in fp32 if nothing is said."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def experts_of(
    sources: Sources, choice: ModelChoice, compat: Compat
) -> tuple[dict[Expert, LoadedExpert], ModelConfig, Any]:
    """Both experts on the CPU, their sizes, and what tells them from other weights."""
    if sources.random:
        config = debug_model()
        marks: Any = ["random", RANDOM_SEED, asdict(config)]
        return {e: random_expert(config, compat, i) for i, e in enumerate(EXPERTS)}, config, marks
    made: dict[Expert, LoadedExpert] = {}
    files: dict[str, Any] = {}
    for expert in EXPERTS:
        from_ = sources.stand_in or expert
        if expert != from_:
            continue
        tensors, config = sources.base[expert].base(expert)
        if not config.has_condition:
            raise CheckpointError(
                f"{sources.base[expert].path}: Wan's T2V form, which has no room for memory; --model takes "
                "the I2V form, --t2v takes this one"
            )
        dtype = _dtype(choice, stored_bytes(tensors))
        trainable = sources.trainable.get(expert)
        files[expert] = [fingerprint(tensors.files), str(dtype), choice.merge]
        if trainable is not None:
            files[expert].append(fingerprint(trainable.trainable(expert)[0].files))
        made[expert] = _prepared(
            load_expert(sources.base[expert], expert, trainable, dtype=dtype, compat=compat), choice.merge
        )
    for expert in EXPERTS:
        made.setdefault(expert, next(iter(made.values())))
    first, second = (made[expert].config for expert in EXPERTS)
    if replace(first, lora_rank=0, lora_alpha=0) != replace(second, lora_rank=0, lora_alpha=0):
        raise CheckpointError(f"{sources.shown}: the two experts are of different sizes")
    return made, made["low"].config, files


def _prepared(loaded: LoadedExpert, merge: bool) -> LoadedExpert:
    loaded.transformer.requires_grad_(False)
    if merge and lora_layers(loaded.transformer):
        merge_lora(loaded.transformer, keep_originals=False)
        drop_adapters(loaded.transformer)
    return loaded


def random_expert(config: ModelConfig, compat: Compat, number: int) -> LoadedExpert:
    """Untrained weights, the same everywhere: everything acts, nothing means anything."""
    transformer = MementoTransformer.from_config(config, compat=compat)
    initialise(transformer, RANDOM_SEED + number)
    generator = torch.Generator().manual_seed(RANDOM_SEED + number)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        transformer.proj_out.weight.normal_(0, RANDOM_OUTPUT_STD, generator=generator)
        torch.manual_seed(RANDOM_SEED + number)
        query = KeyframeQuery(config)
    return LoadedExpert(transformer.eval().requires_grad_(False), query.eval().requires_grad_(False), config)


def first_shot_of(
    choice: ModelChoice, sources: Sources, config: ModelConfig, compat: Compat
) -> tuple[dict[Expert, LoadedExpert], Any]:
    """Wan's T2V experts; empty where the model makes first shots itself."""
    asked = choice.t2v
    if asked is None:
        if not sources.foreign:
            return {}, None
        if released.find("wan22_t2v_a14b") is None:
            raise released.WeightsMissing(
                "first shots are made by Wan2.2-T2V, which is not on this machine; get it with: "
                f"{released.command('wan22_t2v_a14b')}; or name its folder with --t2v; or let the model "
                "itself make them, which it was not trained for, with --t2v none"
            )
        asked = "wan22_t2v_a14b"
    if asked == NONE:
        return {}, None
    checkpoint = open_checkpoint(locate(asked))
    made: dict[Expert, LoadedExpert] = {}
    marks: list[Any] = []
    for expert in EXPERTS:
        tensors, found = checkpoint.base(expert)
        if found.has_condition:
            raise CheckpointError(f"{checkpoint.path}: Wan's I2V form; --t2v takes the T2V form")
        if (found.text_dim, found.text_len) != (config.text_dim, config.text_len):
            raise CheckpointError(f"{checkpoint.path}: reads another text encoder than {sources.shown}")
        dtype = _dtype(choice, stored_bytes(tensors))
        marks += [fingerprint(tensors.files), str(dtype)]
        transformer, _ = load_transformer(checkpoint, expert, dtype=dtype, compat=compat)
        made[expert] = LoadedExpert(transformer.requires_grad_(False), None, found)
    return made, marks


def stored_bytes(tensors: TensorSet) -> int:
    """Bytes of all tensors in their files."""
    return sum(entry.dtype.itemsize * math.prod(entry.shape) for entry in tensors.values())


def _dtype(choice: ModelChoice, size: int) -> torch.dtype:
    if choice.dtype != AUTO:
        return DTYPES[choice.dtype]
    return torch.float32 if size < SMALL_BYTES else torch.bfloat16
