"""The packages that the model needs, all of the extra `train`; the core installs without them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from curation.optional import require

PACKAGES = ("torch", "safetensors", "diffusers", "peft", "ftfy")


def require_packages(*names: str, say: Callable[[str], object] | None = None) -> None:
    """Import these packages (all if none is named), so that what is missing is told before work begins.

    Args:
        names: some of `PACKAGES`.
        say: told why nothing happens for a while; of several processes only the first one says so.

    Raises:
        MissingExtra: one is not installed; the message has the command that installs it.
    """
    if say and "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        say("loading PyTorch and the model's packages")
    for name in names or PACKAGES:
        require(name, extra="train")
