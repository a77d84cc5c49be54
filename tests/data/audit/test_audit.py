import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data.audit.conftest import CHANGES, encoded

from hilum.data import readers
from hilum.data.audit import audit
from hilum.data.table import Source, Table, make_frame
from hilum.errors import DataError

FINDINGS = ("Mass", "Edema")


def table(folder, patients, **columns):
    count = len(patients)
    names = columns.pop("image", [f"{row}.jpeg" for row in range(count)])
    labels = columns.pop("labels", np.zeros((count, 2)))
    frame = make_frame(
        image=names, source="here", patient=patients, findings=FINDINGS, labels=labels, **columns
    )
    return Table(frame, FINDINGS, (Source("here", folder, "A citation", "Free"),))


@pytest.fixture
def folder(tmp_path, phantoms):
    """Forty phantoms in files, 0.jpeg to 39.jpeg."""
    for row in range(40):
        (tmp_path / f"{row}.jpeg").write_bytes(encoded(phantoms[row], 95))
    return tmp_path


def cases(found, name):
    return next(check for check in found.checks if check.name == name).issues


def check(made, folder):
    return audit(made, directory=folder / "cache")


def test_nothing_is_found_where_nothing_is_wrong(folder):
    made = table(folder, [f"p{row // 2}" for row in range(40)], split=["train"] * 20 + ["test"] * 20)
    found = check(made, folder)
    assert not found.leaks
    assert found.verdict.text == "No leak was found."
    assert [one.name for one in found.checks if one.issues] == []
    assert found.num_read == 40


def test_copies_are_sorted_by_what_they_mean(folder):
    for copy, original in ((1, 0), (11, 10), (21, 20)):
        shutil.copy(folder / f"{original}.jpeg", folder / f"{copy}.jpeg")
    patients = [f"p{row}" for row in range(40)]
    patients[1] = "p0"
    splits = ["train"] * 20 + ["val", "test"] * 10
    labels = np.zeros((40, 2))
    labels[11] = (1, np.nan)
    found = check(table(folder, patients, split=splits, labels=labels), folder)

    assert [case.rows for case in cases(found, "copies-within-a-patient")] == [(0, 1)]
    assert [case.rows for case in cases(found, "copies-across-patients")] == [(10, 11)]
    assert cases(found, "copies-across-patients")[0].notice.text == (
        "10.jpeg (train) and 11.jpeg (train): the same file, of different patients"
    )
    assert [case.rows for case in cases(found, "copies-across-splits")] == [(20, 21)]
    assert [case.notice.text for case in cases(found, "label-clashes")] == [
        "Mass: 10.jpeg (train) and 11.jpeg (train): the same file, of different patients"
    ]
    assert found.leaks
    assert found.verdict.text == "The split leaks: 1 case."


def test_equal_pixels_in_another_file_are_told_from_equal_files_and_from_changed_ones(folder, phantoms):
    pixels = np.array(Image.open(folder / "0.jpeg"))
    Image.fromarray(pixels).save(folder / "1.png")
    Image.fromarray(pixels).save(folder / "2.png", compress_level=0)
    (folder / "3.jpeg").write_bytes(CHANGES["turned"](phantoms[0], 4.0))
    made = table(folder, ["p"] * 4, image=["0.jpeg", "1.png", "2.png", "3.jpeg"])

    (case,) = cases(check(made, folder), "copies-within-a-patient")

    assert set(case.rows) == {0, 1, 2, 3}
    assert "the same pixels" in case.notice.text
    assert 0.85 <= case.similarity < 1


def test_of_a_group_the_pair_is_shown_that_matters(folder, phantoms):
    for row in range(1, 4):
        shutil.copy(folder / "0.jpeg", folder / f"{row}.jpeg")
    made = table(folder, ["p"] * 4, split=["train", "train", "train", "test"])
    (case,) = cases(check(made.select(np.arange(4) < 4), folder), "copies-across-splits")
    assert case.rows[:2] == (0, 3)
    assert case.notice.text.startswith("0.jpeg (train) and 3.jpeg (test), and 2 more: the same file")


