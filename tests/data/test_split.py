from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from hilum.data import readers
from hilum.data.split import split, split_hash
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError, UsageError
from hilum.recipe import SplitSettings

FINDINGS = ("Pneumonia", "Mass")


def table(patients, labels=None, splits="", images=None):
    count = len(patients)
    return Table(
        frame=make_frame(
            image=images or [f"{row:05d}.png" for row in range(count)],
            source="here",
            patient=list(patients),
            findings=FINDINGS,
            labels=np.zeros((count, 2)) if labels is None else labels,
            split=splits,
        ),
        findings=FINDINGS,
        sources=(Source("here", Path("/images"), "", ""),),
    )


def random_table(seed, num_patients, *, unknown=0.1):
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"p{number}" for number in range(num_patients)], rng.geometric(0.4, num_patients))
    labels = (rng.random((len(patients), 2)) < [0.3, 0.06]).astype(float)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return table(patients, labels)


def parts_of(divided):
    return dict(zip(divided.table.frame["image"], divided.table.frame["split"], strict=True))


def parts_per_patient(divided):
    return divided.table.frame.groupby(["source", "patient"])["split"].nunique()


tables = st.builds(
    random_table, st.integers(0, 10_000), st.integers(30, 120), unknown=st.sampled_from([0.0, 0.1, 1.0])
)
fractions = st.sampled_from([(0.1, 0.2), (0.25, 0.25), (0.15, 0.0), (0.3, 0.5)])
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(tables, fractions, st.integers(0, 5))
def test_by_patient_every_row_is_in_one_part_and_every_patient_too(made, shares, seed):
    divided = split(made, SplitSettings(val=shares[0], test=shares[1], seed=seed))
    assert set(divided.table.frame["split"]) == {"train", "val", "test"} - (
        {"test"} if not shares[1] else set()
    )
    assert (parts_per_patient(divided) == 1).all()
    assert not divided.leaky


@few
@given(tables, fractions)
def test_fractions_hold_within_one_patients_images(made, shares):
    divided = split(made, SplitSettings(val=shares[0], test=shares[1]))
    largest = made.frame.groupby("patient").size().max()
    _, val, test = (fraction * len(made) for fraction in divided.fractions)
    assert abs(val - shares[0] * len(made)) <= largest
    assert abs(test - shares[1] * len(made)) <= largest
    assert sum(divided.fractions) == pytest.approx(1)


@few
@given(tables, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(made, seed, random):
    order = list(range(len(made)))
    random.shuffle(order)
    shuffled = Table(
        frame=made.frame.iloc[order].reset_index(drop=True), findings=made.findings, sources=made.sources
    )
    first, second = (split(one, SplitSettings(seed=seed)) for one in (made, shuffled))
    assert parts_of(first) == parts_of(second)
    assert first.hash == second.hash


@few
@given(st.integers(0, 10_000))
def test_label_shares_are_close(seed):
    made = random_table(seed, 300)
    labels = made.labels(FINDINGS)
    parts = split(made, SplitSettings(val=0.2, test=0.2)).table.frame["split"].to_numpy(str)
    largest = made.frame.groupby("patient").size().max()
    for column in range(2):
        for part in ("val", "test"):
            held = (labels[parts == part, column] == 1).sum()
            assert abs(held - 0.2 * (labels[:, column] == 1).sum()) <= 1.5 * largest


@few
@given(tables, st.integers(0))
def test_the_hash_changes_with_one_row(made, place):
    divided = split(made, SplitSettings())
    parts = divided.table.frame["split"].tolist()
    row = place % len(parts)
    parts[row] = "val" if parts[row] != "val" else "test"
    assert split_hash(divided.table.with_split(parts)) != divided.hash


def test_the_hash_is_of_a_written_form():
    made = table(["p", "q"], splits=["test", "train"], images=["b.png", "a.png"])
    # printf 'here\ta.png\ttrain\nhere\tb.png\ttest\n' | sha256sum
    assert split_hash(made) == "f9cb4c804b41384c4b287eeb399ca1a5222a4db94b162f19093427c096fcf818"


def test_the_division_is_the_same_on_every_machine():
    divided = split(table([f"p{number}" for number in range(20)]), SplitSettings(seed=3))
    parts = divided.table.frame["split"].to_numpy(str)
    # Worked out by hand: in the order of SHA-256("3 test here\tpN") the 14th, 16th, 18th and 20th are drawn.
    assert np.flatnonzero(parts == "test").tolist() == [6, 7, 13, 17]
    assert np.flatnonzero(parts == "val").tolist() == [1, 16]


def test_another_seed_divides_otherwise():
    made = random_table(0, 60)
    assert split(made, SplitSettings(seed=1)).hash != split(made, SplitSettings(seed=2)).hash


def test_the_same_number_in_two_sources_is_two_patients():
    made = table(["1"] * 40)
    frame = made.frame.assign(source=["here"] * 20 + [f"s{number}" for number in range(20)])
    sources = tuple(Source(name, Path("/images"), "", "") for name in sorted(set(frame["source"])))
    divided = split(Table(frame=frame, findings=FINDINGS, sources=sources), SplitSettings(val=0.2, test=0.2))
    assert divided.table.frame.groupby("source")["split"].nunique().tolist() == [1] * 21
    assert not divided.leaky


def test_by_image_is_called_leaky_even_where_it_is_not():
    singles = split(table([f"p{number}" for number in range(30)]), SplitSettings(method="image"))
    assert singles.leaky
    assert "LEAKY" in singles.description
    shared = split(table([f"p{number // 10}" for number in range(30)]), SplitSettings(method="image"))
    assert any("patients are in more than one part" in note for note in shared.notes)


def test_images_that_are_their_own_patients_are_noted():
    divided = split(table([f"p{number}" for number in range(30)]), SplitSettings())
    assert any("each image is its own patient" in note for note in divided.notes)


def test_a_part_without_a_positive_is_noted():
    labels = np.zeros((30, 2))
    labels[:, 0] = np.arange(30) % 2
    labels[4, 1] = 1
    made = table([f"p{number // 2}" for number in range(30)], labels)
    divided = split(made, SplitSettings())
    part = divided.table.frame["split"].iloc[4]
    noted = [note for note in divided.notes if "holds no positive" in note]
    assert sorted(noted) == [
        f"{other} holds no positive of Mass" for other in ("test", "train", "val") if other != part
    ]
    assert not any("Mass" in note for note in split(made, SplitSettings(), findings=["Pneumonia"]).notes)


@pytest.mark.parametrize("num_patients", [1, 2])
def test_too_few_patients_are_refused(num_patients):
    made = table([f"p{row % num_patients}" for row in range(12)])
    with pytest.raises(DataError, match=rf"{num_patients} patients \(12 images\) leave nothing for"):
        split(made, SplitSettings(val=0.3, test=0.3))


def test_images_without_a_finding_are_stratified_like_a_finding():
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.choice(3, 300, p=[0.2, 0.3, 0.5])][:, :2]
    made = table([f"p{row // 2}" for row in range(300)], labels)

    divided = split(made, SplitSettings(), findings=["No Finding", *FINDINGS])

    whole = made.labels(["No Finding"]).mean()
    test = divided.table.select(divided.table.frame["split"].to_numpy() == "test")
    assert test.labels(["No Finding"]).mean() == pytest.approx(whole, abs=0.02)


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="no rows"):
        split(table([]), SplitSettings())


