import os
import pickle
import struct
import tracemalloc

import pytest
import tensorflow.compat.v1 as tf
from hypothesis import given, settings, strategies

from bert import tfrecord
from training.command import UserError

RECORDS = [b"four", b"", b"sixsix", b"\0" * 9]
ENDS = [0, 20, 36, 58, 83]  # where each record begins, and the file ends
HEADER, LENGTH, CUT, DATA = ("cut off in the header", "checksum of the length", "cut off in the data",
                             "checksum of the data")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a")


def write(path, content):
    with open(path, "wb") as stream:
        stream.write(content)
    return path


def read(path):
    """(records before the damage, the error or None)."""
    found = []
    try:
        for record in tfrecord.read(path):
            found.append(record)
    except tfrecord.Damaged as error:
        return found, error
    return found, None


def assert_damaged(path, number, what):
    """The damage is told at that record of `RECORDS`, and those before it are read."""
    found, error = read(path)
    assert found == RECORDS[:number]
    assert (error.record, error.offset, error.what) == (number, ENDS[number], what)


@pytest.mark.parametrize("records", [
    [], RECORDS, [bytes(range(256)) * size for size in (1, 300, 1, 70000)]], ids=["none", "small", "large"])
def test_bytes_are_those_of_tensorflows_writer(path, records):
    with tf.io.TFRecordWriter(path) as writer:
        for record in records:
            writer.write(record)
    with open(path, "rb") as stream:
        assert tfrecord.frame(records) == stream.read()
    assert list(tfrecord.read(path)) == records


@settings(max_examples=200, deadline=None)
@given(strategies.lists(strategies.binary(max_size=300)))
def test_what_is_written_is_read_by_us_and_by_tensorflow(tmp_path_factory, records):
    path = write(str(tmp_path_factory.getbasetemp() / "framed"), tfrecord.frame(records))
    assert list(tfrecord.read(path)) == list(tf.io.tf_record_iterator(path)) == records


def test_parts_are_framed_one_by_one():
    assert b"".join(tfrecord.frame([record]) for record in RECORDS) == tfrecord.frame(RECORDS)


def test_a_file_cut_anywhere_is_noticed_at_the_right_record(path):
    whole = tfrecord.frame(RECORDS)
    assert len(whole) == ENDS[-1]
    for size in range(len(whole)):
        write(path, whole[:size])
        if size in ENDS:
            assert read(path) == (RECORDS[:ENDS.index(size)], None)
        else:
            number = max(place for place, end in enumerate(ENDS) if end < size)
            assert_damaged(path, number, HEADER if size - ENDS[number] < 12 else CUT)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_any_byte_that_changes_is_noticed_at_the_right_record(path, flip):
    whole = tfrecord.frame(RECORDS)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= flip
        write(path, damaged)
        number = max(number for number, end in enumerate(ENDS) if end <= place)
        assert_damaged(path, number, LENGTH if place - ENDS[number] < 12 else DATA)


def test_what_is_left_out_or_put_in_between_is_noticed(path):
    whole = tfrecord.frame(RECORDS)
    for place in set(range(len(whole))) - set(ENDS):
        for damaged in (whole[:place] + whole[place + 1:], whole[:place] + b"\1" + whole[place:]):
            assert read(write(path, damaged))[1]


def test_an_absurd_length_is_refused_before_memory_is_asked_for(path):
    packed = struct.pack("<Q", 2 ** 62)
    true_checksum = tfrecord.frame([packed])[-4:]  # a length's checksum is that of a record of these bytes
    for header, what in ((packed + true_checksum, CUT), (packed + b"\0" * 4, LENGTH)):
        write(path, header + b"data")
        assert read(path)[1].what == what


def test_a_length_that_just_exceeds_the_file_is_not_read(path):
    whole = tfrecord.frame([bytes(1 << 20)])
    for size, what in ((len(whole), None), (len(whole) - 1, CUT)):
        write(path, whole[:size])
        tracemalloc.start()
        _, error = read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (error and error.what) == what
        assert (peak > 2 << 20) == (what is None)  # the buffer, and the record


def test_memory_does_not_grow_with_the_file(path):
    write(path, tfrecord.frame([bytes(1 << 16)] * 400))
    tracemalloc.start()
    assert sum(map(len, tfrecord.read(path))) == 400 << 16
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20


