import json

import pytest

from tasks.text_files import BadRows
from tasks.text_files import Labels
from tasks.text_files import Row
from tasks.text_files import labels_from_data
from tasks.text_files import labels_from_file
from tasks.text_files import read_rows
from training.command import UserError

LABELS = Labels(["0", "1"], source="labels.txt")
MULTI = Labels(["酸", "碱", "盐"], separator=",")
SKIPPABLE = "; --errors=skip leaves such rows out and counts them"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def read(path, labels=LABELS, errors="stop"):
    return list(read_rows(path, labels, BadRows(errors)))


def error_of(function, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def error_in(tmp_path, name, content, labels=LABELS, **kwargs):
    """The message about a file, without its folder."""
    message = error_of(read, write(tmp_path, name, content), labels, **kwargs)
    assert message.startswith(str(tmp_path)), message
    return message[len(str(tmp_path)) + 1:]


EXPECTED = [Row(2, ("1",), "聚氯乙烯", None), Row(3, ("0",), "a, b", None)]


@pytest.mark.parametrize("name, content, lines", [
    ("a.tsv", "label\ttext_a\n1\t聚氯乙烯\n0\ta, b\n", [2, 3]),
    ("a.csv", 'label,text_a\n1,聚氯乙烯\n0,"a, b"\n', [2, 3]),
    ("b.csv", 'text_a,label\n聚氯乙烯,1\n"a, b",0', [2, 3]),
    ("a.jsonl", '{"label": "1", "text_a": "聚氯乙烯"}\n{"text_a": "a, b", "label": 0}\n', [1, 2]),
])
def test_every_format_gives_the_same_rows(tmp_path, name, content, lines):
    expected = [row._replace(line=line) for row, line in zip(EXPECTED, lines)]
    assert read(write(tmp_path, name, content)) == expected


def test_a_json_row_may_say_what_stands_for_a_mask(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text_a": "房间[MASK]", "mask_token": "[MASK]"}\n{"text_a": "房间[MASK]"}\n')
    assert list(read_rows(path)) == [Row(1, None, "房间[MASK]", None, "[MASK]"), Row(2, None, "房间[MASK]", None)]


@pytest.mark.parametrize("value, problem", [('""', "mask_token is empty"), ("1", "mask_token is not a string")])
def test_what_cannot_stand_for_a_mask_is_refused(tmp_path, value, problem):
    message = error_in(tmp_path, "a.jsonl", '{"text_a": "a", "label": "1", "mask_token": %s}\n' % value)
    assert message == "a.jsonl:1: " + problem + SKIPPABLE


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_bom_windows_line_ends_and_blank_lines_do_no_harm(tmp_path, name):
    separator = "\t" if name == "a.tsv" else ","
    text = "\ufefflabel,text_a\r\n\r\n1,聚氯乙烯\r\n  \r\n0,b\r\n\r\n".replace(",", separator)
    assert read(write(tmp_path, name, text)) == [
        Row(3, ("1",), "聚氯乙烯", None), Row(5, ("0",), "b", None)]


def test_a_second_text_is_read(tmp_path):
    path = write(tmp_path, "a.tsv", "label\ttext_a\ttext_b\n1\tx\ty\n")
    assert read(path) == [Row(2, ("1",), "x", "y")]
    path = write(tmp_path, "a.jsonl", '{"label": "1", "text_a": "x", "text_b": "y"}\n'
                                      '{"label": "1", "text_a": "x", "text_b": null}\n')
    assert read(path) == [Row(1, ("1",), "x", "y"), Row(2, ("1",), "x", None)]


def test_tsv_knows_no_quotes_and_only_newlines_end_a_line(tmp_path):
    path = write(tmp_path, "a.tsv", 'label\ttext_a\n1\t"open\u2028\u0085\r\x0bend\n0\tb"\n')
    assert [row.text_a for row in read(path)] == ['"open\u2028\u0085\r\x0bend', 'b"']


def test_a_csv_row_over_several_lines_is_named_by_its_first(tmp_path):
    path = write(tmp_path, "a.csv", 'label,text_a\n1,"a\nb\n""c"""\n0,d\n')
    assert read(path) == [Row(2, ("1",), 'a\nb\n"c"', None), Row(5, ("0",), "d", None)]


def test_a_csv_field_may_be_long(tmp_path):
    path = write(tmp_path, "a.csv", "label,text_a\n1,%s\n" % ("a" * 200000))
    assert len(read(path)[0].text_a) == 200000


def test_texts_are_read_without_labels(tmp_path):
    texts = [Row(1, None, "a\tb", None), Row(3, None, "c", None)]
    assert read(write(tmp_path, "a.txt", "a\tb\n\nc\n"), None) == texts
    assert read(write(tmp_path, "a.tsv", "text_a\na\n"), None) == [Row(2, None, "a", None)]
    assert read(write(tmp_path, "b.tsv", "label\ttext_a\n\ta\n"), None) == [Row(2, None, "a", None)]
    assert read(write(tmp_path, "a.jsonl", '{"text_a": "a"}\n'), None) == [Row(1, None, "a", None)]


@pytest.mark.parametrize("name, content, message", [
    ("a.tsv", "label\ttext_a\n1\ta\n酸\n", "a.tsv:3: 1 column where 2 are needed (label<TAB>text_a)"),
    ("a.tsv", "label\ttext_a\n1\ta\tb\n", "a.tsv:2: 3 columns where 2 are needed (label<TAB>text_a)"),
    ("a.csv", "label,text_a\n1,a,b\n", "a.csv:2: 3 columns where 2 are needed (label,text_a)"),
    ("a.csv", 'label,text_a\n1,"a"b\n', "a.csv:2: not CSV: ',' expected after '\"'"),
    ("a.tsv", "label\ttext_a\n1\t \n", "a.tsv:2: text_a is empty"),
    ("a.csv", "label,text_a,text_b\n1,a,\n", "a.csv:2: text_b is empty"),
    ("a.tsv", "label\ttext_a\n\ta\n", "a.tsv:2: the label is empty"),
    ("a.tsv", "label\ttext_a\n2\ta\n", 'a.tsv:2: label "2" is not among the 2 of labels.txt'),
    ("a.tsv", "label\ttext_a\n1\ta\0\n", "a.tsv:2: the line has a NUL character"),
    ("a.csv", "label,text_a\n1,a\0\n", "a.csv:2: text_a has a NUL character"),
    ("a.tsv", b"label\ttext_a\n1\t\xe9\x85\xb8\xcb\xe1\n",
     "a.tsv:2: not UTF-8: byte 6 of the line is 0xcb"),
    ("a.csv", b"label,text_a\n1,\xe9\x85\xb8\xcb\xe1\n", "a.csv:2: not UTF-8: byte 4 of text_a is 0xcb"),
    ("a.jsonl", b'{"label": "1", "text_a": "\xcb\xe1"}\n',
     "a.jsonl:1: not UTF-8: byte 27 of the line is 0xcb"),
    ("a.jsonl", "{]\n", "a.jsonl:1: not JSON: Expecting property name enclosed in double quotes: "
                        "line 1 column 2 (char 1)"),
    ("a.jsonl", "[1]\n", 'a.jsonl:1: not an object like {"label": "1", "text_a": "..."}'),
    ("a.jsonl", '{"text": "a"}\n', 'a.jsonl:1: unknown key "text"; the keys are label, text_a, text_b, mask_token'),
    ("a.jsonl", '{"text_a": "a"}\n', "a.jsonl:1: key label is missing"),
    ("a.jsonl", '{"label": 1, "text_a": null}\n', "a.jsonl:1: key text_a is missing"),
    ("a.jsonl", '{"label": 1, "text_a": 5}\n', "a.jsonl:1: text_a is not a string"),
    ("a.jsonl", '{"label": 1.5, "text_a": "a"}\n',
     "a.jsonl:1: a label must be a string or an integer, or a list of them"),
    ("a.jsonl", '{"label": [1], "text_a": "a"}\n',
     "a.jsonl:1: a list of labels where one is needed; --label_separator allows several"),
    ("a.jsonl", '{"label": "a\\nb", "text_a": "a"}\n', "a.jsonl:1: the label has a line break"),
    ("a.jsonl", '{"label": "1", "text_a": "\\ud83d"}\n',
     "a.jsonl:1: text_a has half a surrogate pair, \\ud83d"),
])
def test_a_bad_row_stops_with_its_place_or_is_left_out_and_counted(tmp_path, name, content, message):
    assert error_in(tmp_path, name, content) == message + SKIPPABLE
    good = {"tsv": b"1\tgood", "csv": b"1,good", "jsonl": b'{"label": "1", "text_a": "good"}'}
    if name == "a.csv" and b"text_b" in (tmp_path / name).read_bytes():
        good["csv"] = b"1,good,b"
    with open(str(tmp_path / name), "ab") as stream:
        stream.write(good[name[2:]])
    bad_rows = BadRows("skip")
    rows = list(read_rows(str(tmp_path / name), LABELS, bad_rows))
    assert rows[-1].text_a == "good" and bad_rows.count == 1
    assert bad_rows.first == str(tmp_path / message)


@pytest.mark.parametrize("name, content, message", [
    ("a.tsv", "label\ttext\n1\ta\n",
     'a.tsv:1: unknown column "text"; the first line must be the header label<TAB>text_a[<TAB>text_b]'),
    ("a.csv", "1,a\n",
     'a.csv:1: unknown column "1"; the first line must be the header label,text_a[,text_b]'),
    ("a.tsv", "text_a\na\n", "a.tsv:1: column label is missing; the first line must be the header "
                             "label<TAB>text_a[<TAB>text_b]"),
    ("a.tsv", "", "a.tsv:1: column label is missing; the first line must be the header "
                  "label<TAB>text_a[<TAB>text_b]"),
    ("a.tsv", "label\tlabel\ttext_a\n", "a.tsv:1: column label stands twice"),
    ("a.tsv", "label\ttext_a\n1\ta\n".encode("utf-16"), "a.tsv:1: not UTF-8: byte 1 of the line is 0xff"),
    ("a.csv", 'label,text_a\n1,"a\n1,b\n', 'a.csv:2: a " opens here and nothing closes it'),
    ("a.txt", "a\n", "a.txt: a .txt file has no labels; use .tsv, .csv or .jsonl"),
    ("a.xml", "a\n", "a.xml: the name must end in one of .csv .jsonl .tsv .txt"),
])
def test_what_spoils_the_whole_file_is_never_skipped(tmp_path, name, content, message):
    assert error_in(tmp_path, name, content, errors="skip") == message


def test_an_unknown_policy_names_its_flag():
    assert error_of(BadRows, "ignore") == "--errors=ignore: must be stop or skip"


def test_rows_are_read_one_at_a_time(tmp_path):
    path = write(tmp_path, "a.tsv", "label\ttext_a\n1\ta\nbad\n")
    assert next(read_rows(path, LABELS)).text_a == "a"


@pytest.mark.parametrize("name, content", [
    ("a.tsv", "label\ttext_a\n碱, 酸\ta\n\tb\n"),
    ("a.csv", 'label,text_a\n"碱,酸",a\n,b\n'),
    ("a.jsonl", '{"label": ["碱", "酸"], "text_a": "a"}\n{"label": [], "text_a": "b"}\n'),
])
def test_a_text_may_have_several_labels_or_none(tmp_path, name, content):
    rows = read(write(tmp_path, name, content), MULTI)
    assert [row.labels for row in rows] == [("碱", "酸"), ()]
    assert [MULTI.ids(row.labels) for row in rows] == [[1, 1, 0], [0, 0, 0]]


def test_each_of_several_labels_is_checked(tmp_path):
    content = "label\ttext_a\n酸,,碱\ta\n"
    assert error_in(tmp_path, "a.tsv", content, MULTI).startswith("a.tsv:2: the label is empty")
    content = "label\ttext_a\n酸,油\ta\n"
    assert error_in(tmp_path, "a.tsv", content, MULTI).startswith('a.tsv:2: label "油" is not among the 3')


def test_label_ids_are_one_number_or_one_for_each_class():
    assert LABELS.ids(("1",)) == [1]
    assert LABELS.ids(None) == [-1]
    assert MULTI.ids(("盐",)) == [0, 0, 1]
    assert MULTI.ids(None) == [-1, -1, -1]


def test_labels_of_the_data_are_sorted_as_numbers_or_by_code_point(tmp_path):
    def names(*labels):
        rows = "".join(json.dumps({"label": label, "text_a": "x"}) + "\n" for label in labels)
        return labels_from_data(write(tmp_path, "a.jsonl", rows)).names

    assert names("10", "9", "-1", "9") == ["-1", "9", "10"]
    assert names("10", "9", "x") == ["10", "9", "x"]
    assert names("碱", "酸", "盐") == sorted("碱酸盐")


def test_labels_of_the_data_are_taken_apart(tmp_path):
    path = write(tmp_path, "a.tsv", "label\ttext_a\nb,a\tx\n\ty\nc\tz\n")
    labels = labels_from_data(path, separator=",")
    assert (labels.names, labels.separator, labels.source) == (["a", "b", "c"], ",", path)


def test_labels_of_a_file_keep_its_order(tmp_path):
    path = write(tmp_path, "labels.txt", "\ufeff酸\r\n\r\n碱 \r\n盐")
    labels = labels_from_file(path)
    assert (labels.names, labels.separator, labels.source) == (["酸", "碱", "盐"], None, path)


def test_labels_that_make_no_task_are_refused(tmp_path):
    path = write(tmp_path, "labels.txt", "a\nb\na\n")
    assert error_of(labels_from_file, path) == path + ':3: label "a" stands twice'
    path = write(tmp_path, "bad.txt", b"a\n\xcb\n")
    assert error_of(labels_from_file, path) == path + ":2: not UTF-8: byte 1 of the line is 0xcb"
    path = write(tmp_path, "a.tsv", "label\ttext_a\n1\ta\n1\tb\n")
    assert error_of(labels_from_data, path) == path + ": 1 different labels, at least 2 are needed"
