import gzip
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert import corpus
from tests import graphs
from training.command import UserError

pytestmark = graphs.ON_TENSORFLOW_2


def write(tmp_path, content, name="a.txt"):
    path = tmp_path / name
    content = content if isinstance(content, bytes) else content.encode("utf-8")
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def read(*paths):
    return list(corpus.read_documents(paths))


def read_as(path, **form):
    return list(corpus.read_documents([path], corpus.PLAIN._replace(**form)))


def sentences(*paths):
    return [document.sentences for document in read(*paths)]


def test_blank_lines_stand_between_documents(tmp_path):
    path = write(tmp_path, "\n\n一\n二\n\n \t\u3000\n三\n\n\n四")
    assert sentences(path) == [["一", "二"], ["三"], ["四"]]


@pytest.mark.parametrize("content", ["", "\n", " \n\n\u3000\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_sentence_has_no_documents(tmp_path, content):
    assert read(write(tmp_path, content)) == []


def test_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path):
    assert sentences(write(tmp_path, "\ufeff一\r\n二\r\n\r\n三\r\n")) == [["一", "二"], ["三"]]


def test_only_a_line_feed_ends_a_sentence(tmp_path):
    assert sentences(write(tmp_path, "一\u2028二\x85三\x0c四\r五\n")) == [["一\u2028二\x85三\x0c四\r五"]]


def test_documents_end_with_their_file(tmp_path):
    first, second = write(tmp_path, "一\n", "a"), write(tmp_path, "二\n", "b")
    assert [(document.file_index, document.sentences) for document in read(first, second)] == [
        (0, ["一"]), (1, ["二"])]


def test_offsets_point_at_the_first_sentence(tmp_path):
    content = "\ufeff\n一\n二\n\n\n三三\r\n\n  四".encode("utf-8")
    for document in read(write(tmp_path, content)):
        assert content[document.offset:].decode("utf-8").strip().startswith(document.sentences[0])


def test_a_byte_order_mark_does_not_move_the_offset(tmp_path):
    assert read(write(tmp_path, "\ufeff一\n"))[0].offset == 0


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_bytes_add_up_to_the_file(tmp_path, name):
    path, counted = write(tmp_path, "\n一\n二\n\n\n三三\n\n四\n", name), []
    list(corpus.read_documents([path], on_bytes=counted.append))
    assert sum(counted) == os.path.getsize(path)


# ---- ranges

@pytest.fixture
def small_cells(monkeypatch):
    monkeypatch.setattr(corpus, "CELL_BYTES", 64)
    monkeypatch.setattr(corpus, "WINDOW_BYTES", 16)


def seen_in_window(line):
    """A blank line as long as a window is not known from the end of a text, and what follows may continue it."""
    return line.strip() or len(line.encode("utf-8")) < 15


LINES = st.lists(st.text("一二。x \u3000\r", max_size=30).filter(seen_in_window) | st.just("") | st.just("三" * 60),
                 max_size=40)


def by_blank_lines(text):
    """What the documents are, in the plainest way."""
    found = [[]]
    for line in text.split("\n"):
        if line.strip():
            found[-1].append(line.strip())
        elif found[-1]:
            found.append([])
    return [document for document in found if document]


def rejoined(documents):
    """Documents with the parts of long ones put together."""
    found = []
    for document in documents:
        if document.continues:
            found[-1] = found[-1] + document.sentences
        else:
            found.append(document.sentences)
    return found


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES)
def test_ranges_hold_every_document_once(tmp_path, small_cells, lines):
    text = "\n".join(lines)
    path = write(tmp_path, text)
    found = [document for part in reversed(corpus.ranges([path])) for document in corpus.RangeReader(part)]
    assert rejoined(sorted(found, key=lambda document: document.offset)) == by_blank_lines(text)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES)
def test_a_compressed_file_gives_the_same_documents(tmp_path, small_cells, lines):
    text = "\n".join(lines)
    assert read(write(tmp_path, text)) == read(write(tmp_path, text, "a.txt.gz"))


def test_a_file_without_blank_lines_is_cut_at_the_cells(tmp_path, small_cells):
    documents = read(write(tmp_path, "123456789\n" * 20))
    assert [(document.offset, len(document.sentences), document.continues) for document in documents] == [
        (0, 7, False), (70, 6, True), (130, 7, True)]


def test_a_document_that_begins_shortly_before_a_cell_is_whole(tmp_path, small_cells):
    documents = read(write(tmp_path, "123456789\n" * 4 + "12345678\n\n" + "123456789\n" * 5))
    assert [(document.offset, len(document.sentences), document.continues) for document in documents] == [
        (0, 5, False), (50, 5, False)]


def test_a_line_longer_than_cells_is_one_sentence(tmp_path):
    line = "长" * 3500000
    path = write(tmp_path, "一\n%s\n二" % line)
    assert len(corpus.ranges([path])) > 10
    assert rejoined(read(path)) == [["一", line, "二"]]