# The source's own division


def test_folders_keep_the_test_and_carve_validation_by_patient():
    patients = [f"p{row // 3}" for row in range(120)]
    splits = ["test"] * 30 + ["val"] * 6 + ["train"] * 84
    divided = split(table(patients, splits=splits), SplitSettings(method="folders", val=0.2))
    parts = divided.table.frame["split"].to_numpy(str)
    assert (parts[:30] == "test").all()
    assert "test" not in parts[30:]
    assert (parts[30:] == "val").sum() == 18
    assert (parts_per_patient(divided) == 1).all()
    assert any("validation of 6 images was joined" in note for note in divided.notes)


def test_folders_that_share_patients_are_kept_and_called_leaky():
    made = table([f"p{row // 2}" for row in range(40)], splits=["test", "train"] * 20)
    divided = split(made, SplitSettings(method="folders", val=0.2))
    assert divided.leaky
    assert "20 patients are in more than one part" in divided.notes[0]
    with pytest.raises(DataError, match="20 patients are in both train and test; method 'folders'"):
        split(made, SplitSettings(method="official", val=0.2))


@pytest.mark.parametrize("method", ["folders", "official"])
def test_a_source_without_its_own_division_is_refused(method):
    patients = [f"p{row}" for row in range(10)]
    with pytest.raises(DataError, match="10 of 10 images have no split"):
        split(table(patients), SplitSettings(method=method))
    with pytest.raises(DataError, match="no image is in test"):
        split(table(patients, splits="train"), SplitSettings(method=method))


def test_given_parts_are_taken_as_they_are_and_few_that_steer_are_told():
    splits = ["test"] * 30 + ["val"] * 16 + ["train"] * 74
    made = table([f"p{row // 2}" for row in range(120)], splits=splits)
    divided = split(made, SplitSettings(method="given"))
    assert divided.table.frame["split"].tolist() == splits
    assert not divided.leaky
    assert any("only 16 images steer" in note for note in divided.notes)


def test_given_parts_that_share_patients_are_called_leaky():
    made = table([f"p{row // 2}" for row in range(60)], splits=["test", "train", "val"] * 20)
    assert split(made, SplitSettings(method="given")).leaky


@pytest.mark.parametrize(
    ("splits", "told", "mend"),
    [("", "0 in train, 0 in val", "patient"), (["train", "test"] * 5, "0 in val", "folders")],
)
def test_a_source_without_all_three_parts_is_refused_by_given(splits, told, mend):
    with pytest.raises(DataError, match=f"{told}.*; --set split.method={mend}"):
        split(table([f"p{row}" for row in range(10)], splits=splits), SplitSettings(method="given"))


# A list


