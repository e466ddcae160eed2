"""Shared fixtures: one Ray cluster for the whole test session, and the demo film."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# As in an environment that is active: commands in messages are then told by their bare names.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def pytest_collection_modifyitems(items):
    """Tests of the model go first.

    Some compare with a new process bit by bit, and how LAPACK rounds in a process depends on what ran in it
    before (seen after the benchmark's encoders).
    """
    items.sort(key=lambda item: "memento_model" not in item.path.parts)


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory):
    """A local Ray cluster for the whole session; starting one takes seconds."""
    from curation.engine.cluster import cluster

    with cluster(tmp_path_factory.mktemp("ray")) as place:
        yield place


@pytest.fixture(scope="session")
def demo_film(request):
    """The rendered demo film (`curation.demo.film.DemoFilm`), kept in pytest's cache between runs.

    The kept film is keyed by the sources of `curation.demo` and the versions of the packages that draw it.
    """
    from importlib.metadata import version

    import curation.demo.film as demo
    from curation.demo.truth import ground_truth

    made_by = hashlib.sha256()
    for source in sorted(Path(demo.__file__).parent.glob("*.py")):
        made_by.update(source.read_bytes())
    for package in ("av", "numpy", "opencv-python-headless", "pillow", "scikit-image"):
        made_by.update(f"{package} {version(package)}".encode())
    cache = Path(request.config.cache.mkdir("demo_film"))
    folder = cache / made_by.hexdigest()[:16]
    if not (folder / demo.TRUTH_NAME).is_file():
        part = Path(tempfile.mkdtemp(prefix="part-", dir=cache))
        demo.render(part)
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was faster: its film is the same
            part.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
    for old in cache.iterdir():
        if old != folder and not old.name.startswith("part-"):
            shutil.rmtree(old, ignore_errors=True)
    truth = folder / demo.TRUTH_NAME
    return demo.DemoFilm(folder / demo.FILM_NAME, truth, ground_truth(truth))
