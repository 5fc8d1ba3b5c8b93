import pytest

from tests.bert.creation import VOCAB


@pytest.fixture
def folder(tmp_path):
    """An empty folder but for vocab.txt, see `tests.bert.creation`."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path
