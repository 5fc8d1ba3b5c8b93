"""Who may import whom: downwards only, in no circle, and at the top of a file."""

import ast
import glob
import os

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BELOW = {
    "training": set(),
    "bert": {"training"},
    "student": {"training", "bert"},
    "tasks": {"training", "bert", "student"},
    "distill": {"training", "bert", "student", "tasks"},
    "serving": {"training", "bert", "student", "tasks"},
}
TOP = set(BELOW)  # what experiments, benchmarks and the scripts beside them may import


def modules():
    """dict of module name -> its syntax tree, of everything but the tests."""
    names = glob.glob(os.path.join(CHECKOUT, "*.py"))
    for package in list(BELOW) + ["experiments", "benchmarks"]:
        names += glob.glob(os.path.join(CHECKOUT, package, "**", "*.py"), recursive=True)
    found = {}
    for name in names:
        module = os.path.relpath(name, CHECKOUT)[:-len(".py")].replace(os.sep, ".")
        with open(name, encoding="utf-8") as stream:
            found[module.replace(".__init__", "")] = ast.parse(stream.read(), name)
    return found


def imported(tree, known):
    """The project's own modules that are imported anywhere below `tree`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "line %d: relative imports hide their layer" % node.lineno
            inner = {"%s.%s" % (node.module, alias.name) for alias in node.names}
            names.update(inner & set(known) or {node.module})
    return names & set(known)


def is_command(tree):
    return any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in tree.body)


def test_the_house_is_there():
    assert set(BELOW) <= set(modules())


def test_imports_go_downwards_only():
    known = modules()
    upwards = ["%s imports %s" % (module, name) for module, tree in sorted(known.items())
               for name in sorted(imported(tree, known))
               if name.split(".")[0] not in BELOW.get(module.split(".")[0], TOP) | {module.split(".")[0]}]
    assert not upwards, "\n".join(upwards)


def test_no_module_imports_itself_in_a_circle():
    known = modules()
    waiting = {module: imported(tree, known) for module, tree in known.items()}
    while True:
        ready = [module for module, names in waiting.items() if not names & set(waiting)]
        if not ready:
            break
        for module in ready:
            del waiting[module]
    assert not waiting, "a circle among " + ", ".join(sorted(waiting))


def test_only_a_command_imports_inside_a_function():
    known = modules()
    hidden = ["%s.%s imports %s" % (module, node.name, ", ".join(sorted(imported(node, known))))
              for module, tree in sorted(known.items()) if not is_command(tree)
              for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and imported(node, known)]
    assert not hidden, "\n".join(hidden)