def test_odd_pictures_are_told(folder, phantoms):
    (folder / "0.jpeg").write_bytes(b"\xff\xd8\xff no picture")
    (folder / "1.jpeg").unlink()
    (folder / "2.jpeg").write_bytes(encoded(np.full((200, 200), 40, np.uint8)))
    (folder / "3.jpeg").write_bytes(encoded((240 - 0.9 * phantoms[3]).astype(np.uint8)))
    (folder / "4.jpeg").write_bytes(encoded(phantoms[4][::4, ::4]))
    framed = phantoms[5].copy()
    framed[:60] = 255
    (folder / "5.jpeg").write_bytes(encoded(framed))
    twelve_bits = cv2.imencode(".png", phantoms[6].astype(np.uint16) * 16)[1].tobytes()
    (folder / "6.jpeg").write_bytes(twelve_bits)  # what a file is, its content says
    found = check(table(folder, [f"p{row}" for row in range(40)]), folder)

    told = {
        one.name: sorted(row for case in one.issues for row in case.rows)
        for one in found.checks
        if one.issues
    }
    assert told == {"unreadable": [0, 1], "blank": [2], "few-bits": [6], "inverted": [3], "tiny": [4],
                    "saturated": [5]}  # fmt: skip
    assert cases(found, "unreadable")[1].notice.text.startswith("1.jpeg: ")
    assert cases(found, "tiny")[0].notice.text == "4.jpeg: 56 x 56 pixels"


def test_patients_across_splits_are_told_with_how_many(folder):
    patients = [f"p{row // 2}" for row in range(40)]
    splits = ["train", "train"] * 18 + ["train", "test"] * 2
    found = check(table(folder, patients, split=splits), folder)
    assert [case.notice.text for case in cases(found, "patients-across-splits")] == [
        "patient p18: 1 in train, 1 in test",
        "patient p19: 1 in train, 1 in test",
    ]


def test_ages_nobody_has_are_told(folder):
    age = np.full(40, 30.0)
    age[[3, 4]] = (120, 110)
    made = table(folder, [f"p{row}" for row in range(40)], age=age)
    made = Table(
        made.frame, made.findings, made.sources, notes=("1 ages above 120 years are taken as unknown",)
    )
    assert [case.notice.text for case in cases(check(made, folder), "impossible-ages")] == [
        "1 ages above 120 years are taken as unknown",
        "3.jpeg: 120 years",
    ]


def test_what_cannot_be_looked_for_says_why(folder):
    made = table(folder / "nowhere", [f"p{row}" for row in range(40)])
    found = check(made, folder)
    skipped = {one.name: str(one.skipped or "") for one in found.checks}
    assert skipped["copies-across-splits"] == "no image is where the table says"
    assert skipped["patients-across-splits"] == "the table has no split"
    assert found.verdict.text.startswith("Whether a split leaks was not looked for")
    alone = check(made.with_split(["train", "test"] * 20), folder)
    assert (
        "own patient"
        in next(one for one in alone.checks if one.name == "patients-across-splits").skipped.text
    )


def test_without_leaks_the_later_part_keeps_its_rows(folder):
    shutil.copy(folder / "5.jpeg", folder / "30.jpeg")
    patients = [f"p{row}" for row in range(40)]
    patients[1] = patients[25] = "q"
    splits = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    found = check(table(folder, patients, split=splits), folder)

    clean = found.without_leaks()

    assert set(found.table.frame["image"]) - set(clean.frame["image"]) == {"1.jpeg", "5.jpeg"}
    assert "2 images were left out" in clean.notes[-1]
    assert not check(clean, folder).leaks


def test_a_second_audit_finds_the_same_without_looking_again(folder, monkeypatch):
    shutil.copy(folder / "5.jpeg", folder / "30.jpeg")
    made = table(folder, [f"p{row}" for row in range(40)])
    first = check(made, folder).to_dict()
    monkeypatch.setattr("hilum.data.audit.duplicates.find", lambda *_, **__: pytest.fail("looked again"))
    assert check(made, folder).to_dict() == first


def test_a_damaged_memory_is_made_anew(folder):
    made = table(folder, [f"p{row}" for row in range(40)])
    first = check(made, folder).to_dict()
    (kept,) = (folder / "cache").glob("copies-*/*.json")
    kept.write_text('[{"first": ')
    assert check(made, folder).to_dict() == first


def test_the_file_for_machines_holds_numbers_only_json_knows(folder):
    made = table(folder, ["p", "p", *[f"p{row}" for row in range(38)]], split=["train", "test"] * 20)
    content = json.loads(json.dumps(check(made, folder).to_dict(), allow_nan=False))
    assert content["format"] == 1
    assert content["leaks"] is True
    assert content["split"] == {"train": 20, "test": 20}
    patients = next(one for one in content["checks"] if one["name"] == "patients-across-splits")
    assert patients["count"] == 1
    assert patients["cases"][0]["images"][1] == {
        "image": "1.jpeg",
        "source": "here",
        "patient": "p",
        "split": "test",
    }


def test_an_empty_table_is_refused(folder):
    with pytest.raises(DataError, match="no rows to audit"):
        check(table(folder, []), folder)


