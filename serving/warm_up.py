"""A request that a TensorFlow Serving sends to itself before it takes others, so that nobody waits for the first one.

A TFRecord of `PredictionLog`s, written as bytes: the package with its class is large, and the tests have it. Fields
(tensorflow_serving/apis): PredictionLog: predict_log = 6; PredictLog: request = 1; PredictRequest: model_spec = 1,
inputs = 2, a map of string = 1 to TensorProto = 2; ModelSpec: name = 1, signature_name = 3.
"""

import tensorflow.compat.v1 as tf

from bert import records

FILE = "tf_serving_warmup_requests"
TEXTS = ("聚氯乙烯生产车间招聘操作工。", "Vinyl chloride " * 20)


def write(path, texts=TEXTS):
    """Writes the file with one request that classifies these texts, whole or not at all."""
    tensor = tf.make_tensor_proto([text.encode("utf-8") for text in texts], tf.string).SerializeToString()
    model = _field(1, b"classifier") + _field(3, b"classify_text")
    request = _field(1, model) + _field(2, _field(1, b"text") + _field(2, tensor))
    records.write_records(path, [_field(6, _field(1, request))])


def _field(number, content):
    """A field whose content has a length of its own."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    """7 bits a byte, the lowest first; all but the last have the eighth."""
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found + bytearray([value]))
