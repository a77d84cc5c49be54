import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hilum.cli import app
from hilum.data import cache
from hilum.data.table import Table
from hilum.errors import DataError, UsageError
from hilum.evaluation import evaluate, external
from hilum.report import formatting
from hilum.report.evaluation import external_section, page, summary


@pytest.fixture(scope="module")
def sites(make_sites, write_own_test):
    """With the report of the model's own test."""
    made = make_sites()
    write_own_test(evaluate.evaluate(evaluate.subject(made.run), replicates=200), made.run / "evaluation")
    return made


def elsewhere(folder, table, **options):
    return evaluate.evaluate(evaluate.subject(folder, table, **options), split="all", replicates=200)


@pytest.fixture(scope="module")
def result(sites):
    return elsewhere(sites.run, Table.read(sites.site))


def test_the_own_test_is_the_one_of_the_report(sites, result):
    metrics = json.loads((sites.run / "evaluation" / "metrics.json").read_text())["findings"]["Pneumonia"]

    row = result.external.contrasts["Pneumonia"]
    for name in external.METRICS:
        told = row[name].internal.to_dict()
        assert told["value"] == pytest.approx(metrics[name]["value"])
        assert (told["low"], told["high"]) == pytest.approx((metrics[name]["low"], metrics[name]["high"]))
    assert result.external.internal.images == 200
    assert result.external.internal.data == "own"


def test_the_drop_is_told_with_its_interval(result):
    difference = result.external.contrasts["Pneumonia"]["auroc"].difference

    assert difference.low < difference.value < difference.high < 0
    assert any(
        line.startswith("AUROC is lower than on the model's own test: Pneumonia")
        for line in map(str, result.warnings)
    )
    stored = json.loads(json.dumps(result.metrics, allow_nan=False))["external"]
    assert stored["comparison"]["Pneumonia"]["auroc"]["difference"]["value"] == difference.value
    assert stored["internal"]["patients"] == 100
    assert not result.metrics["internal"]


def test_a_ranking_that_is_worse_than_chance_is_told_before_all_else(sites):
    table = Table.read(sites.site)
    turned = table.frame.assign(Pneumonia=1 - table.frame["Pneumonia"])

    found = elsewhere(sites.run, replace(table, frame=turned))

    first, shown = str(found.warnings[0]), summary.section(found)
    assert found.metrics["findings"]["Pneumonia"]["auroc"]["high"] < 0.5
    assert first.startswith("Worse than chance: Pneumonia (AUROC 0.")
    assert shown.blocks[0].tiles[0].remark == "Pneumonia: worse than chance"
    said = " ".join(summary.failures(found))
    assert "too extreme" not in said
    assert "not surely above" not in said


def test_what_the_bundle_has_not_seen_is_named(result):
    found = {one.name: one for one in result.external.unseen}

    assert (found["source"].images, found["view"].images, found["size"].images) == (300, 300, 0)
    assert (found["view"].trained, found["view"].here) == ("PA", "AP 300")
    assert 0 < found["age"].images < 300
    assert found["age"].trained == "20 to 60 years"
    assert found["size"].here == "40 pixels at the shorter side"
    told = next(line for line in map(str, result.warnings) if line.startswith("Not seen in training"))
    assert "source site (all 300 images; training: own)" in told
    assert "size" not in told


def test_what_the_bundle_does_not_tell_is_named():
    frame = pd.DataFrame({"source": ["s"], "view": [""], "age": [7.0], "width": [30], "height": [20]})
    seen = external.Seen(sources=("s",), views=(), ages=None, typical_distance=1.0)

    found = external.External({}, (), external.unseen(frame, np.array([0.5]), seen), None, reason="none")

    assert {one.name: one.images for one in found.unseen} == {
        "source": 0, "view": None, "age": None, "size": None, "likeness": 0,
    }  # fmt: skip
    told, compared = map(str, external.external_notices(found))
    assert told.endswith("images' ages (here 7 years) and sizes (here 20 pixels at the shorter side).")
    assert compared == "No comparison with the model's own test: none."


