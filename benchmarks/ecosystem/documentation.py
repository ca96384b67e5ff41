# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The documentation as a site: what Sphinx warns of, and links that lead nowhere.

    python -m benchmarks.ecosystem.documentation

Counted are warnings of the build, and dead links of the pages as a forge shows them and as the
site has them. Links to other hosts need a network: `make links` checks those.
"""

from pathlib import Path
import subprocess
import sys
import tempfile

from benchmarks.ecosystem.measure import record
from benchmarks.pages import ROOT


def main() -> None:
    """Build the site, and write what was found into results/ecosystem.json."""
    sys.path.insert(0, str(ROOT / 'tools'))
    from build_site import build, dead
    import check_links
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder).resolve()
        try:
            warnings = build(output)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f'{error.stderr}The site cannot be built; python tools/setup_env.py '
                             'docs installs what it needs') from error
        links = [*(text for page in check_links.pages() for text in check_links.dead(page)),
                 *check_links.lost(), *dead(output)]
    print('\n'.join([*warnings, *links]))
    print(record('python -m benchmarks.ecosystem.documentation',
                 facts={'site_warnings': len(warnings), 'dead_links': len(links)}))


if __name__ == '__main__':
    main()
