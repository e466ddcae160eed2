"""What the page of a story says of the run of `memento generate` behind it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tests.pipelines.test_generate_command import alone, run, script

__all__ = ["alone"]  # a fixture of all tests here


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError])
def test_a_page_does_not_wait_for_a_run_that_ended(tmp_path, monkeypatch, error):
    from memento_model.story.generate import StoryGenerator

    story, real = script(tmp_path / "dive.json", 2), StoryGenerator._make

    def fails_in_the_second(self, plan, *rest):
        if plan.index == 1:
            raise error
        return real(self, plan, *rest)

    with monkeypatch.context() as broken:
        broken.setattr(StoryGenerator, "_make", fails_in_the_second)
        with pytest.raises(error):
            run(story)
    page = tmp_path / "out/dive/index.html"
    told = page.read_text()
    assert "1 of 2 shots" in told
    assert "<b>stopped</b> before it was done" in told
    assert "http-equiv" not in told
    run(story)
    assert "stopped" not in page.read_text()


def test_random_weights_are_sampled_without_guidance(tmp_path):
    run(script(tmp_path / "dive.json", 3))
    told = (tmp_path / "out/dive/index.html").read_text()
    assert re.findall("guidance ([0-9.]+)", told) == ["1"] * 3
