"""How weights move: AdamW on fp32 weights, warm-up and cosine, a moving average, and steps that are left out.

Trainable weights are fp32 whatever the model computes in; autocast makes the bf16 copies. A bf16 weight would
round most steps at usual learning rates away: of weights around 0.01, 72 % do not move at all at 1e-5.

Nothing here waits for the device: whether a step's gradients were finite stays there and is read when a line
is logged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from curation.optional import require
from memento_model.distributed.sharding import clip_gradients
from memento_model.training.config import OptimConfig


def lr_at(step: int, config: OptimConfig, num_steps: int) -> float:
    """Learning rate of a step, counted from 0: a linear warm-up, then constant or cosine.

    The cosine reaches `min_lr_ratio` at the run's last step.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, num_steps - 1 - config.warmup_steps)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * share)


def query_lr_at(step: int, config: OptimConfig, num_steps: int) -> float:
    """Learning rate of the queries: a share of the others', on a schedule of their own length; then zero."""
    end = num_steps if config.query_steps is None else min(config.query_steps, num_steps)
    return lr_at(step, config, end) * config.query_lr_ratio if step < end else 0.0


class Optimiser:
    """One update of all trainable weights: clip, check, step, average.

    Attributes:
        parameters: trainable weights by name.
        adam: PyTorch's or bitsandbytes' optimiser; its state is what checkpoints hold.
        average: moving average of the weights by name; None keeps none.
        skipped: steps left out because a gradient was not finite; a number on the device.

    Raises:
        ValueError: a trainable weight that is not fp32, or none at all.
        MissingExtra: 8-bit states without bitsandbytes.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimConfig, num_steps: int) -> None:
        if not parameters:
            raise ValueError(
                "nothing is trainable; give the model adapters (lora_rank), queries or train_base"
            )
        if wrong := [name for name, p in parameters.items() if p.dtype != torch.float32]:
            raise ValueError(f"{wrong[0]} is {parameters[wrong[0]].dtype}; trainable weights must be float32")
        self.parameters = dict(parameters)
        self.config, self.num_steps = config, num_steps
        groups = grouped(self.parameters)
        self._of_queries = list(groups)
        self.adam = _adam(list(groups.values()), config)
        device = next(iter(self.parameters.values())).device
        self.skipped = torch.zeros((), device=device)
        self.average: dict[str, Tensor] | None = None
        if config.ema_decay is not None:
            self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    def step(self, number: int) -> tuple[Tensor, float]:
        """Move the weights by the gradients that are there, and forget those.

        A step with a gradient that is not finite changes neither weights nor the optimiser's state.

        Args:
            number: of the step in the run, from 0.

        Returns:
            The gradients' norm before clipping, on the device, and the learning rate.
        """
        norm = clip_gradients(self.parameters.values(), self.config.max_grad_norm)
        bad = (~torch.isfinite(norm)).float()
        self.skipped += bad
        lr = lr_at(number, self.config, self.num_steps)
        for group, queries in zip(self.adam.param_groups, self._of_queries, strict=True):
            group["lr"] = query_lr_at(number, self.config, self.num_steps) if queries else lr
        if self.config.states == "8bit":
            if not bad.item():  # bitsandbytes has no switch on the device
                self.adam.step()
        else:
            self.adam.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        if self.average is not None:
            self._follow(number)
        return norm, lr

    @torch.no_grad()
    def _follow(self, number: int) -> None:
        """Move the average; early on it follows faster, so that it does not remember the start."""
        assert self.average is not None
        assert self.config.ema_decay is not None
        decay = min(self.config.ema_decay, (1 + number) / (10 + number))
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)


def grouped(parameters: Mapping[str, nn.Parameter]) -> dict[bool, list[nn.Parameter]]:
    """Queries (True) apart from all else (False); no empty group."""
    made: dict[bool, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        made.setdefault(name.startswith("keyframe_query."), []).append(parameter)
    return made


def _adam(groups: list[list[nn.Parameter]], config: OptimConfig) -> torch.optim.Optimizer:
    parameters = [{"params": group} for group in groups]
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.states == "8bit":
        if any(isinstance(p, DTensor) for group in groups for p in group):
            raise ValueError(
                "8-bit optimiser states cannot be sharded; set optim.states=fp32 or scale.shard=false"
            )
        made: torch.optim.Optimizer = require("bitsandbytes", extra="train-8bit").optim.AdamW8bit(
            parameters, **settings
        )
        return made
    # Fused, because this form can leave a step out without asking the host.
    return torch.optim.AdamW(parameters, fused=True, **settings)
