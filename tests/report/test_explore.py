"""The page of a data set: whole, self-contained, escaped; its figures readable; what is not known is left out."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from hilum.data import phantom
from hilum.data.exploration import Exploration, explore
from hilum.data.label_statistics import Ages, ClassQuartiles, FollowUps, Shares, Sizes, Visits
from hilum.data.table import Source, Table, make_frame
from hilum.recipe.findings import NIH_FINDINGS
from hilum.report.drawing import charts, image_grids, style
from hilum.report.exploration import page as report, plots, sentences

HOSTILE = '"><script>alert(1)</script>'
ALL_KNOWN = set(report.FIGURES) - {"image_sizes"}  # phantoms are of one size


class Balance(HTMLParser):
    """Notes tags, references and what is closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            value or "" for name, value in attributes if name in ("src", "href", "xlink:href")
        ]
        self.ids += [value or "" for name, value in attributes if name == "id"]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def table_of(
    number: int, *, findings: tuple[str, ...] = NIH_FINDINGS, seed: int = 0, folder: Path = Path("/nowhere")
) -> Table:
    """A table with everything known but the images."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((number, len(findings))) < np.linspace(0.4, 0.02, len(findings))).astype(float)
    frame = make_frame(
        image=[f"{row}.png" for row in range(number)],
        source="made",
        patient=[f"p{patient}" for patient in rng.integers(0, max(1, number // 2), number)],
        findings=findings,
        labels=labels,
        view=rng.choice(["PA", "AP", "LATERAL", ""], number),
        sex=rng.choice(["F", "M", ""], number),
        age=rng.uniform(0, 95, number),
        width=rng.integers(1500, 3000, number),
        height=rng.integers(1500, 3000, number),
        split=rng.choice(["train", "val", "test"], number, p=[0.8, 0.05, 0.15]),
    )
    return Table(frame, findings, (Source("made", folder, "Somebody 2020", "free"),))


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Exploration:
    """Phantoms with a split, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("phantoms")
    table = phantom.generate(folder, num_images=60, size=64, seed=3)
    (folder / str(table.frame["image"][0])).write_bytes(b"broken")
    return explore(table.with_split(["train"] * 40 + ["val"] * 5 + ["test"] * 15), limit=15)


@pytest.fixture(scope="module")
def written(explored: Exploration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    report.write(folder, explored, title=HOSTILE)
    return folder


def figures(found: Exploration) -> dict[str, Figure]:
    drawn = [*plots.labels(found), *plots.people(found), *plots.pixels(found)]
    return {plot.name: plot.figure for plot in [*drawn, *plots.pictures(found)]}


def test_the_page_is_whole_and_refers_to_nothing_outside(written: Path) -> None:
    text = (written / "explore.html").read_text(encoding="utf-8")
    page = Balance(text)

    assert page.wrong == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references)
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= set(page.ids)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert HOSTILE in "".join(page.words)
    assert "http" not in text
    assert "Research use only" in text


def test_pictures_have_stable_names_and_nothing_runs_over_their_edge(written: Path) -> None:
    assert {path.stem for path in written.glob("*.png")} == ALL_KNOWN
    for path in written.glob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
            assert picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert pixels.shape[1] == round(200 * style.FULL)
        assert pixels.shape[0] <= 200 * 11, "longer than a printed page"
        assert pixels.std() > 10
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert (edge == 255).all(), path.name


def test_json_is_the_numbers(written: Path, explored: Exploration) -> None:
    told = json.loads((written / "explore.json").read_text(encoding="utf-8"))

    assert told == json.loads(json.dumps(explored.to_dict()))
    assert len(told["pixels"]["unreadable"]) == 1


def test_the_page_warns_of_what_cannot_be_read(written: Path) -> None:
    text = " ".join(Balance((written / "explore.html").read_text(encoding="utf-8")).words)

    assert "1 file of" in text
    assert "could not be read" in text
    assert "The part val holds 5 images: too few" in text
    assert "pixels." in text
    assert "All sizes known (60 images) are 64 × 64 pixels." in text


def test_equal_explorations_give_equal_files(written: Path, explored: Exploration, tmp_path: Path) -> None:
    report.write(tmp_path, explored, title=HOSTILE)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }


