"""Cuts a narrower and shallower BERT out of a teacher, for a student to start from.

    python -m distill.extraction --teacher_checkpoint=output/teacher --student_config_file=small_bert.json \\
        --output_dir=output/cut
    python run_distill.py --teacher_checkpoint=output/teacher --init_checkpoint=output/cut ...

The student begins with slices of the teacher's matrices (Extract then Distill, Chen et al. 2021, arXiv 2104.11928, its
ETD-Rand): layers evenly over the depth up to the top one; hidden units at random, the same everywhere, because every
layer adds to what it reads; in each layer heads and intermediate units at random. --random_seed decides. The heads of
the two models must be equally wide. What is as large as the teacher's is kept whole, so a student as wide as the
teacher takes whole layers. The paper's other choice, by importance, needs gradients over a corpus and is not here.

The folder holds model.ckpt, config.json and what stands beside the teacher: vocab.txt and, of a classifier, labels.txt
and text.json. Every command takes it as --init_checkpoint.
"""

import collections
import dataclasses
import os
import re

import numpy as np
from absl import flags

from training import command
from bert import checkpoints
from distill import layer_map
from tasks import encoders
from training import files
from training.command import UserError

# What is along each axis of a variable: h hidden units, a units of the layer's heads, i its intermediate units,
# p positions, "." what both models have in common. The first pattern that is all of the name counts.
AXES = [(re.compile(pattern), axes) for pattern, axes in (
    (r"bert/embeddings/(word|token_type)_embeddings", ".h"),
    (r"bert/embeddings/position_embeddings", "ph"),
    (r"bert/encoder/layer_\d+/attention/self/(query|key|value)/kernel", "ha"),
    (r"bert/encoder/layer_\d+/attention/self/(query|key|value)/bias", "a"),
    (r"bert/encoder/layer_\d+/attention/output/dense/kernel", "ah"),
    (r"bert/encoder/layer_\d+/intermediate/dense/kernel", "hi"),
    (r"bert/encoder/layer_\d+/intermediate/dense/bias", "i"),
    (r"bert/encoder/layer_\d+/output/dense/kernel", "ih"),
    (r"(bert/pooler|cls/predictions/transform)/dense/kernel", "hh"),
    (r"(bert|cls)/.*/(bias|beta|gamma)", "h"),
    (r"(cls/seq_relationship/)?output_weights", ".h"),
    (r"(cls/(seq_relationship|predictions)/)?output_bias", "."))]

# layers: the teacher's, from 0, one for each of the student's; hidden: units; heads, intermediate: for each layer of
# the student, those of the teacher's layer. All ascending.
Choice = collections.namedtuple("Choice", "layers hidden heads intermediate")

# Keys of the configurations.
EQUAL = ("vocab_size", "type_vocab_size", "hidden_act", "pooling")
NO_LARGER = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")


def define_flags():
    flags.DEFINE_string(
        "teacher_checkpoint", None, "Needed: run folder or checkpoint of the teacher, a BERT.", required=True)
    flags.DEFINE_string("student_config_file", None, "Needed: JSON of the student, a BERT no larger.", required=True)
    flags.DEFINE_string("output_dir", None, "Needed: the folder to write.", required=True)
    flags.DEFINE_integer(
        "random_seed", 12345, "Decides which units are kept.", lower_bound=0, upper_bound=2 ** 31 - 1)


def main():
    values = flags.FLAGS
    if os.path.exists(values.output_dir):
        raise UserError("--output_dir=%s: exists already; name another folder" % values.output_dir)
    found = checkpoints.find_model(values.teacher_checkpoint, "teacher_checkpoint")
    if not found.config_file:
        raise UserError("--teacher_checkpoint=%s: no config.json is beside it" % values.teacher_checkpoint)
    teacher = encoders.read_config(found.config_file)
    student = encoders.read_config(values.student_config_file)
    check(teacher, student, found.config_file, values.student_config_file)
    tensors = checkpoints.read_slim(found.checkpoint)
    check_tensors(tensors, teacher, found.checkpoint, found.config_file)
    write(values.output_dir, cut(tensors, teacher, student, values.random_seed), student, found)
    print("%s: %s" % (values.output_dir, describe(tensors, teacher, student)), flush=True)


def check(teacher, student, teacher_file, student_file):
    """Raises UserError unless the student can be cut out of the teacher; the files are for messages."""
    for config, path in ((teacher, teacher_file), (student, student_file)):
        if config.model_type != "bert":
            raise UserError("%s: a %s; a BERT is cut out of a BERT" % (path, config.model_type))
    for key in EQUAL:
        if getattr(student, key) != getattr(teacher, key):
            raise UserError("%s: '%s' is %s, and the teacher's (%s) %s; they must be equal"
                            % (student_file, key, getattr(student, key), teacher_file, getattr(teacher, key)))
    for key in NO_LARGER:
        if getattr(student, key) > getattr(teacher, key):
            raise UserError("%s: '%s' is %d, and the teacher's (%s) %d; only what is there can be cut out"
                            % (student_file, key, getattr(student, key), teacher_file, getattr(teacher, key)))
    ours, theirs = head_width(student), head_width(teacher)
    if ours != theirs:
        raise UserError("%s: a head is %d wide (%d / %d), and the teacher's (%s) %d (%d / %d); they must be equal" % (
            student_file, ours, student.hidden_size, student.num_attention_heads,
            teacher_file, theirs, teacher.hidden_size, teacher.num_attention_heads))


