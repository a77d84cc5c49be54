"""Cases -> one PNG file each, as `hilum explain` leaves them."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hilum import files
from hilum.inference.explanation import Case
from hilum.report.drawing import maps, style


def write(
    folder: Path,
    cases: Sequence[Case],
    *,
    name: str,
    bundle: str,
    limit: float | None = None,
    shared: str = "",
) -> list[Path]:
    """Write a panel a case, all on one scale.

    Args:
        folder: Where to; made where it is missing.
        cases: Of one image.
        name: What the files begin with; see `names`.
        bundle: The hash of the bundle that made them; it stands in the picture.
        limit: Where the scale ends, in logit units; None takes `maps.scale_limit` of these cases.
        shared: Which pictures have that scale, in words; empty for those of one image.

    Returns:
        The files, `NAME-FINDING.png` each; any that were there are replaced.
    """
    limit = maps.scale_limit(cases) if limit is None else limit
    written = []
    for case in cases:
        path = folder / f"{name}-{_plain(case.finding)}.png"
        files.write_bytes(
            path, style.png(maps.panel(case, limit=limit, bundle=bundle, shared=shared), dpi=150)
        )
        written.append(path)
    return written


def names(images: Sequence[str]) -> list[str]:
    """Name for pictures of images, from the images' own; equal ones are numbered from the second on."""
    seen: Counter[str] = Counter()
    found = []
    for image in images:
        stem = _plain(Path(image.rpartition("::")[2] or image).stem)
        seen[stem] += 1
        found.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return found


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "image"
