#!/usr/bin/env bash
# Makes the virtual environment the other scripts run in, unless it is there and whole.
#
#   bash scripts/setup.sh                             makes .venv, or does nothing
#   bash scripts/setup.sh --tests                     the same, with what the tests need
#   bash scripts/setup.sh --print-python [VERSION...] only prints the interpreter it would take
#
# PYTHON  the interpreter; without it a Python 3.7 (TensorFlow 1.15) is looked for on PATH, in pyenv
#         and in uv, then a Python 3.11, 3.10 or 3.9 (TensorFlow 2.15).
# VENV    the environment's folder, .venv by default; a relative one counts from the checkout.
#
# An environment is made anew when requirements*.txt changed, or when PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

supported="3.7 3.11 3.10 3.9"
probe='import sys, ensurepip, os, ssl, venv, zlib
print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable))'

fail() {
    echo "setup.sh: error: $*" >&2
    exit 1
}

# Prints "VERSION PATH" of an interpreter that runs and can make virtual environments.
look_at() {
    timeout 30 "$1" -c "$probe" </dev/null 2>/dev/null
}

# Reads candidates, one a line, and prints the path of the first that is a working Python $1.
first_that_runs() {
    local candidate found
    while IFS= read -r candidate; do
        if found=$(look_at "$candidate") && [[ $found == "$1 "* ]]; then
            echo "${found#* }"
            return
        fi
    done
    return 1
}

# Prints each python$1 of PATH and of pyenv; one on PATH may be a shim that does not run.
installed() {
    local root
    type -aP "python$1" || true
    for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
        compgen -G "$root/versions/$1*/bin/python$1" | sort -rV || true
    done
}

# uv would take an environment in the current folder for an interpreter, so it is asked from elsewhere.
known_to_uv() {
    (cd / && unset VIRTUAL_ENV && UV_PYTHON_DOWNLOADS=never timeout 30 uv python find "$1" 2>/dev/null) || true
}

has_uv() {
    type -P uv >/dev/null
}

find_version() {
    first_that_runs "$1" < <(installed "$1") || { has_uv && first_that_runs "$1" < <(known_to_uv "$1"); }
}

# Where only a package index is reached this fails at once; the limit is for a network that never answers.
fetch_version() {
    has_uv && timeout 120 uv python install "$1" </dev/null >/dev/null 2>&1 &&
        first_that_runs "$1" < <(known_to_uv "$1")
}

given_python() {
    local found
    found=$(look_at "$PYTHON") ||
        fail "PYTHON=$PYTHON does not run, or lacks one of the modules venv, ensurepip, ssl and zlib"
    [[ " $* " == *" ${found%% *} "* ]] || fail "PYTHON=$PYTHON is Python ${found%% *}; needed is one of: $*"
    echo "${found#* }"
}

# Prints the interpreter to take, of one of the versions given, the best first.
find_python() {
    local version
    if [[ -n ${PYTHON:-} ]]; then
        given_python "$@"
        return
    fi
    for version in "$@"; do
        find_version "$version" && return
    done
    for version in "${@:1:2}"; do
        fetch_version "$version" && return
    done
    fail "no Python that runs was found on PATH, in pyenv or in uv, of the versions: $*; install one with its" \
        "venv module (on Debian and Ubuntu the package python3.N-venv), or name one: PYTHON=/path/to/python"
}

# What a whole environment was made from; a checkout that moved breaks the scripts in bin/.
recipe() {
    echo "folder $venv"
    sha256sum requirements*.txt
}

is_whole() {
    local made_with made_from
    [[ -f $stamp ]] && { read -r made_with && made_from=$(cat); } <"$stamp" || return 1
    [[ $made_from == "$(recipe)" && ${python:-$made_with} == "$made_with" ]] &&
        "$venv/bin/python" -c "" 2>/dev/null
}

# Of most packages few modules are ever imported, and Python compiles those by itself.
install() {
    local log
    log=$(mktemp)
    if "$venv/bin/python" -m pip install --no-compile --quiet --quiet --disable-pip-version-check --no-input "$@" \
            </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    grep -v "^ERROR: Ignored the following" "$log" >&2 || true  # pip's list of all it did not look at
    rm -f "$log"
    fail "pip could not install $*; the environment $venv is not complete"
}

# The stamp is there from the beginning, to show whose folder it is, and has its text at the very end.
make_environment() {
    if [[ -e $venv && ! -e $stamp && -n $(ls -A "$venv") ]]; then
        fail "$venv was not made by this script: remove it, or name another folder with VENV=..."
    fi
    python=${python:-$(find_python $supported)}
    echo "setup.sh: making $venv with $python; this takes a minute or two" >&2
    mkdir -p "$venv"
    : >"$stamp"
    find "$venv" -mindepth 1 -maxdepth 1 ! -name "${stamp##*/}" -exec rm -rf {} +
    "$python" -m venv "$venv"
    install "$(grep '^pip==' requirements.txt)"
    install -r requirements.txt
    # Where it fails, training says so and goes on without.
    "$venv/bin/python" -m training.native >/dev/null 2>&1 || true
    { echo "$python" && recipe; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

if [[ ${1:-} == --print-python ]]; then
    shift
    find_python ${@:-$supported}
    exit
fi
[[ $# == 0 || $* == --tests ]] || fail "$*: the only arguments are --tests and --print-python"

venv=${VENV:-.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
stamp=$venv/.made-by-setup
python=""
[[ -z ${PYTHON:-} ]] || python=$(find_python $supported)
exec 9<requirements.txt
flock 9
is_whole || make_environment
if [[ ${1:-} == --tests && ! -e $venv/.for-tests ]]; then
    echo "setup.sh: adding what the tests need to $venv" >&2
    install -r requirements-dev.txt
    : >"$venv/.for-tests"
fi
