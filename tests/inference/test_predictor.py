import json

import numpy as np
import pandas as pd
import pytest

from hilum.data.table import Table
from hilum.images import Location
from hilum.inference import predictor, runtime
from hilum.notices import notice

NAMES = ["No Finding", "Bacterial Pneumonia", "Viral Pneumonia"]


@pytest.fixture(scope="module")
def model(classes):
    return runtime.load(classes.bundle)


@pytest.fixture(scope="module")
def predictions(classes, model, tmp_path_factory):
    """Of ten pictures, the last of which is none."""
    table = Table.read(classes.table)
    broken = tmp_path_factory.mktemp("broken") / "text.png"
    broken.write_text("I am no picture")
    return predictor.predict(model, [*(table.location(row) for row in range(9)), Location(broken)])


def test_one_class_of_an_image_is_present(predictions):
    for prediction in predictions[:9]:
        assert sorted(prediction.decisions) == ["absent", "absent", "present"]
        assert prediction.decisions[prediction.probabilities.argmax()] == "present"
        assert prediction.probabilities.sum() == pytest.approx(1)
    assert predictions[9].decisions == ()


def test_the_csv_file_of_classes_has_an_empty_threshold(model, predictions, tmp_path):
    predictor.write(tmp_path / "p.csv", model, predictions)

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
    predictor.write(tmp_path / "p.json", model, predictions)

    images = json.loads((tmp_path / "p.json").read_text())["images"]
    assert list(images[0]["findings"]) == NAMES
    assert [entry["threshold"] for entry in images[0]["findings"].values()] == [None] * 3
    assert "no picture" not in json.dumps(images)
    assert images[9]["findings"] == {}
    assert images[9]["error"]


def told(image, *warnings):
    return predictor.Prediction(image, np.zeros(0), np.zeros(0), (), warnings)


def test_a_warning_of_many_images_is_said_once_with_their_number():
    burned_in = notice("burned-in-annotation")
    many = [told(f"{number}.png", notice("few-pixels", width=number, height=40)) for number in range(9)]
    few = [told("a.png", burned_in), told("b.png", burned_in), told("c.png")]

    lines = predictor.common_warnings([*many, *few])

    assert lines == [
        "9 of 12 images, such as 0.png: only 0 x 40 pixels: small findings are lost",
        "a.png: burned-in annotation is declared",
        "b.png: burned-in annotation is declared",
    ]
