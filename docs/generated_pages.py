"""What the code knows of itself -> parts of pages, each time the site is built.

A page holds the place as a comment, which GitHub does not show: `<!-- keys -->`, `<!-- commands -->`, or
`<!-- contents -->` for what the page's own lists and tables link to. In pages below `library/`, and in `api.md`, the
heading of a module or class is followed by all that its docstrings say.
"""

import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_origin

import typer
from numpy.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

from hilum.cli import app
from hilum.recipe import all_keys
from hilum.recipe.values import RecipeSection

FIRST_LINK = re.compile(r"^(?:- |\| )\[([^\]]+)\]\(([^):#]+\.(?:md|ipynb))\)", re.MULTILINE)
ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")
FOREIGN = re.compile("model_config|set_[a-z]+_request")
"""What pydantic and scikit-learn put into classes."""
DOCUMENTED = re.compile(r"^## `?(hilum[\w.]*)`?$", re.MULTILINE)


def setup(sphinx: Any) -> dict[str, bool]:
    """Fill pages as they are read, and keep what the interpreter makes of types out of them."""
    sphinx.connect("source-read", fill)
    sphinx.connect("autodoc-process-signature", shorten)
    sphinx.connect("autodoc-process-docstring", keep_colon, priority=400)  # before Napoleon's 500
    sphinx.connect("autodoc-skip-member", lambda _app, _what, name, *_: bool(FOREIGN.fullmatch(name)) or None)
    for section in _recipe_sections(RecipeSection):
        section.__annotations__ = {
            name: kind.__origin__ if get_origin(kind) is Annotated else kind
            for name, kind in section.__annotations__.items()
        }
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(_: Any, name: str, source: list[str]) -> None:
    """Replace the comments of one page; `source` holds its text."""
    text = source[0]
    for place, make in {"keys": keys, "commands": commands, "contents": contents}.items():
        text = text.replace(f"<!-- {place} -->", make(text) if f"<!-- {place} -->" in text else "")
    if name.startswith(("docs/library/", "docs/api")):
        text = DOCUMENTED.sub(lambda heading: f"{heading[0]}\n\n{docstrings(heading[1])}", text)
    source[0] = text


def shorten(_app: Any, _what: str, _name: str, value: Any, _options: Any, told: str, returned: str) -> Any:
    """Return a signature in which NumPy's alias has its name; a recipe's keys are told one by one below it."""
    if isinstance(value, type) and issubclass(value, RecipeSection):
        return "", returned
    return tuple(
        text and text.replace(ARRAY_LIKE, "ArrayLike").replace("<factory>", "...")
        for text in (told, returned)
    )


def keep_colon(_app: Any, what: str, _name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Keep Napoleon from taking what stands before a colon for the type of an attribute."""
    if what in ("property", "attribute", "data"):
        lines[:0] = ["..", ""]  # an empty comment


def keys(_: str = "") -> str:
    """Return every key of a recipe, a heading a section."""
    parts, section = [], ""
    for key in all_keys():
        if key.name.partition(".")[0] != section:
            section = key.name.partition(".")[0]
            parts.append(f"## [{section}]\n")
        default = f"; default `{key.default}`" if key.default else ""
        parts.append(f"`{key.name}`\n: {key.text}\n\n  *Takes {key.values}{default}.*\n")
    return "\n".join(parts)


def commands(_: str = "") -> str:
    """Return what every command's `--help` says, a heading a command."""
    root = typer.main.get_command(app)
    return "\n".join(_command(words, command) for words, command in _walk(["hilum"], root))


def contents(text: str) -> str:
    """Return a hidden table of contents of the pages that a page's own lists and tables begin with."""
    entries = (f"{title} <{page}>" for title, page in FIRST_LINK.findall(text))
    return "\n".join(["```{toctree}", ":hidden:", "", *entries, "```"])


def docstrings(name: str) -> str:
    """Return the directive that shows the docstrings of a module, or of a class."""
    kind = "autoclass" if name.rpartition(".")[2][0].isupper() else "automodule"
    return f"```{{eval-rst}}\n.. {kind}:: {name}\n   :members:\n```"


def _recipe_sections(kind: type) -> Iterator[type]:
    for section in kind.__subclasses__():
        yield section
        yield from _recipe_sections(section)


def _walk(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    """Yield every command with the words that call it."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield words, command
    for name, one in inner.items():
        yield from _walk([*words, name], one)


def _command(words: list[str], command: Any) -> str:
    name = " ".join(words)
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    records = [parameter.get_help_record(context) for parameter in command.params]
    options = [f"`{names}`\n: {_literal(told)}\n" for names, told in filter(None, records)]
    text = inspect.cleandoc(command.help or "")
    examples = _literal(" ".join((command.epilog or "").split()))
    return "\n".join(
        [f"## {name}\n", f"{_literal(text)}\n", f"```sh\n{usage}\n```\n", *options, f"{examples}\n"]
    )


def _literal(text: str) -> str:
    """Return plain text as Markdown that shows it sign by sign, options as code."""
    return re.sub(r"(?<!\S)(--[a-z-]+)", r"`\1`", re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", text))
