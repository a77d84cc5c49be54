import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from hilum import images
from hilum.bundle import GOLDEN, GRAPH
from hilum.cli import app
from hilum.data import cache
from hilum.data.examples import prepare
from hilum.data.table import Table
from hilum.errors import DataError, UsageError
from hilum.evaluation import cohort, evaluate, recalibrate
from hilum.evaluation.recalibrate import SiteCalibration
from hilum.images import Location
from hilum.inference.prediction import to_dict
from hilum.inference.predictor import Predictor
from hilum.progress import Silent
from hilum.recipe import InputSpec


@pytest.fixture(scope="module")
def sites(make_sites):
    return make_sites()


@pytest.fixture(scope="module")
def model(sites):
    return Predictor.load(sites.run)


@pytest.fixture(scope="module")
def result(sites, model, tmp_path_factory):
    """Calibrated on half of the site's patients."""
    target = tmp_path_factory.mktemp("new") / "at-site"
    return recalibrate.recalibrate(
        model, Table.read(sites.site), target, SiteCalibration(sensitivity=0.9), replicates=200
    )


def test_weights_and_graph_are_the_parents(model, result):
    new, old = result.bundle, model.bundle

    for name in (GRAPH, GOLDEN, "weights/model.safetensors"):
        assert (new.folder / name).read_bytes() == (old.folder / name).read_bytes()
    assert new.hash != old.hash
    assert Predictor.load(new.folder).bundle.hash == new.hash
    assert new.manifest.training == old.manifest.training
    assert new.manifest.seen == old.manifest.seen


def test_the_bundle_records_on_what_it_was_calibrated(model, result):
    record = result.bundle.manifest.recalibrated

    assert record.parent == model.bundle.hash
    assert (record.site, record.part) == ("site", "50% of the patients, seed 0")
    assert record.num_patients == record.num_images / 2 == 75
    assert record.num_patients <= record.positives[0] + record.negatives[0]
    assert len(result.bundle.calibrated_on) == record.num_images
    assert record.data[0].name == "site"
    assert result.bundle.manifest.calibration.rule == "sensitivity 0.9 on site"


def test_probabilities_become_true_at_the_site(result):
    before, after = result.before["Pneumonia"], result.after["Pneumonia"]

    assert before["ece"].value > 0.2 > 0.1 > after["ece"].value
    assert before["calibration_intercept"].high < 0
    assert after["calibration_intercept"].low < 0 < after["calibration_intercept"].high
    assert after["calibration_slope"].low < 1 < after["calibration_slope"].high
    assert after["sensitivity"].low < 0.9 < after["sensitivity"].high
    assert after["specificity"].value > before["specificity"].value


def test_evaluate_leaves_out_the_patients_who_calibrated(sites, result):
    table = Table.read(sites.site)

    found = evaluate.evaluate(evaluate.subject(result.bundle.folder, table), replicates=200)

    assert len(found.images) == 150
    assert found.metrics["recalibrated"]["site"] == "site"
    assert found.metrics["findings"]["Pneumonia"]["ece"]["value"] < 0.15
    assert any(line.startswith("150 images of patients who calibrated") for line in map(str, found.warnings))
    assert any(name == "Recalibration" and "site" in value for name, value in found.facts)
    assert "Drawn for tests (free)" in found.citations


def test_other_names_and_other_parts_do_not_hide_the_patients(sites, result, tmp_path):
    table = Table.read(sites.site)
    used = {row.tobytes() for row in result.bundle.calibrated_on}
    examples = prepare(table, InputSpec(size=32), watch=Silent())
    hit = np.array([row.tobytes() in used for row in cohort.fingerprints(examples, np.arange(len(table)))])
    for place, name in enumerate(table.frame["image"]):
        shutil.copyfile(sites.site.parent / "site" / name, tmp_path / f"new{place}.png")
    frame = table.frame.assign(image=[f"new{place}.png" for place in range(len(table))])
    renamed = Table(frame, table.findings, (replace(table.sources[0], root=tmp_path),))

    rest = evaluate.evaluate(evaluate.subject(result.bundle.folder, renamed), replicates=200)
    with pytest.raises(DataError, match="all 150 images belong to patients who calibrated this bundle"):
        evaluate.evaluate(evaluate.subject(result.bundle.folder, renamed.select(hit)), replicates=200)

    assert hit.sum() == len(rest.images) == 150
    assert not set(rest.images) & set(frame["image"][hit])


