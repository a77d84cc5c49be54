"""Tables joined, filtered and relabelled."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hilum.data.filter import filter_rows
from hilum.data.merge import merge
from hilum.data.relabel import relabel
from hilum.data.table import BOX_COLUMNS, Source, Table, make_frame
from hilum.errors import DataError, UsageError


def table(
    name="a", root="/a", *, images=("x/1.png", "x/2.png"), findings=("Mass",), labels=((1,), (0,)), **columns
):
    frame = make_frame(
        image=images,
        source=name,
        patient=columns.pop("patient", [f"p{i}" for i in range(len(images))]),
        findings=findings,
        labels=labels,
        **columns,
    )
    return Table(frame, findings, (Source(name, root, "cited", "free"),), notes=(f"note of {name}",))


def with_box(made, image, finding):
    box = pd.DataFrame([(image, finding, 0.1, 0.1, 0.2, 0.2)], columns=list(BOX_COLUMNS))
    return replace(made, boxes=box)


# merge


def test_findings_that_a_source_does_not_know_are_unknown():
    first = with_box(table(), "x/1.png", "Mass")
    second = table("b", "/b", images=("x/9.png",), findings=("Edema", "Mass"), labels=((1, 1),))

    joined = merge([first, second])

    assert joined.findings == ("Mass", "Edema")
    np.testing.assert_array_equal(joined.labels(["Mass", "Edema"]), [[1, np.nan], [0, np.nan], [1, 1]])
    assert [source.name for source in joined.sources] == ["a", "b"]
    assert joined.num_patients == 3
    assert len(joined.boxes) == 1
    assert "a: note of a" in joined.notes
    assert "a knows nothing of Edema: unknown there" in joined.notes


def stating(made):
    """The table, of a data set whose labels say where nothing was found."""
    return replace(made, sources=tuple(replace(one, states_no_finding=True) for one in made.sources))


def test_a_normal_film_stays_one_beside_a_source_of_other_findings():
    first = stating(table(labels=((1,), (0,))))
    second = table(
        "b", "/b", images=("y/1.png", "y/2.png"), findings=("Edema", "Support Devices"), labels=((1, 0),) * 2
    )
    second = replace(second, frame=second.frame.assign(Edema=[1.0, 0.0]))

    joined = merge([first, second])

    # The second says nothing of normal films: its 0 of edema may be any other disease.
    np.testing.assert_array_equal(joined.labels(["No Finding"])[:, 0], [0, 1, 0, np.nan])
    np.testing.assert_array_equal(joined.labels(["Mass"])[:, 0], [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(joined.labels(["Edema"])[:, 0], [np.nan, 0, 1, 0])
    assert np.isnan(joined.labels(["Support Devices"])[:2]).all()
    assert any("but absent from its 1 images of No Finding" in note for note in joined.notes)


def test_what_was_merged_and_written_can_be_merged_again(tmp_path):
    merge([stating(table()), table("b", "/b", findings=("Edema",))]).write(tmp_path / "both.parquet")

    joined = merge([Table.read(tmp_path / "both.parquet"), table("c", "/c", findings=("Hernia",))])

    assert [source.states_no_finding for source in joined.sources] == [True, False, False]
    np.testing.assert_array_equal(joined.labels(["No Finding"])[:, 0], [0, 1, 0, np.nan, 0, np.nan])


def test_one_source_of_two_tables_states_what_both_state():
    joined = merge([stating(table()), table(images=("x/3.png", "x/4.png"))])

    assert not joined.sources[0].states_no_finding


def test_second_labels_of_one_finding_state_nothing_of_normal_films():
    relabelled = relabel(stating(table()), table(findings=("Edema",))).table

    assert not relabelled.sources[0].states_no_finding


def test_another_data_set_of_the_same_name_is_renamed_and_its_patients_are_its_own():
    joined = merge([table("train", "/a"), table("train", "/b"), table("train", "/c")])

    assert [source.name for source in joined.sources] == ["train", "train-2", "train-3"]
    assert joined.num_patients == 6
    assert sum("is called train-2" in note.replace("'", "") for note in joined.notes) == 1


def test_parts_of_one_data_set_are_one_source():
    joined = merge([table(), table(images=("x/3.png", "x/4.png"))])

    assert len(joined.sources) == 1
    assert joined.num_patients == 2
    with pytest.raises(DataError, match="2 images of 'a' are in two of the tables"):
        merge([table(), table()])
    with pytest.raises(UsageError, match="two or more"):
        merge([table()])


# filter


@pytest.fixture
def people():
    return table(
        images=("1.png", "2.png", "3.png", "4.png"),
        findings=("Mass", "Pleural Thickening"),
        labels=((1, 0), (0, 1), (np.nan, 0), (0, np.nan)),
        view=["PA", "AP", "", "PA"],
        sex=["F", "M", "F", ""],
        age=[20, 10, 30, np.nan],
        width=[100, 0, 300, 400],
    )


@pytest.mark.parametrize(
    ("expression", "kept", "unknown"),
    [
        ("view == 'PA'", "14", 1),
        ("view == 'PA' and age >= 18", "1", 2),
        ("view != 'PA'", "2", 1),
        ("view == ''", "3", 0),
        ("view in ('AP', '')", "23", 0),
        ("view not in ['AP']", "14", 1),
        ("sex == 'F' or age < 18", "123", 1),
        ("Mass", "1", 1),
        ("not Mass", "24", 1),
        ("Mass == 0 and `Pleural Thickening` == 1", "2", 1),
        ("pleural_thickening", "2", 1),
        ("No_Finding or Mass", "1", 2),
        ("10 <= age < 30", "12", 1),
        ("not (age > -1 and view == 'AP')", "14", 1),
        ("width > 100", "34", 1),
        ("image == '`1`.png' or image in {'3.png'}", "3", 0),
    ],
)
def test_rows_for_which_it_is_true_stay(people, expression, kept, unknown):
    filtered = filter_rows(people, expression)

    assert "".join(name[0] for name in filtered.table.frame["image"]) == kept
    assert filtered.unknown == unknown
    assert filtered.table.notes[-1].endswith(f"of 4 rows stay, {unknown} are unknown and left out")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("veiw == 'PA'", r"no column or finding 'veiw'; there are: view \(did you mean it"),
        ("`Pleural Thickning`", r"Pleural Thickening \(did you mean it"),
        ("view == 'pa'", r"'view' is never 'pa'; it is one of: PA \(did you"),
        ("view == PA", "PA is text, which stands in quotes: 'PA'"),
        ("sex in (F, M)", "F is text, which stands in quotes"),
        ("Mass == 2", "'Mass' is never 2.0; it is one of: 0, 1"),
        ("age == 'old'", "'age' is a number"),
        ("view > 'A'", "has no order"),
        ("view", "neither true nor false"),
        ("view =='PA' and", "not understood"),
        ("", "not understood"),
        ("1 == 1", "no column in it"),
        ("'PA' in view", "a list stands only after"),
        ("view == ('PA', 'AP')", "a list stands only after"),
        ("view in ('PA', 1)", "not a list of texts or of numbers"),
        ("age + 1 > 3", "is not understood"),
        ("age is 3", "'is' compares no values"),
        ("__import__('os').system('true')", "neither a comparison nor a finding"),
        ("view.__class__ == 'PA'", "is not understood"),
        ("[x for x in (1,)] == age", "is not understood"),
        ("not " * 2400 + "Mass", "not understood|nested too deep"),
        ("age > 1" + "0" * 400, "nested too deep or holds a number too large"),
        ("age > " + "1" * 10_000, "at most 10,000"),
    ],
)
def test_anything_else_is_refused_in_words(people, expression, message):
    with pytest.raises(UsageError, match=message):
        filter_rows(people, expression)


def test_a_filter_that_leaves_nothing_says_so(people):
    with pytest.raises(DataError, match=r"no row of 4 is left .*\(1 are unknown"):
        filter_rows(people, "age > 99")


# relabel


def test_labels_are_replaced_by_file_name_and_compared():
    first = with_box(table(findings=("Mass", "Edema"), labels=((1, 0), (0, 0))), "x/1.png", "Mass")
    second = table("b", "/b", images=("y/1.png",), findings=("Mass", "Fracture"), labels=((1, 1),))

    result = relabel(first, second)

    assert result.table.findings == ("Mass", "Fracture")
    np.testing.assert_array_equal(result.table.labels(["Mass", "Fracture"]), [[1, 1], [np.nan, np.nan]])
    assert result.table.frame["patient"].tolist() == ["p0", "p1"]
    assert result.matched == 1
    assert [(one.finding, one.both, one.compared) for one in result.agreement] == [("Mass", 1, 1)]
    assert len(result.table.boxes) == 1
    notes = " ".join(result.table.notes)
    assert "names 1 of 2 images (by file name)" in notes
    assert "know nothing of Edema" in notes


def test_boxes_go_where_the_second_labels_call_their_finding_absent():
    result = relabel(with_box(table(), "x/1.png", "Mass"), table(labels=((0,), (1,))))

    assert len(result.table.boxes) == 0
    assert result.agreement[0].first_only == 1
    assert any("1 boxes are left out" in note for note in result.table.notes)


@pytest.mark.parametrize(("labels", "told"), [(((1,), (0,)), True), (((1,), (1,)), False)])
def test_second_labels_that_are_the_first_ones_are_told(labels, told):
    result = relabel(table(), table("b", "/b", labels=labels))

    assert any("are the table's own in every image" in note for note in result.table.notes) is told


def test_names_that_do_not_tell_images_apart_are_refused():
    with pytest.raises(DataError, match="the second labels has 1 image names twice"):
        relabel(table(), table(images=("y/1.png", "z/1.png")))
    with pytest.raises(DataError, match="the table has 1 image names twice"):
        relabel(table(images=("y/1.png", "z/1.png")), table())
    with pytest.raises(DataError, match="name none of the table's 2 images"):
        relabel(table(), table(images=("y/7.png", "z/8.png")))
