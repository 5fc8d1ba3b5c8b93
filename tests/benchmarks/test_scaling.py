import numpy as np
import tensorflow.compat.v1 as tf

from benchmarks import scaling
from benchmarks import turns
from bert.modeling import BertModel
from student.modeling import BiLstmModel

MACHINE = scaling.Machine(rate=1e12, efficiency=0.5, link=1e9, network=1e8, devices=4)


def counted(build):
    """Values in the trainable variables of a graph."""
    with tf.Graph().as_default():
        build(tf.zeros([1, 2], tf.int32))
        return sum(int(np.prod(variable.shape.as_list())) for variable in tf.trainable_variables()
                   if "pooler" not in variable.op.name)


def test_parameters_are_those_of_the_models():
    assert scaling.bert_parameters(scaling.TEACHER) == counted(
        lambda ids: BertModel(scaling.TEACHER, False, ids).get_sequence_output())
    assert scaling.lstm_parameters(scaling.STUDENT) == counted(
        lambda ids: BiLstmModel(scaling.STUDENT, False, ids, kernel="block"))


def test_operations_are_those_known_for_the_papers_models():
    # 358 GFLOP a batch of 32 texts of 128 tokens, and 21 GFLOP with 200 units a direction.
    assert round(32e-9 * scaling.bert_flops(scaling.TEACHER, 128)) in range(350, 367)
    wide = scaling.BiLstmConfig(21128, hidden_size=400, embedding_size=200)
    assert round(32e-9 * scaling.lstm_flops(wide, 128)) == 21


def test_a_step_is_computing_and_the_exchange_over_every_link():
    computing, within, between = scaling.step_seconds(1e12, 250_000_000, MACHINE, machines=2)
    assert (computing, within, between) == (2.0, 1.5, 10.0)
    alone = MACHINE._replace(devices=1)
    assert scaling.step_seconds(1e12, 250_000_000, alone) == (2.0, 0.0, 0.0)


def test_the_section_tells_both_jobs_and_is_checked_only_where_it_was_measured():
    assert scaling.section({}).count("| 8 V100, float16 |") == 2 and "Checked" not in scaling.section({})
    race = {"work": [300.0, "GFLOP"], "contenders": [{"title": "tensorflow 2.15", "seconds": turns.summary([1.0])}]}
    step = {"work": [32, "texts"],
            "contenders": [{"title": "our ops, tensorflow 2.15", "seconds": turns.summary([2.0])}]}
    found = scaling.section({"matrix_product": {"races": [race]}, "pretraining": {"races": [step]}})
    assert "own rate of 300 GFLOP/s" in found and "measured were 2000 ms" in found

    for absent in ("matrix_product", "pretraining"):  # a machine without TensorFlow 2.15 has measured others
        results = {"matrix_product": {"races": [race]}, "pretraining": {"races": [step]}}
        results[absent] = {"races": [dict(race, contenders=[])]}
        assert "Checked" not in scaling.section(results)
