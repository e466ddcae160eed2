"""Files of named tensors, read one tensor at a time: safetensors (single or sharded) and PyTorch pickles.

Values stay in the file (memory-mapped) until they are asked for. What is wrong ends in one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from memento_model.checkpoints.tensor_formats import (
    DTYPES,
    INDEX_ENDING,
    PICKLES,
    Entry,
    safetensors_entries,
    sharded_entries,
    unpickled,
)
from memento_model.errors import CheckpointError

WHOLE_BYTES = 4 << 30
"""Files up to this size are told apart by every byte: all published adapters, no base expert."""


class TensorSet(Mapping[str, Entry]):
    """The tensors of a file or of sharded files: facts at once, values by `read`."""

    def __init__(
        self,
        source: Path,
        entries: dict[str, Entry],
        loaded: dict[str, torch.Tensor],
        in_file: dict[str, str] | None = None,
    ) -> None:
        self.source = source
        self._entries = entries
        self._loaded = loaded
        self._in_file = in_file if in_file is not None else {name: name for name in entries}
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[self._in_file[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._in_file)

    def __len__(self) -> int:
        return len(self._in_file)

    @property
    def files(self) -> list[Path]:
        """The files that hold the tensors, sorted."""
        return sorted({entry.file for entry in self.values()})

    def renamed(self, rename: Callable[[str], str]) -> TensorSet:
        """The same tensors by other names.

        Raises:
            CheckpointError: a name that `rename` does not know (KeyError), or two that become one.
        """
        made: dict[str, str] = {}
        for name, in_file in self._in_file.items():
            try:
                new = rename(name)
            except KeyError as error:
                raise CheckpointError(f"{self.source}: {error.args[0]}") from error
            if new in made:
                raise CheckpointError(f"{self.source}: {made[new]} and {in_file} are the same tensor {new}")
            made[new] = in_file
        return TensorSet(self.source, self._entries, self._loaded, made)

    def chosen(self, names: Iterable[str]) -> TensorSet:
        """Only some of the tensors."""
        return TensorSet(
            self.source, self._entries, self._loaded, {name: self._in_file[name] for name in names}
        )

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse anything but exactly the expected names and shapes.

        Raises:
            CheckpointError: counts and names what is missing, unknown or of another shape.
        """
        faults = []
        for what, names in (
            ("missing", expected.keys() - self.keys()),
            ("unknown", self.keys() - expected.keys()),
        ):
            if names:
                faults.append(f"{len(names)} {what} ({_some(names)})")
        shared = sorted(expected.keys() & self.keys())
        wrong = [name for name in shared if self[name].shape != tuple(expected[name])]
        if wrong:
            faults.append(f"{wrong[0]} is {_size(self[wrong[0]].shape)}, not {_size(expected[wrong[0]])}")
        if faults:
            used = len(shared) - len(wrong)
            raise CheckpointError(
                f"{self.source}: {used} of {len(expected)} tensors fit: {'; '.join(faults)}"
            )

    def fill(
        self,
        module: torch.nn.Module,
        *,
        dtype: Callable[[str], torch.dtype],
        device: torch.device | str = "cpu",
    ) -> None:
        """Give a module (built on the meta device) these values, tensor by tensor, without a second copy.

        Values that need no conversion stay memory-mapped in their file.

        Args:
            module: its state must match exactly.
            dtype: for each name.
            device: where to.

        Raises:
            CheckpointError: see `check` and `read`.
        """
        self.check({name: tuple(value.shape) for name, value in module.state_dict().items()})
        state = {name: self.read(name).to(device, dtype(name)) for name in self}
        module.load_state_dict(state, strict=True, assign=True)

    def read(self, name: str) -> torch.Tensor:
        """The values of one tensor, on the CPU, in the file's type; memory-mapped, not copied.

        Raises:
            CheckpointError: it holds NaN or infinity, or the file cannot be read any more.
        """
        file, in_file = self[name].file, self._in_file[name]
        if in_file in self._loaded:
            values = self._loaded[in_file]
        else:
            try:
                if file not in self._open:
                    self._open[file] = safe_open(file, "pt")
                values = self._open[file].get_tensor(in_file)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file}: cannot read {name} ({error}); fetch the file again"
                ) from error
        # Both extremes are NaN if any value is; one quick pass, without a second array of the tensor's size.
        if values.numel() and not torch.isfinite(torch.stack(values.aminmax())).all():
            raise CheckpointError(
                f"{file}: {in_file} holds NaN or infinity; the file is damaged or its training failed"
            )
        return values


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:2]) + (", ..." if len(listed) > 2 else "")


