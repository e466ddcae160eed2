"""Rotary positions from integer times, rows and columns.

Axes: b batch, f latent frames, l tokens (frame, row, column order), h heads, d channels of a head, c = d / 2.

The channels of a head are three sections (time, row, column; 44 + 42 + 42 of 128), each with its own
geometric series of frequencies over base 10000; neighbouring channels form the pair that turns (Wan2.2).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

MIN_POSITION, MAX_POSITION = -512, 511
"""Temporal positions are clamped to these: the rows of the table that Memento was trained with."""
BASE = 10000.0


def rotary_table(positions_bf: Tensor, rows: int, columns: int, split: tuple[int, int, int]) -> Tensor:
    """Cosine and sine of every token's turn.

    Args:
        positions_bf: temporal positions, integers of any sign; 0 is the first frame of the shot. Clamped to
            [-512, 511].
        rows: tokens of a frame, vertically; positions start at 0.
        columns: the same, horizontally.
        split: channels of a head that turn with (time, row, column), all even.

    Returns:
        Tensor [b, l, 1, c, 2], fp32, last axis (cos, sin), on the positions' device. Computed in float64.
    """
    batch, frames = positions_bf.shape
    time_bfc2, row_rc2, column_kc2 = axis_turns(positions_bf, rows, columns, split)
    whole = (batch, frames, rows, columns, -1, 2)
    return torch.cat(
        (
            time_bfc2[:, :, None, None].expand(whole),
            row_rc2[None, None, :, None].expand(whole),
            column_kc2[None, None, None, :].expand(whole),
        ),
        dim=-2,
    ).reshape(batch, frames * rows * columns, 1, sum(split) // 2, 2)


def axis_turns(
    positions_bf: Tensor, rows: int, columns: int, split: tuple[int, int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The sections of `rotary_table` along their own axes: [b, f, c, 2], [rows, c, 2] and [columns, c, 2]."""
    device = positions_bf.device
    return (
        _known_turns(MIN_POSITION, MAX_POSITION + 1, split[0], device)[
            positions_bf.clamp(MIN_POSITION, MAX_POSITION) - MIN_POSITION
        ],
        _known_turns(0, rows, split[1], device),
        _known_turns(0, columns, split[2], device),
    )


def rotate(x_blhd: Tensor, table_bl1c2: Tensor) -> Tensor:
    """Turn neighbouring channel pairs by the table's angles, in fp32; the result is fp32.

    Args:
        x_blhd: queries or keys.
        table_bl1c2: of `rotary_table`.
    """
    pairs_blhc2 = x_blhd.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        # One pass over memory; 2.6 times as fast as the real form on a CPU.
        return torch.view_as_real(
            torch.view_as_complex(pairs_blhc2) * torch.view_as_complex(table_bl1c2)
        ).flatten(-2)
    # Inductor generates no code for complex numbers, but fuses this into one kernel.
    (even, odd), (cos, sin) = pairs_blhc2.unbind(-1), table_bl1c2.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _turns(positions: Tensor, channels: int) -> Tensor:
    """Angles of channel pairs at integer positions [...]: Tensor [..., channels / 2, 2] of (cos, sin)."""
    exponents = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
    angles = positions.to(torch.float64)[..., None] * BASE**-exponents
    return torch.stack((angles.cos(), angles.sin()), dim=-1).float()


@lru_cache(maxsize=64)
def _known_turns(start: int, stop: int, channels: int, device: torch.device) -> Tensor:
    # A cached tensor made in inference mode could not be used in a later training step.
    with torch.inference_mode(False), torch.no_grad():
        return _turns(torch.arange(start, stop, device=device), channels)