def test_the_report_elsewhere_never_takes_the_place_of_the_own_one(sites, result):
    subject = evaluate.subject(sites.run, Table.read(sites.site))

    assert subject.output() == sites.run / "evaluation"
    assert subject.output(result) == sites.run / "external" / "site"
    assert subject.output(replace(result, split="val")) == sites.run / "external" / "site-val"
    alone = replace(subject, run=None)
    assert alone.output(result) == sites.run / "bundle-external" / "site"
    assert alone.output() == sites.run / "bundle-evaluation"


def test_another_part_never_takes_the_place_of_the_own_test(sites):
    subject = evaluate.subject(sites.run)

    found = evaluate.evaluate(subject, split="val", replicates=100)

    assert subject.output(found) == subject.output(split="val") == sites.run / "evaluation-val"
    assert subject.output(split="train") == sites.run / "evaluation-train"
    assert subject.output(split="all") == sites.run / "evaluation-all"


def test_data_from_elsewhere_are_all_scored_unless_a_part_is_asked_for(sites):
    table = Table.read(sites.site)
    subject = evaluate.subject(sites.run, table.with_split(["train"] * 240 + ["test"] * 60))
    more = "240 more labelled images of it are left out (--split all scores them too)"

    every = evaluate.evaluate(subject, replicates=100)
    part = evaluate.evaluate(subject, split="test", replicates=100)

    assert (every.split, len(every.images)) == ("all", 300)
    assert not any("left out" in line for line in map(str, every.warnings))
    assert (part.split, len(part.images)) == ("test", 60)
    assert any(more in line for line in map(str, part.warnings))


def test_beside_another_source_the_own_test_is_named_and_training_is_not_scored(sites):
    own, site = Table.read(sites.run / "table.parquet"), Table.read(sites.site)
    frame = pd.concat([own.frame, site.frame.assign(split="test")], ignore_index=True)
    both = Table(frame, own.findings, (*own.sources, *site.sources))

    found = evaluate.evaluate(evaluate.subject(sites.run, both), replicates=100)
    told = " ".join(map(str, found.warnings))

    assert (found.split, len(found.images), found.external.shared_images) == ("test", 500, 200)
    assert (
        "Not seen in training: source site (300 of 500 images; training: own); view AP 300 (300 of 500"
        in told
    )
    assert "200 of the 500 images are the model's own test itself" in told
    assert "understated; evaluate site alone." in told
    assert "of own, which the model was trained on, and of site, which it was not" in found.split_description
    lead = external_section.section(found).lead
    assert "200 of them the model's own test, 300 of site, which the model was not trained on." in lead


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


def test_no_image_is_prepared_that_is_not_scored(sites, prepared):
    table = Table.read(sites.site)
    split = ["train"] * 240 + ["test"] * 60

    evaluate.evaluate(evaluate.subject(sites.run, table.with_split(split)), split="test", replicates=100)
    evaluate.evaluate(evaluate.subject(sites.run), split="val", replicates=100)
    own = Table.read(sites.own)
    again = evaluate.subject(sites.run, own.with_split([""] * len(own)))
    found = evaluate.evaluate(again, replicates=100)

    assert prepared == [60, 100, 200]
    assert found.external is None
    assert found.split == "test"


def test_own_data_are_known_again_though_images_went_into_quarantine_at_training(sites, tmp_path):
    run = shutil.copytree(sites.run, tmp_path / "run")
    own = Table.read(sites.own)
    broken = own.select(np.arange(len(own)) < 2)
    frame = broken.frame.assign(image=["=broken.png", "other.png"], split="")
    whole = Table(
        pd.concat([own.frame.assign(split=""), frame], ignore_index=True), own.findings, own.sources
    )
    missing = evaluate.subject(run, whole)
    assert evaluate.evaluate(missing, split="all", replicates=100).external is not None

    (run / "quarantine.csv").write_text("image,reason\n'=broken.png,no image\nother.png,no image\n")

    found = evaluate.evaluate(missing, split="all", replicates=100)
    assert found.external is None
    assert len(found.images) == len(own)


