"""`results.json`: a report's data on disk, from which tables and page can be made again without videos."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmark.report.schema import FORMAT, ReportData

NAME = "results.json"


class ResultsError(ValueError):
    """Results cannot be read or compared; one line that says why and how to mend it."""


def write_results(data: ReportData, path: Path | str) -> Path:
    """Write a report's data, whole or not at all. Equal data gives equal bytes.

    Args:
        data: of a report.
        path: of the file, or of a folder, where it becomes `results.json`.

    Returns:
        The file.
    """
    path = _file(path)
    text = json.dumps(_adapter().dump_python(data, mode="json"), indent=1, allow_nan=False, ensure_ascii=True)
    return write_text(path, text + "\n")


def read_results(path: Path | str) -> ReportData:
    """A report's data from its file, or from the folder of a report.

    Raises:
        ResultsError: no such file, no results, of another version, or damaged.
    """
    from pydantic import ValidationError

    path = _file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        line = f"{path}: cannot be read ({reason}): give the folder or results.json of an evaluation"
        raise ResultsError(line) from error
    except ValueError as error:
        raise ResultsError(f"{path}: is no JSON ({error}): evaluate again") from error
    told = value.get("format") if isinstance(value, dict) else None
    if told != FORMAT:
        known = f"this version reads {FORMAT}: evaluate again"
        raise ResultsError(
            f"{path}: is {f'of format {told}' if told else 'no results of an evaluation'}; {known}"
        )
    try:
        return _adapter().validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ResultsError(f"{path}: {place}: {first['msg']}: the file is damaged, evaluate again") from error


def write_text(path: Path, text: str) -> Path:
    """Write a text file through a temporary one, whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" else path / NAME


def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(ReportData)
