"""Scores of the two public LAION aesthetic heads, by the names that features have in the benchmark.

The heads themselves are `curation.aesthetic_heads`, which curation scores shots with.
"""

from __future__ import annotations

import numpy as np

from curation import aesthetic_heads

HEADS = {"aes_mlp_raw": aesthetic_heads.MLP, "aes_linear_raw": aesthetic_heads.LINEAR}
"""Kind of score -> head."""
SOURCE_SHA256 = {kind: aesthetic_heads.SOURCE_SHA256[head] for kind, head in HEADS.items()}
"""Of the published file that a head was made from."""


def scores(units_nd: np.ndarray) -> dict[str, np.ndarray]:
    """Raw outputs of both heads, about 1 to 10.

    Args:
        units_nd: [n, 768] CLIP L/14 image features of length 1.

    Returns:
        Kind of score -> float64 [n].

    Raises:
        ValueError: see `curation.aesthetic_heads.scores`.
    """
    made = aesthetic_heads.scores(units_nd)
    return {kind: made[head] for kind, head in HEADS.items()}


def heads() -> dict[str, tuple[np.ndarray, float]]:
    """Kind of score -> (float64 [768], offset)."""
    kept = aesthetic_heads.heads()
    return {kind: kept[head] for kind, head in HEADS.items()}
