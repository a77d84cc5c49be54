"""The pages of `docs/` and the notebooks -> a site; `make docs` builds it into `build/docs`.

The repository is the source, so that a link between two pages holds on GitHub and on the site alike.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hilum

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"docs", "notebooks", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
"""What of the repository the site shows."""

project, release = "Hilum", hilum.__version__
author = "The Hilum developers"
copyright = f"{author}. MIT licence. Research use only: not a medical device"
root_doc = "docs/index"
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in PAGES]
exclude_patterns += ["notebooks/*/**", "**/.ipynb_checkpoints"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
myst_enable_extensions = ["deflist"]
smartquotes_action = "D"  # dashes; quotes stay as they are written
toc_object_entries_show_parents = "hide"
default_role = "code"  # docstrings put names into single backticks

myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are shown as they are stored; the tests run them

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True  # a dataclass's fields are told once, under Attributes
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signature has them

html_theme = "pydata_sphinx_theme"
html_title = "Hilum"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"docs/index": [], "docs/tutorial": []}
html_theme_options = {
    "show_nav_level": 1,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
