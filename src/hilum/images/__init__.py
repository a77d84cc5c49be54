"""A radiograph (a raster file, DICOM, one array of a stack) becomes a grey image in [0, 1] that knows its origin.

`prepare` is the only way from a file to what a network sees; `read` gives the same image at full resolution
for pictures, and `prepare_and_read` both of one decoding.
"""

from hilum.images.decoded import MIN_SIDE, Header, Provenance
from hilum.images.geometry import FITS, Geometry
from hilum.images.location import (
    ARCHIVE_SUFFIXES,
    Location,
    list_members,
    read_bytes,
    reading_order,
    stack_members,
)
from hilum.images.radiograph import (
    IMAGE_SUFFIXES,
    PREPARE_VERSION,
    Prepared,
    Radiograph,
    Source,
    header,
    is_image,
    prepare,
    prepare_and_read,
    read,
)

__all__ = [
    "ARCHIVE_SUFFIXES",
    "FITS",
    "IMAGE_SUFFIXES",
    "MIN_SIDE",
    "PREPARE_VERSION",
    "Geometry",
    "Header",
    "Location",
    "Prepared",
    "Provenance",
    "Radiograph",
    "Source",
    "header",
    "is_image",
    "list_members",
    "prepare",
    "prepare_and_read",
    "read",
    "read_bytes",
    "reading_order",
    "stack_members",
]
