import ast
import os
import signal
import subprocess
import sys

import pytest

from tests import graphs
from tests import test_imports

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

COMMAND = '''"""Counts things.

More about it."""

import sys
from absl import flags
from training import command


def define_flags():
    flags.DEFINE_integer("count", 3, "How many things.", lower_bound=1)
    flags.DEFINE_string("path", None, "Where they are.", required=True)


def main():
    print("counting", flags.FLAGS.count)
    if flags.FLAGS.path == "wrong":
        raise command.UserError("wrong.tsv:4: two columns\\nare needed")
    if flags.FLAGS.path == "bug":
        raise ValueError("a bug")
    if flags.FLAGS.path != "right":
        open(flags.FLAGS.path)


if __name__ == "__main__":
    command.run(main, define_flags)
'''
ACTIONS = COMMAND.replace(
    "command.run(main, define_flags)", 'command.run_action({"count": (main, define_flags)})')


@pytest.fixture
def run(tmp_path):
    """Runs the command with arguments; (exit code, stdout, stderr)."""
    def run(*arguments, text=COMMAND, stdout=subprocess.PIPE):
        script = tmp_path / "count.py"
        script.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script)] + list(arguments), stdout=stdout, stderr=subprocess.PIPE,
            universal_newlines=True, env=dict(os.environ, PYTHONPATH=CHECKOUT), cwd=str(tmp_path))
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_command_that_ends_well_has_code_0(run):
    assert run("--path=right", "--count=5") == (0, "counting 5\n", "")


@pytest.mark.parametrize("arguments", [
    ["--help"], ["-h"], ["--count=5", "--help"], ["--unknown=1", "--help"]])
def test_help_names_the_flags_and_has_code_0(arguments, run):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Counts things.\n\nMore about it.\n\nFlags:\n")
    assert "--count: How many things." in out and "(default: '3')" in out and "--path: Where they are." in out
    assert "counting" not in out and "alsologtostderr" not in out


@pytest.mark.parametrize("arguments", [["--help"], ["--path=right"]])
def test_a_reader_that_leaves_ends_a_command_without_a_word(arguments, run):
    reader, writer = os.pipe()
    os.close(reader)
    assert run(*arguments, stdout=writer) == (128 + signal.SIGPIPE, None, "")
    os.close(writer)


def test_a_command_without_stdout_ends_well(run):
    closing = "import os, sys\nos.close(1)\nsys.stdout = None\n"  # as Python begins after a shell's >&-
    assert run("--path=right", text=COMMAND.replace("import sys\n", closing)) == (0, "", "")


def test_a_pipe_that_breaks_elsewhere_is_a_bug(run):
    code, _, err = run("--path=right", text=COMMAND.replace('print("counting"', "raise BrokenPipeError(32, "))
    assert code == 1 and "BrokenPipeError" in err


@pytest.mark.parametrize("arguments, message", [
    (["--path=right", "--cuont=5"],
     "Unknown command line flag 'cuont'. Did you mean: count ?; --help lists the flags"),
    (["--path=right", "--count=many"], "flag --count=many: invalid literal for int() with base 10: 'many'; "
                                       "--help lists the flags"),
    (["--path=right", "--count=0"], "flag --count=0: 0 is not a positive integer; --help lists the flags"),
    ([], "flag --path=None: Flag --path must have a value other than None.; --help lists the flags"),
    (["--path=right", "5"], "5: not a flag; every argument is given as --name=value"),
    (["--path=wrong"], "wrong.tsv:4: two columns are needed"),
    (["--path=absent.tsv"], "absent.tsv: No such file or directory")])
def test_what_a_user_can_put_right_is_told_in_one_line_with_code_1(arguments, message, run):
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("count.py: error: " + message)
    assert err.count("\n") == 1 and err.endswith("\n")


def test_a_bug_keeps_its_traceback(run):
    code, _, err = run("--path=bug")
    assert code == 1
    assert "Traceback" in err and "ValueError: a bug" in err


def test_the_first_argument_chooses_an_action(run):
    assert run("count", "--path=right", text=ACTIONS) == (0, "counting 3\n", "")


def test_help_of_an_action_names_its_flags(run):
    code, out, _ = run("count", "--help", text=ACTIONS)
    assert code == 0 and "--count: How many things." in out


def test_help_without_an_action_tells_what_the_command_does(run):
    code, out, err = run("--help", text=ACTIONS)
    assert (code, err) == (0, "") and out.startswith("Counts things.")


@pytest.mark.parametrize("arguments, found", [([], "no argument"), (["sum"], "sum")])
def test_an_unknown_action_is_told_in_one_line(arguments, found, run):
    assert run(*arguments, text=ACTIONS) == (
        1, "", "count.py: error: %s: the first argument must be one of: count; --help tells more\n" % found)


COMMANDS = sorted(name for name, tree in test_imports.modules().items() if any(
    isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "command" and node.attr.startswith("run")
    for node in ast.walk(tree)))


@graphs.ON_TENSORFLOW_2
@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_wait_for_what_takes_seconds_to_import(name):
    module = [name + ".py"] if os.path.exists(os.path.join(CHECKOUT, name + ".py")) else ["-m", name]
    result = subprocess.run([sys.executable, "-X", "importtime", *module, "--help"], cwd=CHECKOUT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "training.command" in imported
    assert not imported & {"tensorflow.python.framework", "sklearn.base", "matplotlib.artist", "jieba.finalseg",
                           "onnxruntime.capi", "onnx.defs", "tflite.Model", "google_crc32c.cext"}
    assert result.returncode == 0 and len(result.stdout.splitlines()) > 3


@pytest.mark.parametrize("given, expected", [({}, "1"), ({"KMP_BLOCKTIME": "7"}, "7")])
def test_intels_threads_stop_spinning_soon_unless_the_user_says_otherwise(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "KMP_BLOCKTIME"}
    told = "import os; from training import command; print(os.environ['KMP_BLOCKTIME'])"
    done = subprocess.run([sys.executable, "-c", told], cwd=CHECKOUT, stdout=subprocess.PIPE,
                          env=dict(environment, **given), universal_newlines=True)
    assert done.stdout.strip() == expected


def test_a_stand_in_can_be_looked_into_called_and_derived_from(tmp_path):
    (tmp_path / "uses.py").write_text("""
from training import stand_in
stand_in.install("slow")
import slow.part.one as one
from slow.other import Thing


class Mine(one.Base):
    size = one.SIZE


one.start(Thing("x").y)
print(Mine.__mro__ == (Mine, object), isinstance(Mine(), Mine))
""")
    done = subprocess.run([sys.executable, str(tmp_path / "uses.py")], cwd=CHECKOUT, stdout=subprocess.PIPE,
                          env=dict(os.environ, PYTHONPATH=CHECKOUT), universal_newlines=True)
    assert done.stdout == "True True\n"
