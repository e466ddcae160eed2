"""`memento weights`: the table of models, and fetching one of them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from curation import weights
from curation.config import SettingsError, suggestion


def show() -> None:
    """Print the table: what each model is, its licence, and where it lies on this machine."""
    table = Table("name", "what", "from", "licence", "here")
    for name, entry in weights.TABLE.items():
        found = weights.find(name)
        table.add_row(
            name,
            entry.what,
            entry.repository,
            entry.licence,
            str(found) if found else f"memento weights pull {name}",
        )
    Console().print(table)


def pull(name: str) -> None:
    """Download one model and check its hash.

    Raises:
        SettingsError: there is no model of that name.
    """
    if name not in weights.TABLE:
        raise SettingsError(f"no model is called {name!r}{suggestion(name, weights.TABLE)}")
    Console().print(f"{name}: {weights.pull(name)}", highlight=False)
