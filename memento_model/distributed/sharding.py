"""FSDP2: every process keeps a share of the weights and gathers a block's just before it computes.

Parameters are gathered in the types they have, so a sharded model computes what `MementoTransformer.cast` and
`inject_lora` made of it: bf16 products, norms, modulation and time path in fp32, adapters in fp32. Gradients
are averaged over all processes in fp32.

Checkpoints do not know how many processes wrote them: `full_state` and `load_full_state` speak of whole
tensors by module name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from memento_model.errors import CheckpointError
from memento_model.nn.keyframe_query import Selection
from memento_model.nn.transformer import MementoTransformer

_BUCKET = 32 * 2**20
"""Numbers averaged in one message."""


def shard_transformer(transformer: MementoTransformer, mesh: DeviceMesh) -> None:
    """Shard each block and, around them, what remains; in place.

    `embed_text` gathers weights like a forward pass, for `KeyframeQuery` calls it from outside.

    Args:
        transformer: with its adapters, in the types it shall compute in; all that is trainable in one type.
        mesh: of one axis.
    """
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in transformer.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # FSDP2 hangs its backward hook on outputs, which an in-place operation on a view would lose.
    transformer.register_forward_hook(lambda module, inputs, output: output.clone())
    embed_text = transformer.embed_text
    transformer.embed_text = lambda text: embed_text(text).clone()  # type: ignore[method-assign]
    fully_shard(transformer, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    register_fsdp_forward_method(transformer, "embed_text")


def shard_query(query: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a `KeyframeQuery`, which stands outside the transformer, as one unit; in place.

    From then on all processes call it equally often: each call gathers its weights.
    """
    _let_fsdp_look_into_selections()
    fully_shard(query, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))


@functools.cache
def _let_fsdp_look_into_selections() -> None:
    # FSDP2 finds the tensors of a dataclass only from PyTorch 2.13 on, unless it is registered.
    torch.export.register_dataclass(Selection)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter], group: Any = None) -> None:
    """Average gradients of parameters that are not sharded over a process group; once per optimiser step.

    A parameter that has a gradient on some processes counts as zero on the others (their samples used other
    parts of the model); one that has none anywhere keeps none.
    """
    plain = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    if not plain:
        return
    used = torch.tensor([p.grad is not None for p in plain], dtype=torch.int32, device=plain[0].device)
    dist.all_reduce(used, dist.ReduceOp.MAX, group)
    plain = [p for p, anywhere in zip(plain, used.tolist(), strict=True) if anywhere]
    while plain:
        bucket: list[nn.Parameter] = []
        size = 0
        while plain and (not bucket or size + plain[-1].numel() <= _BUCKET):
            bucket.append(plain.pop())
            size += bucket[-1].numel()
        flat = torch.cat([_gradient(p).flatten().float() for p in bucket])
        dist.all_reduce(flat, group=group)
        flat /= dist.get_world_size(group)
        for parameter, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = mean.view_as(parameter).to(parameter.dtype)


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients, sharded or not, so that their joint norm is at most `max_norm`.

    Returns:
        The norm before, a plain scalar tensor on the device; nothing waits for it.
    """
    norm = torch.nn.utils.clip_grad_norm_(list(parameters), max_norm)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def full_state(
    modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """Whole trainable tensors, and the optimiser's state by the same names; all processes call it.

    Args:
        modules: e.g. `{"transformer": ..., "keyframe_query": ...}`; keys become prefixes of the names.
        optimizer: of trainable parameters of these modules.

    Returns:
        `{"model": {name: tensor}, "optimizer": {...}}` on the CPU of the first process, empty elsewhere.
    """
    whole, options = nn.ModuleDict(modules), _options()
    state: dict[str, Any] = {"model": get_model_state_dict(whole, options=options)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(whole, optimizer, options=options)
    return state if not dist.is_initialized() or dist.get_rank() == 0 else {}


def load_full_state(
    modules: Mapping[str, nn.Module],
    state: Mapping[str, Any] | None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Put a `full_state` back, on any number of processes; all of them call it.

    Args:
        modules: as for `full_state`.
        state: read by the first process alone; others may give nothing.
        optimizer: None leaves the optimiser's state aside.

    Raises:
        CheckpointError: other tensors than the modules' trainable ones, on every process.
    """
    several = dist.is_initialized()
    whole, options = nn.ModuleDict(modules), _options(broadcast_from_rank0=several, strict=False)
    given = dict(state["model"]) if state else {}
    trainable = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    faults = [_fault(trainable, given) if not several or dist.get_rank() == 0 else None]
    if several:
        dist.broadcast_object_list(faults, src=0)
    if faults[0] is not None:
        raise CheckpointError(faults[0])
    set_model_state_dict(whole, given, options=options)
    if optimizer is not None:
        moments = state["optimizer"] if state else {}
        set_optimizer_state_dict(whole, optimizer, moments, options=options)


def _fault(trainable: Mapping[str, nn.Parameter], given: Mapping[str, Tensor]) -> str | None:
    missing, unknown = trainable.keys() - given.keys(), given.keys() - trainable.keys()
    if missing or unknown:
        example = sorted(missing or unknown)[0]
        return (
            f"the state lacks {len(missing)} trainable tensors and has {len(unknown)} unknown ones, "
            f"e.g. {example}"
        )
    for name, parameter in trainable.items():
        if parameter.shape != given[name].shape:
            return f"{name} is {list(given[name].shape)} in the state, {list(parameter.shape)} in the model"
    return None


def _options(*, broadcast_from_rank0: bool = False, strict: bool = True) -> StateDictOptions:
    return StateDictOptions(
        full_state_dict=True,
        cpu_offload=True,
        ignore_frozen_params=True,
        broadcast_from_rank0=broadcast_from_rank0,
        strict=strict,
    )
