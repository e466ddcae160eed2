"""docs/settings.md from the stages themselves: `python -m pipelines.settings_page > docs/settings.md`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

from curation.presets import PRESETS
from pipelines.curate import STEPS

HEAD = """# Settings

Every stage setting, as `stages: {STAGE: {SETTING: VALUE}}` of a dataset in `datasets.yaml` or as
`--set STAGE.SETTING=VALUE` on the command line. An unknown name is an error. A changed setting reruns the
stages that depend on it and no others (`memento curate --explain` says which).

This page is generated from the code; a test keeps it true.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for step in STEPS:
        if not dataclasses.fields(step):
            continue
        first = inspect.cleandoc(step.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"## {step.name}\n\n{first}\n\n| setting | default | meaning |\n|---|---|---|")
        for name, default, sentence in lines(step):
            parts[-1] += f"\n| `{name}` | `{default}` | {sentence} |"
        parts[-1] += "\n"
    parts.append("## Presets of `sequences`\n\n| preset | settings |\n|---|---|")
    for name, values in PRESETS.items():
        parts[-1] += f"\n| `{name}` | {', '.join(f'`{k}: {v}`' for k, v in values.items())} |"
    return "\n".join(parts) + "\n"


def lines(step: type, prefix: str = "") -> list[tuple[str, str, str]]:
    """Name, default and sentence of every setting; nested ones as `outer.inner`."""
    sentences, found = attributes(step), []
    for field in dataclasses.fields(step):
        default = _default(field)
        if dataclasses.is_dataclass(default):
            found += lines(type(default), f"{prefix}{field.name}.")
        else:
            text = str(default).replace("|", "\\|")
            found.append((prefix + field.name, text, sentences.get(field.name, "")))
    return found


def attributes(step: type) -> dict[str, str]:
    """The sentences of the `Attributes:` sections of a class and its bases, by name."""
    found: dict[str, str] = {}
    for cls in reversed(step.__mro__):
        text = inspect.cleandoc(cls.__doc__ or "")
        section = re.search(r"^Attributes:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
        for item in re.split(r"\n(?=    \w)", section.group(1).rstrip()) if section else []:
            names, _, sentence = item.strip().partition(":")
            for name in names.split(","):
                found[name.strip()] = " ".join(sentence.split()).replace("|", "\\|")
    return found


def _default(field: dataclasses.Field[typing.Any]) -> typing.Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return "required" if field.default_factory is dataclasses.MISSING else field.default_factory()


if __name__ == "__main__":
    print(page(), end="")
