# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a release says of itself in several places, and the tools that read it."""

import logging
from pathlib import Path
import re
import subprocess
import sys

import hralign_ros
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT, ROOT / 'hralign_msgs')


@pytest.fixture(params=PACKAGES, ids=lambda folder: folder.name)
def manifest(request):
    """Read the package.xml of each package as colcon and bloom do; it has no fault."""
    package = pytest.importorskip('catkin_pkg.package')
    warnings = []
    found = package.parse_package(str(request.param), warnings=warnings)
    assert warnings == []
    return found


def test_one_version_everywhere(manifest):
    """Guards a release in which a place was forgotten; bloom takes package.xml's word."""
    said = subprocess.run(
        [sys.executable, 'setup.py', '--quiet', '--version'], cwd=ROOT, text=True,
        capture_output=True, check=True).stdout.strip().splitlines()[-1]
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
    assert {manifest.version, said, hralign_ros.__version__, str(citation['version'])} == {
        manifest.version}


def test_who_answers_and_where(manifest):
    """Guards what rosdistro asks for: a maintainer who is a role, a licence, three addresses."""
    assert [url.type for url in manifest.urls] == ['website', 'repository', 'bugtracker']
    (maintainer,) = manifest.maintainers
    assert maintainer.name == 'hralign_ros maintainers'
    assert list(map(str, manifest.licenses)) == ['Apache-2.0']
    assert maintainer.email in (ROOT / 'SECURITY.md').read_text('utf-8')


def test_the_changelog_is_one_that_bloom_reads(manifest, caplog):
    """
    Guards the changes of a Debian package: a heading that is not read loses its whole release.

    Between releases a heading "Forthcoming" stands first; the releases below go down to the first.
    """
    changelog = pytest.importorskip('catkin_pkg.changelog')
    with caplog.at_level(logging.WARNING):
        found = changelog.get_changelog_from_path(str(Path(manifest.filename).parent))
    assert caplog.records == []
    versions = {version: when for version, when, _ in found.foreach_version()}
    assert manifest.version in versions and '0.1.0' in versions
    assert all(when is None or re.match(r'20\d\d-', str(when)) for when in versions.values())
    assert all(found.get_content_of_version(version) for version in versions)


def test_the_changelog_is_good_text(manifest):
    """Guards its page: docutils shows a fault in red, in the midst of the text."""
    core = pytest.importorskip('docutils.core')
    text = Path(manifest.filename).with_name('CHANGELOG.rst').read_text('utf-8')
    core.publish_doctree(text, settings_overrides={'halt_level': 2, 'report_level': 5})


def test_what_pip_says_of_it():
    """Guards a page of the package index that is empty or is no Markdown; twine reads the same."""
    said = subprocess.run(
        [sys.executable, 'setup.py', '--quiet', '--long-description', '--classifiers'], cwd=ROOT,
        text=True, capture_output=True, check=True).stdout
    assert '```python\nfrom hralign_ros.runtime import default_bundle' in said
    assert [f'Python :: 3.{minor}\n' in said for minor in range(10, 15)] == [True] * 5


def test_the_citation_names_both_papers():
    """Guards the authors of the methods, and a file that is no YAML."""
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
    assert citation['cff-version'] == '1.2.0' and citation['license'] == 'Apache-2.0'
    found = {reference['identifiers'][0]['value']: reference['year']
             for reference in citation['references']}
    assert found == {'arXiv:2406.14235': 2025, 'arXiv:2407.14872': 2024}