def test_a_file_that_becomes_shorter_while_it_is_read_is_cut_off(path, monkeypatch):
    monkeypatch.setattr(tfrecord, "READ_BUFFER", 16)
    write(path, tfrecord.frame([b"x" * 5000] * 2))
    reading = tfrecord.read(path)
    next(reading)
    with open(path, "r+b") as stream:
        stream.truncate(5016 + 12 + 2000)
    with pytest.raises(tfrecord.Damaged) as caught:
        next(reading)
    assert (caught.value.record, caught.value.what) == (1, CUT)


@pytest.mark.parametrize("content, message", [
    (tfrecord.frame(RECORDS)[:-1], "record 3 at byte 58: cut off in the data; the file is damaged: make it again"),
    (tfrecord.frame(RECORDS)[:-1] + b"\1",
     "record 3 at byte 58: checksum of the data is wrong; the file is damaged: make it again"),
    (tfrecord.frame(RECORDS) + b"\0" * 12,
     "record 4 at byte 83: checksum of the length is wrong; the file is damaged: make it again"),
    (b"one sentence a line\n",
     "record 0 at byte 0: checksum of the length is wrong; not a TFRecord file, or a damaged one: make it again"),
    (b"short", "record 0 at byte 0: cut off in the header; not a TFRecord file, or a damaged one: make it again"),
    (tfrecord.frame(RECORDS)[:13], "record 0 at byte 0: cut off in the data; the file is damaged: make it again"),
])
def test_the_error_tells_file_record_and_byte(path, content, message):
    with pytest.raises(UserError) as caught:
        list(tfrecord.read(write(path, content)))
    assert str(caught.value) == "%s: %s" % (path, message)


def test_a_file_that_is_not_there_is_an_error_of_the_system(path):
    with pytest.raises(FileNotFoundError):
        next(tfrecord.read(path))


def test_the_json_beside_records_is_no_records_file(tmp_path):
    for name in ("a.tfrecord", "a.tfrecord.json"):
        (tmp_path / name).write_bytes(b"")
    assert tfrecord.matching_files("%s/a*" % tmp_path, "input_file") == [str(tmp_path / "a.tfrecord")]
    with pytest.raises(UserError, match=r"^--input_file=.*\*\.json: no such file but \.json ones$"):
        tfrecord.matching_files("%s/*.json" % tmp_path, "input_file")


# ---- counting

def test_records_are_counted_without_reading_them(path):
    assert tfrecord.count_records(write(path, b"")) == 0
    assert tfrecord.count_records(write(path, tfrecord.frame(RECORDS * 3))) == 12


def test_a_file_cut_anywhere_inside_a_record_is_damaged(path):
    whole = tfrecord.frame([b"four", b"sixsix"])
    ends = {0: 0, 20: 1, 42: 2}
    for size in range(len(whole) + 1):
        write(path, whole[:size])
        if size in ends:
            assert tfrecord.count_records(path) == ends[size]
        else:
            with pytest.raises(UserError) as caught:
                tfrecord.count_records(path)
            assert str(caught.value) == (
                "%s: record %d is cut off; the file is damaged: make it again" % (path, size > 20))


def test_a_file_of_something_else_is_damaged(path):
    write(path, b"one sentence a line\n" * 9)
    with pytest.raises(UserError, match="record 0 is cut off"):
        tfrecord.count_records(path)


def test_records_are_read_by_their_place(path):
    write(path, tfrecord.frame(RECORDS))
    assert tfrecord.read_at(path, [2, 0, 3, 1, 2]) == [RECORDS[number] for number in (2, 0, 3, 1, 2)]


def test_a_damaged_record_is_told_by_its_place_and_others_are_read(path):
    content = bytearray(tfrecord.frame(RECORDS))
    content[ENDS[2] + 12] ^= 1
    write(path, bytes(content))
    assert tfrecord.read_at(path, [3]) == [RECORDS[3]]
    with pytest.raises(tfrecord.Damaged, match="%s: record 2 at byte 36" % path):
        tfrecord.read_at(path, [3, 2])


def test_a_file_that_was_made_again_is_read_anew(path):
    write(path, tfrecord.frame(RECORDS))
    tfrecord.read_at(path, [0])
    write(path, tfrecord.frame(RECORDS[::-1]))
    os.utime(path, (1, 1))
    assert tfrecord.read_at(path, [0, 2]) == [RECORDS[3], RECORDS[1]]


def test_damage_found_in_a_worker_is_told_by_the_parent():
    error = pickle.loads(pickle.dumps(tfrecord.Damaged("x.tfrecord", 2, 40, "checksum of the data")))
    assert str(error).startswith("x.tfrecord: record 2 at byte 40") and error.offset == 40
