"""What `import hilum` gives: lazy, complete, typed, and the same as the commands."""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import RocCurveDisplay, roc_auc_score

import hilum
from hilum.errors import DataError, LayoutError, UsageError
from hilum.evaluation import evaluate
from hilum.inference.predictor import Predictor


@pytest.fixture(scope="module")
def sites(make_sites):
    return make_sites()


@pytest.fixture(scope="module")
def model(sites):
    return hilum.load(str(sites.run))


@pytest.fixture
def film(sites):
    return hilum.read(sites.own).location(0).path


def test_all_that_is_public_is_there_and_nothing_else():
    assert all(getattr(hilum, name) is not None for name in hilum.__all__)
    assert set(hilum.__all__) <= set(dir(hilum))
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        _ = hilum.predcit


def test_the_import_loads_nothing_of_what_it_gives():
    code = "import sys; before = set(sys.modules); import hilum; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "pandas", "pydantic", "matplotlib"} & set(loaded)
    assert [name for name in loaded if name.startswith("hilum")] == ["hilum"]


def test_a_model_is_opened_without_a_framework(sites):
    code = f"import sys, hilum; hilum.load({str(sites.run)!r}); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "keras", "tensorflow"} & set(loaded)


def forms(film):
    """One film in every form that a user may hold it in."""
    with Image.open(film) as picture:
        picture.load()
        pixels = np.asarray(picture)
    return {
        "path": film,
        "text": str(film),
        "bytes": film.read_bytes(),
        "file": io.BytesIO(film.read_bytes()),
        "picture": picture,
        "uint8": pixels,
        "float32": pixels.astype(np.float32) / 255,
        "float64": pixels / 255,
        "list": [str(film)],
    }


@pytest.mark.parametrize(
    "form", ["path", "text", "bytes", "file", "picture", "uint8", "float32", "float64", "list"]
)
def test_an_image_may_have_any_form(model, film, form):
    expected = next(Predictor.load(model.predictor.bundle).predict([film])).probabilities
    assert model.predict(forms(film)[form]).probabilities == pytest.approx(expected[None], abs=1e-6)


def test_a_folder_is_all_its_images(model, film):
    given = model.predict(film.parent)
    assert len(given) == len(list(film.parent.glob("*.png")))
    assert given.to_frame()["image"].tolist() == sorted(map(str, film.parent.glob("*.png")))


def test_an_image_that_cannot_be_read_costs_no_other(model, film):
    given = model.predict([b"no image", film])
    assert [bool(one.error) for one in given] == [True, False]
    assert np.isnan(given.probabilities[0]).all()
    assert np.isfinite(given.probabilities[1]).all()
    assert given.warnings[0].startswith("image 1: ")


def test_what_is_no_image_is_told(model, tmp_path):
    with pytest.raises(UsageError, match="of type int"):
        model.predict(3)
    with pytest.raises(UsageError, match="does not exist"):
        model.predict("nowhere.png")
    with pytest.raises(LayoutError, match="holds no image"):
        model.predict(tmp_path)


def test_predictions_show_and_write_themselves(model, film, tmp_path):
    given = model.predict(film)
    assert "Pneumonia" in given._repr_html_()
    given.write(tmp_path / "p.csv")
    assert "probability" in (tmp_path / "p.csv").read_text()
    assert given.to_dict()["bundle"] == model.hash


def test_explanations_are_drawn_and_written(model, film, tmp_path):
    given = model.explain([film, film], findings=["pneumonia"])
    assert [case.finding for case in given] == ["Pneumonia", "Pneumonia"]
    assert given[0].evidence.shape == given[0].grey.shape
    with Image.open(io.BytesIO(given.plot(1)._repr_png_())) as picture:
        assert picture.width > 1000
    assert len(set(given.write(tmp_path))) == 2
    assert given._repr_html_().count("<img") == 2


def test_an_evaluation_is_that_of_the_library(sites, model):
    given = hilum.evaluate(model, sites.own, split="val")
    expected = evaluate.evaluate(evaluate.subject(sites.run), split="val")
    assert given.value.metrics == model.evaluate(split="val").value.metrics == expected.metrics
    assert given.to_frame().loc["Pneumonia", "AUC"] == pytest.approx(
        expected.metrics["findings"]["Pneumonia"]["auroc"]["value"]
    )


def test_a_model_that_is_open_is_not_opened_again(model, monkeypatch):
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: pytest.fail("the bundle was read again"))
    assert model.evaluate(split="val").value.bundle == model.hash


def test_a_result_draws_shows_and_writes_its_report(sites, tmp_path):
    given = hilum.evaluate(sites.run, split="val")
    given.plot("roc").save(tmp_path / "roc.png")
    with Image.open(tmp_path / "roc.png") as picture:
        assert picture.width > 500
    assert given.plots[0] in given._repr_html_()
    assert given.write(tmp_path / "report").is_file()
    with pytest.raises(UsageError, match=r"no drawing 'rok'; it has: roc \(did you mean it"):
        given.plot("rok")


def test_predictions_are_scored_as_the_command_does(sites, model, tmp_path):
    table = hilum.read(sites.own)
    names = [str(table.location(row).path) for row in range(20)]
    given = model.predict(names).to_frame().assign(image=table.frame["image"][:20])
    given.to_csv(tmp_path / "theirs.csv", index=False)
    scored = hilum.score(tmp_path / "theirs.csv", table, allow_missing=True)
    truth = table.labels(["Pneumonia"])[:20, 0]
    assert scored.to_frame().loc["Pneumonia", "AUC"] == pytest.approx(
        roc_auc_score(truth, given["probability"]), abs=5e-4
    )


