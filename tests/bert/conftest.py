import numpy as np
import pytest

from tests.bert import record_texts
from tests.bert.creation import VOCAB


@pytest.fixture
def folder(tmp_path):
    """An empty folder but for vocab.txt, see `tests.bert.creation`."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """61 texts of 1 to 30 tokens in three files of different size, and an empty one."""
    return record_texts.write_parts(tmp_path_factory.mktemp("records"), [
        record_texts.example(number, length, predictions=1 + length // 7)
        for number, length in enumerate(np.random.RandomState(0).randint(1, 31, size=61).tolist())])


@pytest.fixture(scope="session")
def unmasked_files(tmp_path_factory):
    """61 texts of 2 to 30 tokens, without masks, in three files of different size, and an empty one."""
    return record_texts.write_parts(tmp_path_factory.mktemp("unmasked"), [
        record_texts.unmasked(number, length)
        for number, length in enumerate(np.random.RandomState(0).randint(2, 31, size=61).tolist())])
