"""`memento weights`: the tables of models, and fetching some of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from benchmark.encoders import weights as encoders
from curation import repositories, weights
from curation.config import SettingsError, suggestion
from curation.optional import MissingExtra, own_command
from curation.weights import WeightsDamaged, WeightsMissing
from memento_model.checkpoints import released
from pipelines.terminal import make_console, print_line

ROOMY = 160
"""Columns from which every fact about a model has a column of its own."""


@dataclass(frozen=True)
class Model:
    """A line of the list: what a model is, whose it is, and where it lies on this machine (None: nowhere)."""

    name: str
    what: str
    repository: str
    licence: str
    place: Path | None


def models() -> list[Model]:
    """Every model of the four tables, each once."""
    found = [
        Model(name, one.what, one.repository, one.licence, weights.find(name))
        for name, one in weights.TABLE.items()
    ]
    found += [
        Model(
            name, _sized(one.what, f"{one.size_gb:.0f}"), one.repository, one.licence, repositories.find(name)
        )
        for name, one in repositories.TABLE.items()
        if name not in encoders.TABLE  # the same file
    ]
    found += [
        Model(
            name,
            _sized(f"memento generate: {one.what}", f"{one.size_gb:g}") + _shared(one.repository),
            one.repository,
            one.licence,
            released.find(name),
        )
        for name, one in released.TABLE.items()
    ]
    for name, encoder in encoders.TABLE.items():
        what = _sized(f"memento eval: {encoder.what}", f"{encoder.size_gb:g}")
        place = encoders.here(name)
        file = Path(str(place)) if place else None
        found.append(Model(name, what, encoder.files[0].repository, encoder.licence, file))
    return found


def _shared(repository: str) -> str:
    """Which encoders are of the same repository: another name is another use, not another download."""
    names = [name for name, encoder in encoders.TABLE.items() if encoder.files[0].repository == repository]
    return f"; the same file as {', '.join(names)}, which the hub keeps once" if names else ""


def _sized(what: str, size_gb: str) -> str:
    return f"{what} ({size_gb} GB)"


def show() -> None:
    """Print what each model is, its source and licence, and where it lies on this machine."""
    console, found = make_console(), models()
    console.print(models_table(found, roomy=console.width >= ROOMY))
    for one in found:
        if one.place is not None:
            print_line(console, f"{one.name}: {one.place}")
    print_line(console, f"Fetch some with: {own_command('weights pull')} NAME NAME ...")
    print_line(
        console,
        f"All that memento eval needs: {own_command('weights pull')} --eval memento (or another preset)",
    )


def models_table(found: list[Model], *, roomy: bool) -> Table:
    """A row per model; where there is not much room, source and licence stand below what it is."""
    table = Table()
    table.add_column("name", no_wrap=True)
    for column in ("what", "from", "licence") if roomy else ("what, from, licence",):
        table.add_column(column, overflow="fold")
    table.add_column("here", no_wrap=True)
    for one in found:
        stacked = f"{one.what}\n{one.repository}, {one.licence}"
        facts = (one.what, one.repository, one.licence) if roomy else (stacked,)
        table.add_row(one.name, *map(Text, facts), "yes" if one.place else "-", end_section=not roomy)
    return table


def pull(names: Sequence[str], evaluation: str = "") -> bool:
    """Download models, a line for each: where it lies now, or why it is not here.

    All names are looked at before the first download, and one that fails does not keep the rest from coming.

    Args:
        names: each in one of the tables, or any `owner/name` of the hub; a repository's commit, tag or branch
            may follow after `@`.
        evaluation: a preset of `memento eval` whose encoders are fetched too; empty for none.

    Returns:
        Whether all are here.

    Raises:
        SettingsError: there is no model or no preset of that name, or none is named.
        WeightsMissing, WeightsDamaged, MissingExtra: the only one named did not come.
    """
    wanted = list(dict.fromkeys([*names, *(encoders_of(evaluation) if evaluation else ())]))
    if not wanted:
        raise SettingsError("name one or more models of `memento weights list`, or --eval PRESET")
    for name in wanted:
        _check(name)
    # The hub's client warns of each retry; what came of them is the line for the model. It reads this once.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    console, failed = make_console(), []
    for name in wanted:
        try:
            print_line(console, f"{name}: {_pull(name)}")
        except (WeightsMissing, WeightsDamaged, MissingExtra) as error:
            if len(wanted) == 1:
                raise
            told = str(error)
            print_line(console, told if told.startswith(f"{name}: ") else f"{name}: {told}", style="red")
            failed.append(name)
    if failed:
        here = f"{len(wanted) - len(failed)} of {len(wanted)} are here"
        print_line(console, f"{here}; try the rest again: {own_command('weights pull')} {' '.join(failed)}")
    return not failed


def encoders_of(name: str) -> tuple[str, ...]:
    """The encoders that a preset of `memento eval` needs.

    Raises:
        SettingsError: no such preset.
    """
    from benchmark.encoders.load import needed
    from benchmark.presets import PRESETS, preset

    if name not in PRESETS:
        raise SettingsError(f"--eval {name}: there are {', '.join(PRESETS)}{suggestion(name, [*PRESETS])}")
    return tuple(one for one in needed(preset(name)) if one in encoders.TABLE)


def _check(name: str) -> None:
    tables = (weights.TABLE, released.TABLE, encoders.TABLE)
    model = name.partition("@")[0]
    if any(name in table for table in tables) or repositories.name_of(model) is not None or "/" in model:
        return
    known = [*weights.TABLE, *repositories.TABLE, *released.TABLE, *encoders.TABLE]
    raise SettingsError(f"no model is called {model!r}{suggestion(model, known)}")


def _pull(name: str) -> Path:
    if name in weights.TABLE:
        return weights.pull(name)
    if name in released.TABLE:
        return released.pull(name)
    if name in encoders.TABLE:
        return encoders.pull(name)
    model, _, revision = name.partition("@")
    return repositories.pull(model, revision)