def test_the_own_test_of_the_parent_stands_beside_the_new_bundle(sites, result, write_own_test, tmp_path):
    own = evaluate.evaluate(evaluate.subject(sites.run), replicates=200)
    write_own_test(own, tmp_path / "evaluation")
    subject = evaluate.subject(result.bundle.folder, Table.read(sites.site), internal=tmp_path)

    found = evaluate.evaluate(subject, replicates=200)

    assert found.external.internal.bundle == own.bundle != found.bundle
    row = found.external.contrasts["Pneumonia"]
    assert row["sensitivity"].internal.value == own.metrics["findings"]["Pneumonia"]["sensitivity"]["value"]


def test_on_its_own_data_the_new_bundle_says_where_it_was_calibrated(sites, result):
    found = evaluate.evaluate(evaluate.subject(result.bundle.folder, Table.read(sites.own)), replicates=200)

    assert found.metrics["internal"]
    assert any(
        line.startswith("The bundle was recalibrated on site: 150 images")
        for line in map(str, found.warnings)
    )


def test_predict_says_so(sites, result):
    loaded = Predictor.load(result.bundle)
    image = Location(sites.site.parent / "site" / "000.png")

    told = to_dict(loaded, list(loaded.predict([image])))

    assert told["recalibrated"].startswith("recalibrated on site: 150 images of 75 patients")


def test_a_second_recalibration_keeps_the_first_in_its_history(sites, result, tmp_path):
    loaded = Predictor.load(result.bundle)

    again = recalibrate.recalibrate(loaded, Table.read(sites.own), tmp_path / "n", replicates=200).bundle

    assert [one.site for one in again.manifest.recalibrations] == ["site", "own"]
    assert again.manifest.recalibrated.parent == result.bundle.hash
    assert again.manifest.recalibrated.part == "the val part of the training's split"
    assert len(again.calibrated_on) == 150 + 100


def with_parts(table, **shares):
    splits = np.repeat(list(shares), list(shares.values()))
    return table.with_split(splits.tolist())


@pytest.mark.parametrize(
    ("shares", "part", "expected"),
    [
        ({"train": 100, "val": 120, "test": 80}, None, 120),
        ({"train": 220, "test": 80}, None, 220),
        ({"train": 100, "val": 120, "test": 80}, "train+val", 220),
    ],
)
def test_the_test_part_is_never_touched(sites, model, tmp_path, shares, part, expected):
    table = with_parts(Table.read(sites.site), **shares)

    new = recalibrate.recalibrate(
        model, table, tmp_path / "n", SiteCalibration(part=part), replicates=200
    ).bundle
    found = evaluate.evaluate(evaluate.subject(new.folder, table), split="test", replicates=200)

    assert new.manifest.recalibrated.num_images == expected
    assert len(found.images) == shares["test"]
    assert not any("calibrated this bundle are left out" in line for line in map(str, found.warnings))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "test"}, "the test part never calibrates"),
        ({"part": "all"}, "would calibrate on the site's test part"),
        ({"part": "valid"}, "val, train, train\\+val, all expected"),
        ({"share": 0.0}, "above 0 and at most 1"),
        ({"sensitivity": 95.0}, "above 0 and at most 1"),
    ],
)
def test_what_is_not_allowed_is_refused(sites, model, tmp_path, options, message):
    table = with_parts(Table.read(sites.site), train=100, val=120, test=80)

    with pytest.raises(UsageError, match=message):
        recalibrate.recalibrate(model, table, tmp_path / "n", SiteCalibration(**options))
    assert not (tmp_path / "n").exists()


def test_nothing_is_written_over_or_into_a_bundle(sites, model, result):
    table = Table.read(sites.site)

    with pytest.raises(UsageError, match="is there already"):
        recalibrate.recalibrate(model, table, result.bundle.folder)
    with pytest.raises(UsageError, match="lies inside a bundle"):
        recalibrate.recalibrate(model, table, result.bundle.folder / "n")


def test_training_images_do_not_calibrate(sites, model, tmp_path):
    with pytest.raises(UsageError, match="only their val calibrates it, not --split train"):
        recalibrate.recalibrate(model, Table.read(sites.own), tmp_path / "n", SiteCalibration(part="train"))


