"""Each notebook is stored with its outputs, and runs from its first cell to its last on real radiographs."""

import base64
import csv
import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from PIL import Image

import hilum

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FINDINGS = ("Pneumonia", "No Finding", "Infiltration", "Effusion")
TEXTS = ("text/plain", "text/html", "text/markdown")
TIMEOUT = 900  # seconds a cell, on a machine that does much else


@dataclass(frozen=True)
class Executed:
    """A notebook that has run: what it wrote, and what it showed as text and as pictures."""

    folder: Path
    text: str
    pictures: tuple[Image.Image, ...]


@pytest.fixture(scope="module")
def kermany(shared_data, tmp_path_factory):
    """Forty films a class and part of Kermany's set, by link."""
    folder = tmp_path_factory.mktemp("chest_xray")
    for source in sorted((shared_data / "kermany_224").glob("*/*")):
        films = sorted(source.iterdir())
        for film in films[:: max(1, len(films) // 40)][:40]:
            link(film, folder / film.relative_to(shared_data / "kermany_224"))
    return folder


@pytest.fixture(scope="module")
def nih(shared_data, tmp_path_factory):
    """The first forty images of some findings of NIH's at hand, with their rows and the boxes."""
    folder, source = tmp_path_factory.mktemp("nih"), shared_data / "nih"
    there = {image.name for image in (source / "images_256").iterdir()}
    with (source / "Data_Entry_2017_v2020.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    rows = [row for row in rows if row[0] in there]
    by_finding = [[row for row in rows if finding in row[1].split("|")][:40] for finding in FINDINGS]
    chosen = {row[0]: row for some in by_finding for row in some}
    with (folder / "Data_Entry_2017_v2020.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *chosen.values()])
    shutil.copy(source / "BBox_List_2017.csv", folder)
    for name in chosen:
        link(source / "images_256" / name, folder / "images" / name)
    return folder


def link(file, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(file)


def execute(name, folder, **environment):
    """Runs a notebook as `jupyter execute` does, as a reader would in an empty folder; no cell may fail."""
    shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", folder)
    paths = {"PYTHONPATH": str(ROOT / "src")}
    cache = {"HILUM_CACHE": str(folder / "cache"), "HILUM_SETTING": "small", "TF_CPP_MIN_LOG_LEVEL": "2"}
    # In a process of its own, with which its kernel and their sockets end.
    command = [
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
        f"--timeout={TIMEOUT}",
        "--inplace",
    ]
    done = subprocess.run(
        [*command, f"{name}.ipynb"],
        cwd=folder,
        env={**os.environ, **paths, **cache, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if "data" in output]
    text = [output.text for output in outputs if output.output_type == "stream"]
    text += [data.get("text/markdown", data.get("text/plain", "")) for data in shown]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) for data in shown if "image/png" in data
    ]
    return Executed(folder, "\n".join(text), tuple(pictures))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """A notebook as it is stored."""
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def test_a_notebook_is_valid_and_short(notebook):
    nbformat.validate(notebook)

    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert 12 <= len(code(notebook)) <= 19
    assert all(len(cell.source.splitlines()) <= 26 for cell in code(notebook))
    assert all(re.fullmatch("[a-z0-9-]+", cell.id) for cell in notebook.cells)


def test_the_first_lines_say_for_what_it_is_and_where_the_outputs_come_from(notebook):
    first = notebook.cells[0].source

    assert "Research use only: not a medical device." in first
    assert "`HILUM_SETTING=short`" in first
    assert "not those\nof [Results](../docs/results.md)" in first


def test_a_notebook_is_stored_with_its_outputs(notebook):
    shown = outputs(notebook)

    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert {output.output_type for output in shown} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in shown if output.get("name") == "stderr"]
    assert sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in shown) >= 8


def test_what_is_stored_tells_of_no_machine(notebook):
    said = [output.get("text", "") for output in outputs(notebook)]
    said += [output.data.get(kind, "") for output in outputs(notebook) if "data" in output for kind in TEXTS]

    assert not [text for text in said if re.search(r"(?<![\w.:/<])/[A-Za-z]\w*/\w", text)]


def test_a_stored_notebook_is_small_enough_to_be_kept():
    assert {path.stem: path.stat().st_size for path in NOTEBOOKS if path.stat().st_size >= 1_500_000} == {}


def test_notebooks_go_through_the_door(notebook):
    text = "\n".join(cell.source for cell in code(notebook))

    assert not re.findall(r"(?:from|import) hilum\.\S+", text)
    assert set(re.findall(r"\bhilum\.(\w+)", text)) <= set(hilum.__all__)


def test_all_have_one_cell_that_installs_what_is_missing():
    first = [code(nbformat.read(path, as_version=4))[0] for path in NOTEBOOKS]

    assert {cell.id for cell in first} == {"install"}
    assert len({cell.source for cell in first}) == 1


@pytest.mark.parametrize(
    "checkout",
    [
        "beside/..",
        "content/hilum",
        "content/drive/MyDrive/hilum",
        "kaggle/input/hilum/hilum-main",
        "kaggle/working/h",
    ],
)
def test_a_checkout_is_found_where_hilum_is_missing(tmp_path, checkout):
    source = code(nbformat.read(NOTEBOOKS[0], as_version=4))[0].source
    source = (
        re.sub(r"%pip .*", "", source).replace('"/', f'"{tmp_path}/').replace('"hilum"', '"no_such_package"')
    )
    (tmp_path / "beside").mkdir()
    (tmp_path / checkout / "src" / "hilum").mkdir(parents=True)

    said = subprocess.run(
        [sys.executable, "-c", f"{source}\n    print(checkout)"],
        cwd=tmp_path / "beside",
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert (tmp_path / "beside" / said.strip()).resolve() == (tmp_path / checkout).resolve()


def test_the_one_image_that_is_explained_is_of_the_test_part(notebook):
    cells = notebook.cells
    (place,) = [number for number, cell in enumerate(cells) if 'film = "film.dcm"' in cell.source]

    assert re.search(r"query\(\"split == 'test'", cells[place].source), (
        "of whatever part stands first in the table"
    )
    assert "test part" in cells[place - 1].source, "and the reader is told"


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem.startswith("nih")], ids=lambda path: path.stem
)
def test_images_may_lie_elsewhere_than_their_table(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)

    assert 'os.environ.get("HILUM_NIH_IMAGES")' in text
    assert "hilum.read(DATA, images=IMAGES)" in text


def test_the_table_of_notebooks_names_each():
    table = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")

    assert set(re.findall(r"\]\((\w+\.ipynb)\)", table)) == {path.name for path in NOTEBOOKS}


@pytest.mark.full
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("kermany_densenet121",),
        ("nih_pneumonia_densenet121",),
        ("nih_infiltration_keras", "nih_infiltration_pytorch"),
        ("kermany_vgg16_custom_cnn",),
        ("nih_multilabel",),
    ],
    ids=" and ".join,
)
def test_what_is_stored_can_be_made_again(shared_data, tmp_path, names):
    weights = next((shared_data / "weights").glob("mobilenet_v2*.npz"))
    data = {
        "HILUM_KERMANY": str(shared_data / "kermany_224"),
        "HILUM_NIH": str(shared_data / "nih"),
        "HILUM_NIH_IMAGES": str(shared_data / "nih" / "images_256"),
        "HILUM_WEIGHTS": str(weights),
        "PYTHONPATH": str(ROOT / "src"),
    }
    places = [f"--folder={tmp_path / 'run'}", f"--output={tmp_path / 'stored'}"]

    done = subprocess.run(
        [sys.executable, str(ROOT / "notebooks" / "execute.py"), *names, *places],
        env={**os.environ, **data},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.stem for path in (tmp_path / "stored").iterdir()} == set(names)


