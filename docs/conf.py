# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Settings of Sphinx for the documentation: `make docs`, or rosdoc2.

Sphinx reads the repository as it lies there, so that a link is right on the site and on a forge.
rosdoc2 copies docs/ and the standard documents into a folder of its own, in the same order, runs
this file there, and brings project, version and theme.
"""

from pathlib import Path
import shutil
import sys
import xml.etree.ElementTree as ElementTree

extensions = ['myst_parser', 'sphinx_rtd_theme']
# Headings have the anchors that forges give them.
myst_heading_anchors = 6

_here = Path(__file__).resolve().parent
if 'rosdoc2_settings' in globals():
    _root = _here
    # rosdoc2 leaves out what else the pages link to. It has put the package first on the path.
    _source = Path(sys.path[0]).resolve()
    sys.path.append(str(_source / 'tools'))
    from check_links import links
    for _page in (*_source.glob('*.md'), *_source.glob('docs/**/*.md')):
        for _link in links(_page):
            _from = (_page.parent / _link.target.partition('#')[0]).resolve()
            if _from.is_file() and _from.is_relative_to(_source):
                _to = _root / _from.relative_to(_source)
                _to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(_from, _to)
else:
    _root = _here.parent
    _package = ElementTree.parse(_root / 'package.xml').getroot()
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
html_static_path = [str(_root / 'docs/_static')]
html_css_files = ['site.css']