def test_own_data_are_known_again_by_a_bundle_away_from_its_run(sites, tmp_path):
    shutil.copytree(sites.run / "bundle", tmp_path / "alone")
    own = Table.read(sites.own)

    found = evaluate.evaluate(evaluate.subject(tmp_path / "alone", own), replicates=100)
    fewer = evaluate.evaluate(
        evaluate.subject(tmp_path / "alone", own.select(np.arange(len(own)) > 0)), replicates=100
    )

    assert found.external is None
    assert fewer.external is not None


def test_a_bundle_alone_has_nothing_to_compare_with_unless_it_is_named(sites, tmp_path):
    shutil.copytree(sites.run / "bundle", tmp_path / "alone")
    table = Table.read(sites.site)

    without = elsewhere(tmp_path / "alone", table)
    named = elsewhere(tmp_path / "alone", table, internal=sites.run)

    assert without.external.contrasts == {}
    assert "--internal" in without.external.reason
    assert named.external.contrasts["Pneumonia"]["auroc"].internal.value is not None
    with pytest.raises(UsageError, match="holds no report"):
        elsewhere(tmp_path / "alone", table, internal=tmp_path)


def test_a_report_of_something_else_is_refused(sites, tmp_path):
    shutil.copytree(sites.run / "evaluation", tmp_path / "evaluation")
    stored = tmp_path / "evaluation" / "metrics.json"
    metrics = json.loads(stored.read_text())
    table = Table.read(sites.site)

    for change, message in (
        ({"bundle": "f" * 64}, "is the report of bundle ffffffff"),
        ({"split": "val"}, "not the report of the model's own test"),
        ({"internal": False}, "not the report of the model's own test"),
    ):
        stored.write_text(json.dumps(metrics | change))
        with pytest.raises(UsageError, match=message):
            elsewhere(sites.run, table, internal=tmp_path)
    for content in ("[]", "{}", "no json"):
        stored.write_text(content)
        with pytest.raises(DataError, match="holds no whole report"):
            elsewhere(sites.run, table, internal=tmp_path)


def test_children_of_a_finding_answer_for_it(sites):
    table = Table.read(sites.site)
    present = table.frame["Pneumonia"].to_numpy()
    odd = np.arange(len(table)) % 2
    frame = table.frame.drop(columns="Pneumonia").assign(
        **{"Bacterial Pneumonia": present * odd, "Viral Pneumonia": present * (1 - odd)}
    )
    apart = Table(frame, ("Bacterial Pneumonia", "Viral Pneumonia"), table.sources)

    found = elsewhere(sites.run, apart)

    assert found.metrics["findings"]["Pneumonia"]["positives"] == int(present.sum())
    assert "Pneumonia is read from Bacterial Pneumonia and Viral Pneumonia." in map(str, found.warnings)
    assert found.metrics["external"]["read_from"] == {"Pneumonia": ["Bacterial Pneumonia", "Viral Pneumonia"]}


def test_images_of_training_under_another_division_are_told(sites):
    own = Table.read(sites.own)
    some = own.select(np.arange(len(own)) % 3 > 0)

    found = elsewhere(sites.run, some)

    assert found.external is not None
    assert found.external.shared_patients > 0
    assert any(
        "images are of patients that the model was trained or tuned on" in line
        for line in map(str, found.warnings)
    )
    shared = found.external.shared_images
    assert 0 < shared < 200
    assert f"{shared} of the {len(found.images)} images are the model's own test itself" in " ".join(
        map(str, found.warnings)
    )
    assert not any(line.startswith("Not seen in training: source") for line in map(str, found.warnings))
    assert "not the data that the model" not in found.split_description


def test_without_images_known_to_be_normal_the_reader_is_told(sites):
    table = Table.read(sites.site)
    frame = table.frame.assign(Mass=np.nan)
    frame = frame[[*table.frame.columns[:-1], "Pneumonia", "Mass"]]

    found = elsewhere(sites.run, Table(frame, ("Pneumonia", "Mass"), table.sources))

    assert found.metrics["findings"]["Pneumonia"]["negatives"] == 0
    assert any("which are this model's negatives" in line for line in map(str, found.warnings))


