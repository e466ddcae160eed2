"""Optional packages: import them or say exactly what to install."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType


class MissingExtra(ImportError):
    """A part was asked for whose packages are not installed; the message holds the command."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` with the install command. Never installs anything."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is not usable here ({error}); install it with: uv pip install 'memento-video[{extra}]'"
        ) from error


def install_command(extra: str) -> str:
    """What to type in the project's folder to get the packages of an extra."""
    return f"uv pip install -e '.[{extra}]'"


def available(module: str) -> bool:
    """Whether `module` is installed, without importing it."""
    return find_spec(module) is not None
