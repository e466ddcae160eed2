import pytest

from curation.config import SettingsError, configure, load, merge, parse_overrides
from tests.curation.toy import STEPS, Square

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
        ("a: [", "no valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        load(write(tmp_path, text))


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
