import json
import os
import subprocess
import sys

import pytest

from curation.engine.cluster import NoLocalRay, cluster
from tests.support import REPOSITORY


def test_two_nodes_share_the_work(tmp_path):
    out = subprocess.run(
        [sys.executable, "-m", "tests.pipelines.two_nodes", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    line = next((line for line in out.stdout.splitlines() if line.startswith("RESULT ")), None)
    assert line, out.stdout[-2000:] + out.stderr[-2000:]
    result = json.loads(line.removeprefix("RESULT "))
    assert "2 nodes, 2 CPUs" in result["place"]
    assert len(result["counts"]) == 2
    assert sum(result["counts"]) == 16
    assert min(result["counts"]) >= 3


def test_an_address_without_a_cluster_is_one_clear_line(tmp_path):
    code = (
        "from curation.engine.cluster import cluster; from curation.engine.stage import StopRun\n"
        "from pathlib import Path\n"
        "try:\n    cluster(Path('.')).__enter__()\nexcept StopRun as stop:\n    print('STOP', stop)"
    )
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "STOP RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers there" in out.stdout, out.stderr[-2000:]


def test_a_local_ray_that_does_not_come_up_is_one_clear_line(tmp_path, monkeypatch):
    import ray

    def too_slow(**options):
        raise Exception("The current node timed out during startup. This could happen because\nmore")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    closed: list[bool] = []  # the session's own Ray must outlive this test
    monkeypatch.setattr(ray, "shutdown", lambda: closed.append(True))
    with (
        pytest.raises(NoLocalRay, match=r"^Ray did not start .*timed out during startup") as caught,
        cluster(tmp_path),
    ):
        raise AssertionError("no cluster to work on")
    assert "\n" not in str(caught.value)
    assert closed, "what did start must not stay behind"
