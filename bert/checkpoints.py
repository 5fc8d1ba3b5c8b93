"""Where the files of a model are, what a graph takes from a checkpoint, and what can be done with one.

    python -m bert.checkpoints inspect --checkpoint=output/teacher
    python -m bert.checkpoints slim --checkpoint=output/teacher --output_dir=slim
    python -m bert.checkpoints convert --from=safetensors --checkpoint=downloaded --output_dir=teacher
    python -m bert.checkpoints convert --from=google --checkpoint=output/teacher --output_dir=shared
    python -m bert.checkpoints repair --output_dir=output/teacher

A variable is restored by its name, whatever else the checkpoint holds: optimiser slots, other heads and
layers that are cut away stay behind.

inspect: lists names, shapes and sizes, and says what kind of model it is.

slim: writes a checkpoint without optimiser slots, a third of the size, with the files that stand beside it.

convert: from Hugging Face's names in a model.safetensors to a checkpoint with Google's, or back; configuration,
vocabulary and labels go with it. A BERT's alone; needs the package safetensors (requirements-export.txt), not torch.

repair: removes the damaged checkpoints of a run that was stopped, so that its command goes on from the last whole one.
"""

import collections
import contextlib
import glob
import os
import re
import shutil

from absl import flags

from training import command
import numpy as np
import tensorflow.compat.v1 as tf

from bert import hugging_face
from bert.optimization import is_of_optimizer
from training import files
from training import lock
from training import run_folder
from training import saved
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
      UserError: no checkpoint is there, or it is damaged, or a run's vocabulary is.
    """
    checkpoint = _checkpoint_in(path, flag) if os.path.isdir(path) else FILE_END.sub("", path)
    if not os.path.exists(checkpoint + ".index"):
        raise UserError("--%s=%s: no such folder, and no checkpoint (%s.index is missing)" % (flag, path, checkpoint))
    saved.verify(checkpoint)
    folder = folder_of(checkpoint)
    run_folder.verify_vocabulary(folder)

    def beside(*names):
        found = [os.path.join(folder, name) for name in names if os.path.exists(os.path.join(folder, name))]
        return found[0] if found else None

    return ModelFiles(checkpoint, beside(*CONFIG_FILES), beside(*VOCABULARY_FILES), beside("labels.txt"),
                      beside("text.json"))


def folder_of(checkpoint):
    """The folder where a model's files stand beside its checkpoint, which may be in `best` there."""
    path = os.path.abspath(checkpoint)
    return path[:-len(os.sep + BEST)] if path.endswith(os.sep + BEST) else os.path.dirname(path)


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


# ---- the command's actions

SAFETENSORS, GOOGLE = "safetensors", "google"
WEIGHTS = {SAFETENSORS: "model.safetensors", GOOGLE: "bert_model.ckpt"}  # what such a folder's are called

# A name that only such a model has -> what it is.
KINDS = (
    (r"^bert/encoder/layer_\d+/", "a BERT of %d layers"),
    (r"^bert/encoder/transformer/group_\d+/", "an ALBERT"),
    (r"^electra/encoder/layer_\d+/", "an ELECTRA of %d layers"),
    (r"^student/layer_\d+/", "a BiLSTM of %d layers"))


def define_flags():
    flags.DEFINE_string("checkpoint", None, "A run folder (its best checkpoint), or the prefix of a checkpoint.",
                        required=True)


def define_output_flags():
    define_flags()
    flags.DEFINE_string("output_dir", None, "Folder to write, which must not be there yet.", required=True)


def define_convert_flags():
    define_output_flags()
    flags.DEFINE_enum("from", None, [SAFETENSORS, GOOGLE],
                      "What --checkpoint is: safetensors, a folder with model.safetensors or such a file; google, a "
                      "checkpoint of TensorFlow's.", required=True)


def define_repair_flags():
    flags.DEFINE_string("output_dir", None, "The run folder.", required=True)


def inspect():
    checkpoint = find_model(flags.FLAGS.checkpoint, "checkpoint").checkpoint
    reader = tf.train.load_checkpoint(checkpoint)
    kinds = reader.get_variable_to_dtype_map()
    total = slots = 0
    for name, shape in sorted(reader.get_variable_to_shape_map().items()):
        size = int(np.prod(shape)) * kinds[name].size
        total, slots = total + size, slots + size * bool(is_of_optimizer(name))
        print("%-72s %-16s %9.3f MB" % (name, "x".join(map(str, shape)) or "scalar", size / 1e6))
    print("%s: %s; %.1f MB, of which %.1f MB are the optimiser's" % (
        checkpoint, kind_of(reader.get_variable_to_shape_map()), total / 1e6, slots / 1e6))