def test_what_is_not_known_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    frame = make_frame(
        image=["a.png", "b.png"], source="made", patient=["a", "b"], findings=("Mass",), labels=[[1], [0]]
    )
    table = Table(frame, ("Mass",), (Source("made", tmp_path, "", ""),))
    (tmp_path / "out").mkdir()
    for name in ("views.png", "mine.png"):
        (tmp_path / "out" / name).write_bytes(b"of an earlier page, and of the user")

    report.write(tmp_path / "out", explore(table), title="little")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dataset_distribution.png", "mine.png", "explore.json", "explore.html"}
    text = (tmp_path / "out" / "explore.html").read_text(encoding="utf-8")
    for sentence in (
        "Ages are not known.",
        "Sexes are not known.",
        "Views are not known.",
        "no split",
        "no boxes",
    ):
        assert sentence in text
    assert "None of the images is here" in text


def test_a_table_without_a_row_or_a_finding_has_a_page(tmp_path: Path) -> None:
    empty = table_of(3).select(np.zeros(3, bool))
    unlabelled = table_of(3, findings=())

    for number, table in enumerate((dataclasses.replace(empty, sources=()), unlabelled)):
        assert report.write(tmp_path / str(number), explore(table), title="nothing").is_file()


def test_a_table_of_several_data_sets_says_first_what_its_differences_may_be(explored: Exploration) -> None:
    other = dataclasses.replace(explored.sources[0], name="other")
    joined = dataclasses.replace(explored, sources=(*explored.sources, other))

    assert sentences.notable(joined)[0].startswith("The table joins 2 data sets, phantom and other: ")
    said, alone = "\n".join(sentences.notable(joined)[1:]), "\n".join(sentences.notable(explored))
    assert sentences.between(explored) == ""
    assert sentences.between(joined) in said
    assert said.replace(sentences.between(joined), "") == alone
    looks = {name: dataclasses.replace(look, num_images=30) for name, look in joined.looks.items()}
    assert sentences.between(joined) in sentences.means(dataclasses.replace(joined, looks=looks))[1]
    means = next(each for each in plots.pictures(joined) if each.name == "mean_images")
    assert any("2 data sets joined" in text.get_text() for text in means.figure.texts)


def test_shares_of_a_pair_are_of_the_images_of_which_both_are_known(tmp_path: Path) -> None:
    unknown = float("nan")
    labels = [[1, 1]] * 30 + [[1, 0]] * 30 + [[0, 1]] * 10 + [[0, 0]] * 30 + [[unknown, 1]] * 900
    frame = make_frame(
        image=[f"{row}.png" for row in range(1000)],
        source="made",
        patient=[f"p{row}" for row in range(1000)],
        findings=("Effusion", "Edema"),
        labels=np.array(labels),
    )
    found = explore(Table(frame, ("Effusion", "Edema"), (Source("made", tmp_path, "", ""),)))

    per_cent = "\N{NO-BREAK SPACE}%"
    assert (
        f"(50.0{per_cent} of those with the one, 75.0{per_cent} of those with the other)"
        in sentences.pairs(found)
    )


TABLES = {"many": (900, NIH_FINDINGS), "few": (60, NIH_FINDINGS), "one": (40, ("Mass",))}
TABLES["long"] = (40, ("A finding with an endless name, longer than any", "Mass"))


@pytest.mark.parametrize("name", ["phantoms", *TABLES])
def test_words_in_figures_neither_touch_nor_leave_the_picture(name: str, explored: Exploration) -> None:
    if name != "phantoms":
        number, findings = TABLES[name]
        explored = explore(table_of(number, findings=findings))
    for figure, drawing in figures(explored).items():
        boxes = words_of(drawing)
        page = drawing.bbox
        outside = [
            text
            for text, box in boxes
            if box.x0 < 0 or box.x1 > page.width or box.y0 < 0 or box.y1 > page.height
        ]
        assert outside == [], figure
        touching = [
            (one, other)
            for place, (one, box) in enumerate(boxes)
            for other, second in boxes[place + 1 :]
            if box.overlaps(second)
        ]
        assert touching == [], figure


