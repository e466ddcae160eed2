"""What holds for every file: sizes, lazy imports, documented commands and settings."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.support import REPOSITORY

SOURCES = sorted(
    path
    for folder in ("benchmark", "curation", "memento_model", "pipelines", "perf", "tests")
    for path in (REPOSITORY / folder).rglob("*.py")
)
MAX_FILE, MAX_FUNCTION = 400, 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = (node.end_lineno or 0) - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= MAX_FUNCTION, f"{node.name} has {lines} lines"


def test_heavy_packages_are_imported_only_where_they_run():
    code = (
        "import sys, pipelines.cli, pipelines.curate;"
        "heavy = {'ray', 'cv2', 'onnxruntime', 'rapidocr', 'scenedetect', 'skimage', 'trackers', 'torch'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_file_names_a_machine_path():
    paths = re.compile(r"(?<![\w./])/(work|root|opt|home/\w+)/")
    files = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    found = [
        f"{name}:{number}"
        for name in files
        if name.endswith((".py", ".md", ".toml", ".yaml", ".sql", "Makefile", "run"))
        for number, line in enumerate((REPOSITORY / name).read_text().splitlines(), 1)
        if paths.search(line) and name != "tests/test_architecture.py"
    ]
    assert found == []


def test_every_module_is_packaged():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    declared = set(project["tool"]["setuptools"]["packages"])
    there = {
        str(path.parent.relative_to(REPOSITORY)).replace("/", ".")
        for top in ("benchmark", "curation", "memento_model", "pipelines")
        for path in (REPOSITORY / top).rglob("*.py")
    }
    assert there == declared
