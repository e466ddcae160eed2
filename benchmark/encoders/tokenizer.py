"""CLIP's byte-pair tokenizer with the text cleaning of its authors, as ViCLIP uses it.

Not open_clip's: that one knows other marks of start and end, so that texts which contain the marks themselves
come out differently; and it needs torch, which an audit of prompts does not. The vocabulary is a file of its
package.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import html
import itertools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from curation.optional import install_command, require
from curation.weights import WeightsDamaged, WeightsMissing

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
START, END = 49406, 49407
NUM_TOKENS = 49408
_MERGES = NUM_TOKENS - 2 - 2 * 256
_MARKS = {"<|startoftext|>": START, "<|endoftext|>": END}
_PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def tokenize(text: str) -> list[int]:
    """Tokens of a text without marks of start and end, not cut.

    Raises:
        MissingExtra: ftfy or regex is not installed.
        WeightsMissing: the vocabulary is not on this machine.
        WeightsDamaged: the vocabulary is another one.
    """
    ids, _ = vocabulary()
    found: list[int] = []
    for piece in _pattern().findall(clean(text)):
        mark = _MARKS.get(piece)
        found += [mark] if mark is not None else [ids[symbol] for symbol in _merged(piece)]
    return found


def token_table(texts: Sequence[str], length: int) -> np.ndarray:
    """What a text tower reads: int64 [n, length], marks of start and end around each text, zeros behind.

    A text that is too long is cut; its last token is the mark of its end.
    """
    table = np.zeros((len(texts), length), np.int64)
    for row, text in zip(table, texts, strict=True):
        tokens = [START, *tokenize(text), END][:length]
        tokens[-1] = END
        row[: len(tokens)] = tokens
    return table


def clean(text: str) -> str:
    """What is tokenized: broken encodings and HTML entities mended, white space single, lower case."""
    fixed = require("ftfy", extra="eval").fix_text(text)
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


@functools.cache
def vocabulary() -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """(symbol -> token, pair of symbols -> rank of their merge)."""
    content = vocabulary_file().read_bytes()
    if hashlib.sha256(content).hexdigest() != VOCABULARY_SHA256:
        raise WeightsDamaged(
            f"{vocabulary_file()}: not CLIP's vocabulary (another SHA-256); install open_clip again: "
            f"{install_command('eval')}"
        )
    lines = gzip.decompress(content).decode().split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : _MERGES + 1])]
    symbols = list(_letters().values())
    symbols += [letter + "</w>" for letter in symbols]
    symbols += [left + right for left, right in merges]
    ids = {symbol: token for token, symbol in enumerate(symbols)}
    return ids, {merge: rank for rank, merge in enumerate(merges)}


def vocabulary_file() -> Path:
    """Where the vocabulary lies: in open_clip's package, which is not imported for it.

    Raises:
        WeightsMissing: open_clip is not installed.
    """
    found = find_spec("open_clip")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := Path(folder) / VOCABULARY).is_file():
            return path
    raise WeightsMissing(
        f"CLIP's vocabulary ({VOCABULARY}) comes with open_clip, which is not installed: "
        f"{install_command('eval')}"
    )


@functools.cache
def _pattern() -> Any:
    regex = require("regex", extra="eval")
    return regex.compile(_PIECES, regex.IGNORECASE)


@functools.cache
def _letters() -> dict[int, str]:
    """A printable letter for each byte: printable bytes are their own, the others come after them."""
    own = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    rest = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


@functools.lru_cache(maxsize=1 << 16)
def _merged(piece: str) -> tuple[str, ...]:
    """The symbols of a piece of text: its bytes, merged pair by pair, the earliest merge first."""
    _, ranks = vocabulary()
    letters = [_letters()[byte] for byte in piece.encode()]
    symbols = [*letters[:-1], letters[-1] + "</w>"]
    while len(symbols) > 1:
        pairs = set(itertools.pairwise(symbols))
        best = min(pairs, key=lambda pair: ranks.get(pair, _MERGES))
        if best not in ranks:
            break
        joined: list[str] = []
        for symbol in symbols:
            # A symbol that was just made is no left part of the same merge.
            if joined and (joined[-1], symbol) == best:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return tuple(symbols)
