"""The shell scripts, with interpreters, pip and uv played by small scripts: nothing is installed here."""

import os
import shutil
import subprocess
import sys

import pytest

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYENV = "home/.pyenv"  # where it is when nothing else is said
BASH = shutil.which("bash")
TOOLS = ("bash", "cat", "chmod", "cp", "dirname", "find", "flock", "grep", "ls", "mkdir", "mktemp", "mv",
         "rm", "sha256sum", "sort", "timeout")

# Plays Python VERSION: answers the probe, makes an "environment" holding itself and a ruff, and writes
# down what it is asked to do. The files `pip-fails`, `pip-dies` and `ruff-fails` in $HOME change its part.
PYTHON = r"""#!BASH
case "$1 ${2:-}" in
"-c ")
    ;;
-c*)
    echo "VERSION $0" ;;
"-m venv")
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!BASH\necho "ruff $*" >>"$HOME/log"\n[[ ! -e $HOME/ruff-fails ]]\n' >"$3/bin/ruff"
    chmod +x "$3/bin/ruff"
    echo "VERSION venv" >>"$HOME/log" ;;
"-m pip")
    echo "VERSION pip ${*: -1}" >>"$HOME/log"
    [[ ! -e $HOME/pip-dies ]] || kill -9 $PPID
    if [[ -e $HOME/pip-fails ]]; then echo "ERROR: no such package" >&2; exit 1; fi ;;
*)
    echo "VERSION $*" >>"$HOME/log" ;;
esac
"""

UV = r"""#!BASH
echo "uv $* downloads=${UV_PYTHON_DOWNLOADS:-allowed}" >>"$HOME/log"
case "$2" in
install) [[ -e $HOME/uv-reaches ]] && : >"$HOME/uv-has" ;;
find) [[ -e $HOME/uv-has && $3 == 3.7 ]] && echo "$HOME/uv-python3.7" ;;
esac
"""


