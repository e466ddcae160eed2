"""Helpers of the tests: optional real footage beside the checkout, and folders for workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.engine.store import Scratch, Store

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
GOLDEN = REPOSITORY / "tests" / "golden"


def shared(name: str) -> Path:
    """A file of the real test footage (`films/...`, `weights/...`), or skip: users do not have it."""
    path = SHARED / "data" / name
    if not path.exists():
        pytest.skip(f"real footage not present: {name}")
    return path


def scratch(tmp_path: Path, stage: str = "test") -> Scratch:
    """A worker's folder below `tmp_path`; call `.commit()` to make its refs resolvable."""
    return Scratch(Store(tmp_path / ".work"), stage, "0" * 64)
