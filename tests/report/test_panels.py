"""Radiographs keep their look: aspect, sides, nothing drawn without evidence, one scale over a figure."""

import dataclasses
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilum.inference.explanation import Case
from hilum.report.drawing import maps, style


def test_overlay_is_the_radiograph_where_there_is_no_evidence(make_case: Callable[..., Case]) -> None:
    case = dataclasses.replace(make_case(size=(240, 200)), boxes=np.zeros((0, 4)))

    views = maps.views(case, limit=1.0, side=240)

    assert (views.overlay[:, :95] == views.radiograph[:, :95]).all()
    assert (views.overlay[:, 120:] != views.radiograph[:, 120:]).any()
    assert (views.evidence[:, :95] == 0).all()


def test_radiograph_is_grey_untouched_and_not_mirrored(make_case: Callable[..., Case]) -> None:
    case = make_case(size=(120, 100))
    marked = case.grey.copy()
    marked[:20, :20] = 1.0
    marked[:20, 80:] = 0.0

    view = maps.views(dataclasses.replace(case, grey=marked), limit=1.0, side=120).radiograph

    assert np.array_equal(view[..., 0], np.rint(marked * 255))
    assert np.array_equal(view[..., 0], view[..., 2])


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (2000, 1000)])
def test_views_keep_the_aspect(make_case: Callable[..., Case], size: tuple[int, int]) -> None:
    height, width = maps.views(make_case(size=size), limit=1.0, side=600).overlay.shape[:2]

    assert max(height, width) == 600
    assert height / width == pytest.approx(size[0] / size[1], rel=0.01)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (128, 128)])
def test_figures_keep_the_aspect(make_case: Callable[..., Case], size: tuple[int, int]) -> None:
    case = make_case(size=size)

    for drawing in (maps.panel(case), *maps.gallery([case], title="t")):
        width, height = drawing.get_size_inches()
        frames = [frame.get_position() for frame in drawing.axes[:3]]
        for frame in frames:
            ratio = (frame.height * height) / (frame.width * width)
            assert ratio == pytest.approx(size[0] / size[1], rel=0.02)


def test_one_scale_holds_over_a_figure(make_case: Callable[..., Case]) -> None:
    strong, faint = make_case(strength=2.0), make_case(strength=0.2)

    limit = maps.scale_limit([strong, faint])
    alone = maps.views(faint, limit=maps.scale_limit([faint])).evidence
    together = maps.views(faint, limit=limit).evidence
    drawing = maps.gallery([strong, faint], title="t")[0]

    assert limit == 2.0
    assert together.max() < alone.max(), "a faint map stays faint beside a strong one"
    assert np.array_equal(np.asarray(drawing.axes[5].images[0].get_array()), together)
    assert drawing.axes[-1].get_xlim() == (-2.0, 2.0)


@pytest.mark.parametrize("places", [(1, 1), (3, 3), (8, 8)])
def test_what_a_map_is_stands_clear_of_the_scale(
    make_case: Callable[..., Case], places: tuple[int, int]
) -> None:
    case = replace(make_case(), places=places)

    drawing = maps.gallery([case], title="t")[0]

    drawing.canvas.draw()
    renderer = drawing.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = drawing.axes[-1].get_tightbbox(renderer)
    for text in drawing.texts:
        assert not text.get_window_extent(renderer).overlaps(scale), text.get_text()


def test_a_scale_that_pictures_share_is_named_in_each(make_case: Callable[..., Case]) -> None:
    alone, shared = (
        " ".join(text.get_text() for text in maps.panel(make_case(), shared=what).texts)
        for what in ("", "all 3 images of this command")
    )

    assert "One scale" not in alone
    assert "One scale for all 3 images of this command." in shared


def test_a_map_with_next_to_nothing_is_not_stretched(make_case: Callable[..., Case]) -> None:
    assert maps.scale_limit([make_case(strength=0.001)]) == maps.SMALLEST_LIMIT


@pytest.mark.parametrize(
    ("strength", "places", "said"),
    [
        (0.0, (7, 7), "No evidence: nothing here moves the logit"),
        (0.021, (1, 2), "Hardly any evidence: none moves the logit by more than 0.03"),
        (0.021, (20, 20), "Faint in each place: none moves the logit by more than 0.03"),
        (0.021, (0, 0), "Faint in each place: none moves the logit by more than 0.03"),
        (0.5, (7, 7), ""),
    ],
)
def test_a_faint_map_fits_its_scale_and_says_that_it_is_faint(
    make_case: Callable[..., Case], strength: float, places: tuple[int, int], said: str
) -> None:
    case = replace(make_case(strength=strength), places=places)

    drawing = maps.panel(case)

    lines = [text.get_text() for text in drawing.axes[2].texts]
    assert maps.faintness(case) == said
    assert " ".join(reversed(lines)) == said
    assert maps.scale_limit([case]) <= max(2 * strength, maps.SMALLEST_LIMIT)
    drawing.canvas.draw()
    for text in drawing.axes[2].texts:
        inside, frame = text.get_window_extent(), drawing.axes[2].get_window_extent()
        assert frame.x0 < inside.x0 < inside.x1 < frame.x1, text.get_text()


def test_the_thin_line_is_explained_only_where_one_is_drawn(make_case: Callable[..., Case]) -> None:
    case = make_case(strength=1.0)

    with_it, without = (
        " ".join(text.get_text() for text in maps.panel(case, limit=limit).texts) for limit in (1.0, 4.0)
    )

    assert "Thin line: half of the scale." in with_it
    assert "Thin line" not in without
    assert "Green: box that came with the data." in without


