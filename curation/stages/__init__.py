"""One stage per file: settings, the columns it reads and writes, and how to work on a row."""
