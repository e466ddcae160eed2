"""Files of weights to state dicts to modules: strict, as tensors only, and every fault one line.

Layouts and foreign names are known in the file of the encoder that has them.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.encoders.layers import speed_up
from benchmark.encoders.weights import TORCHSCRIPT
from curation.optional import MissingExtra, install_command, require
from curation.weights import WeightsDamaged

State = dict[str, Tensor]
WRAPPERS = ("model", "state_dict")
"""Keys under which training programs keep the state dict."""


def read_state(path: Path, sha256: str) -> State:
    """The tensors of a file by their names in it, on the CPU.

    Args:
        path: safetensors, a PyTorch pickle (tensors only), or one of OpenAI's TorchScript archives.
        sha256: of the file; archives of programs are opened only if they are OpenAI's own.

    Raises:
        WeightsDamaged: the file cannot be read, or is something else.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif _is_program(path):
            state = _from_program(path, sha256)
        else:
            state = _from_pickle(path)
    except SafetensorError as error:
        raise WeightsDamaged(f"{path}: damaged or incomplete ({error}); fetch it again") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
        raise WeightsDamaged(
            f"{path}: cannot be read as tensors only ({first}); fetch it again, or save it as safetensors"
        ) from error
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _from_program(path: Path, sha256: str) -> State:
    if sha256 not in TORCHSCRIPT:
        raise WeightsDamaged(
            f"{path}: a TorchScript archive, which is a program, and not OpenAI's own (SHA-256 "
            f"{sha256[:12]}...): fetch OpenAI's file, or save the tensors as safetensors"
        )
    return dict(torch.jit.load(path, map_location="cpu").state_dict())


def _from_pickle(path: Path) -> State:
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise WeightsDamaged(f"{path}: no state dict but a {type(loaded).__name__}; fetch the published file")
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def library(module: str) -> ModuleType:
    """Import a library that towers are built of.

    Raises:
        MissingExtra: it is not installed, or cannot be imported (torchvision that does not fit torch).
    """
    try:
        return require(module, extra="eval")
    except RuntimeError as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise MissingExtra(
            f"{module} cannot be imported ({first}); install torch and torchvision that fit each other: "
            f"{install_command('eval')}"
        ) from error


def part_of(state: State, prefix: str) -> State:
    """The tensors below a name, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def renamed(state: State, rules: Mapping[str, str]) -> State:
    """The same tensors with parts of their names replaced, in the order of the rules."""
    made = {}
    for name, value in state.items():
        for old, new in rules.items():
            name = name.replace(old, new)
        made[name] = value
    return made


def assembled(build: Callable[[], nn.Module], state: State, source: str) -> nn.Module:
    """A module with exactly these tensors as float32, ready for inference.

    Args:
        build: makes the module; its own first values are never computed.
        state: by the names of the module.
        source: of the state, for messages.

    Raises:
        WeightsDamaged: a tensor is missing, is too many, has another shape, or is not finite.
    """
    with torch.device("meta"):
        module = build()
    wanted = module.state_dict()
    if missing := wanted.keys() - state.keys():
        raise WeightsDamaged(f"{source}: lacks {_some(missing)}: another model, or an incomplete file")
    if extra := state.keys() - wanted.keys():
        raise WeightsDamaged(f"{source}: has {_some(extra)}, which this encoder does not know: another model")
    for name, value in state.items():
        if value.shape != wanted[name].shape:
            raise WeightsDamaged(
                f"{source}: {name} is {_size(value)}, not {_size(wanted[name])}: another model"
            )
        if value.numel() and not torch.isfinite(torch.stack(value.aminmax())).all():
            raise WeightsDamaged(f"{source}: {name} holds NaN or infinity: fetch the file again")
    module.load_state_dict({n: v.float() for n, v in state.items()}, strict=True, assign=True)
    return speed_up(module.eval().requires_grad_(False))


def made_up(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module with numbers made from a seed, the same on every machine and with every version.

    Matrices have entries of variance 1 / (inputs); tables, scales and offsets stay near what training leaves.
    """
    with torch.device("meta"):
        module = build()
    # The old generator of NumPy is the one whose numbers are promised never to change.
    numbers = np.random.RandomState(seed)
    state = {}
    for name, like in sorted(module.state_dict().items()):
        spread = (numbers.random_sample(tuple(like.shape)).astype(np.float32) - 0.5) * np.float32(12**0.5)
        if like.ndim < 2:
            centre = 1.0 if _is_scale(name) else 0.0
            state[name] = torch.from_numpy(np.asarray(centre + 0.1 * spread, np.float32))
        else:
            inputs = like.shape[-1] if like.ndim == 2 else math.prod(like.shape[1:])
            state[name] = torch.from_numpy(spread * np.float32(inputs**-0.5))
    return assembled(build, state, "made-up numbers")


def _is_scale(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] == "gamma" or (parts[-1] == "weight" and ("norm" in parts[-2] or "ln_" in parts[-2]))


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:2]) + (f" and {len(listed) - 2} more" if len(listed) > 2 else "")


def _size(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a single number"
