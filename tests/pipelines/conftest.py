"""The demo set, which several files look at."""

from __future__ import annotations

import pytest

from pipelines.curate import curate, prepare, resolve
from tests.support import REPOSITORY


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory, demo_film, ray_cluster):
    """The published demo set, made once per session on Ray."""
    output = tmp_path_factory.mktemp("demo") / "set"
    job = resolve([str(demo_film.path)], REPOSITORY / "datasets.yaml", output=output, preset="paper-text")
    return curate(job, prepare(job), on_ray=True)
