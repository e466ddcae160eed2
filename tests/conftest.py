"""Shared fixtures: one Ray cluster for the whole test session."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory):
    """A local Ray cluster for the whole session; starting one takes seconds."""
    from curation.cluster import cluster

    with cluster(tmp_path_factory.mktemp("ray")) as place:
        yield place
