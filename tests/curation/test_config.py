import pytest

from curation.config import SettingsError, configure, load, merge, parse_overrides
from curation.stages.captions import Captions
from tests.curation.toy import STEPS, Square
from tests.support import REPOSITORY

CLASSES = [type(step) for step in STEPS]


def write(tmp_path, text):
    path = tmp_path / "datasets.yaml"
    path.write_text(text)
    return path


def test_a_file_becomes_datasets(tmp_path):
    path = write(
        tmp_path, "version: 1\ndatasets:\n  a:\n    films: x/*.mp4\n    stages: {square: {offset: 3}}\n"
    )
    dataset = load(path)["a"]
    assert (dataset.films, dataset.licence, dataset.preset) == ("x/*.mp4", "not stated", "paper-table")
    assert configure(CLASSES, dataset.stages, "a")[0] == Square(offset=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2", "expected `version: 1`"),
        ("version: 1\nfilms: x", "unknown key 'films'"),
        ("version: 1\ndatasets: {a: {film: x}}", "a: unknown setting 'film'; did you mean 'films'"),
        ("version: 1\ndatasets: {a: {films: {b: 1}}}", "a: films"),
        ("version: 1\ndatasets: {a: 3}", "expected settings"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        load(write(tmp_path, text))


HEAD = "version: 1\ndatasets:\n  a:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "    films: x: y\n", "line 4, column 13: a value with a colon in it needs quotes"),
        (HEAD + "\tfilms: x\n", "line 4, column 1: indent with spaces, not with tabs"),
        (HEAD + "    films: *.mkv\n", r"line 4, column 13: a value that begins with \* needs quotes"),
        (HEAD + "    films: [a, b\n    licence: x\n", "line 4, column 12: the list that begins here"),
        (HEAD + "    stages: {x: {y: 1}\n", "line 4, column 13: the settings that begin here"),
        (HEAD + "    films: 'a\n    licence: x\n", "line 4, column 12: the quote that begins here"),
        (HEAD + "    films: x\n   licence: y\n", "line 5, column 4: indentation"),
        (HEAD + "    films: x\n      licence: y\n", "line 5, column 14: indentation"),
        (HEAD + "    films x\n    licence: y\n", "line 4, column 5: a name is followed by a colon"),
        (HEAD + "    films: @x\n", "line 4, column 12: .*special character needs quotes"),
        (HEAD + "    films: x\n  a:\n    films: y\n", "line 5, column 3: 'a' is given twice"),
        (HEAD + "    films: \x07\n", r"line 4: the character U\+0007"),
        (HEAD + "    films: !x y\n", "line 4, column 12: could not determine a constructor"),
        ("a: [", r"line 1, column 5: a \[ or \{ before is not closed"),
        ("---\na: 1\n---\na: 2\n", "only one document"),
        ("? [a]\n: b\n", "unhashable"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_place_in_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: line ")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_bytes("version: 1 # \u00e9".encode("latin-1"))
    with pytest.raises(SettingsError, match="save the file as UTF-8"):
        load(path)


def test_the_example_in_datasets_yaml_works_when_its_marks_are_removed(tmp_path):
    lines = (REPOSITORY / "datasets.yaml").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip() == "# my_films:")
    example = [line.replace("# ", "", 1) for line in lines[start:]]
    made = load(write(tmp_path, "\n".join([*lines[:start], *example])))
    assert set(made) == {"demo", "my_films"}
    assert made["my_films"].stages == {"filters": {"max_shake": 0.03}, "export": {"crf": 16}}


def test_names_may_be_merged_from_an_anchor(tmp_path):
    text = "version: 1\ndatasets:\n  a: &a {films: x, licence: CC0}\n  b: {<<: *a, films: y}\n"
    made = load(write(tmp_path, text))
    assert (made["b"].films, made["b"].licence) == ("y", "CC0")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml: cannot be read"):
        load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sqare": {}}, "unknown stage 'sqare'; did you mean 'square'"),
        ({"square": {"ofset": 1}}, "square: unknown setting 'ofset'; did you mean 'offset'"),
        ({"square": {"offset": "many"}}, "square: offset: .*got 'many'"),
    ],
)
def test_stage_settings_are_strict(settings, message):
    with pytest.raises(SettingsError, match=message):
        configure(CLASSES, settings, "here")


def test_later_layers_win_field_by_field():
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": {"z": 4}}) == {
        "a": {"x": 1, "y": 3},
        "b": {"z": 4},
    }


def test_overrides_are_yaml_values():
    assert parse_overrides(["a.x=1", "a.y=[2, b]", "c.z=null"]) == {
        "a": {"x": 1, "y": [2, "b"]},
        "c": {"z": None},
    }
    with pytest.raises(SettingsError, match=r"stage.setting=value"):
        parse_overrides(["a=3"])
    with pytest.raises(SettingsError, match=r"--set a\.x=\[1: line 1, column 1: the list"):
        parse_overrides(["a.x=[1"])


@pytest.mark.parametrize("text", ["5:40", "1:05", "0:30", "5:400", "1:2:3.5", "010", "08", "[1, 5:40]"])
def test_numbers_that_yaml_versions_read_differently_are_refused(text):
    with pytest.raises(SettingsError, match=r"--set a\.x=.* is no decimal number .* needs quotes") as caught:
        parse_overrides([f"a.x={text}"])
    assert ("separated by commas" in str(caught.value)) == (":" in text)


def test_numbers_in_base_60_are_refused_in_the_file_too(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text(HEAD + "    films: x\n    stages: {sequences: {max_window_s: 1:05}}\n")
    with pytest.raises(SettingsError, match="line 5, column 40: 1:05 is no decimal number"):
        load(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000.0), ("-2.5e-2", -0.025), (".5", 0.5), ("1_000", 1000), ("0x10", 16), ("0", 0), ("0.5", 0.5),
     ("'5:40'", "5:40"), ("'010'", "010"), ("model:1", "model:1"), ("1e3x", "1e3x")],
)  # fmt: skip
def test_numbers_are_what_they_look_like(text, value):
    (found,) = parse_overrides([f"a.x={text}"])["a"].values()
    assert (found, type(found)) == (value, type(value))


def test_off_is_a_word_and_still_a_truth_value_where_one_is_wanted():
    def captions(*items):
        (made,) = configure([Captions], parse_overrides(f"captions.{item}" for item in items), "here")
        return made.lint.strictness, made.draw_labels

    assert captions("lint.strictness=off", "draw_labels=yes") == ("off", True)
    assert captions("draw_labels=true") == ("strict", True)
    assert captions("draw_labels=off") == ("strict", False)
    with pytest.raises(SettingsError, match=r"draw_labels: .* boolean.*\(got 'maybe'\)"):
        captions("draw_labels=maybe")


def test_nested_settings_are_strict_and_merge_too():
    from curation.stages.crop import Crop

    (stage,) = configure([Crop], {"crop": {"text": {"pad": 0.2}}}, "here")
    assert stage.text.pad == 0.2
    with pytest.raises(SettingsError, match=r"crop.text: unknown setting 'padd'; did you mean 'pad'"):
        configure([Crop], {"crop": {"text": {"padd": 0.2}}}, "here")
    with pytest.raises(SettingsError, match=r"crop.text: expected settings"):
        configure([Crop], {"crop": {"text": 3}}, "here")
    assert parse_overrides(["a.b.c=1", "a.b.d=2", "a.e=3"]) == {"a": {"b": {"c": 1, "d": 2}, "e": 3}}
    assert merge({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}) == {"a": {"b": {"c": 1, "d": 2}}}
