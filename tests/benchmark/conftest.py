from __future__ import annotations

import pytest


@pytest.fixture
def small(monkeypatch, tmp_path):
    """All encoders small, on a machine without any weights; gives the folder where they would be."""
    pytest.importorskip("torch")
    from tests.benchmark import small_encoders

    yield small_encoders.install(monkeypatch, tmp_path)
    small_encoders.forget()
