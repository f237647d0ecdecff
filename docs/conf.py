"""Sphinx: README, the pages below docs/ and their neighbours, as a site with search.

The sources are read from the top of the project, so that each link and picture stays as it is in
the files, where a forge shows them too.
"""

from __future__ import annotations

import pathlib
import urllib.parse

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

project = "bus_alt_connection"
author = "bus_alt_connection contributors"
root_doc = "docs/index"
include_patterns = ["README.rst", "CONTRIBUTING.rst", "SECURITY.rst", "docs/*.rst"]
html_theme = "alabaster"
html_theme_options = {"description": "Odoo behind a connection pooler", "page_width": "70em"}
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


class Links(SphinxTransform):
    """Turn links to files into links to pages; files that are no page can be downloaded."""

    default_priority = 100  # before downloads are collected

    def apply(self, **_kwargs):
        for link in list(self.document.findall(nodes.reference)):
            url = urllib.parse.urlsplit(link.get("refuri", ""))
            if url.scheme or not url.path:
                continue
            page, _dot, suffix = url.path.rpartition(".")
            if suffix != "rst":
                target = addnodes.download_reference("", "", *link.children, reftarget=url.path)
                link.replace_self(target)
                continue
            found, _path = self.env.relfn2path(url.path)
            if found.removesuffix(".rst") not in self.env.found_docs:
                logger.warning("no page %s", url.path, location=link)
            link["refuri"] = url._replace(path=f"{page}.html").geturl()


def front_page(app, exception):
    """A site begins at its index.html."""
    if not exception and app.builder.format == "html":
        page = '<!DOCTYPE html><title>{}</title><meta http-equiv="refresh" content="0; url={}">\n'
        index = pathlib.Path(app.outdir) / "index.html"
        index.write_text(page.format(project, f"{root_doc}.html"), encoding="utf-8")


def setup(app):
    app.add_transform(Links)
    app.add_lexer("haproxy", TextLexer)  # which Pygments does not know
    app.connect("build-finished", front_page)