@pytest.mark.real
@pytest.mark.slow
def test_kermany_densenet121(kermany, tmp_path):
    ran = execute("kermany_densenet121", tmp_path, HILUM_KERMANY=str(kermany))

    run = tmp_path / "runs" / "kermany_densenet121"
    assert (tmp_path / "saved_models" / "kermany_densenet121.keras").is_file()
    assert (run / "model" / "bundle" / "model.onnx").is_file()
    assert (run / "model" / "evaluation" / "report.html").is_file()
    assert "No leak was found." in ran.text
    before = re.search(r"densenet121\.keras +([\d.]+)\nbundle +([\d.]+)", ran.text)
    assert float(before[1]) == pytest.approx(float(before[2]), abs=1e-4)
    assert len(ran.pictures) >= 9
    assert all(picture.width >= 370 for picture in ran.pictures)


@pytest.mark.real
@pytest.mark.slow
def test_nih_pneumonia_densenet121(nih, tmp_path):
    ran = execute("nih_pneumonia_densenet121", tmp_path, HILUM_NIH=str(nih))

    assert (tmp_path / "saved_models" / "nih_binary_model_finetuned.keras").is_file()
    assert re.search(r"split by patient +\d+ +0\n?", ran.text)
    assert re.search(r"split by image +\d+ +[1-9]", ran.text)
    assert len(ran.pictures) >= 10


