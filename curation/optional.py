"""Optional packages: import them or say exactly what to install."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


class MissingExtra(ImportError):
    """A part was asked for whose packages are not installed; the message holds the command."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` with the install command. Never installs anything."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is not usable here ({error}); get it with: {install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """What to type in the project's folder to get the packages of an extra."""
    return f"{_as_typed('uv')} pip install -e '.[{extra}]'"


def own_command(rest: str) -> str:
    """What to type for `memento REST`, wherever the command lies."""
    return f"{_as_typed('memento')} {rest}"


def _as_typed(name: str) -> str:
    """How a program beside Python is called from here; where no environment is active, PATH lacks it."""
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) or not beside.is_file():
        return name
    inside = beside.is_relative_to(Path.cwd())
    return os.path.relpath(beside) if inside else str(beside)


def available(module: str) -> bool:
    """Whether `module` is installed, without importing it."""
    return find_spec(module) is not None
