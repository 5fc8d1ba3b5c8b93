"""Takes one source archive from the package index pip is set up for, and runs nothing in it.

`pip download` runs the setup.py of a source archive, so pip's own finder and session are used instead,
in a process of their own: the user's index, mirror, proxy and certificates hold here too.
"""

import os
import shutil
import subprocess
import sys

from training import files
from training.command import UserError

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TIME_LIMIT = 600  # seconds


def fetch_source(name, version, sha256, path):
    """Writes the archive to `path`, whole or not at all.

    Args:
      sha256: of the archive, 64 hexadecimal digits.

    Raises:
      UserError: it cannot be had, or is another file than the one expected.
    """
    with files.whole_file(path) as temporary:
        _ask_pip(name, version, os.path.abspath(temporary))
        found = files.digest(temporary)
        if found != sha256:
            raise UserError("%s==%s: the package index gave a file with SHA-256 %s, not %s; it was not used"
                            % (name, version, found, sha256))


def _ask_pip(name, version, path):
    try:
        subprocess.run([sys.executable, "-m", "experiments.package_index", name, version, path], cwd=CHECKOUT,
                       check=True, timeout=TIME_LIMIT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                       universal_newlines=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no reason given"]
        raise UserError("%s==%s cannot be had from the package index: %s" % (name, version, said[-1]))
    except subprocess.TimeoutExpired:
        raise UserError("%s==%s cannot be had: the package index gave no whole file in %d seconds"
                        % (name, version, TIME_LIMIT))


def _download(name, version, path):
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    command = create_command("download")
    options, _ = command.parse_args(["--no-binary=:all:", "--retries=1", "--disable-pip-version-check", name])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)
        best = finder.find_best_candidate(name, SpecifierSet("==" + version)).best_candidate
        if best is None:
            sys.exit("it has no such source archive, or does not answer")
        # Otherwise a server may compress the archive once more on its way.
        response = session.get(best.link.url_without_fragment, headers={"Accept-Encoding": "identity"},
                               stream=True)
        response.raise_for_status()
        with open(path, "wb") as stream:
            shutil.copyfileobj(response.raw, stream)


if __name__ == "__main__":
    _download(*sys.argv[1:])
