#!/usr/bin/env bash
# Sets up, then lints and runs the tests; arguments go to pytest: bash scripts/test.sh tests/student -k padding
# PYTHON and VENV as in scripts/setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --tests
PATH=$(cd "${VENV:-.venv}/bin" && pwd):$PATH
ruff check --quiet --output-format=concise .
# In the order of files, whose tests share what is made once; a worker that has no more takes from the other.
python -m pytest --numprocesses=2 --dist=worksteal "$@"
