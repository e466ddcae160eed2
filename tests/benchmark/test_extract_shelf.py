from __future__ import annotations

import multiprocessing

import numpy as np
import pytest

from benchmark.extraction.shelf import Shelf, positions, read_checked, text_keys, write_checked
from benchmark.extraction.shots import as_record, from_record
from benchmark.weight_free import measure_frames
from tests.benchmark import made


def keys(*numbers):
    return np.asarray(numbers, np.int32)[:, None]


def rows(*numbers, width=3):
    return np.repeat(np.asarray(numbers, np.float32)[:, None], width, axis=1)


def test_rows_come_back_in_the_order_asked_for_and_files_grow(tmp_path):
    shelf = Shelf(tmp_path, "clip_b32", "one")
    assert shelf.missing("v", keys(1, 2)).tolist() == [True, True]
    assert shelf.rows("v", keys(1)) is None
    shelf.add("v", keys(8, 0), rows(8, 0))
    shelf.add("v", keys(4), rows(4))
    shelf.add("v", keys(4, 6), rows(99, 6))  # what is there stays
    assert shelf.rows("v", keys(8, 4, 0, 4))[:, 0].tolist() == [8, 4, 0, 4]
    assert shelf.missing("v", keys(0, 1, 8, 9)).tolist() == [False, True, False, True]
    assert shelf.rows("v", keys(0, 1)) is None
    again = Shelf(tmp_path, "clip_b32", "one")
    assert again.rows("v", keys(6)).dtype == np.float32
    plain = np.load(again.path("v"))
    assert plain["key"][:, 0].tolist() == [0, 4, 6, 8]
    assert [p.name for p in sorted(again.folder.iterdir())] == [".lock", "about.json", "v.npy"]
    assert Shelf(tmp_path, "clip_b32", "two").keys("v").shape == (0, 0)


def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path):
    for name, order in {"a": (3, 1, 2), "b": (2, 3, 1)}.items():
        shelf = Shelf(tmp_path, "k", "i")
        for number in order:
            shelf.add(name, keys(number), rows(number))
    assert shelf.path("a").read_bytes() == shelf.path("b").read_bytes()


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "longer", "other"])
def test_a_damaged_file_is_absent_and_said(tmp_path, harm):
    shelf = Shelf(tmp_path, "k", "i")
    shelf.add("v", keys(1, 2), rows(1, 2))
    data = bytearray(shelf.path("v").read_bytes())
    if harm == "flip":
        data[-9] ^= 1
    changed = {"cut": data[:-7], "flip": data, "empty": b"", "longer": data + b"x", "other": b"gone" * 9}[
        harm
    ]
    shelf.path("v").write_bytes(changed)
    said = []
    other = Shelf(tmp_path, "k", "i", said.append)
    assert other.missing("v", keys(1)).all()
    assert len(said) == 1
    assert "made again" in said[0]
    assert other.rows("v", keys(1)) is None
    other.add("v", keys(1), rows(1))
    assert other.rows("v", keys(1)).tolist() == [[1, 1, 1]]


def test_rows_that_moved_under_a_reader(tmp_path):
    reader, writer = (Shelf(tmp_path, "k", "i") for _ in range(2))
    writer.add("v", keys(5), rows(5))
    assert reader.rows("v", keys(5))[0, 0] == 5
    writer.add("v", keys(1, 2, 3), rows(1, 2, 3))
    assert reader.rows("v", keys(5))[0, 0] == 5
    assert reader.rows("v", keys(2))[0, 0] == 2 or reader.missing("v", keys(2)).all()


def add_many(folder, start):
    shelf = Shelf(folder, "k", "i")
    for number in range(start, start + 20):
        shelf.add("v", keys(number), rows(number))


def test_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_many, args=(tmp_path, start)) for start in (0, 10, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    wanted = keys(*range(30), *range(40, 60))
    assert Shelf(tmp_path, "k", "i").rows("v", wanted)[:, 0].tolist() == wanted[:, 0].tolist()


def test_positions_of_clips_and_texts():
    have = np.unique(np.random.default_rng(0).integers(-5, 5, (40, 8), np.int32), axis=0)
    wanted = np.concatenate([have[[7, 3, 7]], have[:1] + 99])
    assert positions(have, wanted).tolist() == [7, 3, 7, -1]
    assert text_keys(["a", "b", "a"]).shape == (3, 4)
    assert len(np.unique(text_keys(["a", "b", "a"]), axis=0)) == 2


@pytest.mark.parametrize("count", [1, 2, 12])
def test_numbers_of_shots_come_back(tmp_path, count):
    pictures = made.moving(count)
    numbers = measure_frames([(p[..., 0], p[:27, :48]) for p in pictures], 16.0)
    write_checked(tmp_path / "n.npy", as_record(numbers))
    back = from_record(read_checked(tmp_path / "n.npy"))
    assert type(back.frames) is int
    assert back.inner_cuts == numbers.inner_cuts
    for name, array in numbers.features().items():
        assert np.array_equal(back.features()[name], array)
    assert np.array_equal(back.thumb_steps, numbers.thumb_steps)
    assert np.array_equal(back.last, numbers.last)
