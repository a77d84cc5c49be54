import io
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.images import Location, raster
from hilum.inference.explanation import make_cases
from hilum.inference.prediction import Prediction, common_warnings, to_dict, write
from hilum.inference.predictor import Predictor, find_images
from hilum.inference.runtime import Graph
from hilum.notices import notice

NAMES = ["No Finding", "Bacterial Pneumonia", "Viral Pneumonia"]


@pytest.fixture(scope="module")
def model(classes):
    return Predictor.load(classes.bundle)


@pytest.fixture(scope="module")
def predictions(classes, model, tmp_path_factory):
    """Of ten pictures, the last of which is none."""
    table = Table.read(classes.table)
    broken = tmp_path_factory.mktemp("broken") / "text.png"
    broken.write_text("I am no picture")
    return list(model.predict([*(table.location(row) for row in range(9)), Location(broken)]))


def test_one_class_of_an_image_is_present(predictions):
    for prediction in predictions[:9]:
        assert sorted(prediction.decisions) == ["absent", "absent", "present"]
        assert prediction.decisions[prediction.probabilities.argmax()] == "present"
        assert prediction.probabilities.sum() == pytest.approx(1)
    assert predictions[9].decisions == ()


def test_the_csv_file_of_classes_has_an_empty_threshold(model, predictions, tmp_path):
    write(tmp_path / "p.csv", model, predictions)

    frame = pd.read_csv(tmp_path / "p.csv")
    assert list(frame.columns) == [
        "image",
        "finding",
        "probability",
        "threshold",
        "decision",
        "warnings",
        "bundle",
    ]
    assert frame["finding"].tolist() == NAMES * 10
    assert frame["threshold"].isna().all()
    assert frame["decision"].value_counts().to_dict() == {"absent": 18, "present": 9, "unreadable": 3}
    np.testing.assert_allclose(frame["probability"][:3], predictions[0].probabilities)


def test_the_json_file_of_classes_has_no_threshold(model, predictions, tmp_path):
    write(tmp_path / "p.json", model, predictions)

    images = json.loads((tmp_path / "p.json").read_text())["images"]
    assert list(images[0]["findings"]) == NAMES
    assert [entry["threshold"] for entry in images[0]["findings"].values()] == [None] * 3
    assert "no picture" not in json.dumps(images)
    assert images[9]["findings"] == {}
    assert images[9]["error"]


def told(image, *warnings):
    return Prediction(image, np.zeros(0), np.zeros(0), (), warnings)


def test_a_warning_of_many_images_is_said_once_with_their_number():
    burned_in = notice("burned-in-annotation")
    many = [told(f"{number}.png", notice("few-pixels", width=number, height=40)) for number in range(9)]
    few = [told("a.png", burned_in), told("b.png", burned_in), told("c.png")]

    lines = common_warnings([*many, *few])

    assert lines == [
        "9 of 12 images, such as 0.png: only 0 x 40 pixels: small findings are lost",
        "a.png: burned-in annotation is declared",
        "b.png: burned-in annotation is declared",
    ]


def test_images_of_any_form_give_what_their_file_gives(classes, model):
    file = Table.read(classes.table).location(0).path
    with Image.open(file) as picture:
        pixels = np.asarray(picture)
        forms = [file, str(file), file.read_bytes(), pixels, pixels / np.float32(255), picture]

        predictions = list(model.predict(form for form in forms))

    assert [prediction.image for prediction in predictions] == [
        str(file),
        str(file),
        *(f"image {number}" for number in range(3, 7)),
    ]
    for prediction in predictions:
        np.testing.assert_array_equal(prediction.logits, predictions[0].logits)


def test_one_image_alone_is_one_image_whatever_its_form(classes, model):
    file = Table.read(classes.table).location(0).path
    with Image.open(file) as picture, file.open("rb") as opened:
        pixels = np.asarray(picture)
        forms = [file, str(file), file.read_bytes(), pixels, np.stack([pixels] * 3, axis=-1), picture, opened]

        found = [list(model.predict(form)) for form in forms]

    assert [len(predictions) for predictions in found] == [1] * len(forms)
    assert [predictions[0].image for predictions in found] == [
        *[str(file)] * 2,
        *["image 1"] * 4,
        str(file),
    ]
    for (prediction,) in found:
        np.testing.assert_allclose(prediction.logits, found[0][0].logits, atol=1e-3)


