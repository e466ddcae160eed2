"""KeyframeQuery against the official numbers; few candidates, ties, batches."""

from __future__ import annotations

import pytest

from tests.memento_model.golden import NAMES, golden, relative, torch

from memento_model.config import ModelConfig, debug_model  # isort: skip
from memento_model.nn import keyframe_query  # isort: skip
from memento_model.nn.keyframe_keys import few_tokens  # isort: skip
from memento_model.nn.keyframe_query import KeyframeQuery, select  # isort: skip
from perf.model_plain import PlainQuery  # isort: skip

TAGS = ("F16", "F8")


@pytest.fixture(scope="module", params=NAMES)
def numbers(request):
    return golden(request.param)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(7)
    made = KeyframeQuery(ModelConfig(width=48, num_heads=2, text_dim=24, text_len=8))
    return made.requires_grad_(True)


def inputs(module, batch, frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = module.config.width
    return (
        torch.randn(batch, 16, frames, 4, 6, generator=generator),
        torch.randint(-700, 0, (batch, frames), generator=generator),
        torch.randn(batch, 8, width, generator=generator),
        torch.randn(batch, 8, width, generator=generator),
    )


def run(numbers, tag, module=None, **options):
    module, stored = module or numbers.keyframe_query(), numbers.keyframe
    return module(
        stored[f"{tag}.candidates"][None],
        torch.tensor([numbers.config["keyframe"]["cases"][tag]["temporal_positions"]]),
        stored["local_context"][None],
        stored["global_context"][None],
        **options,
    )


@pytest.mark.parametrize("tag", TAGS)
@torch.no_grad()
def test_scores_and_picks_equal_the_reference(numbers, tag):
    stored, case = numbers.keyframe, numbers.config["keyframe"]["cases"][tag]
    found = run(numbers, tag)
    assert (found.scores_bqf[0] - stored[f"{tag}.scores"]).abs().max() <= 1e-5
    assert (found.local_scores_bf[0] - stored[f"{tag}.local_scores"]).abs().max() <= 1e-5
    assert (found.global_scores_bf[0] - stored[f"{tag}.global_scores"]).abs().max() <= 1e-5
    assert found.picked_bk[0].tolist() == case["picked"]
    assert found.picked_bk[0, : found.num_local].tolist() == case["local_picked"]
    assert torch.equal(
        run(numbers, tag, straight_through=False).weights_bkf[0], stored[f"{tag}.weights_eval"]
    )
    # The smallest gap of all is a lower bound of the gaps at the two cuts.
    assert found.margin_b.item() >= case["smallest_score_gap"] - 1e-6


@pytest.mark.parametrize("tag", TAGS)
def test_gradients_equal_the_reference(numbers, tag):
    stored, case = numbers.keyframe, numbers.config["keyframe"]["cases"][tag]
    module = numbers.keyframe_query()
    found = run(numbers, tag, module, straight_through=True)
    assert (found.weights_bkf[0] - stored[f"{tag}.weights_train"]).abs().max() <= 1e-6
    loss = (found.weights_bkf[0] * stored[f"{tag}.probe"]).sum()
    loss.backward()
    assert abs(loss.item() - case["loss_value"]) <= 1e-5
    norms = case["gradient_l2_norms"]
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert grads.keys() == norms.keys()
    for name, norm in norms.items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3), name
        if f"{tag}.grad.{name}" in stored:
            assert relative(grads[name], stored[f"{tag}.grad.{name}"]) <= 1e-3, name


@torch.no_grad()
def test_contexts_come_from_the_experts_text_embedding(numbers):
    stored, transformer = numbers.keyframe, numbers.transformer()
    for which in ("local", "global"):
        found = transformer.embed_text(stored[f"{which}_text"][None])[0]
        assert (found - stored[f"{which}_context"]).abs().max() <= 1e-4


@torch.no_grad()
def test_picks_are_stable_in_bf16_weights(numbers):
    module = numbers.keyframe_query().to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(numbers, "F16", module)
    assert found.scores_bqf.dtype == torch.float32
    wanted = run(numbers, "F16")
    noise = (found.scores_bqf - wanted.scores_bqf).abs().max().item()
    assert noise < 0.02
    same = set(found.picked_bk[0].tolist()) == set(wanted.picked_bk[0].tolist())
    assert same or wanted.margin_b.item() < 2 * noise


def test_picked_frames_are_exact_and_carry_the_softmax_gradient(module):
    candidates, positions, *contexts = inputs(module, 2, 16)
    candidates.requires_grad_()
    found = module(candidates, positions, *contexts, straight_through=True)
    taken = found.take(candidates)
    for sample in range(2):
        assert torch.equal(taken[sample], candidates[sample, :, found.picked_bk[sample]])
    assert found.picked_bk.shape == (2, 8)
    taken.square().sum().backward()
    assert module.queries.grad.abs().max() > 0
    module.zero_grad()


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 8, 9])
def test_few_candidates_give_finite_weights_and_gradients(module, frames):
    found = module(*inputs(module, 2, frames), straight_through=True)
    assert found.picked_bk.shape == (2, min(frames, 8))
    assert found.num_local == min(frames, 6)
    for picked in found.picked_bk.tolist():
        assert len(set(picked)) == len(picked)
    assert torch.isinf(found.margin_b).all() == (frames <= 6)
    (found.weights_bkf * torch.randn(found.weights_bkf.shape)).sum().backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    module.zero_grad()


