#!/usr/bin/env bash
# Sets up, then runs the whole job on real text: bash scripts/demo.sh --help tells what can be changed.
# PYTHON and VENV as in scripts/setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
PATH=$(cd "${VENV:-.venv}/bin" && pwd):$PATH
python -m experiments.demo "$@"