def test_an_unknown_truth_does_not_read_as_the_answer(make_case: Callable[..., Case]) -> None:
    assert maps.caption(make_case(label=float("nan"))).startswith("Pneumonia, truth unknown; probability ")


@pytest.mark.parametrize(
    ("largest", "limit"), [(0.31, 0.4), (1.0, 1.0), (1.01, 1.5), (9.0, 10.0), (23.0, 25.0)]
)
def test_scale_ends_at_a_round_number(make_case: Callable[..., Case], largest: float, limit: float) -> None:
    case = dataclasses.replace(make_case(), evidence=np.full((120, 100), -largest))

    assert maps.scale_limit([case]) == pytest.approx(limit)


def test_colours_are_black_at_zero_warm_above_and_cold_below() -> None:
    below, zero, above = maps.colours(np.array([-1.0, 0.0, 1.0]), 1.0)

    assert (zero == 0).all()
    assert above[0] > above[2]
    assert below[2] > below[0]


def test_lightness_of_both_ramps_rises_with_the_evidence() -> None:
    for sign in (1, -1):
        red, green, blue = maps.colours(sign * np.linspace(0, 1, 50), 1.0).T
        assert (np.diff(0.2126 * red + 0.7152 * green + 0.0722 * blue) > 0).all()


@pytest.mark.parametrize(
    ("label", "probability", "outcome"),
    [
        (1, 0.5, "True positive"),
        (1, 0.49, "False negative"),
        (0, 0.5, "False positive"),
        (0, 0.1, "True negative"),
        (float("nan"), 0.9, "Called present"),
    ],
)
def test_outcome(make_case: Callable[..., Case], label: float, probability: float, outcome: str) -> None:
    assert maps.outcome(make_case(label=label, probability=probability)) == outcome


@pytest.mark.parametrize(
    ("label", "called", "outcome"),
    [
        (1, True, "Right class"),
        (0, True, "Wrong class"),
        (1, False, "Wrong class"),
        (0, False, "Right class"),
        (float("nan"), True, "Called present"),
    ],
)
def test_outcome_of_a_class(make_case: Callable[..., Case], label: float, called: bool, outcome: str) -> None:
    case = make_case(label=label, probability=0.4, threshold=None, called=called)

    assert maps.outcome(case) == outcome


def test_caption_of_a_class_says_which_was_called_and_which_is_true(make_case: Callable[..., Case]) -> None:
    case = make_case(label=0, probability=0.4, threshold=None, called=True, truth="Mass")

    assert maps.caption(case) == "Pneumonia called, probability 0.40; truth: Mass"
    unknown = make_case(label=float("nan"), probability=0.3, threshold=None, called=False)
    assert maps.caption(unknown) == "Pneumonia not called, probability 0.30; truth: unknown"


def test_caption_says_truth_probability_and_decision(make_case: Callable[..., Case]) -> None:
    caption = maps.caption(make_case(label=0, probability=0.934))

    assert caption == "Pneumonia absent; probability 0.93, called present (threshold 0.50)"


def test_gallery_breaks_into_pages(make_case: Callable[..., Case]) -> None:
    drawings = maps.gallery([make_case() for _ in range(maps.ROWS + 1)], title="t")

    assert len(drawings) == 2
    assert all(drawing.get_size_inches()[1] <= 11 for drawing in drawings)
    assert maps.gallery([], title="t") == ()


def test_panel_is_large_enough_to_read(make_case: Callable[..., Case]) -> None:
    with Image.open(io.BytesIO(style.png(maps.panel(make_case())))) as picture:
        assert picture.width >= 2000


def test_panel_says_research_use_and_the_bundle(make_case: Callable[..., Case]) -> None:
    words = [text.get_text() for text in maps.panel(make_case(), bundle="0123456789abcdef" * 4).texts]

    assert "Research use only; not a medical device. Bundle 0123456789abcdef." in words


@pytest.mark.real
def test_a_real_radiograph_is_drawn(shared_data: Path, make_case: Callable[..., Case]) -> None:
    source = sorted((shared_data / "nih" / "images").glob("*.png"))[0]
    with Image.open(source) as picture:
        grey = np.asarray(picture.convert("L"), np.float32) / 255
    case = dataclasses.replace(make_case(size=grey.shape), grey=grey)

    view = maps.views(case, limit=1.0).radiograph

    assert view.shape == (maps.SIDE, maps.SIDE, 3)
    assert view.mean() == pytest.approx(grey.mean() * 255, abs=1)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((4, 4), "It has only 4 × 4 places (grey lines) and outlines no lesion."),
        ((14, 12), "It has 14 × 12 places and outlines no lesion."),
        ((0, 0), "It does not outline a lesion."),
    ],
)
def test_every_map_says_how_coarse_it_is(
    make_case: Callable[..., Case], places: tuple[int, int], said: str
) -> None:
    case = replace(make_case(), places=places)

    for drawing in (maps.panel(case), *maps.gallery([make_case(), case], title="t")):
        assert said in " ".join(text.get_text() for text in drawing.texts)


def test_a_coarse_map_shows_the_borders_of_its_places(make_case: Callable[..., Case]) -> None:
    halves = np.array([[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]])
    plain = make_case(strength=0)

    few, many = (
        maps.views(replace(plain, places=places, cells=halves), limit=1, side=200)
        for places in ((1, 2), (9, 9))
    )

    row, middle = 180, few.evidence.shape[1] // 2  # below the expert's box
    assert few.evidence[row, middle - 1 : middle + 2].max() > 60
    assert few.evidence[row, 20].max() == 0
    assert many.evidence[row].max() == 0
    np.testing.assert_array_equal(few.overlay, many.overlay)
