import pytest

from bert import corpus
from training.command import UserError


def write(tmp_path, content, name="a.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def read(*paths):
    return list(corpus.read_documents(paths))


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


def test_bytes_add_up_to_the_file(tmp_path):
    content = "\n一\n二\n\n\n三三\r\n\n四\n"
    counted = sum(document.num_bytes for document in read(write(tmp_path, content)))
    assert counted == len(content.encode("utf-8"))


def test_a_long_document_is_read_in_parts_and_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_DOCUMENT_BYTES", 10)
    lines = ["句%d" % number for number in range(10)]
    path = write(tmp_path, "\n".join(lines) + "\n\n短\n\n" + "\n".join(lines))
    documents = read(path)
    assert [document.sentences for document in documents] == [
        lines[:2], lines[2:4], lines[4:6], lines[6:8], lines[8:], ["短"],
        lines[:2], lines[2:4], lines[4:6], lines[6:8], lines[8:]]
    assert [document.continues for document in documents] == [False] + [True] * 4 + [False] * 2 + [True] * 4
    assert len({document.offset for document in documents}) == len(documents)


def test_a_document_that_ends_where_it_would_be_cut_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MAX_DOCUMENT_BYTES", 8)
    documents = read(write(tmp_path, "一一\n\n二二\n\n\n三三\n"))
    assert [document.continues for document in documents] == [False, False, False]


def test_files_are_read_one_document_at_a_time(tmp_path):
    path = write(tmp_path, "一\n\n".encode("utf-8") + b"\xcb\xe1\n")
    assert next(corpus.read_documents([path])).sentences == ["一"]


@pytest.mark.parametrize("content, place", [
    (b"\xcb\xe1\n", ":1: not UTF-8 at byte 1 of the line"),
    ("一\n\n二".encode("utf-8") + b"\xff\n", ":3: not UTF-8 at byte 4 of the line"),
    (b"\xef\xbb\xbfa\xcb\xe1", ":1: not UTF-8 at byte 5 of the line"),
    ("一\n".encode("utf-16"), ":1: not UTF-8 at byte 1 of the line"),
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
