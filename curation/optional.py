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
    return f"{_installer()} pip install -e '.[{extra}]'"


def _installer() -> str:
    """How `uv` is called from here: it lies beside Python, which an environment that is not active hides."""
    beside = Path(sys.executable).with_name("uv")
    if shutil.which("uv") or not beside.is_file():
        return "uv"
    inside = beside.is_relative_to(Path.cwd())
    return os.path.relpath(beside) if inside else str(beside)


def available(module: str) -> bool:
    """Whether `module` is installed, without importing it."""
    return find_spec(module) is not None
