"""Publishing is killed at any moment: readers see the set before or the set after."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from curation.publishing import publish as publishing
from curation.publishing.publish import publish
from tests.curation.rows_factory import outcome
from tests.curation.test_publish import FACTS, content
from tests.support import REPOSITORY

PUBLISHER = """
import sys
from pathlib import Path
from curation.publishing.publish import publish
from tests.curation.rows_factory import outcome
from tests.curation.test_publish import FACTS
folder, story = Path(sys.argv[1]), sys.argv[2]
tables, store = outcome(folder / ".work")
tables["sequence"][0]["story_caption"] = story
print("ready", flush=True)
publish(tables, store, folder, FACTS)
print("done", flush=True)
"""


def assert_whole(folder: Path) -> str:
    """The set that readers see is complete; returns its story."""
    with duckdb.connect(str(folder / "annotations.duckdb"), read_only=True) as connection:
        paths = connection.execute("SELECT video_path, sha256 FROM clips").fetchall()
        (story,) = connection.execute(
            "SELECT min(story_caption) FROM sequences WHERE film_id LIKE 'f1%'"
        ).fetchone()
    assert len(paths) == 8
    for path, sha256 in paths:
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == sha256
    for name in publishing.TOP_LEVEL:
        assert (folder / name).exists(), name
    return story


@pytest.mark.slow
def test_killed_at_twenty_moments_readers_see_the_old_set_or_the_new(tmp_path: Path) -> None:
    def start(story: str) -> subprocess.Popen:
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path), story]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    first = start("story 0")
    begun = time.perf_counter()
    assert first.communicate()[0] == "done\n"
    lasts = time.perf_counter() - begun
    stories = ["story 0"]
    for moment in range(1, 21):
        process = start(f"story {moment}")
        time.sleep(lasts * moment / 17)  # the last few get through
        process.kill()
        process.communicate()
        stories.append(assert_whole(tmp_path))
        assert stories[-1] in (stories[-2], f"story {moment}")
    assert len(set(stories)) > 2, "some runs should have got through and some not"
    assert start("story 0").communicate()[0] == "done\n"
    fresh = tmp_path / "fresh"
    tables, store = outcome(fresh / ".work")
    tables["sequence"][0]["story_caption"] = "story 0"
    publish(tables, store, fresh, FACTS)
    assert content(tmp_path / "current") == content(fresh / "current")
    assert len(list((tmp_path / "versions").iterdir())) == 2
