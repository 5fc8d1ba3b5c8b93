"""A stand-in for packages that take seconds to import, for a process that only tells its --help."""

import importlib.machinery
import sys
import types


class _StandIn(types.ModuleType):
    """A module or what is in one: has every attribute, and can be called and derived from."""

    def __getattr__(self, name):
        if name.startswith("__"):  # not those that Python itself asks for
            raise AttributeError(name)
        return _StandIn(name)

    def __call__(self, *args, **kwargs):
        return self

    def __mro_entries__(self, bases):
        return ()


class _Finder:
    """Finds stand-ins for some packages and all their modules."""

    def __init__(self, packages):
        self._packages = packages

    def find_spec(self, name, path=None, target=None):
        del path, target
        if name.split(".")[0] in self._packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        pass


def install(*packages):
    """From here on these packages are not imported; who does so gets something that does nothing."""
    sys.meta_path.insert(0, _Finder(packages))
