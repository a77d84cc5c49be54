"""The written report: whole, self-contained, escaped, and the same numbers for machines."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from hilum.evaluation.evaluation import Evaluation
from hilum.report.evaluation import page, tables

VOID = {"meta", "img", "br", "hr", "link", "input"}
PLOTS = {
    "roc.png",
    "precision_recall.png",
    "reliability.png",
    "confusion_matrix.png",
    "probabilities.png",
    "learning_curves.png",
}
GALLERIES = {"gradcam_right.png", "gradcam_wrong.png"}


class Document(HTMLParser):
    """Notes every tag, id, reference and style, and what was closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.references.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(folder: Path) -> Document:
    return Document((folder / "report.html").read_text(encoding="utf-8"))


def csv_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "performance_metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_page_closes_every_tag_in_order(written: tuple[Path, Evaluation]) -> None:
    document = read(written[0])

    assert document.wrong == []
    assert document.open == []


def test_ids_are_unique_and_inner_links_lead_somewhere(written: tuple[Path, Evaluation]) -> None:
    document = read(written[0])

    inner = {reference[1:] for reference in document.references if reference.startswith("#")}

    assert len(document.ids) == len(set(document.ids))
    assert inner <= set(document.ids)


def test_page_refers_to_nothing_outside_and_runs_nothing(written: tuple[Path, Evaluation]) -> None:
    document = read(written[0])
    text = (written[0] / "report.html").read_text(encoding="utf-8")

    assert all(reference.startswith(("#", "data:image/")) for reference in document.references)
    assert "http" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert not {"script", "link", "iframe", "object"} & set(document.tags)


def test_page_has_every_section(written: tuple[Path, Evaluation]) -> None:
    headings = " ".join(read(written[0]).headings)

    for section in ("Summary", "Discrimination", "Calibration", "Decisions", "All metrics"):
        assert section in headings
    assert ("Images" in headings) == bool(written[1].cases)
    for section in ("How it was trained", "Data and split", "Limits", "Citations"):
        assert section in headings


