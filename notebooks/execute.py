"""Runs notebooks in the short setting and stores them with their outputs, made small enough to be kept.

    HILUM_KERMANY=chest_xray HILUM_NIH=nih HILUM_WEIGHTS=mobilenet_v2.npz python notebooks/execute.py

The variables are those of README.md. The data are linked into the folder where the notebooks run, so that every path
that they show is relative. `HILUM_WEIGHTS` is a file of MobileNetV2; the notebooks in `FROM_NOTHING` begin with random
weights. What a cell wrote to stderr is left out: it is the frameworks' talk, with paths of the machine.
"""

import argparse
import base64
import io
import os
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).resolve().parent
NOTEBOOKS = (
    "kermany_densenet121",
    "nih_pneumonia_densenet121",
    "nih_infiltration_keras",
    "nih_infiltration_pytorch",
    "kermany_vgg16_custom_cnn",
    "nih_multilabel",
)
"""In the order in which they run: the second of the pair reads what the first one left."""
FROM_NOTHING = ("nih_multilabel",)
MOST_BYTES = 1_500_000
WIDEST, COLOURS, JPEG_QUALITY = 1_100, 256, 75


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NOTEBOOKS)}")
    parser.add_argument("--folder", type=Path, help="where they run and leave their models; else a new one")
    parser.add_argument("--output", type=Path, default=HERE, help="where they are stored; else here")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NOTEBOOKS):
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are: {', '.join(NOTEBOOKS)}")
    with TemporaryDirectory() as new:
        folder = (chosen.folder or Path(new)).resolve()
        environment = link_data(folder)
        for name in [name for name in NOTEBOOKS if name in (chosen.names or NOTEBOOKS)]:
            weights = {"HILUM_WEIGHTS": "none"} if name in FROM_NOTHING else {}
            began = time.monotonic()
            notebook = run(HERE / f"{name}.ipynb", folder, {**environment, **weights})
            store(notebook, chosen.output / f"{name}.ipynb", unwanted=(str(folder), str(HERE.parent)))
            os.write(1, f"{name}: {time.monotonic() - began:.0f} s\n".encode())


def link_data(folder: Path) -> dict[str, str]:
    """Link what the variables name into a folder; return the variables with paths relative to it."""
    said = os.environ
    links = {"data/chest_xray": said.get("HILUM_KERMANY"), "weights.npz": said.get("HILUM_WEIGHTS")}
    nih = Path(said["HILUM_NIH"]).resolve() if "HILUM_NIH" in said else None
    images = said.get("HILUM_NIH_IMAGES")
    if nih:
        # One by one, so that images that lie elsewhere take the place of those beside the table.
        links |= {
            f"data/nih/{file.name}": str(file) for file in nih.iterdir() if file.is_file() or not images
        }
    links["data/nih/images"] = images or links.get("data/nih/images")
    for place, target in links.items():
        if target and not (folder / place).exists():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to(Path(target).resolve())
    return {
        "HILUM_SETTING": "short",
        "HILUM_WEIGHTS": "weights.npz" if said.get("HILUM_WEIGHTS") else "none",
        "HILUM_CACHE": said.get("HILUM_CACHE", str(folder / "cache")),
        "HILUM_NIH": "data/nih",
        "HILUM_KERMANY": "data/chest_xray",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **({"HILUM_NIH_IMAGES": "data/nih/images"} if images else {}),
    }


def run(path: Path, folder: Path, environment: dict[str, str]) -> nbformat.NotebookNode:
    """Run a notebook in a folder; a cell that fails ends it."""
    notebook = nbformat.read(path, as_version=4)
    kept = notebook.metadata.copy()
    os.environ.update(environment)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata = kept
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def store(notebook: nbformat.NotebookNode, path: Path, *, unwanted: Iterable[str]) -> None:
    """Write a notebook with smaller pictures and without stderr.

    Args:
        notebook: It has run.
        path: Where to.
        unwanted: Folders of this machine, of which no output may tell.

    Raises:
        ValueError: An output tells of one, or the file would be too large to be kept.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    kind, content = smaller(base64.b64decode(output.data.pop("image/png")))
                    output.data[kind] = base64.b64encode(content).decode()
    text = nbformat.writes(notebook)
    if told := [place for place in unwanted if place in text]:
        raise ValueError(f"{path.name} shows a path of this machine: {told[0]}")
    if len(text.encode()) >= MOST_BYTES:
        raise ValueError(
            f"{path.name} would take {len(text.encode()):,} bytes; fewer than {MOST_BYTES:,} expected"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def smaller(png: bytes) -> tuple[str, bytes]:
    """Return a picture of at most `WIDEST` pixels as its type and bytes: a JPEG of films, of few colours a PNG."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDEST, WIDEST * 4), Image.Resampling.LANCZOS)
    as_png, as_jpeg = io.BytesIO(), io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(as_png, "PNG", optimize=True)
    picture.save(as_jpeg, "JPEG", quality=JPEG_QUALITY, optimize=True)
    if len(as_png.getvalue()) <= len(as_jpeg.getvalue()):
        return "image/png", as_png.getvalue()
    return "image/jpeg", as_jpeg.getvalue()


if __name__ == "__main__":
    main()
