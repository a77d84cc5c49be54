import itertools
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hilum.data import phantom
from hilum.data.anatomy import Person
from hilum.data.table import Table
from hilum.errors import UsageError
from hilum.recipe.findings import canonical


def pictures(table: Table) -> np.ndarray:
    """uint8 (images, size, size), as the files hold them."""
    paths = [table.location(row).path for row in range(len(table))]
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=200, size=64, seed=3)


def test_the_same_seed_draws_the_same_picture():
    first, second = (phantom.phantom(7, 128, ("Nodule", "Effusion")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.mean(first != phantom.phantom(8, 128, ("Nodule", "Effusion"))) > 0.5


def test_the_order_of_findings_does_not_matter():
    first, second = (phantom.phantom(7, 96, names) for names in (phantom.FINDINGS, phantom.FINDINGS[::-1]))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [32, 65, 256])
def test_a_picture_has_the_size_asked_for_and_uses_the_grey_range(size):
    picture = phantom.phantom(1, size)
    assert picture.dtype == np.uint8
    assert picture.shape == (size, size)
    low, middle, high = np.percentile(picture, [2, 50, 98])
    assert low < 60
    assert 40 < middle < 235
    assert high > 180


def test_a_larger_picture_shows_the_same_chest():
    # Only the finest noise differs between sizes.
    small, large = phantom.phantom(5, 128), phantom.phantom(5, 256)
    reduced = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    assert (
        np.corrcoef(reduced.ravel(), cv2.resize(small, (32, 32), interpolation=cv2.INTER_AREA).ravel())[0, 1]
        > 0.97
    )


def test_pictures_are_exposed_like_radiographs(table):
    images = pictures(table)
    assert images.dtype == np.uint8
    medians = np.median(images, axis=(1, 2))
    assert medians.std() > 10  # exposure varies
    assert np.mean(images == 255) < 0.05
    assert np.mean([np.ptp(np.percentile(image, [1, 99])) for image in images]) > 150


def test_a_larger_set_begins_with_the_smaller(tmp_path):
    small = phantom.generate(tmp_path / "small", num_images=5, size=64, seed=2)
    large = phantom.generate(tmp_path / "large", num_images=9, size=64, seed=2)
    np.testing.assert_array_equal(pictures(small), pictures(large)[:5])
    pd.testing.assert_frame_equal(small.frame, large.frame[:5])
    assert len(small.boxes)
    pd.testing.assert_frame_equal(small.boxes, large.boxes[: len(small.boxes)])


def test_a_set_without_findings_has_no_boxes(tmp_path):
    tables = (phantom.generate(tmp_path, num_images=1, size=32, seed=seed) for seed in itertools.count())
    healthy = next(table for table in tables if not table.labels(table.findings).any())
    assert len(healthy.boxes) == 0
    assert (healthy.boxes.dtypes[["x", "y", "width", "height"]] == np.float64).all()


def test_the_table_is_whole(table, tmp_path):
    frame = table.frame
    assert len(frame) == 200
    assert tuple(canonical(name) for name in table.findings) == table.findings
    assert set(frame["view"]) == {"PA", "AP"}
    assert set(frame["sex"]) == {"F", "M"}
    assert frame["age"].between(18, 95).all()
    assert (frame["split"] == "").all()
    assert (frame[["width", "height"]] == 64).all(axis=None)
    assert table.sources[0].terms == "synthetic, no patient"
    assert not len(table.missing_images())
    table.write(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(Table.read(tmp_path / "table.parquet").frame, frame)


def test_patients_come_several_times_and_age(table):
    visits = table.frame.groupby("patient")
    assert set(visits.size()) == {1, 2, 3, 4}
    assert all(len(set(sexes)) == 1 for _, sexes in visits["sex"])
    assert visits["age"].apply(lambda ages: ages.is_monotonic_increasing and np.ptp(ages) <= 2).all()
    assert any(np.ptp(labels) == 1 for _, labels in visits["Nodule"])  # findings come and go
    assert table.frame["study"].is_unique


def test_people_and_visits_differ():
    people = [Person.draw(np.random.default_rng(number), sex="M", age=50) for number in range(3)]

    def chest(person: Person, visit: int) -> np.ndarray:
        picture, _ = phantom.radiograph(person, view="PA", findings=(), size=64, seed=(visit,))
        return picture.astype(float)

    for first, second in itertools.pairwise(people):
        assert np.abs(chest(first, 1) - chest(second, 1)).mean() > 5
        assert np.abs(chest(first, 1) - chest(first, 2)).mean() > 5


def test_boxes_lie_inside_and_belong_to_findings(table):
    boxes = table.boxes
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes[["width", "height"]] > 0).all(axis=None)
    assert (boxes["x"] + boxes["width"] <= 1 + 1e-9).all()
    assert (boxes["y"] + boxes["height"] <= 1 + 1e-9).all()
    shown = set(zip(boxes["image"], boxes["finding"], strict=True))
    labelled = {
        (image, name) for name in table.findings for image in table.frame.loc[table.frame[name] == 1, "image"]
    }
    assert shown == labelled
    counts = boxes.groupby(["finding", "image"]).size()
    assert set(counts["Nodule"]) == {1, 2, 3}
    assert (counts.drop("Nodule") == 1).all()


@pytest.mark.parametrize("finding", phantom.FINDINGS)
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_a_finding_changes_the_picture_in_its_box(finding, view):
    size, margin = 128, 3
    for number in range(6):
        person = Person.draw(np.random.default_rng(number), sex="FM"[number % 2], age=30 + 8 * number)
        without, none = phantom.radiograph(person, view=view, findings=(), size=size, seed=(number,))
        picture, boxes = phantom.radiograph(person, view=view, findings=(finding,), size=size, seed=(number,))
        change = np.abs(picture.astype(float) - without)
        inside = np.zeros((size, size), bool)
        for name, (x, y, width, height) in boxes:
            assert name == finding
            left, top = (max(0, round(edge * size) - margin) for edge in (x, y))
            right, bottom = (round(edge * size) + margin for edge in (x + width, y + height))
            inside[top:bottom, left:right] = True
        assert none == []
        assert change[inside].sum() > 0.8 * change.sum()
        assert change[inside].mean() > 20 * change[~inside].mean()
        assert inside.mean() < 0.4


def test_an_effusion_keeps_off_the_side_of_a_pneumothorax():
    for number in range(12):
        person = Person.draw(np.random.default_rng(number), sex="M", age=40)
        names = ("Effusion", "Pneumothorax")
        _, boxes = phantom.radiograph(person, view="PA", findings=names, size=96, seed=(number,))
        middle = {name: box[0] + box[2] / 2 for name, box in boxes}
        assert abs(middle["Effusion"] - middle["Pneumothorax"]) > 0.1


@pytest.fixture(scope="module")
def drawn() -> list:
    """What a set of 8,000 images would show; the pictures themselves are not needed."""
    return list(itertools.islice(phantom._orders(0), 8000))


def test_prevalence(drawn):
    assert np.mean([not order.findings for order in drawn]) == pytest.approx(0.40, abs=0.03)
    for name in phantom.FINDINGS:
        assert np.mean([name in order.findings for order in drawn]) == pytest.approx(0.18, abs=0.02)
    assert np.mean([len(order.findings) > 1 for order in drawn]) == pytest.approx(0.24, abs=0.03)


@pytest.mark.parametrize("finding", phantom.FINDINGS)
def test_who_and_how_tells_nothing_of_what(finding, drawn):
    known = np.array(
        [(order.view == "AP", order.person.sex == "F", order.person.age) for order in drawn], float
    )
    label = np.array([finding in order.findings for order in drawn])
    train = np.arange(len(drawn)) < 4000
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(known[train], label[train])
    assert roc_auc_score(label[~train], model.decision_function(known[~train])) == pytest.approx(
        0.5, abs=0.05
    )


@pytest.mark.slow
def test_thumbnails_do_not_give_the_findings_away(tmp_path):
    table = phantom.generate(tmp_path, num_images=2800, size=64, seed=0)
    thumbnails = np.stack(
        [cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) for image in pictures(table)]
    )
    features, patients = thumbnails.reshape(len(thumbnails), -1) / 255, table.frame["patient"].to_numpy()
    train = patients < patients[2000]
    for name in table.findings:
        label = table.frame[name].to_numpy()
        for strength in (1e-3, 1e-2, 1e-1):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
            model.fit(features[train], label[train])
            assert roc_auc_score(label[~train], model.decision_function(features[~train])) <= 0.75, name


def test_progress_is_told(tmp_path: Path):
    told = []
    phantom.generate(
        tmp_path, num_images=3, size=32, seed=0, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0, "seed": 0}, "num_images is 0"),
        ({"num_images": 1, "seed": -1}, "seed is -1"),
        ({"num_images": 1, "seed": 0, "size": 16}, "16 pixels is too small"),
    ],
)
def test_a_number_that_is_too_small_is_refused(arguments, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        phantom.generate(tmp_path, **arguments)


def test_an_unknown_finding_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"cannot show 'Nodules'; it can show: Nodule \(did you mean it\?\)"):
        phantom.phantom(0, 64, ("Nodules",))