# Real data


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["kermany_224", "nih"])
def test_planted_faults_are_found_and_nothing_else(shared_data, tmp_path, name):
    folder = shared_data / name
    source = folder / "Data_Entry_2017_v2020.csv" if name == "nih" else folder
    whole = readers.read(source, images=folder / "images_256" if name == "nih" else None)
    patient_films = whole.frame.groupby("patient")["image"].transform("size").to_numpy()
    rng = np.random.default_rng(1)
    # Two films each of 5 patients, and 295 patients' only film. Two films of NIH are negatives: they are left out.
    pairs = np.flatnonzero(patient_films == 2)
    several = pairs[np.argsort(whole.frame["patient"].to_numpy()[pairs], kind="stable")][:10]
    negatives = whole.frame["image"].isin(["00017625_000.png", "00017999_000.png"]).to_numpy()
    single = rng.permutation(np.flatnonzero((patient_films == 1) & ~negatives))[:290]
    rows = np.concatenate([several, single])
    films = [np.array(Image.open(str(whole.location(int(row)).path)).convert("L")) for row in rows]
    for number, film in enumerate(films):
        Image.fromarray(film).save(tmp_path / f"{number}.png")
    patients = [str(whole.frame["patient"].iloc[row]) for row in rows]
    splits = ["train", "test"] * 5 + ["train"] * 190 + ["test"] * 100
    labels = np.zeros((len(rows), 2))
    images = [f"{number}.png" for number in range(len(rows))]

    def plant(content, patient, split, label):
        number = len(images)
        images.append(f"{number}.jpeg")
        (tmp_path / images[-1]).write_bytes(content)
        patients.append(patient)
        splits.append(split)
        labels.resize((number + 1, 2), refcheck=False)
        labels[number] = label
        return number

    kinds = ["re-encoded", "resized", "turned", "mirrored"]
    copies = {
        (
            original,
            plant(CHANGES[kinds[place % 4]](films[original], rng.uniform(-5, 5)), f"new{place}", "test", 0),
        )
        for place, original in enumerate(range(20, 40))
    }
    clashes = {
        (original, plant(encoded(films[original], 70), patients[original], splits[original], (1, 0)))
        for original in range(60, 65)
    }
    corrupt = set(range(100, 110))
    for place, number in enumerate(sorted(corrupt)):
        content = (tmp_path / images[number]).read_bytes()
        (tmp_path / images[number]).write_bytes(
            content[: len(content) * place // 12] if place % 2 else b"\0" * 99
        )
    Image.fromarray(255 - films[120]).save(tmp_path / images[120])

    found = audit(
        table(tmp_path, patients, image=images, split=splits, labels=labels), directory=tmp_path / "cache"
    )

    told = {one.name: {tuple(sorted(case.rows)) for case in one.issues} for one in found.checks}
    assert told["patients-across-splits"] == {(row, row + 1) for row in range(0, 10, 2)}
    # Of the patients themselves, two films may be as alike as copies.
    assert told["copies-across-splits"] - told["patients-across-splits"] == copies
    assert told["label-clashes"] == clashes
    assert told["unreadable"] == {(row,) for row in corrupt}
    assert told["inverted"] == {(120,)}
    assert told["blank"] == set()
    assert told["copies-across-patients"] == set()
    assert told["copies-within-a-patient"] == clashes


@pytest.mark.real
def test_nihs_whole_table_without_images(shared_data, tmp_path):
    made = readers.read(shared_data / "nih" / "Data_Entry_2017_v2020.csv")
    assert (len(made), made.num_patients) == (112_120, 30_805)
    small = made.select(np.arange(len(made)) % 8 == 0)
    found = audit(small, directory=tmp_path)
    assert not found.leaks
    assert not next(one for one in found.checks if one.name == "patients-across-splits").skipped
    assert any("Pneumothorax" in case.notice.text for case in cases(found, "split-differences"))


@pytest.mark.real
def test_kermanys_parts_share_no_patient(shared_data):
    from hilum.data.audit import leaks

    made = readers.read(Path(shared_data) / "kermany_224")
    assert leaks(made, np.full(len(made), -1)) == ()


def test_the_summary_has_a_row_a_check_and_tells_the_first_case(folder):
    found = check(table(folder, ["p0"] * 40, split=["train"] * 20 + ["test"] * 20), folder)

    summary = found.summary()

    assert len(summary) == len(found.checks)
    kind, number, _, first = summary.iloc[0]
    assert (kind, number) == ("leak", "1")
    assert first == found.checks[0].issues[0].notice.text
    skipped = summary[summary["found"] == ""]
    assert set(skipped.iloc[:, 3]) == {one.skipped.text for one in found.checks if one.skipped}
