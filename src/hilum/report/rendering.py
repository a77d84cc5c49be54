"""A Page -> HTML and Markdown, and its drawings -> files."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hilum import files
from hilum.report.drawing import style
from hilum.report.section import Gallery, Page, Plot


def render_page(page: Page) -> str:
    """Return the HTML of a page, whole and self-contained; text from outside is escaped."""
    return str(_environment(autoescape=True).get_template("page.html.j2").render(page=page))


def render_markdown(template: str, **values: object) -> str:
    """Fill a template of Markdown; text from outside is escaped."""
    from markupsafe import Markup

    # Markdown has an escape of its own.
    escape = {"finalize": lambda value: value if isinstance(value, Markup) else escape_markdown(str(value))}
    text = _environment(autoescape=False, **escape).get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, tables and raw HTML included; a line break becomes a space."""
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", flat).replace("&", "&amp;")


def write_plots(folder: Path, plots: Iterable[Plot | Gallery]) -> None:
    """Write a PNG file for each drawing, named after it."""
    for plot in plots:
        files.write_bytes(folder / f"{plot.name}.png", style.png(plot.figure))


def write_json(path: Path, content: Any) -> None:
    """Write the same numbers for machines."""
    files.write_text(path, f"{json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)}\n")


def _environment(*, autoescape: bool, **options: Any) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("hilum.report")
    return Environment(
        loader=loader,
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
