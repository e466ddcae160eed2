"""datasets.yaml to checked settings: a typo is an error with a suggestion, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from curation.engine.stage import Fold, Stage

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is unknown or has a wrong value; the message says where and what would be right."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One entry of datasets.yaml.

    Attributes:
        films: files, folders, globs or URLs; `demo` is the film that the project renders itself.
        licence: of the films, written into every table.
        output: folder of the published set; `out/<name>` if not given.
        preset: how shots are packed into sequences (see docs/presets.md).
        stages: settings by stage name.
    """

    films: str | list[str]
    licence: str = "not stated"
    output: str | None = None
    preset: str = "paper-table"
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)


def build(cls: type[T], data: Any, where: str) -> T:
    """Build a dataclass from a mapping, strictly.

    Args:
        cls: a dataclass.
        data: field values.
        where: the place shown in errors, e.g. `datasets.yaml: demo`.

    Raises:
        SettingsError: unknown key (with the nearest known one) or a value of the wrong type.
    """
    _check_names(cls, data, where)
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(data))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        if first["type"] == "value_error":  # a check of the settings themselves; its message names the value
            said = first["msg"].removeprefix("Value error, ")
            raise SettingsError(": ".join(filter(None, (where, place, said)))) from error
        raise SettingsError(f"{where}: {place}: {first['msg']} (got {first['input']!r})") from error
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def _check_names(cls: Any, data: Any, where: str) -> None:
    """Refuse unknown keys here and in nested dataclasses; values are pydantic's business."""
    if not isinstance(data, Mapping):
        raise SettingsError(f"{where}: expected settings as `name: value`, got {data!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key, value in data.items():
        if key not in known:
            raise SettingsError(f"{where}: unknown setting {key!r}{suggestion(str(key), known)}")
        if dataclasses.is_dataclass(hints[key]):
            _check_names(hints[key], value, f"{where}.{key}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` or the list of what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def load(path: Path) -> dict[str, Dataset]:
    """The datasets of a datasets.yaml.

    Raises:
        SettingsError: the file cannot be read, is no YAML or holds an unknown key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is no UTF-8; save the file as UTF-8") from error
    data = parse_yaml(text, str(path))
    if not isinstance(data, Mapping) or data.get("version") != 1:
        raise SettingsError(f"{path}: expected `version: 1` on top")
    extra = set(data) - {"version", "datasets"}
    if extra:
        raise SettingsError(f"{path}: unknown key {sorted(extra)[0]!r}; known: datasets, version")
    entries = data.get("datasets") or {}
    if not isinstance(entries, Mapping):
        raise SettingsError(f"{path}: `datasets` must map names to settings")
    return {name: build(Dataset, entry, f"{path.name}: {name}") for name, entry in entries.items()}


class _Strict(yaml.SafeLoader):
    """YAML in which no name is given twice, `off` is a word, and numbers are what they look like.

    YAML 1.1 takes yes, no, on and off for truth values, YAML 1.2 only true and false; some settings have a
    value `off`. Settings that are true or false still take all of these words. 5:40 and 010 are numbers in
    base 60 and 8 in YAML 1.1 and other things in 1.2: they are refused. 1e3 is a number, as in YAML 1.2.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping; of two equal names the second is the fault."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":  # a merge
                continue
            if key.value in seen:
                problem = f"{key.value!r} is given twice; remove one of the two"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Strict.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if first in "tTfF" or tag != "tag:yaml.org,2002:bool"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
AMBIGUOUS = re.compile(r"[-+]?(\d[\d_]*(:\d+)+(\.\d*)?|0[\d_]+)")
_TAGS = {
    "tag:yaml.org,2002:int": AMBIGUOUS,
    "tag:yaml.org,2002:float": re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
}
for _tag, _form in _TAGS.items():
    _Strict.add_implicit_resolver(_tag, re.compile(f"^(?:{_form.pattern})$"), list("-+.0123456789"))


def _number(loader: _Strict, node: yaml.ScalarNode) -> int | float:
    """A number, unless YAML's versions read it differently."""
    if AMBIGUOUS.fullmatch(node.value):
        way = "several values are separated by commas, " if ":" in node.value else ""
        problem = f"{node.value} is no decimal number (65, 0.5, 1e3); {way}a text needs quotes"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    is_int = node.tag.endswith("int")
    return loader.construct_yaml_int(node) if is_int else loader.construct_yaml_float(node)


for _tag in _TAGS:
    _Strict.add_constructor(_tag, _number)


def parse_yaml(text: str, where: str) -> Any:
    """The values of a YAML text.

    Raises:
        SettingsError: in one line where it is no YAML and what to mend; `where` comes first.
    """
    try:
        return yaml.load(text, _Strict)
    except yaml.MarkedYAMLError as error:
        line, column, how = _fault(error, text)
        shown = text.splitlines()[line - 1].strip() if line <= len(text.splitlines()) else ""
        here = f" (here: {shown[:60]})" if shown else ""
        raise SettingsError(f"{where}: line {line}, column {column}: {how}{here}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(
            f"{where}: line {line}: the character U+{error.character:04X} is not allowed; remove it"
        ) from error


OPENED = {
    "flow sequence": "the list that begins here is not closed; add ]",
    "flow mapping": "the settings that begin here are not closed; add }",
    "quoted scalar": "the quote that begins here is not closed; add one at the end of the value",
}
FAULTS = {
    "'\\t' that cannot start": "indent with spaces, not with tabs",
    "alias": "a value that begins with * needs quotes",
    "cannot start any token": "a value that begins with a special character needs quotes",
    "flow node": "a [ or { before is not closed, or a value is missing",
    "block mapping": "indentation: settings of one entry begin in the same column",
    "block collection": "indentation: items of one list begin in the same column",
    "expected ':'": "a name is followed by a colon and a space",
    "single document": "only one document; remove the line ---",
}
"""What PyYAML says -> what to mend: the first that occurs counts."""


def _fault(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int, str]:
    """Line and column, from 1, and what to mend there."""
    said = f"{error.context or ''}; {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    for words, how in OPENED.items():
        if words in said and error.context_mark is not None:
            return error.context_mark.line + 1, error.context_mark.column + 1, how
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if "mapping values are not allowed" in said:
        return _stray_colon(text.splitlines(), line, column)
    for words, how in FAULTS.items():
        if words in said:
            return line, column, how
    return line, column, error.problem or "no valid YAML"


def _stray_colon(lines: list[str], line: int, column: int) -> tuple[int, int, str]:
    """What to mend where YAML met a colon that it did not expect."""
    text = lines[line - 1]
    if ": " in text[: column - 1]:
        return line, column, "a value with a colon in it needs quotes"
    before = next((n for n in range(line - 1, 0, -1) if lines[n - 1].strip()), 0)
    name = lines[before - 1].strip() if before else ""
    if before and ": " not in name and not name.endswith(":"):
        return before, len(lines[before - 1]) - len(lines[before - 1].lstrip()) + 1, FAULTS["expected ':'"]
    return line, column, FAULTS["block mapping"]


def configure(
    steps: Iterable[type[Stage] | type[Fold]],
    settings: Mapping[str, Mapping[str, Any]],
    where: str,
) -> list[Stage | Fold]:
    """The steps with their settings.

    Args:
        steps: classes, in order.
        settings: by stage name; field names of the stage.
        where: the place shown in errors.

    Raises:
        SettingsError: a stage or a setting that does not exist, or a wrong value.
    """
    steps = list(steps)
    known = [step.name for step in steps if dataclasses.fields(step)]
    for name in settings:
        if name not in known:
            raise SettingsError(f"{where}: unknown stage {name!r}{suggestion(name, known)}")
    return [build(step, settings.get(step.name, {}), f"{where}: {step.name}") for step in steps]


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by stage; later layers win field by field, inside nested settings too."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping | None):
                merged[name] = merge(merged.get(name) or {}, value)
            else:
                merged[name] = value
    return merged


def parse_overrides(items: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`stage.field=value` items of a command line as settings; values are YAML.

    Raises:
        SettingsError: an item has another form.
    """
    settings: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        path = name.split(".")
        if not equals or len(path) < 2 or not all(path):
            raise SettingsError(f"--set {item}: expected stage.setting=value, e.g. filters.max_shake=0.03")
        value = parse_yaml(text, f"--set {item}")
        for part in reversed(path):
            value = {part: value}
        settings = merge(settings, value)
    return settings
