"""Numbers of hand-made tables, and laws that hold for any."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hilum.data import phantom
from hilum.data.exploration import explore
from hilum.data.label_statistics import AGE_STEP, ALL
from hilum.data.readers import read
from hilum.data.table import Source, Table, make_frame
from hilum.errors import UsageError

NAN = float("nan")


def make(tmp_path, labels, *, findings=("Effusion", "Edema"), boxes=None, **columns):
    rows = len(labels)
    frame = make_frame(
        image=[f"{row}.png" for row in range(rows)],
        source="made",
        findings=findings,
        labels=np.array(labels, float).reshape(rows, len(findings)),
        **{"patient": [f"p{row}" for row in range(rows)], **columns},
    )
    table = Table(frame, findings, (Source("made", tmp_path, "Somebody 2020", "free"),))
    return table if boxes is None else dataclasses.replace(table, boxes=boxes)


def shuffled(table, seed):
    order = np.random.default_rng(seed).permutation(len(table))
    return dataclasses.replace(table, frame=table.frame.iloc[order].reset_index(drop=True))


def by_name(rows):
    return {each.name: each for each in rows}


def test_classes_are_counted_with_patients_and_parts(tmp_path):
    table = make(
        tmp_path,
        [[1, 1], [1, 0], [0, 0], [NAN, 0], [0, 0]],
        patient=["a", "a", "b", "c", "d"],
        split=["train", "train", "train", "test", "test"],
    )

    found = explore(table)

    assert found.reference == "No Finding"
    assert found.splits == {"train": (3, 2), "test": (2, 2)}
    classes = by_name(found.classes)
    assert list(classes) == ["No Finding", "Effusion", "Edema"]
    effusion = classes["Effusion"]
    assert (effusion.present, effusion.absent, effusion.unknown, effusion.patients) == (2, 2, 1, 1)
    assert effusion.splits == {"train": (2, 3), "test": (0, 1)}
    nothing = classes["No Finding"]
    assert (nothing.present, nothing.absent, nothing.unknown, nothing.patients) == (2, 2, 1, 2)


def test_co_occurrence_leaves_out_what_is_unknown(tmp_path):
    labels = [[1, 1], [1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, NAN]]

    together = explore(make(tmp_path, labels)).together

    assert together.findings == ("Effusion", "Edema")
    assert together.both.tolist() == [[4, 2], [2, 3]]
    assert together.known.tolist() == [[7, 6], [6, 6]]
    assert together.share[0, 1] == pytest.approx(
        2 / 3
    )  # of three with an effusion of which the edema is known
    assert together.share[1, 0] == pytest.approx(2 / 3)
    assert together.expected[0, 1] == pytest.approx(3 * 3 / 6)
    assert together.lift[0, 1] == pytest.approx(2 / 1.5)
    assert together.num_findings == {0: 2, 1: 3, 2: 2}


def test_two_data_sets_do_not_make_findings_go_together(tmp_path):
    def rows(effusion, edema, number=100):
        return [[a < effusion, b < edema] for a in range(0, 100, 10) for b in range(0, 100, number // 10)]

    ill, well = rows(80, 80), rows(20, 20)
    unknown = [[1, NAN]] * 300
    source = ["ill"] * len(ill) + ["well"] * len(well) + ["blind"] * len(unknown)
    sources = tuple(Source(name, tmp_path, "", "") for name in ("ill", "well", "blind"))
    table = make(tmp_path, ill + well)
    frame = make_frame(
        image=[f"{row}.png" for row in range(len(source))],
        source=source,
        patient=[f"p{row}" for row in range(len(source))],
        findings=table.findings,
        labels=np.array(ill + well + unknown, float),
    )

    apart = explore(Table(frame, table.findings, sources)).together
    as_one = explore(table).together

    assert as_one.lift[0, 1] == pytest.approx((64 + 4) / (100 * 100 / 200)), "the mixture alone"
    assert apart.lift[0, 1] == pytest.approx(1), "within each, one tells nothing of the other"
    assert apart.expected[0, 1] == pytest.approx(64 + 4)
    assert apart.known[0, 1] == 200
    assert apart.pairs == "200 images"


@pytest.mark.parametrize(
    ("source", "age", "expected"),
    [
        ("made", [3, 4, 60, NAN], (2, 1)),
        ("kermany", [NAN] * 4, (4, 0)),
        ("kermany", [60, 3, NAN, NAN], (3, 1)),
    ],
)
def test_who_is_filmed_ap_is_known_by_age_or_by_the_data_set(tmp_path, source, age, expected):
    table = make(tmp_path, [[0, 0]] * 5, view=["AP"] * 4 + ["PA"], age=[*age, 2])
    frame = table.frame.assign(source=source)
    table = dataclasses.replace(table, frame=frame, sources=(Source(source, tmp_path, "", ""),))

    found = explore(table).taken_ap

    assert (found.children, found.adults, found.images) == (*expected, 4)


def test_a_single_finding_is_compared_with_its_absence_and_not_with_health(tmp_path):
    found = explore(make(tmp_path, [1, 0, 0], findings=("Mass",)))

    assert found.reference == "Mass absent"
    assert found.together is None


def test_ages_are_of_patients_at_their_first_image(tmp_path):
    table = make(
        tmp_path,
        [[1, 0], [0, 0], [0, 1], [0, 0]],
        patient=["a", "a", "b", "c"],
        age=[62.0, 59.0, 4.0, NAN],
        sex=["F", "F", "", "M"],
    )

    ages = explore(table).ages

    assert ages.sexes == ("F", "unknown")
    counts = dict(zip(ages.sexes, ages.patients, strict=True))
    assert np.flatnonzero(counts["F"]).tolist() == [59 // AGE_STEP]
    assert np.flatnonzero(counts["unknown"]).tolist() == [4 // AGE_STEP]
    assert ages.quartiles == pytest.approx((17.75, 31.5, 45.25))
    assert by_name(ages.years)[ALL].count == 3


def test_views_and_sexes_are_shared_out_among_what_is_known(tmp_path):
    table = make(
        tmp_path, [[1, 0], [1, 0], [0, 0], [0, 0]], view=["AP", "", "PA", "AP"], sex=["F", "M", "M", "M"]
    )

    found = explore(table)

    assert found.views.values == ("PA", "AP", "unknown")
    assert found.views.classes == (ALL, "No Finding", "Effusion")
    assert found.views.counts.tolist() == [[1, 2, 1], [1, 1, 0], [0, 1, 1]]
    assert found.views.share("AP").tolist() == pytest.approx([2 / 3, 1 / 2, 1])
    assert found.sexes.share("F").tolist() == pytest.approx([1 / 4, 0, 1 / 2])


def test_follow_ups_are_images_a_patient(tmp_path):
    patients = ["a"] * 7 + ["b"] * 2 + ["c", "d"]
    labels = [[1, 0]] * 7 + [[1, NAN], [0, NAN], [0, 0], [0, 1]]

    found = explore(make(tmp_path, labels, patient=patients)).follow_ups

    bins = {(each.first, each.last): each for each in found.visits}
    assert found.most == 7
    assert list(bins) == [(1, 1), (2, 2), (3, 3), (4, 5), (6, 10)]
    assert (bins[6, 10].patients, bins[6, 10].images, bins[6, 10].with_finding) == (1, 7, 7)
    assert (bins[2, 2].with_finding, bins[2, 2].known) == (1, 1)
    assert (bins[1, 1].patients, bins[1, 1].with_finding, bins[1, 1].known) == (2, 1, 2)


def test_what_one_number_alone_tells_is_an_auroc_against_the_reference(tmp_path):
    ages = [*range(20, 40), *range(30, 50)]
    found = explore(make(tmp_path, [[0, 0]] * 20 + [[1, 0]] * 20, age=[float(age) for age in ages]))

    alone = by_name(found.ages.years)["Effusion"].alone

    above = np.subtract.outer(np.arange(30, 50), np.arange(20, 40))
    assert alone.value == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert alone.low < alone.value < alone.high
    assert by_name(found.ages.years)["No Finding"].alone is None


@pytest.mark.parametrize("number", [1, 9])
def test_few_patients_have_no_interval(tmp_path, number):
    labels = [[0, 0]] * 20 + [[1, 0]] * number
    found = explore(make(tmp_path, labels, age=[50.0 + row for row in range(len(labels))]))

    alone = by_name(found.ages.years)["Effusion"].alone

    assert alone.value == 1
    assert alone.low is None
    assert "fewer than 10 patients" in alone.reason


def test_what_is_not_known_is_none(tmp_path):
    found = explore(make(tmp_path, [[1, 0], [0, 0]]))

    assert (found.ages, found.sexes, found.views, found.sizes, found.follow_ups) == (None,) * 5
    assert (found.splits, found.looks, found.brightness, found.atlas) == ({}, {}, (), ())
    assert (found.num_read, found.num_missing) == (0, 2)


def test_a_table_without_a_row_or_a_finding_is_explored(tmp_path):
    nothing = make(tmp_path, np.zeros((0, 2)))
    unlabelled = make(tmp_path, np.zeros((3, 0)), findings=())

    assert explore(nothing).num_images == 0
    assert explore(unlabelled).classes == ()


def test_a_negative_limit_is_refused(tmp_path):
    with pytest.raises(UsageError, match="limit is -1"):
        explore(make(tmp_path, [[1, 0]]), limit=-1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, NAN]),
            st.sampled_from([0.0, 1.0, NAN]),
            st.sampled_from(["a", "b", "c", "d"]),
            st.sampled_from(["PA", "AP", ""]),
            st.sampled_from(["train", "val", "test", ""]),
            st.sampled_from([NAN, 0.0, 3.5, 80.0]),
            st.sampled_from(["F", "M", "O", ""]),
        ),
        min_size=1,
        max_size=25,
    ),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_counts_add_up_and_no_order_of_the_rows_matters(tmp_path_factory, rows, seed):
    first, second, patient, view, split, age, sex = (list(column) for column in zip(*rows, strict=True))
    table = make(
        tmp_path_factory.getbasetemp(),
        list(zip(first, second, strict=True)),
        patient=patient, view=view, split=split, age=age, sex=sex,
    )  # fmt: skip

    found = explore(table)

    for each in found.classes:
        assert each.present + each.absent + each.unknown == len(rows)
        assert sum(present for present, _ in each.splits.values()) <= each.present
    assert sum(images for images, _ in found.splits.values()) == sum(part != "" for part in split)
    if found.views:
        assert found.views.counts[0].sum() == len(rows)
    if found.follow_ups:
        assert sum(each.images for each in found.follow_ups.visits) == len(rows)
        assert sum(each.patients for each in found.follow_ups.visits) == found.num_patients
    if found.together:
        share = found.together.share
        assert ((share >= 0) & (share <= 1) | np.isnan(share)).all()
        np.testing.assert_array_equal(found.together.both, found.together.both.T)
    if found.ages:
        assert found.ages.patients.sum() <= found.num_patients
    assert explore(shuffled(table, seed)).to_dict() == found.to_dict()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    table = phantom.generate(tmp_path_factory.mktemp("phantoms"), num_images=40, size=64, seed=3)
    return table.with_split(["train"] * 30 + ["test"] * 10)


def test_boxes_cover_what_they_cover(phantoms):
    atlas = explore(phantoms, limit=5).atlas

    for each in atlas:
        own = phantoms.boxes[phantoms.boxes["finding"] == each.finding]
        assert each.boxes == len(own)
        # The mean cover is the mean area, up to the pixels that a box's edges cut.
        assert each.cover.mean() == pytest.approx((own["width"] * own["height"]).mean(), rel=0.1)
        assert 0 <= each.cover.min() <= each.cover.max() <= 1
        assert 0 <= each.left <= 1


def test_a_box_lies_where_it_lies(tmp_path, phantoms):
    frame = phantoms.boxes.iloc[:1].assign(x=0.25, y=0.5, width=0.25, height=0.125)
    found = explore(dataclasses.replace(phantoms, boxes=frame), limit=0).atlas[0]

    assert np.argwhere(found.cover == 1).min(axis=0).tolist() == [128, 64]
    assert np.argwhere(found.cover == 1).max(axis=0).tolist() == [159, 127]
    assert found.left == 1
    assert found.area == pytest.approx(1 / 32)


def test_the_dictionary_is_the_numbers(phantoms):
    found = explore(phantoms, limit=10)
    told = found.to_dict()

    assert told["num_images"] == 40
    assert told["classes"]["Cardiomegaly"]["present"] == by_name(found.classes)["Cardiomegaly"].present
    assert told["pixels"]["read"] == found.num_read
    assert sum(told["pixels"]["histograms"]["No Finding"]) == found.looks["No Finding"].num_images * 256**2
    assert told["sizes"]["most_frequent"] == [{"width": 64, "height": 64, "images": 40}]


@pytest.mark.real
def test_kermany_and_nih_are_as_published(shared_data):
    kermany = explore(read(shared_data / "kermany_224"), limit=20)
    nih = explore(read(shared_data / "nih" / "Data_Entry_2017_v2020.csv"))

    assert {name: images for name, (images, _) in kermany.splits.items()} == {
        "train": 5216,
        "val": 16,
        "test": 624,
    }
    assert by_name(kermany.classes)["Pneumonia"].splits["train"] == (3875, 5216)
    assert kermany.looks["No Finding"].num_images == 20
    assert (nih.num_images, nih.num_patients) == (112_120, 30_805)
    assert by_name(nih.classes)["No Finding"].present == 60_361
    assert sum(each.boxes for each in nih.atlas) == 984
    assert nih.views.share("AP")[0] == pytest.approx(0.3997, abs=1e-4)


def test_a_finding_does_not_count_beside_those_that_it_is_made_up_of(tmp_path):
    findings = ("Effusion", "Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
    labels = [[0, 1, 1, 0], [1, 1, 0, 1], [1, 1, NAN, NAN], [0, 0, 0, 0], [0, 1, NAN, NAN]]

    found = explore(make(tmp_path, labels, findings=findings))

    assert found.together.num_findings == {0: 1, 1: 2, 2: 2}
    assert found.together.both[1, 1] == 4, "it counts in its own row"
