"""Cosines, pooled features, pairs. Rows are features of width d; arithmetic in float64.

A feature of length zero has no direction: what depends on it is NaN.
"""

from __future__ import annotations

import numpy as np


def unit(features: np.ndarray) -> np.ndarray:
    """Features [..., d] scaled to length 1: float64; NaN where the length is zero or not finite."""
    features = np.asarray(features, np.float64)
    largest = np.max(np.abs(features), axis=-1, keepdims=True, initial=0.0)
    usable = (largest > 0) & np.isfinite(largest)
    # Divided by the largest entry first, so that no square over- or underflows.
    scaled = np.divide(features, largest, out=np.full_like(features, np.nan), where=usable)
    return scaled / np.sqrt(np.sum(scaled * scaled, axis=-1, keepdims=True))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the last axes of two arrays [..., d] that broadcast: float64 [...]."""
    return np.sum(unit(a) * unit(b), axis=-1)


def pool(features_nd: np.ndarray) -> np.ndarray:
    """One feature [d] for several [n, d] or one [d]: unit(mean(unit(row))). NaN for none."""
    features_nd = np.atleast_2d(np.asarray(features_nd, np.float64))
    if not len(features_nd):
        return np.full(features_nd.shape[-1], np.nan)
    return unit(unit(features_nd).mean(axis=0))


def adjacent(features_nd: np.ndarray) -> np.ndarray:
    """Cosine of each row with the one before it: float64 [n - 1], empty for fewer than two rows."""
    return cosine(features_nd[1:], features_nd[:-1])


def with_first(features_nd: np.ndarray) -> np.ndarray:
    """Cosine of each later row with the first: float64 [n - 1], empty for fewer than two rows."""
    return cosine(features_nd[1:], features_nd[:1])


def matrix(features_nd: np.ndarray) -> np.ndarray:
    """Cosines of all rows with all rows: float64 [n, n]."""
    units = unit(features_nd)
    return units @ units.T


def pairs(features_nd: np.ndarray) -> np.ndarray:
    """Cosines of all unordered pairs, (0, 1), (0, 2), ... (n - 2, n - 1): float64 [n (n - 1) / 2]."""
    i, j = np.triu_indices(len(features_nd), 1)
    return cosine(features_nd[i], features_nd[j])
