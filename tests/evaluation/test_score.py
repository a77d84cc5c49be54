import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, UsageError
from hilum.evaluation import score as scoring
from hilum.stats import Resampling

FEW = Resampling(replicates=100)
NUMBER = 60


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = make_frame(
        image=[f"images/{number:03d}.png" for number in range(NUMBER)],
        source="site",
        patient=[str(number // 2) for number in range(NUMBER)],
        findings=("Mass", "Nodule"),
        labels=rng.integers(0, 2, (NUMBER, 2)),
    )
    return Table(frame, ("Mass", "Nodule"), (Source("site", tmp_path, "Somebody 2020", "free"),))


def wide(table, **changes):
    rng = np.random.default_rng(1)
    columns = {"image": table.frame["image"], "prob_Mass": rng.random(NUMBER), "Nodule": rng.random(NUMBER)}
    return pd.DataFrame(columns | changes)


def scored(frame, table, tmp_path, **settings):
    frame.to_csv(tmp_path / "p.csv", index=False)
    return scoring.score(scoring.read(tmp_path / "p.csv"), table, resampling=FEW, **settings)


def predictions(name, images, probabilities, findings=("Mass", "Nodule")):
    return scoring.Predictions(name, np.array(images), findings, np.array(probabilities, float))


def test_the_mean_of_several_goes_by_image_and_finding_not_by_order():
    first = predictions("a.csv", ["x", "y"], [[0.2, 0.4], [0.6, 0.8]])
    second = predictions("b.csv", ["y", "x"], [[0.0, 0.2], [0.4, 0.6]], findings=("Nodule", "Mass"))

    found = scoring.mean([first, second])

    np.testing.assert_allclose(found.probabilities, [[0.4, 0.4], [0.4, 0.4]])
    assert found.name == "mean of a.csv, b.csv"
    assert scoring.mean([first, first]).name == "mean of 2 predictions"
    assert scoring.mean([first]).name == "a.csv"


def test_a_mean_of_other_images_or_findings_is_refused():
    first = predictions("a.csv", ["x", "y"], [[0.2, 0.4], [0.6, 0.8]])

    with pytest.raises(UsageError, match="stands in one of them only"):
        scoring.mean([first, predictions("b.csv", ["x", "z"], [[0.2, 0.4], [0.6, 0.8]])])
    with pytest.raises(UsageError, match=r"b\.csv predicts Mass, Edema, a\.csv Mass, Nodule"):
        scoring.mean([first, predictions("b.csv", ["x", "y"], np.zeros((2, 2)), findings=("Mass", "Edema"))])


def test_figures_are_those_of_scikit_learn(table, tmp_path):
    frame = wide(table)

    result = scored(frame, table, tmp_path)

    for finding, column in (("Mass", "prob_Mass"), ("Nodule", "Nodule")):
        truth = table.frame[finding]
        found = result.metrics["findings"][finding]
        assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, frame[column]), abs=1e-12)
        expected = average_precision_score(truth, frame[column])
        assert found["average_precision"]["value"] == pytest.approx(expected, abs=1e-12)


def test_long_wide_and_parquet_say_the_same(table, tmp_path):
    frame = wide(table)
    long = frame.rename(columns={"prob_Mass": "Mass"}).melt(
        "image", var_name="finding", value_name="probability"
    )
    long = long.sample(frac=1, random_state=0).assign(decision="absent")
    frame.to_parquet(tmp_path / "p.parquet")

    first = scored(frame, table, tmp_path).metrics["findings"]["Nodule"]
    second = scored(long, table, tmp_path).metrics["findings"]["Nodule"]
    third = scoring.score(scoring.read(tmp_path / "p.parquet"), table, resampling=FEW).metrics["findings"][
        "Nodule"
    ]

    assert first["auroc"]["value"] == pytest.approx(second["auroc"]["value"], abs=1e-12)
    assert first == third


def test_images_are_joined_by_file_name_where_paths_differ(table, tmp_path):
    frame = wide(table)
    elsewhere = frame.assign(image="C:\\data\\" + frame["image"].str.split("/").str[-1])

    by_path, by_name = scored(frame, table, tmp_path), scored(elsewhere, table, tmp_path)

    assert by_path.metrics["findings"] == by_name.metrics["findings"]


def test_missing_images_are_counted_and_need_a_word(table, tmp_path):
    frame = wide(table).iloc[:50]
    frame = pd.concat([frame, frame.iloc[:1].assign(image="images/stranger.png")])

    with pytest.raises(
        DataError, match=r"1 of 51 predicted images have no label, 10 of 60 labelled .*--allow-missing"
    ):
        scored(frame, table, tmp_path)
    result = scored(frame, table, tmp_path, allow_missing=True)

    assert result.metrics["num_images"] == 50
    assert "1 of 51 predicted images have no label" in result.warnings[0].text


