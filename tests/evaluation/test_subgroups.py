"""Subgroups: they divide the images, tell what the subset alone would tell, and name what was planted."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import expit

from hilum import stats
from hilum.bundle import DecisionRule
from hilum.data import readers
from hilum.data.table import Source, Table, make_frame
from hilum.evaluation.subgroups import Subgroups, subgroups
from hilum.recipe.findings import NIH_FINDINGS
from hilum.report.evaluation.disparities import disparity_sentences, named


def simulated(
    seed=0,
    *,
    patients=200,
    findings=("Pneumonia",),
    prevalence=0.3,
    strength=1.5,
    sites=2,
    images=3,
    **columns,
):
    """A table, its labels, probabilities and patients; `columns` replace those of the table."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, images + 1, patients))
    count = len(who)
    labels = (rng.random((count, len(findings))) < prevalence).astype(float)
    probabilities = expit(rng.normal(size=labels.shape) + strength * labels - 1)
    known = {
        "view": rng.choice(["PA", "AP", ""], count, p=[0.5, 0.4, 0.1]),
        "sex": rng.choice(["F", "M"], patients)[who],
        "age": rng.uniform(0, 95, patients)[who],
        **columns,
    }
    frame = make_frame(
        image=[f"{number:05d}.png" for number in range(count)],
        source=[f"site{number % sites}" for number in who],
        patient=who.astype(str),
        findings=findings,
        labels=labels,
        **known,
    )
    sources = tuple(
        Source(f"site{number}", Path("/nowhere"), "Somebody 2020", "free") for number in range(sites)
    )
    return (
        Table(frame, findings, sources),
        labels,
        probabilities,
        (frame["source"] + ":" + frame["patient"]).to_numpy(str),
    )


def divide(table, labels, probabilities, patients, *, threshold=0.4) -> Subgroups:
    thresholds = np.full(labels.shape[1], threshold)
    scores = stats.evaluate(
        labels,
        probabilities,
        thresholds=thresholds,
        findings=table.findings,
        resampling=stats.Resampling(clusters=patients, replicates=100),
    )
    return subgroups(
        table,
        labels,
        probabilities,
        decision=DecisionRule(tuple(thresholds)),
        patients=patients,
        scores=scores,
    )


def level(found, factor, name):
    levels = next(one.levels for one in found.factors if one.name == factor)
    return next(one for one in levels if one.name == name)


def rows_of(table, factor, name):
    """Which rows a level has, written anew."""
    frame = table.frame
    if factor == "age":
        low, high = {"under 2": (0, 2), "2–11": (2, 12), "12–17": (12, 18), "18–39": (18, 40), "40–59": (40, 60),
                     "60–79": (60, 80), "80 and over": (80, 200)}[name]  # fmt: skip
        return ((frame["age"] >= low) & (frame["age"] < high)).to_numpy()
    value = {"female": "F", "male": "M", "unknown": ""}.get(name, name)
    return (frame[factor] == value).to_numpy()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_levels_divide_the_images(seed):
    table, *scored = simulated(seed, patients=60)

    found = divide(table, *scored)

    for factor in found.factors:
        masks = [rows_of(table, factor.name, one.name) for one in factor.levels]
        assert (np.sum(masks, axis=0) == 1).all()
        assert [one.images for one in factor.levels] == [mask.sum() for mask in masks]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_a_level_tells_what_its_images_alone_would_tell(seed):
    table, labels, probabilities, patients = simulated(seed)

    found = divide(table, labels, probabilities, patients)

    for factor in found.factors:
        for one in factor.levels:
            rows = rows_of(table, factor.name, one.name)
            here = one.findings["Pneumonia"]
            alone = stats.evaluate(
                labels[rows],
                probabilities[rows],
                thresholds=0.4,
                resampling=stats.Resampling(clusters=patients[rows], replicates=100),
            ).findings["finding 1"]
            assert (here.positives, here.negatives) == (alone.positives, alone.negatives)
            assert (here.positive_patients, here.negative_patients) == (
                alone.positive_patients,
                alone.negative_patients,
            )
            for name, enough in (
                ("sensitivity", here.positive_patients), ("specificity", here.negative_patients)
            ):  # fmt: skip
                if enough < 10:
                    assert here.metrics[name].value is None
                    continue
                ends = (alone.metrics[name].value, alone.metrics[name].low, alone.metrics[name].high)
                assert (here.metrics[name].value, here.metrics[name].low, here.metrics[name].high) == ends
            if one.auroc.value is None:
                assert min(here.positive_patients, here.negative_patients) < 10
                continue
            assert one.auroc.value == pytest.approx(alone.metrics["auroc"].value, abs=1e-12)
            rest = stats.evaluate(
                labels[~rows], probabilities[~rows], resampling=stats.Resampling(replicates=100)
            ).findings["finding 1"]
            expected = one.auroc.value - rest.metrics["auroc"].value
            assert one.difference.value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_rows_does_not_matter(seed):
    table, labels, probabilities, patients = simulated(seed, patients=80)
    order = np.random.default_rng(seed).permutation(len(labels))
    turned = replace(table, frame=table.frame.iloc[order].reset_index(drop=True))

    first = divide(table, labels, probabilities, patients)
    second = divide(turned, labels[order], probabilities[order], patients[order])

    assert close(first.to_dict(), second.to_dict())
    assert disparity_sentences(first) == disparity_sentences(second)