@pytest.fixture(scope="module")
def several(make_sites, write_own_test):
    """A model of three findings at a site that knows two, and its own test."""
    made = make_sites(("Edema", "Hernia", "Mass"))
    write_own_test(evaluate.evaluate(evaluate.subject(made.run), replicates=200), made.run / "evaluation")
    table = Table.read(made.site)
    frame = table.frame.drop(columns="Hernia")
    return elsewhere(made.run, Table(frame, ("Edema", "Mass"), table.sources))


def test_findings_that_the_site_does_not_know_are_left_out(several):
    assert several.findings == ("Edema", "Mass")
    assert several.probabilities.shape == several.logits.shape == (300, 2)
    assert several.external.missing == ("Hernia",)
    assert "Not known to this data set, and not scored: Hernia." in map(str, several.warnings)
    assert set(several.external.contrasts) == {"Edema", "Mass", external.MEAN}
    assert {case.finding for case in several.cases} <= {"Edema", "Mass"}
    mean = several.external.contrasts[external.MEAN]["auroc"]
    assert mean.internal.value == pytest.approx(several.external.contrasts["Edema"]["auroc"].internal.value)


def test_classes_are_compared_by_their_accuracy(classes, write_own_test, tmp_path):
    table = Table.read(classes.table)
    run = tmp_path / "run"
    shutil.copytree(classes.bundle, run / "bundle")
    (run / "recipe.toml").touch()
    subject = evaluate.subject(run, table)
    own = evaluate.evaluate(subject, replicates=200)
    write_own_test(own, run / "evaluation")
    there = replace(table.sources[0], name="there")
    moved = Table(
        table.frame.assign(source="there", patient=table.frame["patient"] + "x"), table.findings, (there,)
    )

    found = elsewhere(run, moved.select(np.arange(len(moved)) % 3 > 0))

    accuracy = found.external.contrasts[external.MEAN][external.ACCURACY]
    assert accuracy.internal.value == own.scores.accuracy.value
    assert accuracy.difference.low < 0 < accuracy.difference.high
    assert "Accuracy: " in external_section.section(found).tables[0].caption


@pytest.mark.parametrize("which", ["result", "several"])
def test_the_page_has_its_section(which, request, tmp_path):
    evaluation = replace(request.getfixturevalue(which), cases=())

    page.write(tmp_path, evaluation)

    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    name = "Pneumonia" if which == "result" else external.MEAN
    difference = evaluation.external.contrasts[name]["auroc"].difference.to_dict()
    assert "against the model's own test" in text.replace("&#39;", "'")
    assert formatting.estimate(difference) in text
    assert "What the model had seen, and what is here" in text
    assert (tmp_path / "plots" / "external.png").stat().st_size > 10_000
    assert "Subgroups, and what metadata alone tell" in text
    assert (tmp_path / "subgroups.csv").read_text(encoding="utf-8").startswith("factor,level,finding,images")
    assert formatting.value(difference) in (tmp_path / "model_card.md").read_text(encoding="utf-8")


def test_the_command_shows_the_difference_and_where_the_report_is(sites, monkeypatch):
    monkeypatch.setattr(page, "write", lambda folder, _evaluation: folder / "report.html")

    printed = CliRunner().invoke(app, ["evaluate", str(sites.run), "--data", str(sites.site)])
    refused = CliRunner().invoke(app, ["evaluate", str(sites.run), "--internal", str(sites.run)])

    assert printed.exit_code == 0, printed.output
    assert "difference (95 %)" in printed.stdout
    assert f"report: {sites.run / 'external' / 'site' / 'report.html'}" in printed.stdout
    assert "warning: Not seen in training: source site" in printed.stderr
    assert "give those with --data" in str(refused.exception)


def test_the_own_test_has_no_such_section(result):
    assert external_section.section(replace(result, external=None)) is None
