# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Settings of Sphinx for the documentation: `make docs`, or `rosdoc2 build --package-path .`.

Sphinx reads the repository as it lies there, so that a link is right on the site and on a forge.
rosdoc2 lays the pages out in the same way in a folder of its own, runs this file there, and brings
project, version and theme.
"""

from pathlib import Path
import xml.etree.ElementTree as ElementTree

extensions = ['myst_parser', 'sphinx_rtd_theme']
# Headings have the anchors that forges give them.
myst_heading_anchors = 6
suppress_warnings = ['myst.header']

_HERE = Path(__file__).resolve().parent
# rosdoc2's own settings lie beside the folder of pages.
_DOCS = _HERE if (_HERE / 'index.rst').is_file() and _HERE.name == 'docs' else _HERE / 'docs'
html_static_path = [str(_DOCS / '_static')]
html_css_files = ['site.css']

if 'rosdoc2_settings' not in globals():
    _package = ElementTree.parse(_HERE.parent / 'package.xml').getroot()
    project = _package.findtext('name')
    release = version = _package.findtext('version')
    author = copyright = _package.findtext('maintainer')  # noqa: A001
    root_doc = 'docs/index'
    include_patterns = [
        'README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.rst', 'docs/**',
        'models/default/card.md']
    # Not to be walked through.
    exclude_patterns = ['.*', 'build', 'install', 'log']
    html_theme = 'sphinx_rtd_theme'
    html_theme_options = {'navigation_depth': 3, 'collapse_navigation': False}
    html_show_sourcelink = False
