"""Run as a script: a plan on two Ray nodes of one machine; prints rows per node as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from curation.engine.stage import Stage, plan


@dataclass(frozen=True, kw_only=True)
class Where(Stage):
    """Takes a moment and says on which node it ran."""

    name: ClassVar = "where"
    reads: ClassVar = ("number",)
    writes: ClassVar = pa.schema([("node", pa.string())])

    def worker(self):
        import ray

        def work(row, folder):
            time.sleep(0.4)
            return {"node": ray.get_runtime_context().get_node_id()}

        return work


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    from curation.engine.cluster import cluster
    from curation.engine.runner import run
    from curation.engine.store import Store

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = nodes.address
    rows = [{"path": str(n), "number": n} for n in range(16)]
    source = pa.schema([("path", pa.string()), ("number", pa.int64())])
    with cluster(folder) as place:
        out = run(plan([Where()], source), rows, Store(folder), on_ray=True)
    counts = Counter(row["node"] for row in out.tables["film"])
    sys.stdout.write(f"RESULT {json.dumps({'place': place, 'counts': sorted(counts.values())})}\n")
    nodes.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
