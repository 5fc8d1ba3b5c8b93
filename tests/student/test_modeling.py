import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from student.modeling import MERGES
from student.modeling import POOLINGS
from student.modeling import BiLstmConfig
from student.modeling import BiLstmModel
from tests import graphs
from tests.student.test_lstm import ALL_KERNELS, numpy_lstm
from training.command import UserError

VOCABULARY, LENGTH = 30, 7
LENGTHS = [7, 1, 4, 0]


def config(**changes):
    return BiLstmConfig(**dict(dict(vocab_size=VOCABULARY, hidden_size=6, num_hidden_layers=3), **changes))


def batch():
    ids = np.random.RandomState(5).randint(1, VOCABULARY, [len(LENGTHS), LENGTH]).astype(np.int32)
    return ids, graphs.mask_of(LENGTHS, LENGTH)


def outputs(ids, mask, kernel="block", is_training=False, **changes):
    """Every output of a model, and the gradient of a sum over them for each variable."""
    def build():
        model = BiLstmModel(
            config(**changes), is_training, tf.constant(ids), tf.constant(mask), kernel=kernel)
        found = {"layer_%d" % number: layer for number, layer in enumerate(model.get_all_encoder_layers(), 1)}
        found.update(sequence=model.get_sequence_output(), pooled=model.get_pooled_output())
        variables = tf.trainable_variables()
        loss = tf.add_n([tf.reduce_sum(tf.square(found[name] - 0.5)) for name in ("sequence", "pooled")])
        gradients = {"gradient of " + variable.op.name: tf.convert_to_tensor(gradient)
                     for variable, gradient in zip(variables, tf.gradients(loss, variables))}
        found.update(embedding=model.get_embedding_output(), table=model.get_embedding_table())
        return dict(found, **gradients)

    return graphs.run(build, weights=graphs.named_weights(1.0))


def shapes(**changes):
    with tf.Graph().as_default():
        BiLstmModel(config(**changes), False, tf.zeros([1, 4], tf.int32)).get_pooled_output()
        return {variable.op.name: variable.shape.as_list() for variable in tf.trainable_variables()}


@pytest.mark.parametrize("kernel", ALL_KERNELS)
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("merge", MERGES)
def test_padding_moves_nothing_in_either_direction(merge, pooling, kernel):
    ids, mask = batch()
    before = outputs(ids, mask, kernel, merge=merge, pooling=pooling)
    other = np.where(mask == 1, ids, (ids + 11) % VOCABULARY).astype(np.int32)
    after = outputs(other, mask, kernel, merge=merge, pooling=pooling)
    assert np.any(before["embedding"] != after["embedding"])
    for name in before:
        if name != "embedding":
            assert np.array_equal(before[name], after[name]), name


@pytest.mark.parametrize("kernel", ALL_KERNELS)
@pytest.mark.parametrize("merge", MERGES)
def test_every_layer_is_zero_at_padding(merge, kernel):
    ids, mask = batch()
    found = outputs(ids, mask, kernel, merge=merge)
    for layer in ("layer_1", "layer_2", "layer_3"):
        assert np.all(found[layer][mask == 0] == 0)
        assert np.all(found[layer][mask == 1] != 0)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("merge", MERGES)
def test_more_padding_moves_nothing(merge, pooling):
    ids, mask = batch()
    before = outputs(ids, mask, merge=merge, pooling=pooling)
    wider = [np.pad(values, [(0, 0), (0, 5)], "constant") for values in (ids, mask)]
    after = outputs(*wider, merge=merge, pooling=pooling)
    np.testing.assert_allclose(after["pooled"], before["pooled"], atol=1e-6)
    np.testing.assert_allclose(after["sequence"][:, :LENGTH], before["sequence"], atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("merge", MERGES)
def test_a_text_without_tokens_pools_to_zeros(merge, pooling):
    ids, mask = batch()
    found = outputs(ids, mask, merge=merge, pooling=pooling)
    assert np.all(found["pooled"][3] == 0)
    assert all(np.all(np.isfinite(value)) for value in found.values())


def top_states(found, **changes):
    """The top layer's two directions, by NumPy, from the output of the layer below."""
    draw, shape = graphs.named_weights(1.0), shapes(**changes)

    def states(direction):
        names = ["student/layer_3/%s/%s" % (direction, name) for name in ("kernel", "bias")]
        return numpy_lstm(found["layer_2"], LENGTHS, *[draw(name, shape[name]) for name in names],
                          reverse=direction == "backward")[0]

    return states("forward"), states("backward")


@pytest.mark.parametrize("merge", MERGES)
def test_a_layer_merges_its_two_directions(merge):
    found = outputs(*batch(), merge=merge)
    forward, backward = top_states(found, merge=merge)
    expected = np.concatenate([forward, backward], axis=-1) if merge == "concat" else forward + backward
    np.testing.assert_allclose(found["sequence"], expected, atol=1e-5)


@pytest.mark.parametrize("merge", MERGES)
def test_last_pooling_is_the_forward_state_at_the_last_token_and_the_backward_at_the_first(merge):
    found = outputs(*batch(), merge=merge, pooling="last")
    forward, backward = top_states(found, merge=merge)
    ends = forward[range(len(LENGTHS)), [max(length - 1, 0) for length in LENGTHS]]
    starts = backward[:, 0]
    expected = np.concatenate([ends, starts], axis=-1) if merge == "concat" else ends + starts
    np.testing.assert_allclose(found["pooled"], expected, atol=1e-5)


@pytest.mark.parametrize("pooling, reduce", [("max", np.max), ("mean", np.mean)])
def test_max_and_mean_run_over_real_tokens(pooling, reduce):
    found = outputs(*batch(), pooling=pooling)
    assert np.any(found["sequence"][2, :4].max(axis=0) < 0)  # a 0 of padding would win there
    for text, length in enumerate(LENGTHS[:3]):
        expected = reduce(found["sequence"][text, :length], axis=0)
        np.testing.assert_allclose(found["pooled"][text], expected, atol=1e-6)


@pytest.mark.parametrize("kernel", [kernel for kernel in ALL_KERNELS if kernel.values != ("cell",)])
@pytest.mark.parametrize("merge", MERGES)
def test_kernels_agree_in_every_output_and_gradient(merge, kernel):
    one, other = [outputs(*batch(), kernel=name, merge=merge) for name in (kernel, "cell")]
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5 * max(1.0, np.abs(other[name]).max()),
                                   err_msg=name)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("merge", MERGES)
