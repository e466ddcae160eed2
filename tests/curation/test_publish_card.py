"""What the dataset card says about captions, beside the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.models.captioner import STATUSES
from curation.publishing.card import PAPER, PAPER_CALLS
from curation.publishing.publish import publish
from tests.curation.rows_factory import outcome

FACTS = {"dataset": "films", "preset": "paper-table", "settings": {}}


def call(stage: str, status: str, tokens: int | None, row: dict) -> dict:
    return {**row, "stage": stage, "status": status, "attempts": 2, "tokens_in": tokens, "tokens_out": tokens}


def card_of(folder: Path, *calls: tuple[str, str, int | None]) -> str:
    tables, store = outcome(folder / ".work")
    for sequence in tables["sequence"]:
        given = calls if sequence is tables["sequence"][0] else ()
        sequence["caption_calls"] = [call(*one, sequence["caption_calls"][0]) for one in given]
    publish(tables, store, folder, FACTS)
    return (folder / "README.md").read_text(encoding="utf-8")


def line(card: str, start: str) -> list[str]:
    table = card[card.index("| captions | asked for") :]
    row = next(x for x in table.splitlines() if x.startswith(f"| {start} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_requests_are_counted_by_how_they_ended(tmp_path: Path) -> None:
    card = card_of(
        tmp_path,
        ("story", "ok", 5000),
        ("shot", "ok", 100),
        ("shot", "repaired", 200),
        ("shot", "rejected", None),
        ("recon", "refused", 7),
        ("recon", "truncated", 7),
        ("recon", "error", None),
    )
    assert line(card, "captions")[2:8] == list(STATUSES)
    assert line(card, "Sequence") == [
        "Sequence",
        "1",
        "1",
        "0",
        "0",
        "0",
        "0",
        "0",
        "2",
        "5,000",
        "5,000",
        "2,030",
    ]
    assert line(card, "Clip") == ["Clip", "3", "1", "1", "1", "0", "0", "0", "6", "300", "300", "20,189"]
    assert line(card, "Reconstruction")[1:8] == ["3", "0", "0", "0", "1", "1", "1"]
    assert line(card, "All") == ["All", "7", "2", "1", "1", "1", "1", "1", "14", "5,314", "5,314", "26,252"]


def test_a_set_without_captions_says_none(tmp_path: Path) -> None:
    card = card_of(tmp_path)
    for name in ("Sequence", "Clip", "Reconstruction", "All"):
        assert line(card, name)[1:11] == ["0"] * 7 + ["-"] * 3


def test_an_unknown_status_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="lost"):
        card_of(tmp_path, ("shot", "lost", 1))


def test_the_papers_numbers() -> None:
    """Table 3 of arXiv 2606.14667: the captions of the three kinds come near the calls of the model."""
    kinds = ("story", "shot", "recon")
    assert [PAPER[f"{k}_caption_length"]["count"] for k in kinds] == [2030, 20189, 3992]
    assert sum(PAPER_CALLS[k] or 0 for k in kinds) == 26211
    assert PAPER_CALLS["all"] == 26252
