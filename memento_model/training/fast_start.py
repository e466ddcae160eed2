"""A start from which a small model learns in minutes what random numbers take hours to find.

For models that train their base from nothing (the debug recipe); Wan's weights need none of it. Before the
first step every block already looks at its own place in all other frames and adds what it sees there, so the
model begins with "a shot looks like what is remembered" instead of with nothing. This follows the idea of
mimetic initialisation (Trockman and Kolter 2023): products of projections start near the identity.
"""

from __future__ import annotations

import torch
from torch import nn

from memento_model.config import ModelConfig
from memento_model.nn.transformer import MementoTransformer

OPEN = 0.5
"""Gates of both branches; Wan's start leaves them almost shut."""
PLACE = 6.0
"""Bias of queries and keys on the channels that rotate fastest with rows and columns."""
SHARPNESS = 2.0
"""Gains of the norms of queries and keys: attention falls off within a token or two."""
CONTENT = 0.3
"""What is left of the random part of queries and keys."""


@torch.no_grad()
def fast_start(transformer: MementoTransformer, config: ModelConfig) -> None:
    """Change freshly drawn weights in place; the output layer stays silent."""
    patch = transformer.patch_embedding.weight
    flat = torch.empty(patch.shape[0], patch[0].numel())
    nn.init.orthogonal_(flat)  # every number of the input is carried, none is amplified
    patch.copy_(flat.view_as(patch))
    time, rows, _ = config.rope_split
    places = torch.zeros(config.num_heads, config.head_dim)
    for start in (time, time + rows):
        places[:, start : start + 4 : 2] = PLACE  # two pairs of channels, the first of each
    for block in transformer.blocks:
        block.scale_shift_table[:, 2], block.scale_shift_table[:, 5] = OPEN, OPEN
        attn = block.attn1
        for linear in (attn.to_q, attn.to_k):
            linear.weight.mul_(CONTENT)
            linear.bias.copy_(places.flatten())
        nn.init.orthogonal_(attn.to_v.weight)
        attn.to_out[0].weight.copy_(attn.to_v.weight.T)
        attn.norm_q.weight.fill_(SHARPNESS)
        attn.norm_k.weight.fill_(SHARPNESS)