def words_of(drawing: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its place in pixels; ticks beyond the limits are not drawn."""
    style.png(drawing, dpi=100)  # the figure's own: axis labels are placed in pixels
    renderer = drawing.canvas.get_renderer()  # type: ignore[attr-defined]
    texts = [*drawing.texts]
    for frame in drawing.axes:
        low, high = frame.get_xlim()
        ticks = [label for label in frame.get_xticklabels() if low <= label.get_position()[0] <= high]
        texts += [*frame.texts, frame.xaxis.label, frame.yaxis.label, *(ticks if frame.axison else [])]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def test_no_text_is_smaller_than_nine_points(explored: Exploration) -> None:
    for name, drawing in figures(explored).items():
        sizes = [text.get_fontsize() for text in drawing.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]
        assert min(sizes) >= 9, name


def test_radiographs_keep_their_aspect(explored: Exploration) -> None:
    look = explored.looks["No Finding"]
    tall = dataclasses.replace(look.samples[0], width=100, height=150)
    tiles = image_grids.samples({"a": dataclasses.replace(look, samples=(tall,))}, number=6)

    height, width = tiles[0].pictures[0][1].shape[:2]
    drawing = image_grids.mosaic(tiles, columns=1, title="t", subtitle="s")
    frame = drawing.axes[0].get_position()
    across, down = drawing.get_size_inches()
    assert height / width == pytest.approx(1.5, rel=0.01)
    assert frame.height * down / (frame.width * across) == pytest.approx(1.5, rel=0.01)


def test_the_difference_from_the_reference_is_signed_and_black_where_there_is_none(
    explored: Exploration,
) -> None:
    base = explored.looks["No Finding"]
    changed = base.mean.copy()
    changed[:64], changed[-64:] = changed[:64] + 0.1, changed[-64:] - 0.1
    looks = {"No Finding": base, "Mass": dataclasses.replace(base, mean=changed)}

    tile = image_grids.means(looks, reference="No Finding", aspect=1.0)[1]

    picture = tile.pictures[1][1].astype(int)
    assert (picture[10, :, 0] > picture[10, :, 2]).all(), "warm where brighter"
    assert (picture[-10, :, 2] > picture[-10, :, 0]).all(), "cold where darker"
    assert (picture[len(picture) // 2] == 0).all()


def test_sentences_follow_from_the_numbers(tmp_path: Path) -> None:
    labels = np.zeros((400, 2))
    labels[:100, 0] = labels[:25, 1] = 1  # 25 have both; 6.25 would by chance
    frame = make_frame(
        image=[f"{row}.png" for row in range(400)],
        source="made",
        patient=[f"p{row // 2}" for row in range(400)],
        findings=("Effusion", "Edema"),
        labels=labels + np.pad(np.ones((5, 2)), ((395, 0), (0, 0))) * [0, 1],
        view=["AP"] * 60 + ["PA"] * 340,
        split=["train"] * 200 + ["test"] * 200,
    )
    found = explore(Table(frame, ("Effusion", "Edema"), (Source("made", tmp_path, "", ""),)))

    assert (
        sentences.imbalance(found)
        == "Effusion is in 100 images and Edema in 30, 3.3 to 1; No Finding in 295."
    )
    assert (
        "Effusion differs most between the parts: 50.0\N{NO-BREAK SPACE}% of train"
        in sentences.split_difference(found)
    )
    assert sentences.pair_title(found) == "Effusion and Edema go together"
    assert sentences.several(found).startswith("3.3 times as often as by chance; 25 images")
    assert (
        "from 0.0\N{NO-BREAK SPACE}% of No Finding to 83.3\N{NO-BREAK SPACE}% of Edema"
        in sentences.view_sentence(found)
    )
    assert sentences.repeated_title(found).startswith("100.0")
    assert "They hold 400 of 400 images" in sentences.repeated(found)


def test_a_finding_that_includes_others_is_named_and_is_no_coincidence(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 0]] * 40 + [[1, 0, 1]] * 40 + [[0, 0, 0]] * 40)
    names = ("Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia")
    frame = make_frame(
        image=[f"{row}.png" for row in range(120)],
        source="made",
        patient=[f"p{row}" for row in range(120)],
        findings=names,
        labels=labels,
    )
    found = explore(Table(frame, names, (Source("made", tmp_path, "", ""),)))

    assert (
        sentences.pair_title(found) == "Every image with Bacterial Pneumonia or Viral Pneumonia has Pneumonia"
    )
    assert "Bacterial Pneumonia and Viral Pneumonia are never together." in sentences.pairs(found)
    assert "Every image" not in sentences.pairs(found), "the title says it"
    assert sentences.several(found) == (
        "0 images (0.0\N{NO-BREAK SPACE}%) have two findings or more, a whole and its part counted once"
    )


def test_captions_do_not_repeat_what_stands_out(explored: Exploration) -> None:
    said = "\n".join(sentences.notable(explored))

    drawn = [*plots.labels(explored), *plots.people(explored), *plots.pixels(explored)]

    assert len(said) > 100
    for plot in drawn:
        assert plot.caption, plot.name
        for sentence in plot.caption.split(". "):
            assert sentence.rstrip(".") not in said, plot.name


@pytest.mark.real
def test_kermany_and_nih_have_a_page(shared_data: Path, tmp_path: Path) -> None:
    from hilum.data.readers import read

    nih = read(shared_data / "nih", images=shared_data / "nih" / "images_256")
    kermany = read(shared_data / "kermany_224")
    sizes = []
    for name, table, limit in (("nih", nih, 30), ("kermany", kermany, 30)):
        page = report.write(tmp_path / name, explore(table, limit=limit), title=name)
        sizes.append(page.stat().st_size)

    assert {path.stem for path in (tmp_path / "nih").glob("*.png")} == set(report.FIGURES)
    assert not (tmp_path / "kermany" / "views.png").exists()
    assert re.search(
        r"Every view is AP, as small children are filmed",
        (tmp_path / "kermany" / "explore.html").read_text(encoding="utf-8"),
    )
    assert max(sizes) < 5e6


def test_means_of_dark_films_are_drawn_over_their_own_range(explored: Exploration) -> None:
    dark = {
        name: dataclasses.replace(look, mean=0.1 + 0.2 * look.mean) for name, look in explored.looks.items()
    }

    tiles = image_grids.means(dark, reference="No Finding", aspect=1.0)

    for tile in tiles:
        grey = tile.pictures[0][1]
        assert grey.min() < 20
        assert grey.max() > 220
    shown = plots.pictures(dataclasses.replace(explored, looks=dark))
    low, high = image_grids.mean_range(dark)
    told = " ".join(
        text.get_text() for each in shown if each.name == "mean_images" for text in each.figure.texts
    )
    assert f"Grey {low:.2f} to {high:.2f} drawn from black to white" in told


def test_small_files_are_counted_in_pixels(explored: Exploration) -> None:
    spread = ClassQuartiles("All", 3, (0.05, 0.0576, 0.0655), None)
    sides = np.array([[224, 224], [256, 256]])
    sizes = Sizes(sides, np.array([1, 2]), False, (spread,))

    drawn = {plot.name: plot for plot in plots.pixels(dataclasses.replace(explored, sizes=sizes))}

    assert drawn["image_sizes"].title == "2 sizes, from 224 × 224 to 256 × 256 pixels"
    labels = [frame.get_xlabel() for frame in drawn["image_sizes"].figure.axes]
    assert "Thousand pixels" in labels
    assert "Megapixels" not in labels


NAMES = (
    "Pleural_Thickening",
    "A finding whose name is forty letters on",
    "Enlarged_Cardiomediastinum_of_any_cause_",
    "Supercalifragilisticexpialidociousnesses",
    *(f"Finding {number}" for number in range(11)),
)


@pytest.mark.parametrize("kind", ["samples", "mean_images", "box_atlas"])
def test_no_mosaic_cuts_a_name(explored: Exploration, kind: str) -> None:
    looks = dict.fromkeys(NAMES, explored.looks["No Finding"])
    atlas = tuple(dataclasses.replace(explored.atlas[0], finding=name, boxes=20) for name in NAMES)
    found = dataclasses.replace(explored, looks=looks, atlas=atlas, reference="")

    drawing = next(each.figure for each in plots.pictures(found) if each.name == kind)

    placed = words_of(drawing)
    told = "".join(text for text, _ in placed).replace(" ", "")
    assert [name for name in NAMES if name.replace(" ", "") not in told] == []
    assert "…" not in "".join(text for text, _ in placed[2:])
    assert not [
        (one, other)
        for place, (one, box) in enumerate(placed)
        for other, second in placed[place + 1 :]
        if box.overlaps(second)
    ]
    assert all(box.x1 <= drawing.bbox.width for _, box in placed[2:])


def some_people(tmp_path: Path, *, source: str = "made", age: float = 50) -> Table:
    """Forty patients, the half of whom nothing is known but the view."""
    labels = [[1]] * 20 + [[0]] * 20
    frame = make_frame(
        image=[f"{row}.png" for row in range(40)],
        source=source,
        patient=[f"p{row}" for row in range(40)],
        findings=("Mass",),
        labels=labels,
        view=["AP"] * 15 + ["PA"] * 25,
        sex=(["F", "M"] * 5 + [""] * 10) * 2,
        age=([age] * 15 + [np.nan] * 5) * 2,
    )
    return Table(frame, ("Mass",), (Source(source, tmp_path, "", ""),))


def test_demographics_say_of_how_many_they_are_known(tmp_path: Path) -> None:
    found = explore(some_people(tmp_path))

    text = " ".join(text for text, _ in words_of(figures(found)["demographics"]))
    report.write(tmp_path / "out", found, title="t")

    assert "age known of 30 of 40 patients, sex of 20 of 40 images" in text
    assert "50 % of 20" in text
    assert "50 % of 10" in text
    page = (tmp_path / "out" / "explore.html").read_text(encoding="utf-8")
    assert "10 patients of known age and unknown sex are not drawn." in page
    table = page[page.index("Age in years and sex, by images, of those of which they are known") :]
    cells = re.findall(r'<td class="number">([^<]*)', table[: table.index("</table>")])
    assert [cell.strip(" ") for cell in cells[:5]] == ["40", "30", "50", "20", "50.0\N{NO-BREAK SPACE}%"]
    assert found.to_dict()["ages"]["patients_of_known_age"] == 30


@pytest.mark.parametrize("most", [7, 70, 990, 1_900, 60_000])
def test_demographics_of_many_patients_have_ticks_that_stand_apart(most: int) -> None:
    names = ("All images", "No Finding", "Mass")
    years = tuple(ClassQuartiles(name, 112_120, (33.0, 47.0, 79.0), None) for name in names)
    ages = Ages(("F", "M"), np.array([[1, most // 2], [1, most]]), (33.0, 47.0, 58.0), years)
    sexes = Shares(("F", "M"), names, np.array([[50_000, 62_120]] * 3))

    placed = words_of(charts.demographics(ages, sexes, title="t", subtitle="s"))

    words = [text for text, _ in placed]
    assert len([text for text in words if text.replace(",", "").isdigit() and text != "112,120"]) >= 5
    assert "45 % of 112,120" in words
    assert not [
        (one, other)
        for place, (one, box) in enumerate(placed)
        for other, second in placed[place + 1 :]
        if box.overlaps(second)
    ]


def test_shares_of_views_are_of_the_known_ones() -> None:
    found = explore(table_of(200))
    assert found.views
    known = int(found.views.known[0])

    text = [text for text, _ in words_of(figures(found)["views"])]

    assert known < 200
    assert f"of {known:,} images whose view is known" in text[0]
    assert any(re.fullmatch(rf"\d+ % of {known}", each) for each in text)


@pytest.mark.parametrize(
    ("source", "age", "told"),
    [
        ("made", 50, "AP images of adults are mostly taken at the bedside, of sicker patients"),
        ("made", 3, "AP is how small children are filmed, sick or not, so"),
        ("made", np.nan, "(the ages of 15 of 15 AP images are not known)"),
        ("kermany", np.nan, "AP is how small children are filmed, sick or not, so"),
    ],
)
def test_what_is_said_of_ap_fits_who_was_filmed(tmp_path: Path, source: str, age: float, told: str) -> None:
    said = sentences.view_sentence(explore(some_people(tmp_path, source=source, age=age)))

    assert told in said
    assert ("sicker" in said) == (source == "made" and age != 3)


def test_follow_up_shares_say_of_how_many_images() -> None:
    visits = (Visits(1, 1, 30, 30, 12, 30), Visits(2, 2, 10, 20, 5, 18))

    frame = charts.follow_ups(FollowUps(visits, 2), title="t", subtitle="s").axes[1]

    assert [text.get_text() for text in frame.texts] == ["40 %", "of 30", "28 %", "of 18"]