def test_a_stack_of_pictures_holds_several(model):
    assert [one.image for one in model.predict(np.zeros((3, 40, 40), np.uint8))] == [
        "image 1",
        "image 2",
        "image 3",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "what was given is of type int; a path, an open file"),
        ([None], "image 1 is of type NoneType; a path, an open file"),
        (io.StringIO("text"), "image 1 was opened as text; open it with mode 'rb'"),
    ],
)
def test_what_can_be_no_image_is_refused_in_one_line(model, given, message):
    with pytest.raises(UsageError, match=message):
        list(model.predict(given))


def test_a_single_path_is_found_and_bytes_are_refused(classes):
    file = Table.read(classes.table).location(0).path

    assert find_images(str(file)) == find_images([file]) == [Location(file)]
    with pytest.raises(UsageError, match="a path is expected, not of type bytes"):
        find_images([b"\x89PNG"])


def test_an_array_that_is_no_image_has_its_reason(model):
    too_bright, three = model.predict([np.full((40, 40), 2, np.float32), np.zeros((2, 40, 40), np.uint8)])

    assert "outside [0, 1]" in too_bright.error
    assert "(height, width)" in three.error


def test_predictions_are_made_as_they_are_asked_for(model):
    def endless():
        while True:
            yield np.full((40, 40), 99, np.uint8)

    predictions = model.predict(endless())

    assert next(predictions).error == ""
    predictions.close()


@pytest.fixture
def counted(monkeypatch):
    """Counts decodings of raster files and images through a graph, by name."""
    counts = Counter()
    decode, outputs = raster.decode, Graph.outputs

    def counting_decode(*args, **options):
        counts["decoded"] += 1
        return decode(*args, **options)

    def counting_outputs(graph, images):
        counts["run"] += len(images)
        return outputs(graph, images)

    monkeypatch.setattr(raster, "decode", counting_decode)
    monkeypatch.setattr(Graph, "outputs", counting_outputs)
    return counts


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_each_image_is_decoded_once_and_run_once(classes, counted, tmp_path, command):
    files = [str(Table.read(classes.table).location(row).path) for row in range(20)]
    options = ["--maps"] if command == "predict" else ["-o"]

    result = CliRunner().invoke(app, [command, str(classes.bundle), *files, *options, str(tmp_path / "maps")])

    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "maps").iterdir())) == 20 * len(NAMES)
    assert counted == {"decoded": 20, "run": 20 + 1}  # and the golden image


def test_maps_of_many_images_are_those_of_each(classes, model):
    table = Table.read(classes.table)
    locations = [table.location(row) for row in range(3)]

    together = [make_cases(model.manifest, prediction) for prediction in model.predict(locations, maps=True)]

    for location, cases in zip(locations, together, strict=True):
        for ours, alone in zip(cases, model.explain(location), strict=True):
            np.testing.assert_array_equal(ours.grey, alone.grey)
            np.testing.assert_allclose(ours.evidence, alone.evidence, atol=1e-5)
            assert (ours.probability, ours.called) == (pytest.approx(alone.probability), alone.called)


def test_the_json_file_says_what_ran_the_graph(model, predictions):
    assert to_dict(model, predictions)["runtime"] == model.runtime
    assert model.runtime.startswith("ONNX Runtime ")
    assert model.runtime.endswith(" on CPU")


def test_a_name_that_is_not_utf8_is_escaped_and_the_image_predicted(model, tmp_path):
    for name in ("a.png", "film\udcff.png"):
        Image.new("L", (40, 40), 90).save(tmp_path / name)
    results = list(model.predict(find_images([tmp_path])))
    assert [(result.image, result.error) for result in results] == [
        (str(tmp_path / "a.png"), ""),
        (str(tmp_path) + r"/film\xff.png", ""),
    ]
    write(tmp_path / "p.csv", model, results)
    write(tmp_path / "p.json", model, results)
    assert results[1].image in set(pd.read_csv(tmp_path / "p.csv")["image"])
    assert json.loads((tmp_path / "p.json").read_text())["images"][1]["image"] == results[1].image


def test_links_in_a_folder_are_followed_or_told(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (40, 40), 90).save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    results = model.predict(find_images([tmp_path / "set"]))
    assert [result.error for result in results] == ["", "no such file"]
