"""What the commands that train share: which model, how long, on what devices, and the run itself.

Functions here take a command's flags as `values`, an object with an attribute for each.
"""

import collections
import dataclasses
import functools
import hashlib
import os

import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import records
from bert.optimization import Schedule
from bert.tokenization import load_vocab
from tasks import encoders
from tasks.model_fn import Init, task_model_fn
from training import command
from training import files
from training import flags
from training import loop
from training import run_folder
from training import runtime
from training.command import UserError
from training.evaluation import run_model
from training.hooks import ProgressHook

LEARNING_RATES = {"bert": 5e-5, "bilstm": 1e-3}

# config: BertConfig or BiLstmConfig; init: Init or None; files: ModelFiles, where the model starts, whose
# vocab_file is the one to use.
Model = collections.namedtuple("Model", "config init files")


def open_model(values, config_file=None):
    """The model a command trains, from its flags and what stands beside --init_checkpoint.

    Without either config file or --init_checkpoint, the run folder's own model.

    Args:
      values: flags of `training.flags.define_model_flags`, and of `define_config_flags` unless
        `config_file` is given.
      config_file: JSON of the model, already chosen; None: by the flags.

    Raises:
      UserError: no configuration or vocabulary, or they do not fit together.
    """
    found = checkpoints.NO_FILES
    if values.init_checkpoint:
        found = checkpoints.find_model(values.init_checkpoint, "init_checkpoint")
    elif tf.train.latest_checkpoint(values.output_dir):
        found = checkpoints.find_model(values.output_dir, "output_dir")
    layers = checkpoints.parse_layers(getattr(values, "init_layers", ""))
    if layers and not values.init_checkpoint:
        raise UserError("--init_layers=%s: needs --init_checkpoint, whose layers are meant" % values.init_layers)
    config_file = config_file or _one_config_file(values) or found.config_file
    if not config_file:
        raise UserError("--bert_config_file or --student_config_file: one of them is needed (or an --init_checkpoint "
                        "with a config.json beside it)")
    config = encoders.cut_layers(encoders.read_config(config_file), layers, config_file)
    vocab_file = values.vocab_file or found.vocab_file
    if not vocab_file:
        raise UserError("--vocab_file: needed (or an --init_checkpoint with a vocab.txt beside it)")
    check_vocabulary(config, config_file, vocab_file)
    init = Init(found.checkpoint, layers, same_labels=False) if values.init_checkpoint else None
    return Model(config, init, found._replace(config_file=config_file, vocab_file=vocab_file))


def _one_config_file(values):
    if values.bert_config_file and values.student_config_file:
        raise UserError("--student_config_file=%s: --bert_config_file is given too; give one of the two"
                        % values.student_config_file)
    return values.bert_config_file or values.student_config_file


def check_vocabulary(config, config_file, vocab_file):
    """Raises UserError unless the model has a row for every token."""
    tokens = len(load_vocab(vocab_file))
    if tokens != config.vocab_size:
        raise UserError("%s: %d tokens, and %s has 'vocab_size' %d; they must be equal"
                        % (vocab_file, tokens, config_file, config.vocab_size))


def check_length(config, length, flag):
    """Raises UserError when the model cannot take texts of that many tokens."""
    if config.max_length and length > config.max_length:
        raise UserError("--%s=%d: the model takes %d tokens at most ('max_position_embeddings')"
                        % (flag, length, config.max_length))


def read_schedule(values, num_texts, kind):
    """The Schedule of a run over `num_texts` training texts; kind: the config's model_type."""
    steps = values.num_train_steps or max(1, round(values.num_train_epochs * num_texts / values.train_batch_size))
    warmup = values.num_warmup_steps
    if warmup is None:
        warmup = int(steps * values.warmup_proportion)
    rate = LEARNING_RATES[kind] if values.learning_rate is None else values.learning_rate
    return Schedule(rate, steps, warmup, values.weight_decay_rate, values.clip_norm,
                    values.gradient_accumulation_steps)