def test_a_line_without_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_LINE_BYTES", 1 << 20)
    path = write(tmp_path, "一\n" + "长" * 500000)
    with pytest.raises(UserError, match=r"a\.txt:2: longer than 1 MiB; write one sentence a line$"):
        read(path)


# ---- other forms

def test_every_line_is_a_document_on_request(tmp_path):
    path = write(tmp_path, "\ufeff一。二\r\n\n三\n")
    assert [document.sentences for document in read_as(path, document_per_line=True)] == [["一。二"], ["三"]]


def test_rows_of_json_lines_are_documents_of_one_value(tmp_path):
    path = write(tmp_path, '{"text": "一\\n\\n二", "id": 1}\n\n{"text": " "}\n{"text": "三"}')
    assert [document.sentences for document in read_as(path, text_key="text")] == [["一", "二"], ["三"]]


def test_lines_are_cut_into_sentences_on_request(tmp_path):
    path = write(tmp_path, "他说：“好！”走了。3.5克？？真的；\n对\n。")
    document, = read_as(path, split_sentences=True)
    assert document.sentences == ["他说：“好！”", "走了。", "3.5克？？", "真的；", "对", "。"]


NO_TEXT = "no text under the key text; --text_key names another, --errors=skip leaves such rows out"


@pytest.mark.parametrize("form, content, message", [
    ({"text_key": "text"}, '{"text": "一"}\n{"text": 1}', ":2: " + NO_TEXT),
    ({"text_key": "text"}, '{"t": "一"}', ":1: " + NO_TEXT),
    ({"text_key": "text"}, '["一"]', ":1: " + NO_TEXT),
    ({"text_key": "text"}, "\n一", ":2: not JSON: Expecting value: line 1 column 1 (char 0); a .jsonl file has one "
     "object a line; --errors=skip leaves such rows out"),
])
def test_rows_without_the_text_are_named(tmp_path, form, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_as(path, **form)
    assert str(caught.value) == path + message


@pytest.mark.parametrize("form, content", [
    ({}, "一\n".encode("utf-8") + b"\xff\n" + "二\n\n三".encode("utf-8")),
    ({"text_key": "t"}, '{"t": "一\\n二"}\n{"t": 1}\n{"t": "三"}'),
])
def test_bad_lines_are_left_out_and_counted_on_request(tmp_path, form, content):
    part, = corpus.ranges([write(tmp_path, content)])
    reader = corpus.RangeReader(part, corpus.PLAIN._replace(errors="skip", **form))
    assert [document.sentences for document in reader] == [["一", "二"], ["三"]]
    assert reader.bad_lines == 1


def test_a_bad_line_is_counted_by_one_reader_only(tmp_path, small_cells):
    path = write(tmp_path, b"\xff123456\n" * 40)
    readers = [corpus.RangeReader(part, corpus.PLAIN._replace(errors="skip")) for part in corpus.ranges([path])]
    assert [document for reader in readers for document in reader] == []
    assert sum(reader.bad_lines for reader in readers) == 40


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content[:60] + b"x" + content[61:]])
def test_a_damaged_compressed_file_is_named(tmp_path, damage):
    content = gzip.compress("".join("句%d\n" % number for number in range(1000)).encode("utf-8"))
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(content))
    with pytest.raises(UserError, match=r"a\.txt\.gz: damaged behind byte \d+ of its text: .*compress the file again$"):
        read(str(path))


def test_what_is_no_gzip_is_named(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes("一\n".encode("utf-8"))
    with pytest.raises(UserError, match=r"a\.txt\.gz: damaged behind byte 0"):
        read(str(path))


def test_files_are_read_one_document_at_a_time(tmp_path):
    path = write(tmp_path, "一\n\n".encode("utf-8") + b"\xcb\xe1\n")
    assert next(corpus.read_documents([path])).sentences == ["一"]


@pytest.mark.parametrize("content, place", [
    (b"\xcb\xe1\n", ":1: not UTF-8 at byte 1 of the line, 1 of the text"),
    ("一\n\n二".encode("utf-8") + b"\xff\n", ":3: not UTF-8 at byte 4 of the line, 9 of the text"),
    (b"\xef\xbb\xbfa\xcb\xe1", ":1: not UTF-8 at byte 5 of the line, 5 of the text"),
    ("一\n".encode("utf-16"), ":1: not UTF-8 at byte 1 of the line, 1 of the text"),
])
def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path, content, place):
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(path + place + "; convert the file")


def test_an_output_that_is_an_input_is_refused(tmp_path):
    path = write(tmp_path, "一\n")
    (tmp_path / "link").symlink_to(path)
    link = str(tmp_path / "link")
    corpus.check_outputs([str(tmp_path / "other")], [path])
    roundabout = str(tmp_path / "x" / ".." / "a.txt")
    for output, read_from in ((path, path), (roundabout, path), (link, path), (path, link)):
        with pytest.raises(UserError, match="^--output_file=.*: is read as input too"):
            corpus.check_outputs([str(tmp_path / "other"), output], [read_from])
