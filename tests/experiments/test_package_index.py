"""Fetching from an index of files on disk: pip reads it as it reads any other."""

import hashlib
import io
import os
import tarfile

import pytest

from experiments import package_index
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2

NAME = "an-archive-of-the-tests"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Sets pip up for an index with version 1.0 of one package; (bytes of its archive, marker file)."""
    marker = tmp_path / "setup-was-run"
    setup = ("open(%r, 'w').close()\nfrom setuptools import setup\nsetup(name=%r, version='1.0')\n"
             % (str(marker), NAME)).encode()
    folder = tmp_path / "simple" / NAME
    folder.mkdir(parents=True)
    file_name = NAME + "-1.0.tar.gz"
    with tarfile.open(str(folder / file_name), "w:gz") as archive:
        member = tarfile.TarInfo(NAME + "-1.0/setup.py")
        member.size = len(setup)
        archive.addfile(member, io.BytesIO(setup))
    (folder / "index.html").write_text('<!DOCTYPE html><a href="%s">%s</a>' % (file_name, file_name))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    return (folder / file_name).read_bytes(), marker


def test_the_archive_comes_whole_and_its_setup_is_never_run(index, tmp_path):
    content, marker = index
    target = tmp_path / "got" / "archive.tar.gz"
    package_index.fetch_source(NAME, "1.0", hashlib.sha256(content).hexdigest(), str(target))
    assert target.read_bytes() == content
    assert not marker.exists()


def test_another_file_than_expected_is_not_kept(index, tmp_path):
    folder = tmp_path / "got"
    with pytest.raises(UserError, match="%s==1.0: the package index gave a file with SHA-256" % NAME):
        package_index.fetch_source(NAME, "1.0", "0" * 64, str(folder / "archive.tar.gz"))
    assert os.listdir(str(folder)) == []


@pytest.mark.parametrize("name, version", [(NAME, "2.0"), ("no-such-package-of-the-tests", "1.0")])
def test_what_the_index_does_not_have_is_told_in_one_line(index, tmp_path, name, version):
    with pytest.raises(UserError) as caught:
        package_index.fetch_source(name, version, "0" * 64, str(tmp_path / "archive.tar.gz"))
    assert str(caught.value) == (
        "%s==%s cannot be had from the package index: it has no such source archive, or does not answer"
        % (name, version))


def test_an_index_that_does_not_answer_is_told_in_one_line(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError) as caught:
        package_index.fetch_source(NAME, "1.0", "0" * 64, str(tmp_path / "archive.tar.gz"))
    assert "does not answer" in str(caught.value) and "\n" not in str(caught.value)