def listed(tmp_path, made, rows):
    path = tmp_path / "list.csv"
    pd.DataFrame(rows, columns=["image", "split"]).to_csv(path, index=False)
    return split(made, SplitSettings(method="list", list=path))


def test_a_list_is_taken_as_it_is(tmp_path):
    made = table(["p", "q", "r"])
    rows = [("00002.png", "val"), ("00000.png", "Train"), ("00001.png", "test"), ("99999.png", "test")]
    divided = listed(tmp_path, made, rows)
    assert divided.table.frame["split"].tolist() == ["train", "test", "val"]
    assert not divided.leaky


def test_a_list_may_name_files_that_lie_elsewhere(tmp_path):
    made = table(["p", "q"], images=["images_001/a.png", "z.zip::in/b.png"])
    divided = listed(tmp_path, made, [("a.png", "train"), ("/old/b.png", "test")])
    assert divided.table.frame["split"].tolist() == ["train", "test"]


def test_a_list_that_divides_a_patient_is_leaky(tmp_path):
    assert listed(tmp_path, table(["p", "p"]), [("00000.png", "train"), ("00001.png", "test")]).leaky


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("00000.png", "train")], "1 of the table's 2 images are not in"),
        ([("00000.png", "train"), ("00001.png", "dev")], "must be one of train, val, test"),
        ([("00000.png", "train"), ("00001.png", "")], "must be one of train, val, test"),
        ([("00000.png", "train"), ("00001.png", "val"), ("00001.png", "test")], "names 1 images twice"),
        ([("00000.png", "test"), ("00001.png", "val")], "leave nothing for train"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        listed(tmp_path, table(["p", "q"]), rows)


def test_a_list_that_is_not_there_or_lacks_a_column_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        split(table(["p"]), SplitSettings(method="list", list=tmp_path / "absent.csv"))
    (tmp_path / "list.csv").write_text("image,part\na.png,train\n")
    with pytest.raises(DataError, match="no column 'split'"):
        split(table(["p"]), SplitSettings(method="list", list=tmp_path / "list.csv"))


# Real data


@pytest.mark.real
def test_kermanys_own_test_is_kept_whole(shared_data):
    made = readers.read(shared_data / "kermany_224")
    divided = split(made, SplitSettings(method="folders"), findings=["Pneumonia"])
    counts = divided.table.frame["split"].value_counts().to_dict()
    own = made.frame["split"] == "test"
    assert (divided.table.frame.loc[own, "split"] == "test").all()
    assert counts["test"] == 624
    assert abs(counts["val"] - 523.2) <= 15
    assert (parts_per_patient(divided) == 1).all()
    assert not divided.leaky
    shares = divided.table.frame.groupby("split")["Pneumonia"].mean()
    assert shares["val"] == pytest.approx(shares["train"], abs=0.01)


@pytest.mark.real
def test_kermanys_sixteen_steer_where_they_are_asked_for(shared_data):
    divided = split(readers.read(shared_data / "kermany_224"), SplitSettings(method="given"))
    assert divided.table.frame["split"].value_counts().to_dict() == {"train": 5216, "test": 624, "val": 16}
    assert any("only 16 images steer" in note for note in divided.notes)


@pytest.mark.real
def test_by_image_a_third_of_nihs_pneumonia_test_is_of_patients_seen_in_training(shared_data):
    """As a published notebook divides: all pneumonias, 1,450 images without finding, 80 to 20 by image."""
    made = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    pneumonia, normal = (made.labels([name])[:, 0] == 1 for name in ("Pneumonia", "No Finding"))
    drawn = np.random.default_rng(0).choice(np.flatnonzero(normal), 1450, replace=False)
    made = made.select(pneumonia | np.isin(np.arange(len(made)), drawn))
    shares = {}
    for method in ("image", "patient"):
        settings_ = SplitSettings(method=method, val=0.01, test=0.2)
        frame = split(made, settings_, findings=["Pneumonia"]).table.frame
        seen = frame.loc[frame["split"] != "test", "patient"]
        shares[method] = frame.loc[frame["split"] == "test", "patient"].isin(seen).mean()
    assert 0.28 < shares["image"] < 0.37
    assert shares["patient"] == 0


@pytest.mark.real
def test_the_nih_set_is_divided_by_patient_with_its_rare_findings_in_proportion(shared_data):
    made = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    divided = split(made, SplitSettings())
    assert (parts_per_patient(divided) == 1).all()
    assert divided.fractions == pytest.approx((0.7, 0.1, 0.2), abs=0.001)
    labels = divided.table.labels(made.findings)
    parts = divided.table.frame["split"].to_numpy(str)
    for part in ("train", "val", "test"):
        np.testing.assert_allclose(labels[parts == part].mean(axis=0), labels.mean(axis=0), rtol=0.08)


@pytest.mark.real
def test_the_official_nih_test_is_kept(shared_data):
    divided = split(
        readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv"), SplitSettings(method="official")
    )
    counts = divided.table.frame["split"].value_counts().to_dict()
    assert counts["test"] == 25596
    assert counts["val"] == pytest.approx(8652, abs=100)
    assert not divided.leaky