class Machine:
    """A machine of its own: a checkout with the scripts, a home, and nothing on PATH but `TOOLS`."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self.checkout = folder / "check out"
        self.path = [folder / "tools"]
        for name in (self.home, self.checkout, self.path[0]):
            name.mkdir()
        for tool in TOOLS:
            (self.path[0] / tool).symlink_to(shutil.which(tool))
        for part in ("scripts", ".ci"):
            shutil.copytree(os.path.join(CHECKOUT, part), str(self.checkout / part))
        for name in ("requirements.txt", "requirements-dev.txt"):
            shutil.copy(os.path.join(CHECKOUT, name), str(self.checkout))

    def put(self, place, content, version=""):
        """Writes an executable file and returns its path; `place` counts from the machine's folder."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.replace("BASH", BASH).replace("VERSION", version))
        path.chmod(0o755)
        return str(path)

    def python_on_path(self, version, content=PYTHON, says=None):
        """Puts one more folder, with a `python<version>` in it, at the end of PATH."""
        folder = "path%d" % len(self.path)
        self.path.append(self.folder / folder)
        return self.put("%s/python%s" % (folder, version), content, says or version)

    def run(self, script, *arguments, **variables):
        environment = {"PATH": os.pathsep.join(str(part) for part in self.path), "HOME": str(self.home)}
        environment.update(variables)
        return subprocess.run([BASH, str(self.checkout / script)] + list(arguments), env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True, timeout=60)

    def found(self, *versions, **variables):
        """The interpreter `setup.sh` would take."""
        result = self.run("scripts/setup.sh", "--print-python", *versions, **variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def error(self, script, *arguments, **variables):
        """The one line a script ends with."""
        result = self.run(script, *arguments, **variables)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.strip()

    def set_up(self, *arguments, **variables):
        result = self.run("scripts/setup.sh", *arguments, **variables)
        assert result.returncode == 0, result.stderr
        return result

    def log(self):
        """What was asked of the players since the last call."""
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return lines


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


FAILING_SHIM = "#!BASH\necho 'python3.7: command not found' >&2\nexit 127\n"


def test_the_python_that_was_named_wins(machine):
    machine.python_on_path("3.7")
    named = machine.put("elsewhere/python", PYTHON, "3.10")
    assert machine.found(PYTHON=named) == named


def test_a_real_python_passes_the_probe(machine):
    assert machine.found(PYTHON=sys.executable) == os.path.realpath(sys.executable)


def test_a_shim_that_fails_does_not_end_the_search_on_path(machine):
    machine.python_on_path("3.7", FAILING_SHIM)
    expected = machine.python_on_path("3.7")
    assert machine.found() == expected


@pytest.mark.parametrize("variables, place", [
    ({}, PYENV),
    ({"PYENV_ROOT": "ROOT/pyenv"}, "pyenv"),
    ({"PYENV_ROOT": "ROOT/empty"}, PYENV),
])
def test_a_shim_that_fails_leads_on_to_pyenv(machine, variables, place):
    variables = {name: value.replace("ROOT", str(machine.folder)) for name, value in variables.items()}
    machine.python_on_path("3.7", FAILING_SHIM)
    expected = machine.put(place + "/versions/3.7.16/bin/python3.7", PYTHON, "3.7")
    assert machine.found(**variables) == expected


def test_the_newest_of_pyenv_is_tried_first(machine):
    for older in ("3.7.9", "3.7.10"):
        machine.put(PYENV + "/versions/%s/bin/python3.7" % older, PYTHON, "3.7")
    newest = machine.put(PYENV + "/versions/3.7.16/bin/python3.7", PYTHON, "3.7")
    assert machine.found() == newest


def test_a_3_7_that_is_far_comes_before_a_3_11_that_is_near(machine):
    machine.python_on_path("3.11")
    expected = machine.put(PYENV + "/versions/3.7.16/bin/python3.7", PYTHON, "3.7")
    assert machine.found() == expected


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11"])
def test_without_a_3_7_a_newer_one_is_taken(machine, version):
    machine.python_on_path("3.8")
    machine.python_on_path("3.12")
    expected = machine.python_on_path(version)
    assert machine.found() == expected


def test_only_the_versions_asked_for_are_taken(machine):
    machine.python_on_path("3.7")
    expected = machine.python_on_path("3.9")
    assert machine.found("3.11", "3.9") == expected


def test_a_name_that_lies_about_its_version_is_passed_over(machine):
    machine.python_on_path("3.7", says="3.12")
    expected = machine.python_on_path("3.7")
    assert machine.found() == expected


def test_what_uv_already_has_is_taken_without_a_download(machine):
    machine.put("tools/uv", UV)
    expected = machine.put("home/uv-python3.7", PYTHON, "3.7")
    (machine.home / "uv-has").write_text("")
    machine.python_on_path("3.11")
    assert machine.found() == expected
    assert machine.log() == ["uv python find 3.7 downloads=never"]


def test_uv_fetches_where_nothing_is_found(machine):
    machine.put("tools/uv", UV)
    expected = machine.put("home/uv-python3.7", PYTHON, "3.7")
    (machine.home / "uv-reaches").write_text("")
    assert machine.found() == expected
    fetches = [line for line in machine.log() if "install" in line]
    assert fetches == ["uv python install 3.7 downloads=allowed"]


def test_uv_fetches_nothing_where_a_newer_one_is_found(machine):
    machine.put("tools/uv", UV)
    expected = machine.python_on_path("3.9")
    assert machine.found() == expected
    assert not [line for line in machine.log() if "install" in line]


@pytest.mark.parametrize("uv", [False, True])
def test_nothing_found_is_told_in_one_line(machine, uv):
    if uv:
        machine.put("tools/uv", UV)
    machine.python_on_path("3.7", FAILING_SHIM)
    message = machine.error("scripts/setup.sh")
    assert message.startswith("setup.sh: error: no Python that runs")
    assert "3.7 3.11 3.10 3.9" in message and "PYTHON=" in message
    assert not (machine.checkout / ".venv").exists()


def test_a_named_python_that_fails_is_not_replaced_by_another(machine):
    machine.python_on_path("3.7")
    message = machine.error("scripts/setup.sh", PYTHON="/nowhere/python")
    assert "PYTHON=/nowhere/python does not run" in message


def test_a_named_python_of_another_version_is_refused(machine):
    machine.python_on_path("3.7")
    named = machine.put("elsewhere/python", PYTHON, "3.8")
    message = machine.error("scripts/setup.sh", PYTHON=named)
    assert "is Python 3.8; needed is one of: 3.7 3.11 3.10 3.9" in message


def test_an_unknown_argument_is_refused(machine):
    assert "--print-pyhton" in machine.error("scripts/setup.sh", "--print-pyhton")


def test_the_environment_is_made_once_and_then_quietly_kept(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    pip = [line for line in (machine.checkout / "requirements.txt").read_text().splitlines()
           if line.startswith("pip==")]
    assert machine.log() == ["3.7 venv", "3.7 pip " + pip[0], "3.7 pip requirements.txt",
                             "3.7 -m training.native"]
    again = machine.set_up()
    assert (again.stdout, again.stderr, machine.log()) == ("", "", [])


def test_what_the_tests_need_is_added_once_and_made_anew_with_the_rest(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    machine.log()
    machine.set_up("--tests")
    assert machine.log() == ["3.7 pip requirements-dev.txt"]
    machine.set_up("--tests")
    machine.set_up()
    assert machine.log() == []
    machine.set_up("--tests", VENV="second")
    assert machine.log()[-2:] == ["3.7 -m training.native", "3.7 pip requirements-dev.txt"]
    with open(str(machine.checkout / "requirements.txt"), "a") as stream:
        stream.write("# one line more\n")
    machine.set_up("--tests")
    assert machine.log()[0] == "3.7 venv" and not machine.set_up("--tests").stderr


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_changed_requirements_make_it_anew(machine, name):
    machine.python_on_path("3.7")
    machine.set_up()
    (machine.checkout / ".venv" / "left-over").write_text("")
    machine.log()
    with open(str(machine.checkout / name), "a") as stream:
        stream.write("# one line more\n")
    machine.set_up()
    assert "3.7 venv" in machine.log()
    assert not (machine.checkout / ".venv" / "left-over").exists()


def test_another_python_named_makes_it_anew(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    named = machine.put("elsewhere/python", PYTHON, "3.11")
    machine.log()
    machine.set_up(PYTHON=named)
    assert "3.11 venv" in machine.log()
    machine.set_up(PYTHON=named)
    machine.set_up()
    assert machine.log() == []


def test_a_checkout_that_moved_makes_it_anew(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    machine.log()
    moved = machine.folder / "moved"
    machine.checkout.rename(moved)
    machine.checkout = moved
    machine.set_up()
    assert "3.7 venv" in machine.log()


def test_an_environment_whose_python_is_gone_is_made_anew(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    (machine.checkout / ".venv" / "bin" / "python").unlink()
    machine.log()
    machine.set_up()
    assert "3.7 venv" in machine.log()


def test_what_pip_says_is_shown_and_the_half_made_is_not_kept(machine):
    machine.python_on_path("3.7")
    (machine.home / "pip-fails").write_text("")
    result = machine.run("scripts/setup.sh")
    assert result.returncode == 1
    assert "ERROR: no such package\nsetup.sh: error: pip could not install pip==" in result.stderr
    (machine.home / "pip-fails").unlink()
    machine.log()
    machine.set_up()
    assert "3.7 venv" in machine.log()


def test_a_set_up_that_was_killed_is_begun_anew(machine):
    machine.python_on_path("3.7")
    (machine.home / "pip-dies").write_text("")
    assert machine.run("scripts/setup.sh").returncode == -9
    (machine.home / "pip-dies").unlink()
    machine.log()
    machine.set_up()
    assert "3.7 venv" in machine.log()


def test_a_remake_that_was_killed_is_not_taken_for_whole(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    requirements = machine.checkout / "requirements.txt"
    before = requirements.read_text()
    requirements.write_text(before + "# one line more\n")
    (machine.home / "pip-dies").write_text("")
    assert machine.run("scripts/setup.sh").returncode == -9
    (machine.home / "pip-dies").unlink()
    requirements.write_text(before)
    machine.log()
    machine.set_up()
    assert "3.7 venv" in machine.log()


def test_a_folder_made_by_someone_else_is_left_alone(machine):
    machine.python_on_path("3.7")
    (machine.checkout / "mine" / "bin").mkdir(parents=True)
    (machine.checkout / "mine" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert "mine was not made by this script" in machine.error("scripts/setup.sh", VENV="mine")
    assert (machine.checkout / "mine" / "pyvenv.cfg").exists()
    assert machine.log() == []


def test_a_second_environment_leaves_the_first_alone(machine):
    machine.python_on_path("3.7")
    machine.set_up()
    machine.log()
    machine.set_up(VENV=str(machine.folder / "second"))
    assert (machine.folder / "second" / "bin" / "python").exists()
    assert "3.7 venv" in machine.log()
    machine.set_up()
    assert machine.log() == []


def test_test_sh_lints_and_gives_its_arguments_to_pytest(machine):
    machine.python_on_path("3.7")
    machine.set_up("--tests")
    machine.log()
    assert machine.run("scripts/test.sh", "tests/student", "-k", "padding  or mask").returncode == 0
    assert machine.log() == ["ruff check --quiet --output-format=concise .",
                             "3.7 -m pytest --numprocesses=2 --dist=worksteal tests/student -k padding  or mask"]


def test_a_lint_error_ends_test_sh_before_any_test(machine):
    machine.python_on_path("3.7")
    (machine.home / "ruff-fails").write_text("")
    assert machine.run("scripts/test.sh").returncode == 1
    assert machine.log()[-1].startswith("ruff check")


def test_demo_sh_sets_up_and_gives_its_arguments_to_the_demo(machine):
    machine.python_on_path("3.7")
    assert machine.run("scripts/demo.sh", "--seed=2").returncode == 0
    assert machine.log()[0] == "3.7 venv"
    assert machine.run("scripts/demo.sh", "--seed=2").returncode == 0
    assert machine.log()[-1:] == ["3.7 -m experiments.demo --seed=2"]


def test_ci_runs_the_suite_on_both(machine):
    machine.python_on_path("3.7")
    machine.python_on_path("3.10")
    result = machine.run(".ci/run")
    assert result.returncode == 0, result.stderr
    runs = [line for line in machine.log() if "pytest" in line]
    assert [line.split()[:3] for line in runs] == [["3.7", "-m", "pytest"], ["3.10", "-m", "pytest"]]
    for name, version in ((".venv", "3.7"), (".venv-tf2", "3.10")):
        assert 'echo "%s venv"' % version in (machine.checkout / name / "bin" / "python").read_text()


@pytest.mark.parametrize("there, missing", [("3.7", "3.11 3.10 3.9"), ("3.11", "3.7")])
def test_ci_without_one_of_its_pythons_fails_before_any_test(machine, there, missing):
    machine.python_on_path(there)
    assert "of the versions: %s;" % missing in machine.error(".ci/run")
    assert machine.log() == []
