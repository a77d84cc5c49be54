"""A file `labeled_images.csv` of image paths and labels -> a Table.

Layout: a CSV file with the columns `image_path` (absolute, or relative to the file) and `label` (findings
joined by `|`, or `No Finding`), or a folder with such a file. It is the form in which the NIH images are
often handed on, with paths of another machine: `--images DIR` or `--remap OLD=NEW` mends them. Patients are
read from the file names (`00000001_000.png`) where all are of NIH's form.

Citation, terms, where: those of the data set that it was made from.
"""

from dataclasses import replace
from pathlib import Path

from hilum.data.readers.base import ColumnMap, Reader, Request, find_file, read_header
from hilum.data.readers.csv_map import read_mapped
from hilum.data.table import Table
from hilum.errors import LayoutError

COLUMNS = ColumnMap(image="image_path", label="label")


def matches(request: Request) -> bool:
    """Return whether there is a CSV file with the two columns."""
    path = _file(request)
    return path is not None and {COLUMNS.image, COLUMNS.label} <= set(read_header(path))


def read(request: Request) -> Table:
    """Read the file; see the module for the layout."""
    path = _file(request)
    if path is None:
        raise LayoutError(f"there is no labeled_images.csv in {request.source}")
    return read_mapped(replace(request, source=path), COLUMNS)


READER = Reader(
    expects="a CSV file with the columns image_path and label, or a folder with labeled_images.csv",
    matches=matches,
    read=read,
    has_paths=True,
)


def _file(request: Request) -> Path | None:
    if request.source.is_file():
        return request.source
    return find_file(request.source, "labeled_images.csv")
