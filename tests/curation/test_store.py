import dataclasses

import pytest

from curation.engine.store import Entry, Store, canonical, recipe, write_atomic
from tests.curation.toy import Square
from tests.support import scratch


def test_equal_values_have_equal_text_and_nan_is_refused():
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"score": float("nan")})


def test_the_key_depends_on_settings_and_read_columns_only():
    row = {"number": 4, "path": "somewhere"}
    key = recipe(Square(), row).key
    assert recipe(Square(), {**row, "path": "elsewhere"}).key == key
    assert recipe(Square(), {**row, "number": 5}).key != key
    assert recipe(Square(offset=1), row).key != key


def test_an_entry_comes_back_and_a_torn_one_counts_as_none(tmp_path):
    store = Store(tmp_path)
    made = recipe(Square(), {"number": 4, "path": "p"})
    entry = Entry("kept", None, None, {"square": 16.0}, {"seconds": 0.1}, dataclasses.asdict(made))
    assert store.load(made) is None
    store.save(made, entry, "p")
    assert store.load(made) == entry
    assert store.latest("square", "p")["settings"] == {"offset": 0}
    file = next(tmp_path.glob("square/*/*.json"))
    file.write_text(file.read_text()[:20])
    assert store.load(made) is None


def test_files_appear_only_on_commit_and_replace_leftovers(tmp_path):
    folder = scratch(tmp_path)
    folder.path("deep/a.txt").write_text("one")
    assert not folder.open(folder.ref("deep/a.txt")).exists()
    folder.commit()
    assert folder.open(folder.ref("deep/a.txt")).read_text() == "one"
    again = scratch(tmp_path)
    again.path("deep/a.txt").write_text("two")
    again.commit()
    assert again.open(again.ref("deep/a.txt")).read_text() == "two"
    again.commit()  # nothing written since: nothing to move


def test_scratch_of_dead_runs_is_cleaned(tmp_path):
    folder = scratch(tmp_path)
    folder.path("x").write_text("half")
    Store(tmp_path / ".work").clean()
    assert list((tmp_path / ".work" / "scratch").iterdir()) == []


def test_atomic_writing_leaves_no_parts(tmp_path):
    write_atomic(tmp_path / "new" / "f", "a")
    write_atomic(tmp_path / "new" / "f", "b")
    assert [(p.name, p.read_text()) for p in (tmp_path / "new").iterdir()] == [("f", "b")]
