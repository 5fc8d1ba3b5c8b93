import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from serving import native_graph
from student import lstm
from student import lstm_layer
from student.modeling import BiLstmConfig
from student.modeling import BiLstmModel
from tests import graphs
from training import native

pytestmark = graphs.COMPILED


@pytest.fixture(autouse=True, scope="module")
def compiled():
    native.load(lstm_layer.SOURCE)


def exported_graph(merge):
    """GraphDef of a BiLSTM as exports have it."""
    config = BiLstmConfig(30, embedding_size=6, hidden_size=8, num_hidden_layers=2, merge=merge, initializer_range=1.0)
    with tf.Graph().as_default() as graph, lstm.using("block"):
        tf.set_random_seed(1)
        fed = [tf.placeholder(tf.int32, [None, None], name) for name in ("ids", "mask")]
        tf.identity(BiLstmModel(config, False, *fed).get_pooled_output(), "pooled")
        tf.global_variables_initializer()
        return graph.as_graph_def()


def pooled(definition):
    lengths = [7, 1, 4]
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(definition, name="")
        session.run("init")
        return session.run("pooled:0", {
            "ids:0": np.random.RandomState(2).randint(1, 30, [3, 7]), "mask:0": graphs.mask_of(lengths, 7)})


def kinds(definition):
    return {node.op for node in definition.node}


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_our_op_gives_what_block_lstm_gives(merge):
    definition = exported_graph(merge)
    expected = pooled(definition)
    native_graph.use_where_compiled(definition)
    assert [node.attr["reverse"].b for node in definition.node if node.op == "LstmLayer"] == [False, True] * 2
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(pooled(definition), expected, atol=1e-6)


@pytest.mark.parametrize("absent", ["allowed", "compiled"])
def test_a_graph_stays_as_it_is_where_our_op_may_not_be_used_or_is_not_compiled(absent, monkeypatch, tmp_path):
    if absent == "compiled":
        monkeypatch.setattr(native, "FOLDER", str(tmp_path))
    definition = exported_graph("concat")
    with native.using(absent != "allowed"):
        native_graph.use_where_compiled(definition)
    assert "BlockLSTM" in kinds(definition) and "LstmLayer" not in kinds(definition)
    assert not list(tmp_path.iterdir())
