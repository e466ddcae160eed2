"""Training and generation agree: a shot is given the same memory, mask, condition, positions and texts."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.conditioning import given_frames
from memento_model.config import Compat
from memento_model.story import generate as generation
from memento_model.story.plan import GenerateSettings
from memento_model.story.video import from_pixels
from memento_model.training.config import ObjectiveConfig
from memento_model.training.objective import prepare, training_step
from memento_model.training.samples import Clip, Draw, Frame, ReconTarget, Sample, TrainSequence
from tests.memento_model.tiny import GRID, memento_memory, models, query, story

COMPAT = Compat(no_identity_attention="blend")
SETTINGS = GenerateSettings(steps=1, grid=GRID)
LOW = 1  # the seed of the low-noise expert's queries in `memento_memory`


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A generated story of four shots, two of which go on from the one before, and all that made it."""
    folder = tmp_path_factory.mktemp("story")
    script = story(4, cuts=[True, False, False, True])
    all_models, works, pixels, plans = models(COMPAT), [], [], []
    remember = generation.StoryGenerator._remember

    def kept(self, plan, video):
        plans.append(plan)
        pixels.append(video)
        remember(self, plan, video)

    def leads(world, experts, work, on_step):
        works.append(work)
        return lead(world, experts, work, on_step)

    lead = generation.lead
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation.StoryGenerator, "_remember", kept)
        patch.setattr(generation, "lead", leads)
        memory = memento_memory(all_models, COMPAT)
        generation.StoryGenerator(all_models, memory, SETTINGS, folder).run(script)
    records = [json.loads((folder / f"{plan.stem}.json").read_text()) for plan in plans]
    return SimpleNamespace(
        models=all_models, works=works, pixels=pixels, plans=plans, script=script, records=records
    )


class FromStory:
    """Latents of the generated shots as the training cache would hold them."""

    def __init__(self, made):
        self.codec, self.text_encoder = made.models.codec, made.models.text
        self.videos = [from_pixels(one) for one in made.pixels]

    def shot(self, sequence, clip):
        return self.codec.encode(self.videos[clip][None])[0]

    def given_first(self, sequence, clip):
        return given_frames(self.codec, self.videos[clip - 1][:, -1:], GRID)  # where it goes on from

    def frame(self, sequence, frame):
        return self.codec.encode_images(self.videos[frame.clip][:, [frame.frame]].transpose(0, 1))[0]

    def grey(self):
        return self.codec.grey(GRID)

    def text(self, prompt):
        return self.text_encoder.encode([prompt])[0]


def trained_on(made, number):
    """The step of a trainer that has shot `number` as its target and the same frames to choose from."""
    plan, names = made.plans[number], [plan.stem for plan in made.plans]
    sequence = TrainSequence(
        sequence_id="s",
        film_id="f",
        clips=tuple(
            Clip(
                clip_id=one.stem, path="", num_frames=GRID.num_frames, caption=one.prompt,
                global_caption=one.global_prompt, start_frame=one.start_frame, candidates=(),
            )
            for one in made.plans
        ),
        targets=(ReconTarget(recon_id="r", clip=0, frame=0, caption=plan.identity_prompt),),
    )  # fmt: skip
    seen = made.records[number]["memory"]["low"]
    frames = [Frame(names.index(stem), at) for stem, at in seen.get("candidates", seen["frames"])]
    draw = Draw(
        bank=tuple(f for f in frames if f.clip < number - 1),
        last=tuple(f for f in frames if f.clip == number - 1),
        identities=sequence.targets, first_frame=plan.continues, drop_prompt=False, drop_local=False,
        drop_global=False, drop_identity=False, level=0.5, noise_seed=0, self_forced=False,
    )  # fmt: skip
    sample = prepare(Sample(sequence=sequence, target=number), draw, FromStory(made), "low", COMPAT)
    with torch.no_grad():
        step = training_step(sample, made.models.experts("low"), query(LOW), ObjectiveConfig(), COMPAT)
    return sample, step


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_same_shot_is_shown_alike(made, number):
    sample, step = trained_on(made, number)
    work, seen = made.works[number], made.records[number]["memory"]["low"]
    theirs, ours = step.conditioning, work.conditionings["low"]
    assert theirs.layout == ours.layout
    assert (ours.layout.identity_frames, ours.layout.memory_frames) == (1, len(seen["frames"]))
    # the trainer lists what it picked by rank, the sampler by time; the model does not care
    picked = step.selection.picked_bk[0].tolist()
    by_time = sorted(range(len(picked)), key=lambda i: sample.times[picked[i]])
    start = ours.layout.memory.start
    order = [
        *range(start),
        *(start + i for i in by_time),
        *range(ours.layout.memory.stop, ours.layout.num_frames),
    ]
    torch.testing.assert_close(theirs.memory_bcmhw[:, :, by_time], ours.memory_bcmhw)
    assert torch.equal(theirs.positions_bf[:, order], ours.positions_bf)
    mask, condition = theirs.condition_bcfhw[:, :4], theirs.condition_bcfhw[:, 4:]
    assert torch.equal(mask[:, :, order], ours.condition_bcfhw[:, :4])
    torch.testing.assert_close(condition[:, :, order], ours.condition_bcfhw[:, 4:])
    if "picked" in seen:
        assert picked == seen["picked"]
        torch.testing.assert_close(step.selection.local_scores_bf[0], torch.tensor(seen["local_scores"]))
    for trained, sampled in (
        (sample.prompt_td, work.text.prompt_td), (sample.identity_td[0], work.text.identity_td),
    ):  # fmt: skip
        assert torch.equal(trained, sampled)
    assert work.sampling.attention == "split"


def test_the_story_has_shots_of_every_kind(made):
    assert [plan.task for plan in made.plans] == ["T2V", "TMI2V", "TMI2V", "TM2V"]
    elected = ["picked" in record["memory"]["low"] for record in made.records]
    assert elected == [False, False, True, True]
