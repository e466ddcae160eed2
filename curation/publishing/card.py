"""README.md of a published set: what it is, how it was made, its numbers beside the paper's, its limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from curation.captions.grammar import replace_hidden
from curation.engine.stage import Row
from curation.publishing.summary import CAPTION_STATUSES, connect, fetch
from curation.schema import SCHEMA_VERSION, TABLES, grain

TEMPLATES = Path(__file__).parent / "templates"
MAX_FILMS = 200
"""Films listed one by one in the card; the table `films` has all."""

PAPER: dict[str, dict[str, float | None]] = {
    "clips_per_sequence": {"count": 2033, "min": 6, "max": 16, "mean": 9.95, "median": None},
    "sequence_seconds": {"count": 2033, "min": 30, "max": 65, "mean": 45.9, "median": 42.9},
    "clip_seconds": {"count": 20227, "min": None, "max": None, "mean": None, "median": None},
    "story_caption_length": {"count": 2030, "min": 80, "max": 1485, "mean": 543, "median": 513},
    "shot_caption_length": {"count": 20189, "min": 152, "max": 999, "mean": 459, "median": 450},
    "recon_caption_length": {"count": 3992, "min": 33, "max": 641, "mean": 130, "median": 117},
}
"""The Memento paper (arXiv 2606.14667), Appendix C: its text and its Table 3."""

NAMES = {
    "clips_per_sequence": "Clips per sequence",
    "sequence_seconds": "Seconds per sequence",
    "clip_seconds": "Seconds per clip",
    "story_caption_length": "Sequence caption, characters",
    "shot_caption_length": "Clip caption, characters",
    "recon_caption_length": "Reconstruction caption, characters",
}
CALLS = {"story": "Sequence", "shot": "Clip", "recon": "Reconstruction", "all": "All"}
PAPER_CALLS = {**{k: PAPER[f"{k}_caption_length"]["count"] for k in ("story", "shot", "recon")}, "all": 26252}
"""Captions of each kind in the paper's Table 3; calls of the model in all, by its text."""
MODELS = """
SELECT m.part, m.tier, m.backend, m.model_id, m.revision, m.sha256, count(*) AS number
FROM (SELECT unnest(models) AS m FROM sequences WHERE status = 'kept')
GROUP BY ALL ORDER BY ALL
"""
FILMS = f"""
SELECT path, licence, status, reason, detail, duration_s, num_kept_sequences, kept_s
FROM films ORDER BY status, path LIMIT {MAX_FILMS}
"""
LICENCES = """
SELECT licence, count(*) AS films, count(*) FILTER (status = 'kept') AS kept,
  round(sum(kept_s), 3) AS seconds
FROM films GROUP BY licence ORDER BY seconds DESC, licence
"""


def write_card(folder: Path, counts: Row, facts: Mapping[str, Any]) -> None:
    """Write `<folder>/README.md` from the tables in `<folder>/tables`.

    Args:
        folder: the version being published.
        counts: of `curation.publishing.summary.summarise`.
        facts: of the run; `dataset`, `preset` and `settings` are used. Nothing that varies between equal
            runs may be, so that equal runs give equal cards.
    """
    with connect(folder) as connection:
        models = fetch(connection, MODELS)
        films, licences = fetch(connection, FILMS), fetch(connection, LICENCES)
    text = (
        environment()
        .get_template("card.md")
        .render(
            counts=counts,
            facts=facts,
            models=models,
            embedded=sorted({m["part"] for m in models if m["tier"] == "embedded"}),
            films=films,
            licences=licences,
            calls=[(CALLS[row["stage"]], row, PAPER_CALLS[row["stage"]]) for row in counts["caption_calls"]],
            caption_statuses=CAPTION_STATUSES,
            statistics=[(NAMES[k], counts["statistics"][k], PAPER[k]) for k in NAMES],
            settings=yaml.safe_dump(facts.get("settings"), sort_keys=True, allow_unicode=True),
            tables={name: grain(schema) for name, schema in TABLES.items()},
            schema_version=SCHEMA_VERSION,
        )
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def environment() -> jinja2.Environment:
    """Templates of the package; everything that is put into them is data, never markup."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
    )
    made.filters |= {"quoted": quoted, "md": md, "num": num, "fence": fence, "clock": clock}
    return made


def visible(value: Any) -> Any:
    """Text without characters that are not seen but act: escapes, marks that turn the direction of writing.

    They become U+FFFD here, on pages for people; the tables keep what they were given.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return replace_hidden(value, "\ufffd", keep="\n\t")


def quoted(value: str) -> Markup:
    """Any text as a one-line string of YAML that no reader takes for markup."""
    text = json.dumps(visible(" ".join(value.split())), ensure_ascii=False)
    return Markup(text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"}))


def md(value: Any) -> Markup:
    """Any text as one line of Markdown that shows it as it is."""
    line = visible(" ".join(str(value).split()))
    return escape(re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line))


def fence(text: str) -> Markup:
    """Text as a Markdown code block that it cannot close."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markup(f"{ticks}yaml\n{visible(text.rstrip())}\n{ticks}")


def num(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated and no idle decimals; a dash for none."""
    if value is None:
        return "-"
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock(seconds: float | None, digits: int = 1) -> str:
    """Seconds as h:mm:ss.s or m:ss.s, with that many digits behind the point; a dash for none."""
    if seconds is None:
        return "-"
    parts = 10**digits
    minutes, rest = divmod(round(seconds * parts), 60 * parts)
    hours, minutes = divmod(minutes, 60)
    shown = f"{rest // parts:02d}.{rest % parts:0{digits}d}"
    return f"{hours}:{minutes:02d}:{shown}" if hours else f"{minutes}:{shown}"
