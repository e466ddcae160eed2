from __future__ import annotations

from benchmark.words import counted


def test_one_is_one_and_all_else_is_many():
    assert counted(1, "shot") == "1 shot"
    assert counted(0, "shot") == "0 shots"
    assert counted(2, "story", "stories") == "2 stories"
    assert counted(1, "shot is missing", "shots are missing") == "1 shot is missing"
    assert counted(1200, "frame") == "1,200 frames"