def _size(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def open_tensors(path: Path) -> TensorSet:
    """The tensors of a safetensors file, a sharded set (its folder or index) or a PyTorch pickle.

    Raises:
        CheckpointError: nothing usable there; says what and how to mend.
    """
    path = _the_file(path)
    if path.name.endswith(INDEX_ENDING):
        return TensorSet(path, sharded_entries(path), {})
    if path.suffix == ".safetensors":
        return TensorSet(path, safetensors_entries(path), {})
    if path.suffix in PICKLES:
        loaded = unpickled(path)
        facts = {name: Entry(path, tuple(value.shape), value.dtype) for name, value in loaded.items()}
        return TensorSet(path, facts, loaded)
    raise CheckpointError(f"{path}: no weight file; expected .safetensors, {INDEX_ENDING} or .pth")


def _the_file(path: Path) -> Path:
    """The file to open for a path that may be a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    for pattern in (f"*{INDEX_ENDING}", "*.safetensors", "*.pth"):
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:4])
            raise CheckpointError(
                f"{path}: {len(found)} files fit ({names}{', ...' if len(found) > 4 else ''}) but no index "
                f"(*{INDEX_ENDING}) says which belong together; name one file, or fetch the index"
            )
    raise CheckpointError(f"{path}: the folder holds no weights (.safetensors or .pth)")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: complete under its name, or not at all.

    Args:
        tensors: names and values, on any device.
        path: ends in `.safetensors`; its folder is made.
        metadata: texts for the header.
    """
    facts = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    stream_tensors(facts, lambda name: tensors[name], path, metadata)


def stream_tensors(
    facts: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    read: Callable[[str], torch.Tensor],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """`save_tensors` with one tensor in memory at a time (the library's own writer copies them all).

    Args:
        facts: type and shape of every tensor.
        read: gives the values of one.
        path: ends in `.safetensors`; its folder is made.
        metadata: texts for the header.
    """
    names_of_types = {dtype: name for name, dtype in DTYPES.items()}
    # The format's own order: wide types first, so that every tensor is aligned; then by name.
    ordered = sorted(facts, key=lambda name: (-facts[name][0].itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in ordered:
        dtype, shape = facts[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names_of_types[dtype], "shape": shape, "data_offsets": (start, end)}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with _replacing(path) as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in ordered:
            value = read(name).detach().to("cpu", facts[name][0]).contiguous()
            file.write(value.flatten().view(torch.uint8).numpy().data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name only when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")  # the same each time: what a kill leaves is written over
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def save_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object: complete under its name, or not at all."""
    with _replacing(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def fingerprint(files: Iterable[Path]) -> str:
    """A short name of the contents of weight files: 16 hexadecimal digits.

    Files up to `WHOLE_BYTES` are hashed whole, for people mend single tensors of adapters. Of larger ones it
    takes the size, the first and the last MiB and 64 blocks of 64 KiB between, quick at any size.
    """
    made = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        made.update(size.to_bytes(8, "little"))
        with path.open("rb") as file:
            if size <= WHOLE_BYTES:
                while block := file.read(1 << 20):
                    made.update(block)
                continue
            made.update(file.read(1 << 20))
            for place in range(1, 65):
                file.seek(size * place // 66)
                made.update(file.read(1 << 16))
            file.seek(max(0, size - (1 << 20)))
            made.update(file.read(1 << 20))
    return made.hexdigest()[:16]
