"""The reconstruction objective brings the picked memory to the subject."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.training.samples import Clip, ReconTarget, TrainSequence
from memento_model.training.trainer import fit
from tests.memento_model.in_memory import GRID, MODEL, InMemory, Quiet, _numbers, config, run_of

SUBJECTS, SEQUENCES = 4, 48


class Subjects(InMemory):
    """A frame shows who its clip's subject is (four channels), and how it looks in this sequence (the rest).

    Looks differ from sequence to sequence, so a caption alone does not tell them: they have to be remembered.
    """

    def _look(self, sequence, clip):
        subject = sequence.clips[clip].caption.rsplit(" ", 1)[1]
        look = 1.2 * _numbers(f"look of {subject} in {sequence.sequence_id}", self.shape[0])
        look[:SUBJECTS] = 2.0 * torch.eye(SUBJECTS)[int(subject)]
        return look[:, None, None]

    def frame(self, sequence, frame):
        return self._look(sequence, frame.clip) + 0.1 * super().frame(sequence, frame)

    def shot(self, sequence, clip):
        return self._look(sequence, clip)[:, None] + 0.1 * super().shot(sequence, clip)


def subject_sequences():
    """Stories about a subject that one earlier clip shows; others are in the rest; then it comes again."""
    made = []
    for number in range(SEQUENCES):
        subject, place = number % SUBJECTS, number // SUBJECTS % 3
        shown = [s for s in range(SUBJECTS) if s != subject]
        shown.insert(place, subject)
        clips = tuple(
            Clip(
                clip_id=f"q{number}-{i}",
                path=f"q{number}-{i}",
                num_frames=9,
                caption=f"global caption: about {subject}; shot caption: shows {who}",
                global_caption=f"about {subject}",
                start_frame=9 * i,
                candidates=(0, 4, 8),
            )
            for i, who in enumerate([*shown, (subject + 1) % SUBJECTS, subject])
        )
        target = ReconTarget(recon_id="r", clip=place, frame=4, caption=f"about {subject}")
        made.append(
            TrainSequence(sequence_id=f"{subject}-{number}", film_id="film", clips=clips, targets=(target,))
        )
    return made


def recall(run):
    """Shares of picks that show the story's subject, of those that could: global, both groups; and chance."""
    hits, could, shown, candidates = [0, 0], [0, 0], 0, 0
    run.query.eval()
    for count in range(400):
        sample, drawn, ready = run.feed.prepared(count)
        subject = sample.sequence.sequence_id[0]
        shows = [sample.sequence.clips[f.clip].caption.endswith(f"shows {subject}") for f in drawn.candidates]
        if sample.target != len(sample.sequence.clips) - 1 or not any(shows):
            continue
        with torch.no_grad():
            selection = run.forward(ready).selection
        picked = selection.picked_bk[0].tolist()
        local = sum(shows[i] for i in picked[: selection.num_local])
        both = sum(shows[i] for i in picked)
        hits[0], could[0] = hits[0] + both - local, could[0] + min(1, sum(shows) - local)
        hits[1], could[1] = hits[1] + both, could[1] + min(len(picked), sum(shows))
        shown, candidates = shown + sum(shows), candidates + len(shows)
    run.query.train()
    return hits[0] / could[0], hits[1] / could[1], shown / candidates


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_picked_memory_comes_to_show_the_subject(record_property):
    model = replace(MODEL, width=128, ffn_width=256, num_local_queries=4, selected_local=1, selected_global=1)
    objective = replace(
        config().objective, identity_probability=1.0, identity_weight=2.0, drop_probability=0.0,
        skip_prior_probability=0.0, first_frame_probability=0.0, bank_frames=6, last_frames=2,
    )  # fmt: skip
    made = replace(
        config(), expert="high", model=model, objective=objective, steps=3000,
        optim=replace(config().optim, lr=2e-3, query_lr_ratio=0.05, betas=(0.9, 0.95), warmup_steps=20),
        watch=replace(config().watch, save_every=10_000),
    )  # fmt: skip
    run = run_of(made, data=subject_sequences())
    run.feed.latents = Subjects(GRID, model)
    before = recall(run)
    quiet = Quiet()
    fit(run, quiet, quiet)
    after = recall(run)
    identity = torch.stack([done.losses[0][2] for done in quiet.done])[-100:].nanmean().item()
    names = ("global", "both", "chance")
    told = {f"{name} before": share for name, share in zip(names, before, strict=True)}
    told |= {f"{name} after": share for name, share in zip(names, after, strict=True)}
    told["identity loss"] = identity
    for name, value in told.items():
        record_property(name, round(value, 3))
    print({name: round(value, 3) for name, value in told.items()})  # noqa: T201 - shown with -s
    assert identity < 0.7
    assert after[1] > before[1] + 0.1
