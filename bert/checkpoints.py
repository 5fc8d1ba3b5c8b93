"""Where the files of a model are, and what a graph takes from a checkpoint.

A variable is restored by its name, whatever else the checkpoint holds: optimiser slots, other heads and
layers that are cut away stay behind.
"""

import collections
import contextlib
import glob
import os
import re

import tensorflow.compat.v1 as tf

from bert.optimization import is_of_optimizer
from training import files
from training.command import UserError

BEST = os.path.join("best", "model.ckpt")
CONFIG_FILES = ("config.json", "bert_config.json", "albert_config.json")
VOCABULARY_FILES = ("vocab.txt", "vocab_chinese.txt")  # the second: Google's Chinese ALBERT
FILE_END = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
LAYER = re.compile(r"(^|/)layer_(\d+)/")

# checkpoint: its prefix. The others: path of the file, None where there is none.
ModelFiles = collections.namedtuple("ModelFiles", "checkpoint config_file vocab_file labels_file text_file")
NO_FILES = ModelFiles(None, None, None, None, None)


def find_model(path, flag):
    """The files of a model.

    Args:
      path: a run folder (its best checkpoint is taken, else its last), or the prefix of a checkpoint, in a
        run folder or beside a configuration and a vocabulary as Google releases them.
      flag: the name of the flag the path was given by, for messages.

    Returns:
      ModelFiles.

    Raises:
      UserError: no checkpoint is there.
    """
    checkpoint = _checkpoint_in(path, flag) if os.path.isdir(path) else FILE_END.sub("", path)
    if not os.path.exists(checkpoint + ".index"):
        raise UserError("--%s=%s: no such folder, and no checkpoint (%s.index is missing)" % (flag, path, checkpoint))
    folder = os.path.dirname(os.path.abspath(checkpoint))
    if os.path.join(folder, os.path.basename(checkpoint)).endswith(os.sep + BEST):
        folder = os.path.dirname(folder)

    def beside(*names):
        found = [os.path.join(folder, name) for name in names if os.path.exists(os.path.join(folder, name))]
        return found[0] if found else None

    return ModelFiles(checkpoint, beside(*CONFIG_FILES), beside(*VOCABULARY_FILES), beside("labels.txt"),
                      beside("text.json"))


def _checkpoint_in(folder, flag):
    best = os.path.join(folder, BEST)
    if os.path.exists(best + ".index"):
        return best
    last = tf.train.latest_checkpoint(folder)
    if last:
        return last
    # Released checkpoints have no file `checkpoint` that names the last.
    found = glob.glob(os.path.join(glob.escape(folder), "*.ckpt*.index"))
    if len(found) != 1:
        raise UserError("--%s=%s: the folder holds %s" % (
            flag, folder, "several checkpoints; name one" if found else "no checkpoint"))
    return found[0][:-len(".index")]


@contextlib.contextmanager
def frozen_scope(name):
    """A variable scope whose variables never train and never reach a checkpoint.

    They live in LOCAL_VARIABLES: the Scaffold initialises those, the Saver and the optimiser do not see them.
    """
    # TensorFlow passes the first argument by its name, `getter`.
    def freeze(getter, *args, **kwargs):
        kwargs.update(trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES])
        return getter(*args, **kwargs)

    with tf.variable_scope(name, custom_getter=freeze):
        yield


def parse_layers(text, flag="init_layers"):
    """"0,1,4" -> (0, 1, 4); "" -> (). The layers of a checkpoint are counted from 0, as in its names."""
    try:
        layers = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError("--%s=%s: numbers with commas between them are needed, e.g. 0,1,2,3,4,5" % (flag, text))
    if any(layer < 0 for layer in layers):
        raise UserError("--%s=%s: layers are counted from 0" % (flag, text))
    if len(set(layers)) < len(layers):
        raise UserError("--%s=%s: a layer stands twice" % (flag, text))
    return layers