def train(values, model, task, train_files, select_files, make_model_fn=None, contents=None, more_settings=None):
    """Trains to the end, or goes on, or finds that all is done.

    Args:
      values: flags of `training.flags.define_training_flags`.
      model: Model.
      task: MaskedLm or Classification.
      train_files: TFRecord files.
      select_files: TFRecord files that choose the best checkpoint; (): the last is the best.
      make_model_fn: function of (schedule, init, progress) -> model_fn; None: plain training on the task.
      contents: dict of name -> text; files of the run folder beside config.json and vocab.txt.
      more_settings: dict; what decides the result besides the flags.
    """
    finished = run_folder.finished(values.output_dir)
    strategy, devices = runtime.distribution_strategy(values.num_gpus, values.num_cpu_replicas)
    if values.early_stopping and runtime.cluster():
        # Only the chief would stop, and the others would wait for it for ever.
        raise UserError("--early_stopping=%d: not with several machines (TF_CONFIG); choose --num_train_steps"
                        % values.early_stopping)
    num_texts = sum(map(records.count_records, train_files))
    schedule = read_schedule(values, num_texts, model.config.model_type)
    if runtime.is_chief():
        _begin(values, model, num_texts, contents or {}, more_settings or {})
    if finished:
        print("%s: finished at step %d (%s); nothing to do" % (
            values.output_dir, finished["steps"], finished["reason"]))
        return
    print("training on %s, {:,} texts, {:,} updates of {:,}".format(
        num_texts, schedule.num_train_steps, values.train_batch_size) % ", ".join(devices), flush=True)
    progress = functools.partial(
        ProgressHook, num_train_steps=schedule.num_train_steps, batch_size=values.train_batch_size,
        num_parts=schedule.num_parts, log_steps=values.log_steps, directory=values.output_dir)
    # A run that goes on has its own checkpoint and does not need the other any more.
    init = None if tf.train.latest_checkpoint(values.output_dir) else model.init
    make_model_fn = make_model_fn or functools.partial(task_model_fn, model.config, task)
    epoch = -(-num_texts // values.train_batch_size)
    config = runtime.run_config(
        values.output_dir, values.random_seed, values.save_checkpoints_steps or epoch, strategy=strategy,
        devices=devices)
    result = loop.train(
        make_model_fn(schedule, init, progress),
        lambda start: records.training_input_fn(
            train_files, task.feature_names, values.train_batch_size, schedule.num_parts, values.random_seed, start),
        config, schedule.num_train_steps, _selection(values, model, task, select_files))
    print("%s: finished at step %d: %s" % (values.output_dir, result["steps"], result["reason"]), flush=True)


def _begin(values, model, num_texts, contents, more_settings):
    """Opens the run folder, new or with the same settings."""
    config = dataclasses.asdict(model.config)
    vocabulary = files.read_bytes(model.files.vocab_file)
    settings = dict(flags.training_settings(command.own_flags()), model=config, num_train_texts=num_texts,
                    vocabulary=hashlib.sha256(vocabulary).hexdigest(), **more_settings)
    contents = {name: text.encode("utf-8") for name, text in dict(
        contents, **{"config.json": files.to_json(config)}).items()}
    run_folder.begin(values.output_dir, settings, dict(contents, **{"vocab.txt": vocabulary}))


def _selection(values, model, task, select_files):
    def evaluate_one(checkpoint):
        figures = evaluate(model.config, task, checkpoint, select_files, values.eval_batch_size)
        print("%s  %s" % (os.path.basename(checkpoint), "  ".join(
            "%s %.4f" % (name, figures[name]) for name in task.figures_to_select)), flush=True)
        return figures

    return loop.Selection(
        values.output_dir, checkpoints.copy_slim, evaluate_one if select_files else None, values.select_by,
        task.figures_to_select[values.select_by], values.early_stopping)


def evaluate(config, task, checkpoint, record_files, batch_size, **arguments):
    """The task's figures of a checkpoint; arguments: further ones of `task.figures`."""
    return task.figures(answers(config, task, checkpoint, record_files, batch_size), **arguments)


def answers(config, task, checkpoint, record_files, batch_size):
    """What the model answers to every record: dict of arrays, see the task's `outputs`."""
    return run_model(task_model_fn(config, task),
                     records.evaluation_input_fn(record_files, task.feature_names, batch_size), checkpoint)


def write_figures(output_dir, name, task, figures, title):
    """Prints figures and writes them to <output_dir>/<name>.json."""
    print("%s\n%s" % (title, task.format_figures(figures)), flush=True)
    files.write_json(os.path.join(output_dir, name + ".json"), figures)


def best_checkpoint(values):
    """The checkpoint that is measured, exported or predicts: the run folder's, else --init_checkpoint."""
    if os.path.exists(os.path.join(values.output_dir, checkpoints.BEST + ".index")) \
            or tf.train.latest_checkpoint(values.output_dir) or not values.init_checkpoint:
        return checkpoints.find_model(values.output_dir, "output_dir").checkpoint
    return checkpoints.find_model(values.init_checkpoint, "init_checkpoint").checkpoint