def test_too_few_patients_are_refused_with_their_number(sites, model, tmp_path):
    table = Table.read(sites.site)
    few = table.select(np.arange(len(table)) < 60)

    with pytest.raises(
        DataError, match=r"Pneumonia: \d+ with, \d+ without\); 20 with and 20 without are the least"
    ):
        recalibrate.recalibrate(model, few, tmp_path / "n", SiteCalibration(share=1))


@pytest.fixture
def prepared(monkeypatch):
    """How many images were asked of the cache, one number a call."""
    asked = []
    build = cache.build

    def counted(table, **options):
        asked.append(len(table))
        return build(table, **options)

    monkeypatch.setattr(cache, "build", counted)
    return asked


def test_a_tiny_val_names_the_larger_part_before_any_image_is_prepared(sites, model, tmp_path, prepared):
    table = with_parts(Table.read(sites.site), train=204, val=16, test=80)

    with pytest.raises(
        DataError, match=r"are the least. Give another part: --split train\+val has 220 images"
    ):
        recalibrate.recalibrate(model, table, tmp_path / "n")

    assert prepared == []


def test_a_rough_calibration_names_the_larger_part(sites, model, tmp_path, prepared):
    table = with_parts(Table.read(sites.site), train=100, val=120, test=80)

    found = recalibrate.recalibrate(model, table, tmp_path / "n", replicates=100)

    assert any(
        note.endswith("is rough below 100; --split train+val has 220 images")
        for note in map(str, found.notes)
    )
    assert prepared == [120]


def test_of_several_findings_those_with_too_few_patients_keep_theirs(make_sites, tmp_path):
    made = make_sites(("Edema", "Mass"))
    table = Table.read(made.site)
    rare = table.frame["Mass"].where(table.frame["Mass"].cumsum() < 5, 0)
    table = Table(table.frame.assign(Mass=rare), table.findings, table.sources)

    found = recalibrate.recalibrate(
        Predictor.load(made.run), table, tmp_path / "n", SiteCalibration(share=1), replicates=200
    )

    calibration = found.bundle.manifest.calibration
    assert found.findings == ("Edema",)
    assert found.bundle.manifest.recalibrated.kept == ("Mass",)
    assert (calibration.temperatures[1], calibration.intercepts[1], calibration.thresholds[1]) == (1, 0, 0.5)
    assert calibration.rule == "Youden's J on site; of Mass: fixed at 0.5"
    assert "calibrated as before, for want of patients: Mass" in map(str, found.notes)
    assert any("rough below 100" in note for note in map(str, found.notes))


def test_classes_get_one_temperature_and_an_intercept_each(classes, tmp_path):
    table = Table.read(classes.table)
    there = replace(table.sources[0], name="there")
    moved = Table(table.frame.assign(source="there", split=""), table.findings, (there,))

    found = recalibrate.recalibrate(
        Predictor.load(classes.bundle), moved, tmp_path / "n", SiteCalibration(share=1), replicates=200
    )

    calibration = found.bundle.manifest.calibration
    assert (len(calibration.temperatures), len(calibration.intercepts), calibration.thresholds) == (1, 3, ())
    assert set(found.after) == {"No Finding", "Bacterial Pneumonia", "Viral Pneumonia"}
    assert all(row["calibration_slope"].value is not None for row in found.after.values())
    with pytest.raises(UsageError, match="of classes the most probable one is called"):
        recalibrate.recalibrate(
            Predictor.load(classes.bundle), moved, tmp_path / "m", SiteCalibration(sensitivity=0.9)
        )


def test_the_command_tells_before_and_after_and_what_comes_next(sites, tmp_path):
    arguments = [
        str(sites.run),
        "--data",
        str(sites.site),
        "-o",
        str(tmp_path / "n"),
        "--site",
        "St. Elsewhere",
    ]

    printed = CliRunner().invoke(app, ["bundle", "recalibrate", *arguments])
    shown = CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "n")]).stdout
    again = CliRunner().invoke(app, ["bundle", "recalibrate", *arguments[:-3], str(tmp_path / "m"), "--json"])

    assert printed.exit_code == 0, printed.output
    assert "Calibration intercept" in printed.stdout
    assert "Youden's J on St. Elsewhere" in printed.stdout
    assert "half of its patients calibrate" in printed.stderr
    assert f"next: hilum evaluate {tmp_path / 'n'} --data {sites.site}" in printed.stderr
    assert "recalibrated on St. Elsewhere: 150 images of 75 patients" in shown
    told = json.loads(again.stdout)
    assert (
        told["figures"]["Pneumonia"]["ece"]["after"]["value"]
        < told["figures"]["Pneumonia"]["ece"]["before"]["value"]
    )
    assert told["site"] == "site"


