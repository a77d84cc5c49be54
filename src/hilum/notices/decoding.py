"""Notices of how a file became a grey image."""

from hilum.notices.notice import Wording

DECODING = {
    "few-pixels": Wording(
        "warning",
        "only {width} x {height} pixels: small findings are lost",
        "The image is smaller than 64 pixels; look for the original.",
    ),
    "secondary-capture": Wording(
        "warning",
        "a secondary capture that is declared CR or DX: its grey values may have been altered",
        "A DICOM file is a screen capture or export; ask for the detector's own image.",
    ),
    "burned-in-annotation": Wording(
        "warning",
        "burned-in annotation is declared",
        "A DICOM file says that text stands in its pixels; check it for a patient's name.",
    ),
    "view-left-out": Wording(
        "warning",
        "the view position is none of PA, AP, LL, RL and was left out",
        "The DICOM header's view is another, or is misspelt; the view counts as unknown.",
    ),
    "age-left-out": Wording(
        "warning",
        "the patient's age cannot be and was left out",
        "The DICOM header's age is no age of a person; it counts as unknown.",
    ),
    "age-without-unit": Wording(
        "warning",
        "the patient's age has no unit and was taken for years",
        "The DICOM header's age is a bare number, against the standard.",
    ),
    "header-breaks-standard": Wording(
        "warning",
        "the header has values that break the DICOM standard",
        "pydicom complained of the header; values of a patient are not repeated.",
    ),
    "transparency": Wording(
        "warning",
        "the image is partly transparent; it was laid on black",
        "The file has an alpha channel that is not opaque everywhere.",
    ),
    "few-bits-used": Wording(
        "warning",
        "the brightest of {levels} possible values is {brightest}: are fewer bits used than declared? "
        "The whole range was scaled",
        "A 16-bit file uses an eighth of its range or less; it was read nearly black.",
    ),
    "decoder-warning": Wording(
        "warning",
        "{message}",
        "Pillow's own warning about the file, for example of damaged metadata.",
    ),
}