def test_patients_are_joined_by_maximum(table, tmp_path):
    frame = wide(table)

    result = scored(frame, table, tmp_path, unit=scoring.Unit("patient"))

    pairs = frame["Nodule"].to_numpy().reshape(-1, 2).max(axis=1)
    truth = table.frame["Nodule"].to_numpy().reshape(-1, 2).max(axis=1)
    assert result.metrics["level"] == "patient (maximum)"
    assert result.metrics["findings"]["Nodule"]["auroc"]["value"] == pytest.approx(
        roc_auc_score(truth, pairs), abs=1e-12
    )


def test_a_probability_that_is_missing_is_masked(table, tmp_path):
    frame = wide(table)
    frame.loc[:9, "Nodule"] = np.nan

    result = scored(frame, table, tmp_path)
    found = result.metrics["findings"]

    assert "10 probabilities are empty" in result.warnings[0].text
    assert found["Nodule"]["positives"] + found["Nodule"]["negatives"] == NUMBER - 10
    assert found["Mass"]["positives"] + found["Mass"]["negatives"] == NUMBER


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"Nodule": 1.5}, DataError, r"Nodule of images/000.png is 1.5; a probability in \[0, 1\]"),
        ({"Nodule": "high"}, DataError, "'high' in column 'Nodule' is no number"),
        ({"Nodul": 0.5}, DataError, r"column 'Nodul' is no finding; .*Nodule \(did you mean it\?\)"),
        ({"prob_Nodul": 0.5}, DataError, r"unknown finding 'Nodul'.*Nodule \(did you mean it\?\)"),
        ({"Edema": 0.5}, UsageError, "labels do not know 'Edema'"),
        ({"Mass": 0.5}, DataError, "two columns for Mass"),
        ({"image": "images/000.png"}, DataError, "images/000.png stands there twice"),
        ({"image": [f"x{number}" for number in range(NUMBER)]}, DataError, "none of 60 predicted images"),
    ],
)
def test_wrong_predictions_are_told_and_not_guessed(table, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        scored(wide(table, **changes), table, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("p.csv", "where,Mass\na,0.5\n", DataError, "no column 'image'; .* --column image=COLUMN"),
        ("p.csv", "file,path,Mass\na,b,0.5\n", DataError, "no column 'image'; .* --column image=COLUMN"),
        ("p.xlsx", "PK", DataError, "is a spreadsheet"),
        ("p.csv", "image,age\na,0.5\n", DataError, "no column of a finding"),
        ("p.csv", "", DataError, "no CSV file"),
        ("p.parquet", "garbage", DataError, "cannot be read as parquet"),
        ("p.txt", "x", UsageError, r"read from \.csv and \.parquet"),
    ],
)
def test_a_file_that_holds_no_predictions_is_refused(tmp_path, name, content, error, words):
    (tmp_path / name).write_text(content)

    with pytest.raises(error, match=words):
        scoring.read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "image"),
    [
        ("Image Index,prob_Mass\na.png,0.25\n", ""),
        ("film;Mass\na.png;0,25\n", "film"),
        ("image,finding,probability\na.png,Mass,0.25\n", ""),
    ],
)
def test_predictions_of_other_columns_and_delimiters_are_read(tmp_path, content, image):
    (tmp_path / "p.csv").write_text(content)

    found = scoring.read(tmp_path / "p.csv", image=image)

    assert (found.images.tolist(), found.findings, found.probabilities.tolist()) == (
        ["a.png"],
        ("Mass",),
        [[0.25]],
    )


def test_findings_of_the_labels_may_be_predicted(tmp_path):
    (tmp_path / "p.csv").write_text("image,rundherd,age\na.png,0.25,40\n")

    found = scoring.read(tmp_path / "p.csv", findings=("Rundherd",))

    assert (found.findings, found.ignored) == (("Rundherd",), ("age",))


def test_one_class_only_and_three_images_give_reasons_instead_of_figures(table, tmp_path):
    few = table.select(np.arange(NUMBER) < 3)
    few = Table(few.frame.assign(Mass=0.0), few.findings, few.sources)

    found = scored(wide(table).iloc[:3], few, tmp_path).metrics["findings"]["Mass"]

    assert found["auroc"]["value"] is None
    assert "0 positives" in found["auroc"]["reason"]