@pytest.mark.parametrize("frames", [1, 9])
def test_keys_of_tokens_and_queries_at_patches_give_the_same(module, frames, monkeypatch):
    found = []
    for few in (True, False):
        monkeypatch.setattr(keyframe_query, "few_tokens", lambda *_, few=few: few)
        module.zero_grad()
        scores = module.scores(*inputs(module, 2, frames))
        scores.square().sum().backward()
        found.append((scores, {name: tensor.grad for name, tensor in module.named_parameters()}))
    (by_tokens, token_grads), (by_patches, patch_grads) = found
    assert relative(by_tokens, by_patches) < 1e-5
    for name, grad in token_grads.items():
        assert relative(grad, patch_grads[name]) < 1e-4, name
    module.zero_grad()


@pytest.mark.parametrize("few", [True, False])
@torch.no_grad()
def test_a_key_is_the_layer_of_the_patcher(module, few, monkeypatch):
    """Scores without shortcuts: tokens, keys and values of all of them, one query after the other."""
    monkeypatch.setattr(keyframe_query, "few_tokens", lambda *_: few)
    candidates, positions, *contexts = inputs(module, 1, 9)
    peer = PlainQuery(dict(module.named_parameters()), module.config)
    clamped = positions.clamp(-512, 511)
    wanted = peer(candidates, clamped, *contexts)
    assert relative(module.scores(candidates, positions, *contexts), wanted) < 1e-5


def test_a_group_reads_its_own_context_alone(module):
    candidates, positions, local, story = inputs(module, 2, 9)
    first, other = module.config.num_local_queries, torch.randn(2, 5, 48)
    scores = module.scores(candidates, positions, local, story)
    local_changed = module.scores(candidates, positions, other, story)
    story_changed = module.scores(candidates, positions, local, other)
    assert (scores - local_changed)[:, first:].abs().max() < 1e-6
    assert (scores - story_changed)[:, :first].abs().max() < 1e-6
    assert (scores - local_changed)[:, :first].abs().max() > 1e-4
    assert (scores - story_changed)[:, first:].abs().max() > 1e-4
    broken = module.scores(candidates, positions, local, torch.full_like(other, torch.nan))
    assert (scores - broken)[:, :first].abs().max() < 1e-6, "not even what is no number reaches the others"


def test_training_after_generation_in_one_process(module):
    """What is kept between calls was made in inference mode and still takes part in gradients."""
    made = inputs(module, 1, 11)  # a size that no other test uses
    with torch.inference_mode():
        module.scores(*made)
    module.scores(*made).sum().backward()
    assert module.queries.grad.abs().max() > 0
    module.zero_grad()


def test_keys_are_made_for_few_tokens_only():
    full, debug = ModelConfig(), debug_model()
    assert not few_tokens(full, (64, 16, 30, 52))
    assert few_tokens(debug, (64, 16, 3, 5))
    assert not few_tokens(debug, (64, 16, 60, 104))


@torch.no_grad()
def test_a_batch_equals_its_samples_alone(module):
    given = inputs(module, 3, 12)
    whole = module(*given)
    for index in range(3):
        alone = module(*(value[index : index + 1] for value in given))
        assert (alone.scores_bqf[0] - whole.scores_bqf[index]).abs().max() < 1e-6
        assert torch.equal(alone.picked_bk[0], whole.picked_bk[index])


@torch.no_grad()
def test_order_of_candidates_does_not_matter(module):
    candidates, positions, *contexts = inputs(module, 1, 16)
    wanted = module(candidates, positions, *contexts)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    found = module(candidates[:, :, order], positions[:, order], *contexts)
    assert wanted.margin_b.item() > 1e-6
    assert torch.equal(order[found.picked_bk], wanted.picked_bk)


def test_equal_scores_go_to_the_earlier_candidate():
    scores = torch.zeros(1, 12, 10)
    found = select(scores, ModelConfig(), gradient="picked")
    assert found.picked_bk.tolist() == [list(range(8))]
    assert found.margin_b.item() == 0


def test_groups_pick_by_their_mean_and_never_the_same_frame():
    scores = torch.zeros(1, 12, 9)
    scores[0, :10] = torch.arange(9.0)  # local: the last six, best first
    scores[0, 0, 0] = 50.0  # one query of ten wants frame 0: mean 5
    scores[0, 10:, 8] = 9.0  # global wants what is taken
    scores[0, 10:, 2] = 1.0
    scores[0, 10:, 3] = 0.5
    found = select(scores, ModelConfig(), gradient=None)
    assert found.picked_bk.tolist() == [[8, 7, 6, 0, 5, 4, 2, 3]]
    assert found.margin_b.item() == pytest.approx(0.5)


