import gzip

import numpy as np
import pytest

from bert import word_vectors
from training.command import UserError

VOCABULARY = {"[PAD]": 0, "氯": 1, "##氯": 2, "乙": 3, "烯": 4}
ROWS = "乙 1 2 3\n聚氯乙烯 9 9 9\n氯 -0.5 4e-1 0\n"
FOUND = {1: [-0.5, 0.4, 0.0], 3: [1.0, 2.0, 3.0]}


def write(tmp_path, text, name="vectors.txt"):
    content = text if isinstance(text, bytes) else text.encode("utf-8")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def found(path):
    ids, vectors = word_vectors.read(path, VOCABULARY)
    assert vectors.dtype == np.float32
    return {token: vector.tolist() for token, vector in zip(ids.tolist(), vectors)}


def same(one, other):
    return sorted(one) == sorted(other) and all(one[token] == pytest.approx(other[token]) for token in one)


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
@pytest.mark.parametrize("header", ["", "3 3\n"])
def test_tokens_that_are_words_of_the_file_are_found_in_every_form_of_it(header, name, tmp_path):
    assert same(found(write(tmp_path, header + ROWS, name)), FOUND)


@pytest.mark.parametrize("change", [("\n", "\r\n"), (" ", "\t"), ("\n", " \n"), (" ", "  ")])
def test_white_space_between_and_behind_the_numbers_is_of_any_kind(change, tmp_path):
    assert same(found(write(tmp_path, ROWS.replace(*change))), FOUND)


def test_a_word_with_spaces_is_no_error_and_no_token(tmp_path):
    assert same(found(write(tmp_path, ROWS + "氯 氯 1 1 1\n")), FOUND)


def test_of_a_word_that_stands_twice_the_first_row_counts(tmp_path):
    assert same(found(write(tmp_path, ROWS + "氯 7 7 7\n")), FOUND)


def test_a_last_line_without_its_end_is_read(tmp_path):
    assert same(found(write(tmp_path, ROWS[:-1])), FOUND)


REFUSED = {
    "a number too few": ("乙 1 2 3\n氯 1 2\n", ":2: 3 fields where a word and 3 numbers are needed"),
    "a number too few for the header": ("1 4\n乙 1 2 3\n", ":2: 4 fields where a word and 4 numbers are needed"),
    "no numbers": ("乙\n", ":1: 1 fields where a word and numbers are needed"),
    "an empty line": ("乙 1 2\n\n氯 1 2\n", ":2: 0 fields where a word and 2 numbers are needed"),
    "no number": ("乙 1 2 3\n氯 1 x 3\n", ":2: could not convert string to float"),
    "an infinite number": ("乙 1 inf\n", ":1: a number is not finite"),
    "nan": ("乙 nan 1\n", ":1: a number is not finite"),
    "too few rows": ("4 3\n" + ROWS, ":1: 4 rows are announced, and 3 are there; was the file cut off?"),
    "too many rows": ("2 3\n" + ROWS, ":1: 2 rows are announced, and 3 are there"),
    "another encoding": ("1 2\n乙 1 2\n".encode("gb18030"), ":2: the word is not UTF-8; convert the file"),
    "no token": ("聚 1 2\n", ": none of its words is one of the 5 tokens; is it in word2vec's text format, UTF-8?"),
    "nothing": ("", ": none of its words is one of the 5 tokens")}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_used_is_told_with_its_file_and_line(case, tmp_path):
    text, message = REFUSED[case]
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        word_vectors.read(path, VOCABULARY)
    assert str(error.value).startswith(path + message)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: ROWS.encode("utf-8")])
def test_a_broken_gz_is_told_with_its_file(damage, tmp_path):
    path = write(tmp_path, ROWS * 100, "vectors.gz")
    with open(path, "rb") as stream:
        content = stream.read()
    with open(path, "wb") as stream:
        stream.write(damage(content))
    with pytest.raises(UserError, match="vectors.gz: cannot be unpacked: "):
        word_vectors.read(path, VOCABULARY)


def table(rows=60, columns=12, mean=0.5):
    """A table whose columns are mixed and of different sizes, with a mean, as word vectors have one."""
    random = np.random.RandomState(4)
    return (random.normal(size=(rows, columns)) * 0.7 ** np.arange(columns)).dot(
        random.normal(size=(columns, columns))) + mean


def inner_products(vectors):
    return vectors.dot(vectors.T)


def test_a_reduced_table_is_numpys_truncated_singular_value_decomposition():
    wide = table()
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    reduced = word_vectors.reduce(wide, 5)
    assert reduced.dtype == np.float32 and reduced.shape == (60, 5)
    np.testing.assert_allclose(np.abs(reduced), np.abs(left[:, :5] * values[:5]), atol=1e-5)


def test_a_reduced_table_keeps_inner_products_better_than_other_projections_do():
    wide = table()
    exact = inner_products(wide)

    def error(vectors):
        return np.linalg.norm(inner_products(vectors) - exact)

    ours = error(word_vectors.reduce(wide, 5))
    random = np.random.RandomState(1).normal(size=(12, 5)) / np.sqrt(5)
    centred = wide - wide.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    assert ours < 0.2 * error(wide.dot(random))
    assert ours < 0.5 * error(left[:, :5] * values[:5])  # the mean taken away
    left, values, _ = np.linalg.svd(wide, full_matrices=False)
    rest = inner_products(left[:, 5:] * values[5:])
    assert ours == pytest.approx(np.linalg.norm(rest), rel=1e-4)  # the least there can be (Eckart and Young)


def test_the_sign_of_a_column_does_not_depend_on_how_it_was_found():
    wide = table()
    turned = word_vectors.reduce(wide[::-1], 5)[::-1]
    np.testing.assert_allclose(word_vectors.reduce(wide, 5), turned, atol=1e-5)
    _, _, directions = np.linalg.svd(wide, full_matrices=False)
    for column, direction in zip(word_vectors.reduce(wide, 5).T, directions):
        sign = np.sign(direction[np.abs(direction).argmax()])
        np.testing.assert_allclose(column, wide.dot(direction * sign), atol=1e-5)


def test_a_table_that_is_narrow_enough_stays_as_it_is():
    wide = table().astype(np.float32)
    assert np.array_equal(word_vectors.reduce(wide, 12), wide)


def test_fewer_rows_than_columns_can_be_reduced():
    few = table(rows=3)
    np.testing.assert_allclose(inner_products(word_vectors.reduce(few, 5)), inner_products(few), atol=1e-4)
