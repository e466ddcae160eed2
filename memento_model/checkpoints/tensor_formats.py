"""What lies in a weight file, found out without trusting it: safetensors headers, shard indices, pickles.

Names, shapes and types are checked before any value is read; pickles are opened with `weights_only=True`; an
index names files of its own folder only.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memento_model.errors import CheckpointError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
INDEX_ENDING = ".safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        file: where it lies.
        shape: its size.
        dtype: its type in the file.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def safetensors_entries(path: Path) -> dict[str, Entry]:
    """Tensors of one safetensors file, by name.

    Raises:
        CheckpointError: the header is damaged, or does not fit the file exactly.
    """
    header, body_bytes = _safetensors_header(path)
    entries, spans = {}, []
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype_name, shape = facts["dtype"], tuple(facts["shape"])
            start, stop = facts["data_offsets"]
            plain = all(isinstance(size, int) and size >= 0 for size in (*shape, start, stop))
        except (KeyError, TypeError, ValueError):
            plain = False
        if not plain:
            raise CheckpointError(f"{path}: {name} has no valid entry in the header; fetch the file again")
        dtype = _usable_dtype(path, name, dtype_name)
        if stop - start != math.prod(shape) * dtype.itemsize or stop > body_bytes:
            raise CheckpointError(
                f"{path}: {name} lies outside the file ({stop:,} of {body_bytes:,} bytes); it is cut short "
                "or damaged: fetch it again"
            )
        entries[name] = Entry(path, shape, dtype)
        spans.append((start, stop, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise CheckpointError(f"{path}: {name} overlaps another tensor or leaves a gap; fetch it again")
        end = stop
    if end != body_bytes:
        raise CheckpointError(f"{path}: {body_bytes - end:,} bytes belong to no tensor; fetch it again")
    return entries


def safetensors_texts(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; they say nothing about tensors.

    Raises:
        CheckpointError: the header is damaged.
    """
    texts = _safetensors_header(path)[0].get("__metadata__", {})
    if not isinstance(texts, dict):
        raise CheckpointError(f"{path}: damaged header (__metadata__); fetch it again")
    return {name: value for name, value in texts.items() if isinstance(value, str)}


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and the number of bytes after it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(f"{path}: not a safetensors file, or cut short; fetch it again")
        raw = file.read(length)
    return _parsed(path, raw), size - 8 - length


def _parsed(path: Path, raw: bytes | str) -> dict[str, Any]:
    """A JSON object whose keys are all different."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f"{path}: {twice} is listed twice; fetch the file again")
        return made

    try:
        made = json.loads(raw, object_pairs_hook=unique)
    except (UnicodeDecodeError, RecursionError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); fetch it again") from error
    if not isinstance(made, dict):
        raise CheckpointError(f"{path}: not a JSON object; fetch it again")
    return made


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint folder.

    Raises:
        CheckpointError: not there or not valid.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return _parsed(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not text ({error}); fetch it again") from error


def _usable_dtype(path: Path, name: str, dtype: str | torch.dtype) -> torch.dtype:
    known = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if known is None or known not in DTYPES.values():
        raise CheckpointError(
            f"{path}: {name} is {dtype}; weights are {', '.join(DTYPES)}: quantised files cannot be used"
        )
    return known


def sharded_entries(index: Path) -> dict[str, Entry]:
    """Tensors of all files that an index names; they must hold exactly what it lists.

    Raises:
        CheckpointError: a file or tensor is missing, or the index points outside its folder.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: no weight_map in the index; fetch it again")
    files = sorted({str(file) for file in weight_map.values()})
    for file in files:
        if file != Path(file).name or "\\" in file or not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: names {file!r}, which is no .safetensors file of this folder; refused"
            )
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: missing, the index asks for it; fetch it")
    entries: dict[str, Entry] = {}
    for file in files:
        for name, entry in safetensors_entries(index.parent / file).items():
            if weight_map.get(name) != file:
                there = f"says {weight_map[name]}" if name in weight_map else "does not list it"
                raise CheckpointError(f"{index.parent / file}: holds {name}, but the index {there}")
            entries[name] = entry
    missing = [name for name in weight_map if name not in entries]
    if missing:
        raise CheckpointError(
            f"{index.parent / weight_map[missing[0]]}: lacks {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''} of the index; fetch it again"
        )
    return entries


def unpickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a pickle: flat, or the one dict of tensors inside a training state.

    Raises:
        CheckpointError: it holds code or anything else but plain tensors, or is damaged.
    """
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, which weights_only checks itself
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # PyTorch's text goes on with how to open it all the same, which runs the code inside.
        found_code = re.search(r"GLOBAL:? ([\w.]+)", str(error))
        what = f" (it calls {found_code[1]})" if found_code else ""
        raise CheckpointError(
            f"{path}: holds more than tensors, or is damaged, and is not opened{what}; use safetensors"
        ) from error
    except Exception as error:  # the reader of a damaged pickle may raise anything
        what = (str(error).splitlines() or ["empty"])[0]
        raise CheckpointError(f"{path}: damaged or no PyTorch file ({what}); fetch it again") from error
    tensors = _tensors_of(found)
    if tensors is None and isinstance(found, dict):
        inner = [part for part in map(_tensors_of, found.values()) if part]
        tensors = inner[0] if len(inner) == 1 else None
    if not tensors:
        raise CheckpointError(f"{path}: holds no (or more than one) dict of named tensors")
    for name, value in tensors.items():
        _usable_dtype(path, name, value.dtype)
        if value.layout != torch.strided or value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {name} is no plain tensor; refused")
    return tensors


def _tensors_of(found: Any) -> dict[str, torch.Tensor] | None:
    if not isinstance(found, dict) or not found:
        return None
    if all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in found.items()):
        return {name: value.detach() for name, value in found.items()}
    return None


def _check_archive(path: Path) -> None:
    """PyTorch stores its parts uncompressed under one folder; anything else was not written by it."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    names = [part.filename for part in parts]
    strange = [
        part.filename
        for part in parts
        if part.compress_type != zipfile.ZIP_STORED
        or part.filename.startswith("/")
        or ".." in part.filename.split("/")
    ]
    if strange or len(set(names)) != len(names):
        what = f"part {strange[0]!r}" if strange else "parts of equal name"
        raise CheckpointError(f"{path}: holds {what}, which PyTorch does not write; refused")