def close(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    return second == (pytest.approx(first, abs=1e-9) if isinstance(first, float) else first)


def test_a_site_that_is_random_is_found_and_named_and_divisions_that_are_the_same_count_once():
    table, labels, probabilities, patients = simulated(patients=300, view="PA", sex="")
    site = (table.frame["source"] == "site1").to_numpy()
    table = replace(table, frame=table.frame.assign(age=np.where(site, np.nan, 30.0)))
    probabilities = labels * 0.98 + 0.01
    probabilities[site] = np.random.default_rng(1).random((site.sum(), 1))

    found = divide(table, labels, probabilities, patients)
    first = disparity_sentences(found)[0]

    assert found.comparisons == 1  # by source and by age, of which only one site's is known
    assert level(found, "source", "site0").auroc.value == 1
    assert level(found, "source", "site0").auroc.low is None
    assert level(found, "source", "site1").holm_p < 0.001
    assert "AUROC differs from the rest in" in first
    assert "source site1: 0.443, lower by 0.557" in first
    assert "site0" not in first
    assert "unknown age" not in first
    assert "(of 1 comparison; each interval is of that level alone, p after Holm's" in first


@pytest.mark.parametrize(("sicker", "side"), [("AP", "above"), ("PA", "below")])
def test_a_view_that_tells_of_the_label_is_seen_in_the_figure_of_all_images(sicker, side):
    table, labels, probabilities, patients = simulated(
        patients=600, strength=0.5, sex="", age=np.nan, sites=1
    )
    chance = np.random.default_rng(0).random(len(labels))
    other = "PA" if sicker == "AP" else "AP"
    view = np.where(chance < np.where(labels[:, 0] == 1, 0.85, 0.15), sicker, other)
    shifted = expit(3 * (view == "AP")[:, None] + np.log(probabilities / (1 - probabilities)))

    found = divide(replace(table, frame=table.frame.assign(view=view)), labels, shifted, patients)
    told = [line for line in disparity_sentences(found) if "of all images together" in line]

    assert len(told) == 1
    assert f"lies {side} that of every view" in told[0]
    decisions = next(line for line in disparity_sentences(found) if line.startswith("At the threshold"))
    assert re.search(r"sensitivity 0\.\d+ \(.*\) in PA view against [01]\.\d+ \(.*\) in AP view", decisions)
    plain = divide(replace(table, frame=table.frame.assign(view=view)), labels, probabilities, patients)
    assert not any("of all images together" in line for line in disparity_sentences(plain))


def test_of_equal_levels_hardly_any_set_of_images_has_one_that_differs():
    named_in = sum(
        any(
            "differs from the rest" in line
            for line in disparity_sentences(divide(*simulated(seed, patients=150)))
        )
        for seed in range(40)
    )

    assert named_in <= 6  # 5 % of 40 are 2


def test_a_level_that_is_too_small_has_no_figure():
    table, labels, probabilities, patients = simulated(view="PA")
    frame = table.frame.copy()
    frame.loc[:7, "view"] = "LATERAL"
    found = divide(replace(table, frame=frame), labels, probabilities, patients)
    small, large = level(found, "view", "LATERAL"), level(found, "view", "PA")

    assert small.findings["Pneumonia"].positive_patients < 10
    for estimate in (small.auroc, small.difference, *small.findings["Pneumonia"].metrics.values()):
        assert (estimate.value, estimate.low) == (None, None)
        assert "too small: " in estimate.reason
    assert small.p_value is None
    assert large.auroc.value is not None
    assert "the rest is too small" in large.difference.reason


def test_a_view_without_normals_keeps_its_sensitivity_which_is_told_where_it_fails():
    table, labels, probabilities, patients = simulated(sites=1, sex="", age=np.nan, images=1, prevalence=0.5)
    pa = (table.frame["view"] == "PA").to_numpy() & (labels[:, 0] == 1)
    table = replace(table, frame=table.frame.assign(view=np.where(pa, "PA", "AP")))
    probabilities[pa] = 0.1

    found = divide(table, labels, probabilities, patients)
    here = level(found, "view", "PA").findings["Pneumonia"].metrics

    assert here["auroc"].reason == "too small: 0 patients without the finding"
    assert here["sensitivity"].value == 0
    assert here["specificity"].reason == "too small: 0 patients without the finding"
    assert any(
        "sensitivity 0.000 (0.000–" in line and "in PA view against" in line
        for line in disparity_sentences(found)
    )


def test_a_figure_of_all_far_from_the_only_level_that_can_be_scored_is_told_once():
    table, labels, probabilities, patients = simulated(view="PA", strength=0.3, images=1, prevalence=0.5)
    other = np.zeros(len(labels), bool)
    other[np.flatnonzero(labels[:, 0] == 0)[:60]] = True  # normal all of them, and called so
    probabilities[other] = 0.01
    frame = table.frame.assign(
        source=np.where(other, "site1", "site0"), sex="", view=np.where(other, "AP", "PA")
    )
    frame["age"] = np.nan

    found = divide(replace(table, frame=frame), labels, probabilities, patients)
    told = [line for line in disparity_sentences(found) if "of all images together" in line]

    assert len(told) == 1
    assert re.search(r"lies above that of source site0 \(0\.\d+\), the only level of source", told[0])


def test_levels_that_are_the_very_same_images_are_known_and_told_of_once():
    table, labels, probabilities, patients = simulated(view="PA", age=np.nan)
    site = (table.frame["source"] == "site1").to_numpy()
    table = replace(table, frame=table.frame.assign(sex=np.where(site, "", table.frame["sex"])))
    probabilities[site] = 0.01

    found = divide(table, labels, probabilities, patients)

    assert level(found, "sex", "unknown").same_as == ("source", "site1")
    assert [one.same_as for one in found.factors[0].levels] == [None, None]
    stored = found.to_dict()["factors"]["sex"]["levels"]
    assert {name: one["same_images_as"] for name, one in stored.items()} == {
        "female": None, "male": None, "unknown": "source site1",
    }  # fmt: skip
    decisions = next(line for line in disparity_sentences(found) if line.startswith("At the threshold"))
    assert decisions.count("sensitivity") == 1
    assert "unknown sex" not in decisions


def test_metadata_that_tell_less_than_chance_do_not_flatter_the_model():
    found = divide(*simulated(1, strength=0, patients=60))
    one = found.baseline["Pneumonia"]

    assert one.metadata.value < 0.5
    assert one.difference.value == pytest.approx(one.model.value - 0.5)
    assert (one.difference.low, one.difference.high) == pytest.approx(
        (one.model.low - 0.5, one.model.high - 0.5)
    )
    assert "is not surely above chance, 0.5" in disparity_sentences(found)[-1]


def test_what_does_not_differ_is_told_as_the_same():
    found = divide(*simulated(sites=1, view="", sex="", age=np.nan))

    assert found.factors == ()
    assert found.same == {"source": "site0", "view": "unknown", "sex": "unknown", "age": "unknown"}
    assert found.comparisons == 0
    assert found.baseline["Pneumonia"].metadata.reason == "unknown"
    assert disparity_sentences(found) == ()


def test_ages_at_the_edges_of_bands():
    edges = [0, 1.99, 2, 11.99, 12, 17.99, 18, 39.99, 40, 59.99, 60, 79.99, 80, 120]
    table, *scored = simulated(patients=14, images=1, age=edges)

    found = divide(table, *scored)

    ages = next(one for one in found.factors if one.name == "age")
    assert {one.name: one.images for one in ages.levels} == dict.fromkeys(
        ("under 2", "2–11", "12–17", "18–39", "40–59", "60–79", "80 and over"), 2
    )


def test_a_mean_is_over_the_findings_that_every_level_with_a_mean_can_be_scored_for():
    findings = NIH_FINDINGS[:3]
    table, labels, probabilities, patients = simulated(patients=400, findings=findings)
    labels[(table.frame["view"] == "AP").to_numpy(), 2] = 0
    few = (table.frame["view"] == "").to_numpy()
    labels[few, :2] = 0  # of three findings one is left: it has no mean

    found = divide(table, labels, probabilities, patients)
    factor = next(one for one in found.factors if one.name == "view")
    pa = level(found, "view", "PA")

    assert factor.common == findings[:2]
    assert pa.auroc.value == pytest.approx(
        np.mean([pa.findings[finding].metrics["auroc"].value for finding in factor.common])
    )
    assert pa.findings[findings[2]].metrics["auroc"].value is not None
    assert level(found, "view", "unknown").auroc.value is None
    assert level(found, "view", "unknown").auroc.reason == "too small: 1 of 3 findings can be scored"


def test_metadata_that_tell_the_label_are_set_beside_a_model_that_does_not():
    table, labels, probabilities, patients = simulated(strength=0)
    table = replace(table, frame=table.frame.assign(view=np.where(labels[:, 0] == 1, "AP", "PA")))
    noise = np.random.default_rng(0).random(len(labels)) < 0.2
    table.frame.loc[noise, "view"] = "PA"

    found = divide(table, labels, probabilities, patients)
    one = found.baseline["Pneumonia"]

    assert one.metadata.value > 0.8
    assert one.difference.high < 0
    assert "not surely above what metadata tell" in disparity_sentences(found)[-1]
    assert f"view, age, sex: {one.metadata.value:.3f}" in disparity_sentences(found)[-1]


def test_classes_have_an_accuracy_and_may_be_called_no_finding():
    table, _, _, patients = simulated(patients=300, findings=NIH_FINDINGS[:2])
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, len(table))
    labels = (truth[:, None] == np.arange(3)).astype(float)
    weights = np.exp(rng.normal(size=labels.shape) + 1.5 * labels)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    names = ("No Finding", "Bacterial Pneumonia", "Viral Pneumonia")
    scores = stats.evaluate_classes(
        truth, probabilities, names=names, resampling=stats.Resampling(clusters=patients, replicates=100)
    )

    found = subgroups(
        table, labels, probabilities, decision=DecisionRule(None), patients=patients, scores=scores
    )
    rows = rows_of(table, "sex", "female")
    female = level(found, "sex", "female")
    alone = stats.evaluate_classes(
        truth[rows],
        probabilities[rows],
        names=names,
        resampling=stats.Resampling(clusters=patients[rows], replicates=100),
    )

    assert tuple(found.baseline) == names
    assert (female.accuracy.value, female.accuracy.low) == (alone.accuracy.value, alone.accuracy.low)
    assert female.auroc.value == pytest.approx(alone.classes.macro.metrics["auroc"].value, abs=1e-12)


