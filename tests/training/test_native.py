"""Our ops: compiled once, and what is said where they cannot be."""

import pytest

from bert import fused
from training import native
from training.command import UserError


@pytest.fixture(autouse=True)
def afresh(monkeypatch, tmp_path):
    """No library is there, and none is remembered."""
    monkeypatch.setattr(native, "FOLDER", str(tmp_path / "kernels"))
    native._compiles.cache_clear()
    native.load.cache_clear()
    yield
    native._compiles.cache_clear()
    native.load.cache_clear()


def test_without_a_compiler_they_are_not_available_which_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    assert not native.available() and not native.available()
    reason = "Computing by TensorFlow's ops alone, which is slower: no C++ compiler was found (c++, g++, "
    assert capsys.readouterr().out.count(reason) == 1


def test_what_is_not_allowed_is_not_compiled(monkeypatch, capsys):
    monkeypatch.setattr(native, "find_compiler", lambda: None)
    with native.using(False):
        assert not native.available()
    assert not capsys.readouterr().out


def test_a_compiler_that_fails_is_told_with_what_it_says_and_leaves_no_library(monkeypatch, tmp_path):
    failing = tmp_path / "c++"
    failing.write_text("#!/bin/sh\necho no such header; exit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(native, "find_compiler", lambda: str(failing))
    with pytest.raises(UserError, match=".*/c.. cannot compile .*fused.cc: no such header"):
        native.build(fused.SOURCE)
    assert not list((tmp_path / "kernels").iterdir())


def test_a_library_that_is_broken_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "build", lambda source: str(broken))
    with pytest.raises(UserError, match="broken.so: cannot be loaded .*; remove it, and it is compiled again"):
        native.load(fused.SOURCE)


def test_all_sources_are_found():
    assert [source.split("/")[-2:] for source in native.sources()] == [
        ["bert", "adam.cc"], ["bert", "attention.cc"], ["bert", "fused.cc"], ["bert", "randomness.cc"],
        ["student", "lstm_layer.cc"]]
