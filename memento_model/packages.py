"""The packages that the model needs, all of the extra `train`; the core installs without them."""

from __future__ import annotations

from curation.optional import require

PACKAGES = ("torch", "safetensors", "diffusers", "peft", "ftfy")


def require_packages(*names: str) -> None:
    """Import these packages (all if none is named), so that what is missing is told before work begins.

    Raises:
        MissingExtra: one is not installed; the message has the command that installs it.
    """
    for name in names or PACKAGES:
        require(name, extra="train")
