"""Layers of the towers in the form that is fastest on this processor; weights and their names are the same.

Axis letters: n pictures, l tokens, d width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curation import cpu_linear
from curation.cpu_linear import linear, worth_it


def quick_gelu(values: Tensor) -> Tensor:
    """The activation of OpenAI's CLIP, not GELU; in inference one tensor is made."""
    gates = values * 1.702
    if torch.is_grad_enabled() and values.requires_grad:
        return gates.sigmoid() * values
    return gates.sigmoid_().mul_(values)


class QuickGelu(nn.Module):
    """`quick_gelu` as a layer."""

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape."""
        return quick_gelu(values)


class SelfAttention(nn.MultiheadAttention):
    """PyTorch's attention, its products by `curation.cpu_linear`.

    PyTorch's own does not ask its layers for them. Whatever is not plain self-attention in inference is
    PyTorch's.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        """As of `nn.MultiheadAttention`."""
        plain = query is key is value and query.ndim == 3 and self.batch_first and not args
        unmasked = options.get("attn_mask") is None and options.get("key_padding_mask") is None
        weightless = not options.get("need_weights", True) and self.bias_k is None and not self.add_zero_attn
        inputs = query, self.in_proj_weight, self.in_proj_bias
        if self.training or not (plain and unmasked and weightless and worth_it(*inputs)):
            return super().forward(query, key, value, *args, **options)
        mixed_nld = linear(*inputs)
        parts = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in mixed_nld.chunk(3, dim=2)
        )
        seen_nld = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        return linear(seen_nld, self.out_proj.weight, self.out_proj.bias), None


def speed_up(module: nn.Module) -> nn.Module:
    """Have the linear layers and self-attentions of a tower use `curation.cpu_linear`, where it is faster.

    In place; results differ by rounding. On a GPU nothing changes.
    """
    if cpu_linear.faster_here():
        cpu_linear.speed_up(module)
        for part in module.modules():
            if type(part) is nn.MultiheadAttention:
                part.__class__ = SelfAttention
    return module
