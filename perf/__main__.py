"""All benchmarks in one run: `make bench [FILM=/a/film/of/five/minutes/or/more]`; prints Markdown."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    """Run each benchmark as its own process; 1 if one of them failed or missed a bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "film", type=Path, nargs="?", help="a real film; the demo film is rendered if none is given"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = options.film
        if film is None:
            from curation.demo.film import render

            film = render(Path(folder)).path
        machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
        print(f"# Benchmarks\n\n{machine}\n")
        failed = 0
        parts = [("perf.scan", [str(film)]), ("perf.queries", []), ("perf.captions", [])]
        if all(map(find_spec, ("torch", "diffusers", "peft", "transformers"))):  # extra `train`
            parts += [("perf.products", []), ("perf.model", []), ("perf.train_step", [])]
        if all(map(find_spec, ("torch", "open_clip", "timm"))):  # extra `eval`
            parts += [("perf.evaluation", ["--frames", "5"])]
        for module, arguments in parts:
            print(f"\n## `python -m {module}`\n", flush=True)
            failed += subprocess.run([sys.executable, "-m", module, *arguments]).returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