@pytest.mark.parametrize(
    ("factor", "name", "expected"),
    [
        ("source", "nih", "source nih"), ("view", "AP", "AP view"), ("sex", "female", "female patients"),
        ("age", "40–59", "age 40–59"), ("sex", "unknown", "unknown sex"),
    ],
)  # fmt: skip
def test_levels_are_named_in_plain_words(factor, name, expected):
    found = divide(*simulated())
    one = replace(found.factors[0], name=factor)

    assert named(one, replace(found.factors[0].levels[0], name=name)) == expected


def test_real_radiographs_have_their_levels(shared_data):
    table = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    labels = table.labels(["Infiltration"])
    scores = np.random.default_rng(0).random(labels.shape)
    patients = (table.frame["source"] + ":" + table.frame["patient"]).to_numpy(str)
    whole = stats.evaluate(
        labels,
        scores,
        findings=["Infiltration"],
        resampling=stats.Resampling(clusters=patients, replicates=100),
    )

    found = subgroups(table, labels, scores, decision=DecisionRule((0.5,)), patients=patients, scores=whole)

    levels = {factor.name: [one.name for one in factor.levels] for factor in found.factors}
    assert levels["view"] == ["PA", "AP"]
    assert levels["sex"] == ["female", "male"]
    assert {"18–39", "40–59", "60–79"} <= set(levels["age"])
    assert found.same == {"source": "nih"}
    assert found.baseline["Infiltration"].alone["view"].value > 0.5