def check_tensors(tensors, teacher, checkpoint, teacher_file):
    """Raises UserError unless the tensors (see `cut`) are those of the teacher's configuration."""
    for name, value in sorted(tensors.items()):
        sizes = {"h": teacher.hidden_size, "a": teacher.hidden_size, "i": teacher.intermediate_size,
                 "p": teacher.max_position_embeddings}
        expected = [sizes.get(letter, size) for letter, size in zip(axes_of(name) or "", value.shape)]
        if expected and list(value.shape) != expected:
            raise UserError("%s: %s is %s, and by %s it would be %s"
                            % (checkpoint, name, list(value.shape), teacher_file, expected))
    for layer in range(teacher.num_layers):
        if not any(name.startswith("bert/encoder/layer_%d/" % layer) for name in tensors):
            raise UserError("%s: no bert/encoder/layer_%d is in it, and %s has %d layers"
                            % (checkpoint, layer, teacher_file, teacher.num_layers))


def head_width(config):
    """Units of one attention head."""
    return config.hidden_size // config.num_attention_heads


def choose(teacher, student, seed):
    """What the student keeps of the teacher: Choice.

    Args:
      teacher, student: BertConfigs that `check` allows.
      seed: decides.
    """
    random = np.random.RandomState(seed)

    def some(number, of):
        return np.sort(random.permutation(of)[:number])

    layers = [layer - 1 for _, layer in layer_map.parse("uniform", student.num_layers, teacher.num_layers)]
    hidden = some(student.hidden_size, teacher.hidden_size)
    return Choice(
        layers, hidden,
        [some(student.num_attention_heads, teacher.num_attention_heads) for _ in layers],
        [some(student.intermediate_size, teacher.intermediate_size) for _ in layers])


def cut(tensors, teacher, student, seed):
    """The student's variables, slices of the teacher's.

    Args:
      tensors: dict of name -> array, the teacher's checkpoint; those `check_tensors` allows.
      teacher, student: BertConfigs that `check` allows.
      seed: decides what is kept, see `choose`.

    Returns:
      dict of name -> array, named as in the student's checkpoints. Tensors that no BertModel or head of it has are
      left out.
    """
    choice = choose(teacher, student, seed)
    found = {}
    for name, value in tensors.items():
        axes, layer = axes_of(name), checkpoints.LAYER.search(name)
        if axes is None or layer and int(layer.group(2)) not in choice.layers:
            continue
        place = choice.layers.index(int(layer.group(2))) if layer else None
        found[checkpoints.LAYER.sub("/layer_%s/" % place, name)] = _slice(value, axes, _kept(choice, student, place))
    return found


def axes_of(name):
    """What is along each axis of a variable, see `AXES`; None for one that no BertModel or head of it has."""
    return next((axes for pattern, axes in AXES if pattern.fullmatch(name)), None)


def _kept(choice, student, place):
    """dict of letter of `AXES` -> indices; place: the layer, counted in the student, or None."""
    kept = {"h": choice.hidden, "p": np.arange(student.max_position_embeddings)}
    if place is not None:
        width = head_width(student)
        kept["a"] = (choice.heads[place][:, None] * width + np.arange(width)).ravel()
        kept["i"] = choice.intermediate[place]
    return kept


def _slice(value, axes, kept):
    for axis, letter in enumerate(axes):
        if letter in kept:
            value = np.take(value, kept[letter], axis)
    return value


def write(folder, variables, student, teacher_files):
    """Writes the folder that --init_checkpoint takes.

    Args:
      folder: its path.
      variables: as from `cut`.
      student: BertConfig.
      teacher_files: `checkpoints.ModelFiles`; vocabulary, labels and text settings are copied.
    """
    with files.whole_folder(folder) as temporary:
        checkpoints.write(variables, os.path.join(temporary, "model.ckpt"))
        files.write_json(os.path.join(temporary, "config.json"), dataclasses.asdict(student))
        for path in filter(None, (teacher_files.vocab_file, teacher_files.labels_file, teacher_files.text_file)):
            files.write_bytes(os.path.join(temporary, os.path.basename(path)), files.read_bytes(path))


def describe(tensors, teacher, student):
    """One line: what is kept of the teacher, and which of its tensors are no BertModel's."""
    layers = ", ".join(str(layer) for layer in choose(teacher, student, seed=0).layers)
    parts = ["layers %s of %d, counted from 0" % (layers, teacher.num_layers)]
    parts += ["%d of %d %s" % (getattr(student, key), getattr(teacher, key), words) for key, words in (
        ("hidden_size", "hidden units"), ("num_attention_heads", "heads"), ("intermediate_size", "intermediate units"))]
    others = sorted(name for name in tensors if axes_of(name) is None and name != "global_step")
    return "; ".join(parts + (["left out: %s" % ", ".join(others)] if others else []))


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
