"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """`1 story`, `3 stories`.

    Args:
        number: how many.
        one: the noun for one, with what follows it: `shot`, `story`, `shot is missing`.
        many: for other numbers; `one` with an s if not given.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
