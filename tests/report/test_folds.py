"""The section on folds of a cross-validation, for one finding and for several repeats."""

from dataclasses import replace

import pytest

from hilum.evaluation.folds import METRICS, Fold, Folds
from hilum.notices import notice
from hilum.report.evaluation import fold_section, page
from hilum.stats import Estimate


def folds_of(repeats):
    """Folds of three, the last fold of the last repeat without an AUROC."""
    rows = []
    for repeat in range(1, repeats + 1):
        for fold in (1, 2, 3, 0):
            value = 0.7 + 0.02 * repeat + 0.03 * fold
            figures = {name: Estimate(value, value - 0.05, value + 0.04) for name in METRICS}
            if (repeat, fold) == (repeats, 3):
                figures["auroc"] = Estimate(None, notice=notice("not-estimable", lacking="positives"))
            rows.append(Fold(repeat, fold, 240 if fold == 0 else 80, 150 if fold == 0 else 50, figures))
    return Folds(3, repeats, tuple(rows))


@pytest.mark.parametrize(("kind", "repeats"), [("binary", 1), ("multilabel", 2)])
def test_the_page_and_the_card_tell_of_the_folds(make_evaluation, tmp_path, kind, repeats):
    evaluation = replace(make_evaluation(kind, cases=(), history=None), folds=folds_of(repeats))

    page.write(tmp_path, evaluation)

    html, card = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "model_card.md"))
    assert '<a href="#folds">Folds</a>' in html
    for text in (html, card):
        assert "SD between folds" in text
        assert "no standard error" in text
        assert ("SD between repeats" in text) == (repeats > 1)
        assert "0 positives" in text


@pytest.mark.parametrize(("together", "headline"), [(0.88, "0.880"), (0.7, "0.890")])
def test_the_headline_is_of_all_folds_unless_their_probabilities_are_not_comparable(
    make_evaluation, together, headline
):
    rows = [
        Fold(1, fold, 80, 50, dict.fromkeys(METRICS, Estimate(value, value - 0.05, value + 0.04)))
        for fold, value in ((1, 0.83), (2, 0.95), (0, together))
    ]
    folds = Folds(2, 1, tuple(rows))

    tile = fold_section.tiles(make_evaluation("binary", cases=(), history=None), folds)[0]

    assert folds.comparable == (together == 0.88)
    assert tile.value == headline
    assert f"{'0.890' if folds.comparable else '0.700'}" in tile.remark
    assert folds.to_dict()["headline"] == ("all_folds" if folds.comparable else "mean_of_folds")