def test_every_variable_has_a_gradient(merge, pooling):
    gradients = {name: value for name, value in outputs(*batch(), merge=merge, pooling=pooling).items()
                 if name.startswith("gradient")}
    assert len(gradients) == 1 + 3 * 2 * 2
    for name, value in gradients.items():
        assert np.abs(value).max() > 1e-3, name


def test_the_embedding_output_is_rows_of_the_table():
    ids, mask = batch()
    found = outputs(ids, mask, embedding_size=5)
    assert np.array_equal(found["embedding"], found["table"][ids])
    assert found["table"].shape == (VOCABULARY, 5)


@pytest.mark.parametrize("probability", ["embedding_dropout_prob", "hidden_dropout_prob"])
def test_each_dropout_acts_in_training_alone(probability):
    rates = dict(embedding_dropout_prob=0.0, hidden_dropout_prob=0.0)
    expected = outputs(*batch(), **rates)
    rates[probability] = 0.5
    assert np.array_equal(outputs(*batch(), **rates)["sequence"], expected["sequence"])
    trained = outputs(*batch(), is_training=True, **rates)
    assert not np.allclose(trained["sequence"], expected["sequence"], atol=1e-3)
    assert np.array_equal(trained["embedding"], expected["embedding"])  # what is distilled has no dropout
    same_first = np.array_equal(trained["layer_1"], expected["layer_1"])
    assert same_first == (probability == "hidden_dropout_prob")


def test_no_mask_means_no_padding():
    ids = batch()[0]

    def pooled(mask):
        return graphs.run(lambda: BiLstmModel(config(), False, tf.constant(ids), mask).get_pooled_output())

    assert np.array_equal(pooled(None), pooled(np.ones_like(ids)))


@pytest.mark.parametrize("merge, millions", [("concat", 4.95), ("sum", 6.15)])
def test_the_papers_student_has_its_parameters(merge, millions):
    found = shapes(vocab_size=21128, hidden_size=200, merge=merge)
    assert round(sum(int(np.prod(shape)) for shape in found.values()) / 1e6, 2) == millions


def test_variables_are_named_by_layer_and_direction():
    assert shapes(num_hidden_layers=1, embedding_size=5) == {
        "student/embeddings/word_embeddings": [VOCABULARY, 5],
        "student/layer_1/forward/kernel": [5 + 3, 4 * 3], "student/layer_1/forward/bias": [4 * 3],
        "student/layer_1/backward/kernel": [5 + 3, 4 * 3], "student/layer_1/backward/bias": [4 * 3]}


def test_the_embedding_is_as_wide_as_a_layer_unless_told():
    assert config().embedding_size == 6
    assert config(embedding_size=5).embedding_size == 5


@pytest.mark.parametrize("change, message", [
    ({"merge": "mean"}, "student.json: 'merge' must be one of concat, sum, found 'mean'"),
    ({"pooling": "first"}, "student.json: 'pooling' must be one of last, max, mean, found 'first'"),
    ({"hidden_size": 7}, "student.json: 'hidden_size' must be even with 'merge' \"concat\", found 7"),
    ({"hidden_size": 0}, "student.json: 'hidden_size' must be above 0, found 0"),
    ({"embedding_size": -1}, "student.json: 'embedding_size' must be above 0, or 0 for 'hidden_size'"),
    ({"pooled_dropout_prob": 1.0},
     "student.json: 'pooled_dropout_prob' must be at least 0 and below 1, found 1.0"),
    ({"poolling": "max"}, "student.json: unknown key 'poolling'; did you mean 'pooling'?")])
def test_a_wrong_config_is_told(change, message):
    with pytest.raises(UserError) as error:
        BiLstmConfig.from_dict(dict({"vocab_size": 30}, **change), "student.json")
    assert str(error.value) == message


def test_an_odd_width_can_be_summed():
    assert config(hidden_size=7, merge="sum").hidden_size == 7