@pytest.mark.real
def test_the_nih_table_scores_predictions_without_images(shared_data, tmp_path):
    from hilum.data import readers

    labels = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    rng = np.random.default_rng(0)
    chosen = labels.frame.iloc[:4000]
    signal = chosen["Effusion"] * 0.3 + rng.random(4000) * 0.7
    pd.DataFrame({"image": chosen["image"], "Effusion": signal}).to_csv(tmp_path / "p.csv", index=False)

    result = scoring.score(scoring.read(tmp_path / "p.csv"), labels, allow_missing=True, resampling=FEW)

    found = result.metrics["findings"]["Effusion"]["auroc"]
    assert found["value"] == pytest.approx(roc_auc_score(chosen["Effusion"], signal), abs=1e-12)
    assert found["low"] < found["value"] < found["high"]
    assert result.metrics["num_patients"] == chosen["patient"].nunique()


def test_subgroups_of_patients_know_a_view_only_where_all_of_their_images_have_it(table, tmp_path):
    views = ["PA" if number % 4 < 3 else "AP" for number in range(NUMBER)]  # every second patient has both
    with_views = Table(table.frame.assign(view=views), table.findings, table.sources)

    by_image = scored(wide(table), with_views, tmp_path).metrics["subgroups"]["factors"]["view"]["levels"]
    result = scored(wide(table), with_views, tmp_path, unit=scoring.Unit("patient")).metrics["subgroups"]

    assert {name: one["images"] for name, one in by_image.items()} == {"PA": 45, "AP": 15}
    by_patient = result["factors"]["view"]["levels"]
    assert {name: one["images"] for name, one in by_patient.items()} == {"PA": 15, "unknown": 15}
    assert result["same"] == {"source": "site", "sex": "unknown", "age": "unknown"}


def long_with(table, thresholds, **columns):
    frame = (
        wide(table)
        .rename(columns={"prob_Mass": "Mass"})
        .melt("image", var_name="finding", value_name="probability")
    )
    return frame.assign(threshold=frame["finding"].map(thresholds), **columns)


def test_thresholds_of_the_file_decide_unless_another_is_given(table, tmp_path):
    frame = long_with(table, {"Mass": 0.2, "Nodule": 0.7}, bundle="084f5411e5e88701")

    result, other = (scored(frame, table, tmp_path, **given) for given in ({}, {"threshold": 0.4}))

    assert dict(zip(result.findings, result.decision.array, strict=True)) == {"Mass": 0.2, "Nodule": 0.7}
    assert result.decision.origin == "the predictions' own"
    assert "Thresholds are those of p.csv" in " ".join(map(str, result.warnings))
    assert "bundle 084f5411e5e8" in " ".join(map(str, result.warnings))
    assert other.decision.array.tolist() == [0.4, 0.4]
    assert other.decision.origin == "fixed at 0.4"
    assert not any("hresholds" in warning for warning in map(str, other.warnings))


def test_without_thresholds_a_half_is_taken_and_said(table, tmp_path):
    several = long_with(table, {"Mass": 0.2, "Nodule": 0.7})
    several.loc[0, "threshold"] = 0.9

    for frame in (wide(table), several):
        result = scored(frame, table, tmp_path)
        assert result.decision.array.tolist() == [0.5, 0.5]
        assert "0.5 is taken for all findings; --threshold takes another" in " ".join(
            map(str, result.warnings)
        )


def test_a_threshold_that_is_no_probability_is_refused(table, tmp_path):
    with pytest.raises(DataError, match="a threshold of Mass is no probability"):
        scored(long_with(table, {"Mass": 2.0, "Nodule": 0.7}), table, tmp_path)


def test_what_is_not_missing_is_not_counted_and_names_are_plain(table, tmp_path):
    with pytest.raises(DataError) as one_side:
        scored(wide(table).iloc[:50], table, tmp_path)
    with pytest.raises(
        DataError, match=r"first predicted 'other0', first labelled 'images/000\.png'"
    ) as none:
        scored(wide(table, image=[f"other{row}" for row in range(NUMBER)]), table, tmp_path)

    assert str(one_side.value).startswith("10 of 60 labelled images have no prediction; ")
    assert "np." not in str(none.value)


def test_only_the_sources_of_the_scored_images_are_named(table, tmp_path):
    frame = table.frame.copy()
    frame.loc[:39, "source"] = "elsewhere"
    sources = (*table.sources, Source("elsewhere", tmp_path, "Nobody 2021", "free"))
    joined = Table(frame, table.findings, sources)

    result = scored(wide(table).iloc[45:], joined, tmp_path, allow_missing=True)

    assert result.data == result.metrics["data"] == "site"
    assert result.citations == ("Somebody 2020 (free)",)