def kind_of(shapes):
    """What a checkpoint is, in words; shapes: dict of name -> shape."""
    found = []
    for pattern, words in KINDS:
        layers = {match.group(0) for match in (re.search(pattern, name) for name in shapes) if match}
        if layers:
            found.append(words % len(layers) if "%d" in words else words)
    heads = ["masked-LM head"] if "cls/predictions/output_bias" in shapes else []
    heads += ["classifier of %d labels" % shapes["output_bias"][0]] if "output_bias" in shapes else []
    model = " and ".join(found) or "no model that is known here"
    return model + (", with a " + " and a ".join(heads) if heads else "")


def slim():
    values = flags.FLAGS
    model = find_model(values.checkpoint, "checkpoint")
    with _new_folder(values.output_dir) as folder:
        copy_slim(model.checkpoint, os.path.join(folder, "model.ckpt"))
        _copy_beside(model, folder)
    print("%s: %.1f MB, %.1f MB before" % (values.output_dir, _megabytes(os.path.join(values.output_dir, "model.ckpt")),
                                           _megabytes(model.checkpoint)))


def convert():
    values = flags.FLAGS
    hugging_face.check_package()
    (_from_safetensors if values["from"].value == SAFETENSORS else _to_safetensors)(values)


def repair():
    folder = flags.FLAGS.output_dir
    with lock.held(folder, "output_dir"):
        damaged, last = saved.repair(folder)
    print("%s: %s; the run goes on from %s" % (
        folder, "removed the damaged checkpoints of step " + ", ".join(map(str, damaged)) if damaged
        else "no checkpoint is damaged", "the beginning" if last is None else "step %d" % last))


def _from_safetensors(values):
    given = values.checkpoint
    path = os.path.join(given, WEIGHTS[SAFETENSORS]) if os.path.isdir(given) else given
    if not os.path.exists(path):
        raise UserError("--checkpoint=%s: no %s is there" % (given, WEIGHTS[SAFETENSORS]))
    beside = os.path.dirname(path)
    config_file = os.path.join(beside, "config.json")
    if not os.path.exists(config_file):
        raise UserError("--checkpoint=%s: no config.json stands beside it" % given)
    config = files.read_json(config_file)
    found, left_out = hugging_face.read(path)
    with _new_folder(values.output_dir) as folder:
        write(found, os.path.join(folder, WEIGHTS[GOOGLE]))
        files.write_json(os.path.join(folder, "config.json"), hugging_face.config_to_google(config))
        if os.path.exists(os.path.join(beside, "vocab.txt")):
            shutil.copyfile(os.path.join(beside, "vocab.txt"), os.path.join(folder, "vocab.txt"))
        if "output_bias" in found and config.get("id2label"):
            labels = [config["id2label"][str(number)] for number in range(len(found["output_bias"]))]
            files.write_text(os.path.join(folder, "labels.txt"), "".join(label + "\n" for label in labels))
    _tell(values.output_dir, found, left_out)


def _to_safetensors(values):
    model = find_model(values.checkpoint, "checkpoint")
    if not model.config_file:
        raise UserError("--checkpoint=%s: no configuration stands beside it" % values.checkpoint)
    found = read_slim(model.checkpoint)
    labels = files.read_lines(model.labels_file) if model.labels_file else None
    config = hugging_face.config_from_google(files.read_json(model.config_file), found, labels)
    with _new_folder(values.output_dir) as folder:
        left_out = hugging_face.write(os.path.join(folder, WEIGHTS[SAFETENSORS]), found)
        files.write_json(os.path.join(folder, "config.json"), config)
        if model.vocab_file:
            shutil.copyfile(model.vocab_file, os.path.join(folder, "vocab.txt"))
    _tell(values.output_dir, found, [name for name in left_out if name != "global_step"])


@contextlib.contextmanager
def _new_folder(path):
    if os.path.exists(path):
        raise UserError("--output_dir=%s: is there already; name a new folder" % path)
    with files.whole_folder(path) as folder:
        yield folder


def _copy_beside(model, folder):
    for path in (model.config_file, model.vocab_file, model.labels_file, model.text_file):
        if path:
            shutil.copyfile(path, os.path.join(folder, os.path.basename(path)))


def _megabytes(prefix):
    return sum(map(os.path.getsize, glob.glob(glob.escape(prefix) + ".*"))) / 1e6


def _tell(folder, values, left_out):
    print("%s: %s%s" % (folder, kind_of({name: value.shape for name, value in values.items()}),
                        "; left out: " + _some(left_out) if left_out else ""))


def _some(names):
    return ", ".join(names) if len(names) <= 4 else "%s and %d more" % (", ".join(names[:3]), len(names) - 3)


if __name__ == "__main__":
    command.run_action({
        "inspect": (inspect, define_flags),
        "slim": (slim, define_output_flags),
        "convert": (convert, define_convert_flags),
        "repair": (repair, define_repair_flags)})