def test_margin_is_the_gap_at_the_cut():
    scores = torch.zeros(1, 12, 9)
    scores[0, :10] = torch.tensor([10.0, 9, 8, 7, 6, 5, 4.75, 1, 0])
    scores[0, 10:] = torch.tensor([0.0, 0, 0, 0, 0, 0, 9, 8, 5])
    assert select(scores, ModelConfig(), gradient=None).margin_b.item() == pytest.approx(0.25)


@pytest.mark.parametrize("gradient", ["picked", "all"])
def test_what_a_loss_teaches_about_frames_that_were_not_picked(gradient):
    """The loss wants frame 1, which was not picked. Only the whole row says so."""
    config = ModelConfig(selected_local=1, selected_global=1, keyframe_temperature=1.0)
    scores = torch.zeros(1, 12, 4, requires_grad=True)
    with torch.no_grad():
        scores[0, :10, 0], scores[0, 10:, 2] = 0.5, 0.5
    found = select(scores, config, gradient=gradient)
    assert found.picked_bk.tolist() == [[0, 2]]
    assert torch.equal(found.weights_bkf[0].detach(), torch.eye(4)[[0, 2]])
    wished = torch.tensor([1.0, 2.0, 1.0, 1.0])
    (found.weights_bkf * wished).sum().backward()
    local, other = scores.grad[0, :10].mean(0), scores.grad[0, 10:].mean(0)
    if gradient == "picked":
        assert local.argmax() == 0
        assert other.argmax() == 2
        assert (local[1:] < 0).all()
    else:
        assert local.argmax() == 1
        assert other.argmax() == 1
        assert (local[[0, 2, 3]] < 0).all()
        assert (other[[2, 3]] < 0).all()
        assert other[0] == 0  # the local group has it


def test_drawn_picks_follow_the_softmax():
    """Of many draws, each frame comes first as often as its softmax weight says; gradients stay those of
    the scores."""
    config = ModelConfig(selected_local=1, selected_global=1, keyframe_temperature=0.5)
    local = torch.tensor([0.0, 0.5, 1.0, -0.5])
    scores = local.expand(4000, 12, 4).clone().requires_grad_(True)
    noise = -torch.empty(4000, 2, 4).exponential_(generator=torch.Generator().manual_seed(5)).log()
    found = select(scores, config, gradient="all", noise_bgf=noise)
    wanted = (local / 0.5).softmax(0)
    share = torch.bincount(found.picked_bk[:, 0], minlength=4) / 4000
    torch.testing.assert_close(share, wanted, atol=0.03, rtol=0)
    assert (found.picked_bk[:, 0] != found.picked_bk[:, 1]).all()
    found.weights_bkf[:, 0, 2].sum().backward()
    slope = (
        torch.tensor([-1.0, -1.0, 1.0, -1.0])
        * wanted
        * torch.where(torch.arange(4) == 2, 1 - wanted[2], wanted[2])
        / 0.5
    )
    torch.testing.assert_close(scores.grad[:, :10].sum(1), slope.expand(4000, 4))


def test_every_tensor_gets_a_gradient_from_fresh_weights():
    torch.manual_seed(3)
    module = KeyframeQuery(ModelConfig(width=48, num_heads=2))
    for norm in ("norm_q", "norm_k"):
        assert (getattr(module.query_to_text, norm).weight == 1).all()
    found = module(*inputs(module, 1, 16), straight_through=True)
    (found.weights_bkf * torch.randn(8, 16)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    assert module.queries.std().item() == pytest.approx(48**-0.5, rel=0.15)


def test_reset_parameters_redraws_everything():
    torch.manual_seed(4)
    module = KeyframeQuery(ModelConfig(width=48, num_heads=2))
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    module.reset_parameters()
    assert all(parameter.abs().max() > 0 for parameter in module.parameters())
    assert (module.query_to_visual.norm_k.weight == 1).all()


def test_weights_follow_the_mode(module):
    given = inputs(module, 1, 16)
    assert module.train()(*given).weights_bkf.requires_grad
    assert not module.eval()(*given).weights_bkf.requires_grad
    module.train()


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, torch.zeros(1, 16, 0, 4, 6), "1 or more"),
        (0, torch.zeros(1, 20, 9, 4, 6), r"\[b, 16"),
        (0, torch.zeros(1, 16, 9, 5, 6), "no multiple of the patch"),
        (1, torch.zeros(1, 8, dtype=torch.long), "integers"),
        (1, torch.zeros(1, 9), "integers"),
        (3, torch.zeros(1, 8, 24), "embedded text"),
        (2, torch.zeros(1, 0, 48), "1 or more, 48"),
    ],
)
def test_wrong_shapes_are_refused_in_one_line(module, at, value, message):
    given = list(inputs(module, 1, 9))
    given[at] = value
    with pytest.raises(ValueError, match=message):
        module(*given)
