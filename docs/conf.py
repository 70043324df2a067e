"""How the manual is built: ``make manual`` writes it to ``build/manual``."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_extensions")]

project = "Condenser"
author = "The Condenser authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_reference"]
exclude_patterns = ["_extensions"]
templates_path: list[str] = []

html_theme = "furo"
html_title = "Condenser"
html_theme_options = {"source_directory": "docs/"}
html_show_copyright = False
html_show_sphinx = False

# A heading is a target, so that one page can point into another.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# Paths of the repository stand in the text as code; what is a link has to lead somewhere.
nitpicky = True
# Types of other libraries, and of ours that are not part of the client.
nitpick_ignore_regex = [("py:.*", r".*")]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = False

# A server that is slow once is asked again; one that forbids robots is there.
linkcheck_retries = 3
linkcheck_timeout = 20
linkcheck_allow_unauthorized = True
