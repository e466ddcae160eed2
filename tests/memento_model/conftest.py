"""Tiny tensors on one thread: handing them to several costs more than the work."""

from __future__ import annotations

import importlib.util

import pytest


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def crew_of_two():
    """Two processes that run functions together."""
    from tests.memento_model.processes import Crew

    with Crew(2) as crew:
        yield crew


@pytest.fixture(scope="package")
def crew_of_four():
    """Four of them."""
    from tests.memento_model.processes import Crew

    with Crew(4) as crew:
        yield crew
