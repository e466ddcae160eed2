import pytest

from curation.packing import Rules
from curation.presets import PRESETS, SUMMARIES
from curation.stages.sequences import Sequences


def test_every_preset_has_a_summary():
    assert set(PRESETS) == set(SUMMARIES) == {"paper-text", "paper-table", "bridged"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_settings(name):
    assert Sequences(**PRESETS[name]).min_clips >= 2, "a trainer drops sequences of one clip"


def test_presets_say_what_the_paper_says():
    text, table, bridged = (Rules(**PRESETS[n]) for n in ("paper-text", "paper-table", "bridged"))

    assert (text.min_window_s, text.max_window_s, text.min_shot_s) == (30, 60, 5)
    assert (table.min_window_s, table.max_window_s) == (30, 65)
    assert (table.min_clips, table.max_clips, table.min_shot_s) == (6, 16, 2)
    assert text.max_context_share == table.max_context_share == 0 < bridged.max_context_share