def test_the_classifier_is_one_for_scikit_learn(sites, model):
    table = hilum.read(sites.own)
    films = [str(table.location(row).path) for row in range(60)]
    truth = table.labels(["Pneumonia"])[:60, 0].astype(int)
    classifier = model.as_classifier()

    curve = RocCurveDisplay.from_estimator(classifier, films, truth)

    assert curve.roc_auc == pytest.approx(roc_auc_score(truth, model.predict(films).probabilities[:, 0]))
    assert classifier.score(films, truth) == np.mean(classifier.predict(films) == truth)
    assert classifier.predict_proba(films).sum(axis=1) == pytest.approx(np.ones(60))
    with pytest.raises(UsageError, match=r"hilum\.train"):
        classifier.fit(films, truth)
    with pytest.raises(DataError, match="image 1"):
        classifier.predict_proba([b"no image"])


def test_the_classifier_of_classes_gives_their_names(classes):
    classifier = hilum.load(classes.bundle).as_classifier()
    squares = np.stack([np.full((40, 40), centre, np.float32) for centre in classes.centres])
    assert classifier.predict(squares).tolist() == ["No Finding", "Bacterial Pneumonia", "Viral Pneumonia"]
    assert classifier.predict_proba(squares).shape == (3, 3)


def test_a_table_shows_what_it_holds(sites):
    table = hilum.read(sites.own)
    assert repr(table) == "Table(400 images of 200 patients, findings=['Pneumonia'], own)"
    assert "400 images of 200 patients" in table._repr_html_()
    assert hilum.read(table) is table


def test_a_data_set_is_explored_and_audited(sites):
    explored, audited = hilum.explore(sites.own), hilum.audit(str(sites.own))
    assert "Pneumonia" in explored.to_frame().index
    assert explored.plot()._repr_png_().startswith(b"\x89PNG")
    assert len(audited.to_frame())
    assert "<table" in audited._repr_html_()


def test_a_split_keeps_patients_together(sites):
    divided = hilum.split(sites.own, test=0.25)
    assert (divided.frame.groupby("patient")["split"].nunique() == 1).all()
    assert (divided.frame["split"] == "test").mean() == pytest.approx(0.25, abs=0.02)


def test_a_table_keeps_its_names_and_its_truth(sites, model):
    table = hilum.read(sites.own).select(np.arange(400) < 6)
    given, explained = model.predict(table), model.explain(table)
    paths = [table.location(row).path for row in range(6)]
    assert [one.image for one in given] == table.frame["image"].tolist()
    assert given.probabilities == pytest.approx(model.predict(paths).probabilities)
    assert [case.label for case in explained] == table.frame["Pneumonia"].tolist()


def test_the_truth_that_a_table_does_not_know_is_unknown(sites, model):
    table = hilum.read(sites.own).select(np.arange(400) < 1)
    renamed = replace(
        table, frame=table.frame.rename(columns={"Pneumonia": "Effusion"}), findings=("Effusion",)
    )
    assert np.isnan(model.explain(renamed)[0].label)


def test_a_result_gives_its_tables_remarks_and_galleries(sites):
    given = hilum.evaluate(sites.run, split="val")
    assert given.table("Classification report").index[0] == "Pneumonia absent"
    assert given.table().shape[0] > 0
    assert given.remarks
    assert "gradcam_right" in given.plots
    assert given.plot("gradcam_right")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="no table 'roc'; it has: "):
        given.table("roc")


def test_augmented_training_images_are_drawn(sites):
    recipe = hilum.load_recipe(
        "demo", ["data.phantoms=0", "data.size=32", "task.findings=['Pneumonia']", "augment.rotation=20"]
    )
    with Image.open(
        io.BytesIO(hilum.draw_augmented(sites.own, recipe, images=2, versions=3)._repr_png_())
    ) as drawn:
        assert drawn.width > 700


@pytest.mark.slow
def test_a_search_shows_its_trials(sites, tmp_path):
    recipe = hilum.load_recipe(
        "demo",
        [
            "data.phantoms=0",
            "data.size=32",
            "task.kind=binary",
            "task.findings=['Pneumonia']",
            "model.architecture=custom_cnn",
            "train.epochs=1",
        ],
    )
    table = hilum.read(sites.own).select(np.arange(400) < 80)
    found = hilum.tune(table, tmp_path, recipe, {"train.learning_rate": [1e-3, 1e-2]})
    assert found.to_frame()["train.learning_rate"].tolist() == [1e-3, 1e-2]
    assert found.value.best.train.learning_rate in (1e-3, 1e-2)
    assert found.plot("history")._repr_png_().startswith(b"\x89PNG")


def test_a_network_is_told_by_its_layers():
    found = hilum.layers("kermany-custom-cnn")
    assert found.columns.tolist() == ["layer", "kind", "parameters", "frozen"]
    assert found["parameters"].sum() == pytest.approx(8.9e6, rel=0.05)
    with pytest.raises(UsageError, match="a Recipe is complete"):
        hilum.layers(hilum.load_recipe("demo"), changes=["data.size=64"])