@pytest.mark.real
@pytest.mark.slow
def test_nih_infiltration_on_both_frameworks(shared_data, nih, tmp_path):
    weights = str(next((shared_data / "weights").glob("mobilenet_v2*.npz")))
    first = execute("nih_infiltration_keras", tmp_path, HILUM_NIH=str(nih), HILUM_WEIGHTS=weights)
    second = execute("nih_infiltration_pytorch", tmp_path, HILUM_NIH=str(nih), HILUM_WEIGHTS=weights)

    assert "accuracy of calling all negative" in first.text
    assert (tmp_path / "saved_models" / "nih_infiltration_mobilenetv2.keras").is_file()
    assert "model.safetensors" in second.text
    compared = tmp_path / "runs" / "nih_infiltration_pytorch" / "compared"
    rows = (compared / "performance_metrics.csv").read_text(encoding="utf-8").splitlines()
    models = {row["Model"] for row in csv.DictReader(rows)}
    assert models == {"Keras", "Keras, plain", "PyTorch", "PyTorch, 1 logit"}
    assert len(second.pictures) >= 6


@pytest.mark.real
@pytest.mark.slow
def test_kermany_vgg16_custom_cnn(kermany, tmp_path):
    ran = execute("kermany_vgg16_custom_cnn", tmp_path, HILUM_KERMANY=str(kermany))

    output = tmp_path / "output"
    assert {file.name for file in (output / "models").iterdir()} == {
        "best_model.keras",
        "final_custom_model.keras",
    }
    for picture in ("roc_comparison", "confusion_matrix_comparison", "gradcam_visualizations"):
        assert (output / "comparison" / f"{picture}.png").is_file()
    assert (output / "plots" / "dataset_distribution.png").is_file()
    assert (output / "comparison" / "performance_metrics.csv").is_file()
    assert len(ran.pictures) >= 9


@pytest.mark.real
@pytest.mark.slow
def test_nih_multilabel(nih, tmp_path):
    ran = execute("nih_multilabel", tmp_path, HILUM_NIH=str(nih), HILUM_NIH_IMAGES=str(nih / "images"))

    run = tmp_path / "runs" / "nih_multilabel"
    assert (run / "model" / "bundle" / "bundle.json").is_file()
    assert (run / "model" / "evaluation" / "plots" / "auroc_by_finding.png").is_file()
    assert "half are seen after %" in ran.text
    assert len(ran.pictures) >= 8
