"""The two public LAION aesthetic heads on CLIP L/14 features, shared by curation and the benchmark.

Both are exactly one affine map: the linear one is, and the five layers of the other have no activations
between them. They are kept as a vector and an offset each, in float64. Their directions have a cosine of 0.37
only, so a table must name the head.

Sources: `sac+logos+ava1-l14-linearMSE.pth` of christophschuhmann/improved-aesthetic-predictor
(Apache-2.0), folded; `sa_0_4_vit_l_14_linear.pth` of LAION-AI/aesthetic-predictor (MIT).
"""

from __future__ import annotations

import functools
from importlib.resources import files

import numpy as np

LINEAR, MLP = "linear", "mlp"
HEADS = (MLP, LINEAR)
SOURCE_FILE = {MLP: "sac+logos+ava1-l14-linearMSE", LINEAR: "sa_0_4_vit_l_14_linear"}
"""Name of the published file that a head was made from."""
SOURCE_SHA256 = {
    MLP: "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    LINEAR: "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
}
"""Of that file."""
WIDTH = 768
TOLERANCE = 1e-3
"""By how much a feature's length may differ from 1; half precision stays below it."""


def scores(units_nd: np.ndarray) -> dict[str, np.ndarray]:
    """Raw outputs of both heads, about 1 to 10.

    Args:
        units_nd: [n, 768] CLIP L/14 image features of length 1.

    Returns:
        Head -> float64 [n].

    Raises:
        ValueError: a feature is not of length 1 (then scores of 20 and more come out), or not CLIP L/14's.
    """
    if units_nd.ndim != 2 or units_nd.shape[1] != WIDTH:
        shape = list(units_nd.shape)
        raise ValueError(f"aesthetic heads need CLIP L/14 features [n, {WIDTH}], not {shape}")
    wide_nd = units_nd.astype(np.float64)
    off = np.abs(np.linalg.norm(wide_nd, axis=1) - 1)
    if not (off <= TOLERANCE).all():  # so that NaN does not pass
        row = int(np.argmax(~(off <= TOLERANCE)))
        length = float(np.linalg.norm(wide_nd[row]))
        raise ValueError(
            f"aesthetic heads need features of length 1, row {row} has {length:.4g}: divide by the length"
        )
    return {head: wide_nd @ weight_d + bias for head, (weight_d, bias) in heads().items()}


@functools.cache
def heads() -> dict[str, tuple[np.ndarray, float]]:
    """Head -> (float64 [768], offset)."""
    path = files("curation") / "aesthetic_heads.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
        return {head: (kept[f"{head}_weight"], float(kept[f"{head}_bias"][0])) for head in HEADS}
