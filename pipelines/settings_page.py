"""docs/settings.md from the stages themselves: `python -m pipelines.settings_page > docs/settings.md`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

import yaml

from curation.config import Dataset
from curation.presets import PRESETS
from curation.stages.sequences import Sequences
from pipelines.curate import STEPS

HEAD = """# Settings

Every stage setting. There are two ways to give one: in `datasets.yaml`,

```yaml
datasets:
  my_films:
    films: /data/films
    stages:
      filters: {max_shake: 0.03}
      crop: {text: {pad: 0.2}}        # a dot in the tables below is one level more here
```

or on the command line, `--set filters.max_shake=0.03 --set crop.text.pad=0.2`. An unknown name is an error. A
changed setting reruns the stages that depend on it and no others (`memento curate --explain` says which).

This page is generated from the code; a test keeps it true.
"""

PRESET_FIRST = (
    "The preset of a run replaces the values that [the table of presets](#presets-of-sequences) lists, and "
    f"your own settings replace the preset's. Films have the preset `{Dataset.preset}` unless another is "
    "named, so its values count, not the ones here."
)
"""Said at the defaults of `sequences`."""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for step in STEPS:
        if not dataclasses.fields(step):
            continue
        first = as_in_yaml(inspect.cleandoc(step.__doc__ or "").split("\n\n")[0].replace("\n", " "))
        parts.append(f"## {step.name}\n\n{first}\n\n| setting | default | meaning |\n|---|---|---|")
        if step is Sequences:
            parts[-1] = parts[-1].replace("\n| setting", f"\n{PRESET_FIRST}\n\n| setting", 1)
        for name, default, sentence in lines(step):
            parts[-1] += f"\n| `{name}` | {f'`{default}`' if default else ''} | {sentence} |"
        parts[-1] += "\n"
    parts.append("## Presets of `sequences`\n\n| preset | settings |\n|---|---|")
    for name, values in PRESETS.items():
        parts[-1] += f"\n| `{name}` | {', '.join(f'`{k}: {v}`' for k, v in values.items())} |"
    return "\n".join(parts) + "\n"


def lines(step: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """Name, default and sentence of every setting; nested ones as `outer.inner`, after `outer.` itself."""
    sentences, found = attributes(step), []
    for field in dataclasses.fields(step):
        default, name = _default(field), prefix + field.name
        if dataclasses.is_dataclass(default):
            found.append((f"{name}.", "", sentences.get(field.name, "")))
            found += lines(type(default), f"{name}.")
        else:
            found.append((name, as_yaml(default).replace("|", "\\|"), sentences.get(field.name, "")))
    return found


def as_yaml(value: typing.Any) -> str:
    """A default as it is written in datasets.yaml: null, true, [a, b], '' for an empty text."""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def attributes(step: type) -> dict[str, str]:
    """The sentences of the `Attributes:` sections of a class and its bases, by name."""
    found: dict[str, str] = {}
    for cls in reversed(step.__mro__):
        text = inspect.cleandoc(cls.__doc__ or "")
        section = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        for item in re.split(r"\n(?=    \w)", section.group(1).rstrip()) if section else []:
            names, _, sentence = item.strip().partition(":")
            for name in names.split(","):
                found[name.strip()] = as_in_yaml(" ".join(sentence.split()).replace("|", "\\|"))
    return found


def as_in_yaml(sentence: str) -> str:
    """Python's words for values as they are written in datasets.yaml."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"`?\b(None|True|False)\b`?", lambda word: f"`{words[word[1]]}`", sentence)


def _default(field: dataclasses.Field[typing.Any]) -> typing.Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return "required" if field.default_factory is dataclasses.MISSING else field.default_factory()


if __name__ == "__main__":
    print(page(), end="")
