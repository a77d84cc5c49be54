"""Cases -> one PNG file each, as `hilum explain` leaves them; none takes the place of another."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from hilum import files
from hilum.errors import UsageError
from hilum.inference.explanation import Case
from hilum.report.drawing import maps, style

MAX_BYTES = 100
"""Of a name's part; a file's name may have 255 in all."""


def plan(folder: Path, images: Iterable[str], findings: Sequence[str]) -> list[tuple[Path, ...]]:
    """Choose the file of each picture, before any is drawn.

    Args:
        folder: Where to; it need not be there.
        images: Their names.
        findings: That are drawn of each.

    Returns:
        For each image a file a finding, `NAME-FINDING.png`, no two alike; images of one name are numbered from the
        second on.

    Raises:
        UsageError: A file is there already. It may be of another patient.
    """
    endings = _endings(findings)
    there = {path.name.casefold() for path in folder.iterdir()} if folder.is_dir() else set()
    taken: set[str] = set()
    last: Counter[str] = Counter()
    planned = []
    for image in images:
        stem = _plain(Path(image.rpartition("::")[2] or image).stem)
        for number in count(last[stem] + 1):
            numbered = stem if number == 1 else f"{stem}-{number}"
            names = [f"{numbered}-{ending}.png" for ending in endings]
            if taken.isdisjoint(map(str.casefold, names)):
                break
        last[stem] = number
        taken.update(map(str.casefold, names))
        planned.append(tuple(folder / name for name in names))
    for path in (path for row in planned for path in row if path.name.casefold() in there):
        raise UsageError(
            f"{path} is there already, perhaps of another patient; give another folder, or remove it first"
        )
    return planned


def write(
    paths: Sequence[Path], cases: Sequence[Case], *, bundle: str, limit: float | None = None, shared: str = ""
) -> None:
    """Write a panel a case, all on one scale.

    Args:
        paths: A file a case; see `plan`.
        cases: Of one image.
        bundle: The hash of the bundle that made them; it stands in the picture.
        limit: Where the scale ends, in logit units; None takes `maps.scale_limit` of these cases.
        shared: Which pictures have that scale, in words; empty for those of one image.
    """
    limit = maps.scale_limit(cases) if limit is None else limit
    for path, case in zip(paths, cases, strict=True):
        panel = maps.panel(case, limit=limit, bundle=bundle, shared=shared)
        files.write_bytes(path, style.png(panel, dpi=150))


def _endings(findings: Sequence[str]) -> list[str]:
    """Return what names end in, one a finding; numbered where two would be alike."""
    endings = [_plain(finding) for finding in findings]
    if len(set(map(str.casefold, endings))) < len(endings):
        return [f"{number}-{ending}" for number, ending in enumerate(endings, start=1)]
    return endings


def _plain(text: str) -> str:
    """Return text as a part of a file's name on any system."""
    plain = re.sub(r"[^\w.-]+", "_", text).encode()[:MAX_BYTES].decode(errors="ignore")
    return plain.strip("._") or "image"
