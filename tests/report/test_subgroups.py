"""The section on subgroups: its figure, tables and CSV file, also where they are crowded or hostile."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hilum.data.table import Source, Table, make_frame
from hilum.evaluation.subgroups import subgroups
from hilum.notices import notice
from hilum.recipe.findings import NIH_FINDINGS
from hilum.report.drawing import style
from hilum.report.evaluation import page, subgroup_section as told
from hilum.report.evaluation.disparities import disparity_sentences


@pytest.fixture(scope="session")
def divided(make_evaluation, tmp_path_factory):
    """Makes an evaluation with subgroups: `sites` of that many names, views of two, the rest unknown."""

    def make(task, *, sites=("site-a", "site-b"), view=("PA", "AP"), **settings):
        evaluation = make_evaluation(task, cases=(), history=None, **settings)
        count = len(evaluation.labels)
        whose = np.char.lstrip(evaluation.patients, "p").astype(int)
        frame = make_frame(
            image=[f"{number}.png" for number in range(count)],
            source=np.array(sites)[whose % len(sites)],
            patient=evaluation.patients,
            findings=("Mass",),
            labels=np.zeros((count, 1)),
            view=np.array(view)[np.arange(count) % len(view)],
        )
        folder = tmp_path_factory.getbasetemp()
        table = Table(frame, ("Mass",), tuple(Source(name, folder, "Somebody", "free") for name in sites))
        found = subgroups(
            table,
            evaluation.labels,
            evaluation.probabilities,
            decision=evaluation.decision,
            patients=evaluation.patients,
            scores=evaluation.scores,
        )
        return replace(evaluation, subgroups=found)

    return make


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_report_tells_of_subgroups_everywhere(divided, task, tmp_path):
    evaluation = divided(task, num_images=400)

    page.write(tmp_path, evaluation)

    html, card = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "model_card.md"))
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert 'href="#subgroups"' in html
    assert "{" not in card
    assert "Source: site-a" in html
    assert "Source: site-a" in card
    assert metrics["subgroups"] == evaluation.subgroups.to_dict()
    assert metrics["num_images"] == 400
    with Image.open(tmp_path / "plots" / "subgroups.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


def test_what_differs_stands_where_it_fails(divided, tmp_path):
    evaluation = divided("binary", num_images=600)
    worse = evaluation.subgroups.factors[0].levels[0]
    assert not any("site-a" in line for line in disparity_sentences(evaluation.subgroups))
    lower = replace(worse.difference, value=-0.2, low=-0.3, high=-0.1)
    factor = evaluation.subgroups.factors[0]
    levels = (replace(worse, difference=lower, holm_p=0.0004), *factor.levels[1:])
    found = replace(evaluation.subgroups, factors=(replace(factor, levels=levels),))

    page.write(tmp_path, replace(evaluation, subgroups=found))

    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    failures = html[html.index("Where it fails") : html.index("</ul>", html.index("Where it fails"))]
    assert "lower by 0.200 (0.100–0.300, p &lt;\N{NO-BREAK SPACE}0.001)" in failures


def test_csv_has_a_line_a_level_and_finding_with_the_numbers_of_the_metrics(divided):
    found = divided("multilabel", num_images=600).subgroups

    rows = list(csv.DictReader(io.StringIO(told.to_csv(found))))

    levels = sum(len(factor.levels) for factor in found.factors)
    findings = len(found.baseline)
    assert len(rows) == levels * (findings + 1)
    first = found.to_dict()["factors"]["source"]["levels"]
    name = rows[0]["level"]
    assert float(rows[0]["auroc"]) == pytest.approx(
        first[name]["findings"][rows[0]["finding"]]["auroc"]["value"], abs=1e-5
    )
    assert rows[findings]["finding"] == "Mean"
    assert float(rows[findings]["auroc_low"]) == pytest.approx(first[name]["auroc"]["low"], abs=1e-5)
    assert rows[findings - 1]["auroc"] == ""  # the last finding has no positives
    assert "too small: 0 patients with the finding" in rows[findings - 1]["reason"]


def test_hostile_names_of_sources_stay_text(divided, tmp_path):
    hostile = "=1+1<script>alert(1)</script>|x"

    page.write(tmp_path, divided("binary", sites=(hostile, "b"), num_images=400))

    assert "<script>" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "\nsource,'=1+1" in (tmp_path / "subgroups.csv").read_text(encoding="utf-8")


def test_an_older_evaluation_without_subgroups_leaves_none_behind(make_evaluation, tmp_path):
    (tmp_path / "subgroups.csv").write_text("old")

    page.write(tmp_path, make_evaluation("binary", cases=(), history=None))

    assert not (tmp_path / "subgroups.csv").exists()
    assert 'id="subgroups"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_images_that_are_all_alike_get_a_line_and_no_figure(divided):
    section = told.section(divided("binary", sites=("only",), view=("PA",)))

    assert section.plots == ()
    assert section.tables == ()
    assert "source (only), view (PA), sex (unknown), age (unknown)" in section.lead
    assert section.blocks[0].text.startswith(
        "Metadata alone tell nothing here: view (the same in all images)"
    )


def test_levels_of_the_same_images_get_one_row_and_one_point(divided):
    evaluation = divided("binary", num_images=400)
    source, view = evaluation.subgroups.factors
    levels = (replace(view.levels[0], same_as=("source", "site-a")), *view.levels[1:])
    found = replace(evaluation.subgroups, factors=(source, replace(view, levels=levels)))

    section = told.section(replace(evaluation, subgroups=found))
    rows = dict(section.tables[0].rows)

    same, other = (rows[f"View: {one.name}"] for one in levels[:2])
    assert [cell.value for cell in same[3:]] == ["same images", "–", "–", "–", "–"]
    assert "–" not in [cell.value for cell in other[3:]]
    assert (same[3].note, "the same images as source site-a") in section.tables[0].notes
    written = [text.get_text() for text in section.plots[0].figure.texts]
    assert "same as source site-a" in written
    assert {"all images together", "chance"} <= set(written)
    assert "Intervals of AUROC here: DeLong" in section.blocks[1].note


def test_one_level_that_can_be_scored_does_not_give_the_title_its_figure(divided):
    evaluation = divided("binary", num_images=400)
    source = evaluation.subgroups.factors[0]
    nothing = replace(
        source.levels[1].auroc,
        value=None,
        low=None,
        high=None,
        notice=notice("too-small", why="too small: few"),
    )
    small = replace(source.levels[1], auroc=nothing, difference=nothing, holm_p=None)
    found = replace(
        evaluation.subgroups, factors=(replace(source, levels=(source.levels[0], small)),), comparisons=0
    )

    section = told.section(replace(evaluation, subgroups=found))

    assert section.plots[0].title == f"AUROC by subgroup: only source {source.levels[0].name} can be scored"
    assert "comparison" not in section.blocks[1].note


def test_many_sites_with_long_names_and_many_findings_fit(divided):
    sites = tuple(f"a-hospital-with-quite-a-long-name-{number:02d}" for number in range(25))
    evaluation = divided("multilabel", sites=sites, num_findings=14, num_images=3000)
    assert evaluation.findings == NIH_FINDINGS[:14]

    section = told.section(evaluation)
    figure = section.plots[0].figure

    assert figure.get_size_inches()[1] < 11  # a page of Letter
    box = figure.bbox
    for text in figure.texts:
        words = text.get_window_extent(figure.canvas.get_renderer())
        assert words.x0 >= box.x0
        assert words.x1 <= box.x1
    assert len(style.png(figure)) > 1000
    assert [grid.caption for grid in section.blocks[-1].grids] == ["AUROC by finding and view"]
    assert {f"a-hospital-w…name-{number:02d}"[-7:] for number in range(25)} <= {
        text.get_text()[-7:] for text in figure.texts
    }
    assert "By finding and source: in subgroups.csv." in section.blocks[1].note