def with_labels(table, column, labels):
    """The table with other labels of one finding."""
    return Table(table.frame.assign(**{column: labels}), table.findings, table.sources)


def test_a_model_that_ranks_the_wrong_way_round_is_refused_and_nothing_sealed(sites, model, tmp_path):
    table = Table.read(sites.site)
    inverted = with_labels(table, "Pneumonia", 1 - table.frame["Pneumonia"])

    with pytest.raises(
        DataError, match=r"wrong way round \(calibration slope -.*; AUROC 0\.[0-4].*nothing was sealed"
    ):
        recalibrate.recalibrate(model, inverted, tmp_path / "n", replicates=200)
    assert not (tmp_path / "n").exists()


def test_of_several_findings_one_the_wrong_way_round_keeps_its_calibration(make_sites, tmp_path):
    sites = make_sites(("Pneumonia", "Edema"))
    table = Table.read(sites.site)
    table = with_labels(table, "Edema", 1 - table.frame["Edema"])

    found = recalibrate.recalibrate(Predictor.load(sites.run), table, tmp_path / "n", replicates=200)

    calibration, record = found.bundle.manifest.calibration, found.bundle.manifest.recalibrated
    assert found.findings == ("Pneumonia",)
    assert (calibration.temperatures[1], calibration.intercepts[1], calibration.thresholds[1]) == (1, 0, 0.5)
    assert record.kept == ("Edema",)
    assert record.cautions == tuple(map(str, found.cautions))
    assert "Edema: the model ranks these images the wrong way round" in found.cautions[0].text
    assert not any("for want of patients" in note for note in map(str, found.notes))


def test_logits_that_tell_nothing_are_refused_like_those_that_fall(sites, model, tmp_path):
    table = Table.read(sites.site)
    present = table.frame["Pneumonia"].to_numpy()
    # Of 100 random labels: that with the least positive slope.
    greys = np.array([images.read(table.location(row)).grey.mean() for row in range(len(table))])
    drawn = [np.random.default_rng(seed).permutation(present) for seed in range(100)]
    rising = [labels for labels in drawn if greys[labels == 1].mean() > greys[labels == 0].mean()]
    flattest = min(rising, key=lambda labels: greys[labels == 1].mean() - greys[labels == 0].mean())

    with pytest.raises(DataError, match=r"no better than chance \(calibration slope 0.*nothing was sealed"):
        recalibrate.recalibrate(
            model,
            with_labels(table, "Pneumonia", flattest),
            tmp_path / "n",
            SiteCalibration(share=1),
            replicates=200,
        )


def test_a_ranking_that_may_be_chance_is_said_first_and_stays_in_the_bundle(sites, tmp_path):
    table = Table.read(sites.site)
    rng = np.random.default_rng(1)
    chance = rng.permutation(table.frame["Pneumonia"].to_numpy())
    with_labels(table, "Pneumonia", chance).write(tmp_path / "chance.parquet")
    arguments = [str(sites.run), "--data", str(tmp_path / "chance.parquet"), "-o", str(tmp_path / "n")]

    printed = CliRunner().invoke(app, ["bundle", "recalibrate", *arguments, "--share", "1"])
    shown = CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "n")]).stdout

    assert printed.exit_code == 0, printed.output
    first = next(line for line in printed.stderr.splitlines() if line.startswith(("warning: ", "note: ")))
    assert first.startswith(
        "warning: Pneumonia: the ranking of these images is not surely better than chance (AUROC 0."
    )
    assert "not surely better than chance" in shown
    again = evaluate.evaluate(
        evaluate.subject(tmp_path / "n", Table.read(sites.own)), split="test", replicates=200
    )
    assert any("not surely better than chance" in warning for warning in map(str, again.warnings))
