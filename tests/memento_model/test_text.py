"""umT5 against the numbers of the official encoder at a tiny size; the hashed encoder's promises."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("ftfy")
tokenizers = pytest.importorskip("tokenizers")
from safetensors.torch import load_file, save_file

from memento_model.codecs.hashed import HashedText, tokens
from memento_model.codecs.text import UMT5, clean
from memento_model.errors import CheckpointError
from tests.support import GOLDEN

T5 = GOLDEN / "model/t5_tiny"
WORDS = ["a", "cat", "dog", "sits", "runs", "on", "the", "mat", "&", "red"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """A tokenizer folder of the tiny encoder's vocabulary: words, end mark 1, unknown 2."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: 3 + i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return UMT5.load(T5 / "t5.safetensors", tokenizer=tokenizer, dtype=torch.float32, text_len=12)


def test_rows_equal_the_reference(encoder):
    golden = load_file(T5 / "io.safetensors")
    rows = encoder.encode_ids(golden["ids"], golden["mask"])
    there = golden["mask"].bool()
    assert (rows[there] - golden["output"][there]).abs().max() <= 1e-4


def test_prompts_are_cleaned_cut_and_not_padded(encoder):
    short, long, empty = encoder.encode(["a  cat &amp;amp; a\ndog", "cat " * 50, ""])
    assert short.shape == (6, 48)  # five words and the end mark
    assert long.shape == (12, 48)
    assert empty.shape == (1, 48)
    assert torch.equal(short, encoder.encode(["a cat & a dog"])[0])
    assert (encoder.text_dim, encoder.text_len) == (48, 12)
    alone = encoder.encode(["the red cat"])[0]
    assert torch.allclose(alone, encoder.encode(["a", "the red cat"])[1], atol=1e-6)


def test_every_form_of_the_weights_gives_the_same_rows(encoder, tokenizer, tmp_path):
    native = tmp_path / "native"
    (native / "google").mkdir(parents=True)
    (native / "google" / "umt5-xxl").symlink_to(tokenizer)
    torch.save(load_file(T5 / "t5.safetensors"), native / "models_t5_umt5-xxl-enc-bf16.pth")
    theirs = tmp_path / "diffusers"
    encoder._model.save_pretrained(theirs / "text_encoder")
    (theirs / "tokenizer").symlink_to(tokenizer)
    expected = encoder.encode(["a red cat on the mat"])[0]
    for place in (native, native / "models_t5_umt5-xxl-enc-bf16.pth", theirs, theirs / "text_encoder"):
        other = UMT5.load(place, dtype=torch.float32)
        assert torch.equal(other.encode(["a red cat on the mat"])[0], expected)
    rough = UMT5.load(native)
    assert rough._model.dtype == torch.bfloat16
    assert rough.encode(["a red cat"])[0].dtype == torch.float32
    assert rough.revision != other.revision


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("blocks.1.ffn.fc2.weight"), "20 of 21|21 of 22"),
        (lambda s: s.update({"blocks.1.ffn.fc2.bias": torch.zeros(1)}), "unknown parameter name"),
        (lambda s: s.pop("blocks.0.attn.q.weight"), "not the weights of a umT5"),
        (lambda s: s.update({"blocks.1.attn.q.weight": torch.zeros(48, 47)}), "48x47, not 48x48"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, tokenizer, change, says):
    state = load_file(T5 / "t5.safetensors")
    change(state)
    save_file(state, tmp_path / "t5.safetensors")
    with pytest.raises(CheckpointError, match=says):
        UMT5.load(tmp_path / "t5.safetensors", tokenizer=tokenizer)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer of umT5"):
        UMT5.load(T5 / "t5.safetensors")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a &amp;lt;b&amp;gt;\t c", "a <b> c"),
        ("  \u201cquoted\u201d\n\nlines ", '"quoted" lines'),
        ("schÃ¶n", "schön"),
        ("", ""),
        ("\u3000猫\u3000", "猫"),
    ],
)
def test_cleaning(prompt, expected):
    assert clean(prompt) == expected


HASHED = HashedText(text_dim=64, text_len=32)
EXPECTED = [
    [0.69040, -0.67231, 0.64842, -1.00675],
    [0.47351, -0.85499, -0.09272, -0.08279],
    [-0.16625, 1.68730, -1.56088, 0.18681],
    [1.20037, -0.38311, 0.04979, 1.43611],
]
"""First columns of a fixed prompt: cached embeddings stay valid on any machine."""


def similarity(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)


def test_hashed_rows_never_change():
    (rows,) = HASHED.encode(["[Person A] waves."])
    assert rows.shape == (4, 64)
    expected = torch.tensor(EXPECTED)
    assert torch.allclose(rows[:, :4], expected, atol=1e-4), rows[:, :4]
    assert torch.allclose(rows.square().mean(dim=1), torch.ones(4), atol=1e-5)


def test_tokens_keep_labels_whole():
    found = tokens("global caption: [Person A]: A man's hat; 猫が")
    assert found == [
        "global", "caption", ":", "[Person A]", ":", "a", "man's", "hat", ";", "猫", "が", "</s>",
    ]  # fmt: skip


def test_hashed_words_order_and_spelling_show():
    one, other = HASHED.encode(["the dog sees the cat", "the cat sees the dog"])
    assert one.shape == other.shape == (6, 64)
    assert (one - other).abs().max() > 0.5
    assert torch.equal(one[0], other[0])
    wide = HashedText(text_dim=2048)
    runs, running, tables = (wide.encode([word])[0][0] for word in ("runs", "running", "tables"))
    assert similarity(runs, running) > similarity(runs, tables) + 0.05
    here, there = wide.encode(["cat"])[0][0], wide.encode(["a red cat"])[0][2]
    assert similarity(here, there) > 0.5


def test_hashed_labels_are_told_apart():
    a, b = (HashedText(text_dim=1024).encode([f"[Person {x}]"])[0][0] for x in "AB")
    assert similarity(a, b) < 0.95


def test_a_long_prompt_is_folded_not_cut():
    start = "word " * 300
    one, other = HASHED.encode([f"{start} ends with a cat", f"{start} ends with a dog"])
    assert one.shape == (32, 64)
    assert (one[-2] - other[-2]).abs().max() > 0.05
    assert torch.equal(one[0], other[0])


def test_an_empty_prompt_is_the_end_mark():
    assert HASHED.encode([""])[0].shape == (1, 64)
    assert HASHED.encode([]) == []


@pytest.mark.parametrize("size", [(1, 8), (8, 1)])
def test_sizes_without_room_are_refused(size):
    with pytest.raises(ValueError, match="at least 2"):
        HashedText(*size)
