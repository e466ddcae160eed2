import json

import numpy as np
import pytest

from curation import repositories
from curation.engine.stage import StopRun
from curation.models import aesthetic_scorer
from curation.models.aesthetic_scorer import AestheticScorer, choose, clip_input, folder_of, raw_scores
from curation.weights import WeightsMissing
from tests.support import GOLDEN

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from curation.optional import install_command
from tests.curation.tiny_clip import save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No weights of this machine are seen; the folder where they would be looked for."""
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def noise(seed, height=300, width=400):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_head_is_the_published_linear_one():
    safetensors = pytest.importorskip("safetensors.numpy")
    expected = safetensors.load_file(GOLDEN / "aesthetic" / "aesthetic.safetensors")
    features = expected["features"]

    assert np.abs(raw_scores(features) - expected["linear_score_f64"]).max() < 1e-5
    assert np.abs(raw_scores(features) / 10 - expected["linear_normalised_f64"]).max() < 1e-6
    assert np.abs(raw_scores(features * 7) - raw_scores(features)).max() < 1e-5, "they are made units"


def test_scores_are_those_of_the_whole_model(clip):
    """An independent road: transformers' own CLIP and picture processor, and the head by hand."""
    from curation.aesthetic_heads import heads

    inputs = [noise(1, 224, 224), noise(2, 224, 224), np.full((224, 224, 3), 90, np.uint8)]
    whole = transformers.CLIPModel.from_pretrained(clip)
    pixels = transformers.CLIPImageProcessor()(images=inputs, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = whole.visual_projection(whole.vision_model(pixels).pooler_output).double().numpy()
    weight, bias = heads()["linear"]
    expected = features / np.linalg.norm(features, axis=1)[:, None] @ weight + bias

    scores = AestheticScorer(clip).scores(inputs)

    assert len(set(scores)) == 3
    assert np.abs(np.array(scores) - expected).max() < 1e-3


def test_batches_change_nothing(clip):
    scorer = AestheticScorer(clip)
    inputs = [noise(k, 224, 224) for k in range(aesthetic_scorer.BATCH + 3)]
    alone = [scorer.scores([one])[0] for one in inputs]
    assert np.abs(np.array(scorer.scores(inputs)) - alone).max() <= 1.5e-3
    assert scorer.scores([]) == []


def test_the_middle_square_is_what_clip_sees():
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    assert clip_input(picture)[:, 20:-20].min() > 250
    tall = np.zeros((300, 100, 3), np.uint8)
    tall[100:200] = 255
    assert clip_input(tall)[20:-20].min() > 250
    assert clip_input(noise(1, 90, 160)).shape == (224, 224, 3)


def test_pixels_that_are_no_squares_are_stretched_first():
    anamorphic = np.zeros((100, 100, 3), np.uint8)
    anamorphic[:, 25:75] = 255
    assert clip_input(anamorphic, 2.0)[:, 10:-10].min() > 250, "the middle half is a square"
    assert clip_input(anamorphic)[:, 0].max() == 0


def test_auto_needs_the_weights(nowhere, monkeypatch):
    choice = choose("auto")
    assert (choice.model, choice.why) == ("off", "no weights here: memento weights pull clip-l14")
    assert choose("off").why == ""
    monkeypatch.setattr(aesthetic_scorer, "available", lambda package: package != "torch")
    assert choose("auto").why == f"torch not installed: {install_command('aesthetic')}"


def test_auto_finds_what_the_benchmark_pulled(nowhere, clip):
    """One file in the hub's cache, without settings: its shape is known."""
    from benchmark.encoders import weights as encoders

    made = repositories.TABLE["clip-l14"]
    file = encoders.TABLE["clip-l14"].files[0]
    assert (file.repository, file.revision) == (made.repository, made.revision)
    snapshot = nowhere / "hub/models--openai--clip-vit-large-patch14/snapshots" / made.revision
    snapshot.mkdir(parents=True)
    (snapshot / file.file).write_bytes((clip / "model.safetensors").read_bytes())

    assert choose("auto").model == "clip-l14"
    assert folder_of("clip-l14") == folder_of("openai/clip-vit-large-patch14") == snapshot
    assert repositories.revision_of(snapshot) == made.revision
    config = aesthetic_scorer._config(transformers, snapshot)
    assert (config.num_hidden_layers, config.hidden_size, config.hidden_act) == (24, 1024, "quick_gelu")


@pytest.mark.parametrize(
    ("vision", "said"),
    [
        ({"hidden_act": "gelu"}, "hidden_act gelu, not quick_gelu"),
        ({"projection_dim": 512}, "projection_dim 512, not 768"),
        ({"patch_size": 32}, "patch_size 32, not 14"),
        ({"image_size": 336}, "image_size 336, not 224"),
    ],
)
def test_another_clip_is_refused(tmp_path, vision, said):
    folder = save_clip(tmp_path / "other", **vision)
    with pytest.raises(WeightsMissing, match=f"not OpenAI's CLIP ViT-L/14 \\({said}\\)") as refused:
        folder_of(str(folder))
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_none(tmp_path, nowhere):
    with pytest.raises(WeightsMissing, match=r"no such folder\); correct the path or give a name: clip-l14$"):
        folder_of(str(tmp_path / "nothing"))
    with pytest.raises(WeightsMissing, match="memento weights pull clip-l14"):
        folder_of("clip-l14")


def test_damaged_weights_stop_in_one_line(clip, tmp_path):
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "config.json").write_bytes((clip / "config.json").read_bytes())
    whole = (clip / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StopRun, match="cannot load") as stopped:
        AestheticScorer(folder)
    assert "\n" not in str(stopped.value)
    (folder / "config.json").write_text("[")
    with pytest.raises(WeightsMissing, match=r"config\.json is damaged"):
        folder_of(str(folder))


def test_missing_tensors_are_not_made_up(clip, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "less"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(json.loads((clip / "config.json").read_text())))
    state = load_file(clip / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StopRun, match=r"lacks 1 tensors of a CLIP, first visual_projection\.weight"):
        AestheticScorer(folder)
