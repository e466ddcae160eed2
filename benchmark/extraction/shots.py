"""Weight-free numbers of shots as records on disk, and back."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from benchmark.weight_free import ShotNumbers


def as_record(numbers: ShotNumbers) -> np.ndarray:
    """Numbers as one structured record [1], a field for each of theirs."""
    arrays = {f.name: np.asarray(getattr(numbers, f.name)) for f in fields(ShotNumbers)}
    arrays["inner_cuts"] = arrays["inner_cuts"].astype(np.int64)
    record = np.zeros(1, [(name, array.dtype, array.shape) for name, array in arrays.items()])
    for name, array in arrays.items():
        record[name] = array
    return record


def from_record(record: np.ndarray) -> ShotNumbers:
    """Numbers of what `as_record` gave."""
    values = {name: record[name][0] for name in record.dtype.names or ()}
    plain = {name: value.item() if value.ndim == 0 else value for name, value in values.items()}
    plain["inner_cuts"] = tuple(plain["inner_cuts"].tolist())
    return ShotNumbers(**plain)