def restore(checkpoint, variables, layers=(), prefix="", optional=None, remedy=""):
    """Makes variables start with the values of a checkpoint, and reports what was found.

    To be called while the graph is built, in every replica.

    Args:
      checkpoint: its prefix.
      variables: variables of the graph.
      layers: for layer 0, 1 ... of the graph, the checkpoint's layer it takes; (): the same one.
      prefix: what the graph puts before the names of the checkpoint, e.g. "teacher/".
      optional: function of a name: whether the variable may be absent from the checkpoint, and then starts
        fresh; None: any may, as long as one is found.
      remedy: what to do when one that may not be is absent, for the message.

    Raises:
      UserError: nothing fits, a variable that must be there is not (those of chosen `layers` must), or a shape
        differs.
    """
    stored = dict(tf.train.list_variables(checkpoint))
    wanted = {_source_name(name_of(variable)[len(prefix):], layers): variable for variable in variables}
    found = {name: variable for name, variable in wanted.items() if name in stored}
    fresh = sorted(set(wanted) - set(found))
    _check(checkpoint, stored, found, [
        name for name in fresh if optional and not optional(name) or layers and LAYER.search(name)], remedy)
    tf.train.init_from_checkpoint(checkpoint, {name: name_of(variable) for name, variable in found.items()})
    if tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group) in (0, None):
        print(describe(checkpoint, stored, wanted, fresh, layers), flush=True)


def digest(prefix):
    """What tells a checkpoint from another: SHA-256 of its index, which has the checksums of its tensors."""
    return files.digest(prefix + ".index")


def name_of(variable):
    """A variable's name in checkpoints; `variable.op` would be the running replica's, called .../replica_1."""
    return variable.name.split(":")[0]


def _source_name(name, layers):
    return LAYER.sub(lambda match: "%slayer_%d/" % (match.group(1), layers[int(match.group(2))]),
                     name) if layers else name


def _check(checkpoint, stored, found, missing, remedy):
    if missing:
        raise UserError("%s: %s is not in the checkpoint%s%s" % (
            checkpoint, missing[0], ", nor are %d other variables of the model" % (len(missing) - 1)
            if len(missing) > 1 else "", remedy and "; " + remedy))
    if not found:
        raise UserError("%s: none of its %d variables is one of the model's; it starts with %s"
                        % (checkpoint, len(stored), ", ".join(sorted(stored)[:3])))
    for name, variable in sorted(found.items()):
        if list(stored[name]) != variable.shape.as_list():
            raise UserError("%s: %s is %s in the checkpoint, and %s in the model; the configuration or the "
                            "vocabulary is another" % (checkpoint, name, list(stored[name]),
                                                       variable.shape.as_list()))


def describe(checkpoint, stored, wanted, fresh, layers=()):
    """One line: what is restored, what starts fresh, and what stays in the checkpoint.

    Args:
      checkpoint: its prefix.
      stored: names in the checkpoint.
      wanted: names (as in the checkpoint) that the graph has.
      fresh: those of them that are not in the checkpoint.
      layers: the choice of layers.
    """
    left = set(stored) - set(wanted) - {"global_step"}
    slots = set(filter(is_of_optimizer, left))
    cut = {name for name in left - slots if layers and LAYER.search(name)}
    others = sorted(left - slots - cut)
    line = "%s: %d of %d variables restored" % (checkpoint, len(wanted) - len(fresh), len(wanted))
    notes = ["layers %s" % ",".join(map(str, layers))] if layers else []
    if fresh:
        notes.append("fresh: %s" % _some(fresh))
    if cut:
        notes.append("%d of other layers left out" % len(cut))
    if slots:
        notes.append("%d optimiser slots left out" % len(slots))
    if others:
        notes.append("left out: %s" % _some(others))
    return "%s (%s)" % (line, "; ".join(notes)) if notes else line


def copy_slim(checkpoint, target):
    """Copies a checkpoint without optimiser slots: a third of the size, and all a model needs.

    Args:
      checkpoint, target: prefixes.
    """
    write(read_slim(checkpoint), target)


def read_slim(checkpoint):
    """All of a checkpoint but the optimiser slots: dict of name -> array."""
    reader = tf.train.load_checkpoint(checkpoint)
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())
            if not is_of_optimizer(name)}


def write(values, target):
    """Writes a checkpoint.

    Args:
      values: dict of name -> array.
      target: its prefix.
    """
    with tf.Graph().as_default(), tf.device("/cpu:0"), tf.Session() as session:
        # Fed, because a graph's constants may not exceed 2 GB.
        places = {name: tf.placeholder(value.dtype, value.shape) for name, value in values.items()}
        variables = {name: tf.Variable(place, name=name) for name, place in places.items()}
        session.run([variable.initializer for variable in variables.values()],
                    {places[name]: values[name] for name in values})
        tf.train.Saver(variables).save(session, target, write_meta_graph=False, write_state=False)


def _some(names):
    return ", ".join(names) if len(names) <= 4 else "%s and %d more" % (", ".join(names[:3]), len(names) - 3)
