"""The published set: tables, database, card and review pages, swapped in at once."""