def test_page_prints_the_estimate_with_its_interval(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    entries = evaluation.metrics["findings"][evaluation.findings[0]]["auroc"]
    text = " ".join(read(folder).text)

    assert f"{entries['value']:.3f}" in text
    assert f"{entries['low']:.3f}–{entries['high']:.3f}" in text


def test_page_and_card_say_research_use_only_and_the_bundle(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written

    for name in ("report.html", "model_card.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "Research use only" in text
        assert evaluation.bundle in text


def test_plots_are_there_and_not_blank(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    expected = PLOTS | ({"auroc_by_finding.png"} if len(evaluation.findings) > 1 else set())
    expected |= GALLERIES if evaluation.cases else set()

    assert {path.name for path in (folder / "plots").iterdir()} == expected
    for path in (folder / "plots").iterdir():
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
            assert picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert pixels.shape[1] >= 680
        assert pixels.std() > 10
        # Nothing runs over the edge: the outermost pixels are paper.
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge == 255).all(), path.name


def test_metrics_json_is_the_metrics(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written

    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == evaluation.metrics


def test_predictions_are_one_row_an_image_and_finding(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    frame = pd.read_parquet(folder / "predictions.parquet")

    assert list(frame.columns) == ["image", "patient", "finding", "label", "logit", "probability", "decision"]
    assert len(frame) == evaluation.labels.size
    last = frame.iloc[-1]
    assert (last["image"], last["finding"]) == (evaluation.images[-1], evaluation.findings[-1])
    assert last["probability"] == evaluation.probabilities[-1, -1]
    np.testing.assert_array_equal(
        frame["label"].to_numpy().reshape(evaluation.labels.shape), evaluation.labels.astype(float)
    )


def test_decisions_follow_the_threshold_or_the_most_probable_class(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    frame = pd.read_parquet(folder / "predictions.parquet")
    present = (frame["decision"] == "present").to_numpy().reshape(evaluation.labels.shape)

    if evaluation.task.exclusive:
        assert (present.sum(axis=1) == 1).all()
        assert (present.argmax(axis=1) == evaluation.probabilities.argmax(axis=1)).all()
    else:
        assert (present == (evaluation.probabilities >= evaluation.decision.array)).all()


def test_csv_begins_with_the_known_columns_and_holds_the_metrics(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    rows = csv_rows(folder)

    known = ["Model", "Finding", "Accuracy", "Precision", "Recall", "F1-Score", "AUC"]
    assert list(rows[0])[:7] == known
    assert [row["Finding"] for row in rows[: len(evaluation.findings)]] == list(evaluation.findings)
    entries = evaluation.metrics["findings"][evaluation.findings[0]]
    assert float(rows[0]["AUC"]) == pytest.approx(entries["auroc"]["value"], abs=1e-5)
    assert float(rows[0]["AUC_low"]) == pytest.approx(entries["auroc"]["low"], abs=1e-5)
    assert float(rows[0]["specificity"]) == pytest.approx(entries["specificity"]["value"], abs=1e-5)
    if len(evaluation.findings) > 1:
        assert {"Macro mean", "Micro mean"} <= {row["Finding"] for row in rows}


@pytest.mark.parametrize("written", ["multiclass"], indirect=True)
def test_accuracy_of_classes_is_the_share_put_into_the_right_one(written: tuple[Path, Evaluation]) -> None:
    folder, evaluation = written
    right = (evaluation.labels.argmax(axis=1) == evaluation.probabilities.argmax(axis=1)).mean()
    means = [row for row in csv_rows(folder) if row["Finding"] in ("Macro mean", "Micro mean")]
    text = " ".join(read(folder).text)

    assert [float(row["Accuracy"]) for row in means] == pytest.approx([right, right], abs=1e-5)
    assert f"The most probable class is called: accuracy {right:.3f}" in text
    assert "each class against the others" in text
    assert "threshold" not in text.split("</style>")[-1]


def test_classification_report_is_scikit_learns(make_evaluation: Callable[..., Evaluation]) -> None:
    evaluation = make_evaluation("binary", cases=())
    known = ~np.isnan(evaluation.labels[:, 0])
    expected = precision_recall_fscore_support(evaluation.labels[known, 0], evaluation.decisions[known, 0])

    grid = tables.classification_report(evaluation)

    found = [[cell.value for cell in cells] for _, cells in grid.rows[:2]]
    assert [row[:3] for row in found] == [
        [f"{value:.3f}" for value in row] for row in np.array(expected[:3]).T
    ]
    assert [row[3] for row in found] == [f"{count:,}" for count in expected[3]]


def test_what_cannot_be_estimated_says_so_with_its_reason(bare: Path) -> None:
    text = " ".join(read(bare).text)

    assert "not estimable" in text
    assert "0 of them" in text
    assert csv_rows(bare)[0]["AUC"] == ""


def test_hostile_text_stays_text(hostile: Path) -> None:
    document = read(hostile)

    assert document.wrong == []
    assert document.open == []
    assert "script" not in document.tags
    assert '"><script>alert(1)</script>' in "".join(document.text)


def test_hostile_text_does_not_become_markdown(hostile: Path) -> None:
    card = (hostile / "model_card.md").read_text(encoding="utf-8")

    assert not re.search(r"(?<!\\)<script", card)
    assert not re.search(r"(?<!\\)\[a", card)


def test_cells_that_a_spreadsheet_would_run_are_quoted(bare: Path) -> None:
    assert csv_rows(bare)[0]["Model"] == "'=1+1"


def test_an_older_report_is_replaced(bare: Path) -> None:
    assert (bare / "plots" / "roc.png").exists()
    assert not (bare / "plots" / "gradcam_wrong.png").exists()


def test_a_leaky_split_stands_on_top(bare: Path) -> None:
    text = (bare / "report.html").read_text(encoding="utf-8")

    assert 0 < text.index("split is leaky") < text.index('id="summary"')


@pytest.mark.parametrize("written", ["binary"], indirect=True)
def test_equal_evaluations_give_equal_files(
    written: tuple[Path, Evaluation], make_evaluation: Callable[..., Evaluation], tmp_path: Path
) -> None:
    page.write(tmp_path, make_evaluation("binary"))

    first = {path.relative_to(written[0]): path.read_bytes() for path in written[0].rglob("*.*")}
    again = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert first == again


@pytest.mark.slow
def test_fourteen_findings_fit(make_evaluation: Callable[..., Evaluation], tmp_path: Path) -> None:
    evaluation = make_evaluation("multilabel", num_findings=14, cases=())

    page.write(tmp_path, evaluation)

    document = read(tmp_path)
    assert document.wrong == []
    assert set(evaluation.findings) <= {text.strip() for text in document.text}
