"""What the commands that train share: how long, on what devices, and the run itself.

Functions here take a command's flags as `values`, an object with an attribute for each.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import shlex
import sys

import tensorflow.compat.v1 as tf

from bert import checkpoints
from bert import masking
from bert import records
from bert import tfrecord
from bert.optimization import Schedule
from bert.tokenization import load_vocab
from student import lstm
from tasks import measuring
from tasks import models
from tasks import word_table
from tasks.model_fn import task_model_fn
from training import cluster
from training import command
from training import files
from training import flags
from training import loop
from training import native
from training import run_folder
from training import runtime
from training import saved
from training.command import UserError
from training.hooks import ProgressHook

LEARNING_RATES = {"bert": 5e-5, "albert": 5e-5, "electra": 5e-5, "bilstm": 1e-3}

# A stretch of a run, see `loop.Stage`. make_model_fn: function of (schedule, init, progress, trains) -> model_fn;
# num_steps: updates, 0 for an even share of what the others leave; learning_rate: 0 for the run's; phases: function of
# the stage's updates -> list of (how many of them come before, what trains from there on: as `trains` of
# `task_model_fn`); files: TFRecord files, None for all; patience, evaluate: as in `loop.Stage`;
# beside: as in `records.training_input_fn`.
Plan = collections.namedtuple(
    "Plan", "name make_model_fn num_steps learning_rate phases files patience evaluate beside",
    defaults=(0, 0.0, lambda num_steps: [(0, None)], None, 0, None, None))

# strategy, devices: as from `runtime.distribution_strategy`; settings: dict, what decides the run's result.
Run = collections.namedtuple("Run", "strategy devices settings")


def count_steps(values, num_texts, plans):
    """Updates of each stage of a run over `num_texts` training texts: list of int.

    Args:
      values: flags of `training.flags.define_training_flags`.
      num_texts: int.
      plans: list of Plan.

    Raises:
      UserError: nothing is left for a stage that has no number of its own.
    """
    steps = values.num_train_steps or max(1, round(values.num_train_epochs * num_texts / values.train_batch_size))
    sharing = [plan for plan in plans if not plan.num_steps]
    rest = steps - sum(plan.num_steps for plan in plans)
    if sharing and rest < len(sharing):
        raise UserError("--num_train_steps=%d: nothing is left for stage %s; more updates are needed, or fewer in "
                        "the other stages" % (steps, sharing[-1].name))
    # What cannot be divided evenly goes to the last.
    shares = [rest // len(sharing)] * len(sharing) if sharing else []
    if shares:
        shares[-1] += rest % len(sharing)
    return [plan.num_steps or shares.pop(0) for plan in plans]


def read_schedule(values, steps, kind):
    """The Schedule of `steps` updates; kind: the config's model_type."""
    warmup = values.num_warmup_steps
    if warmup is None:
        warmup = int(steps * values.warmup_proportion)
    rate = LEARNING_RATES[kind] if values.learning_rate is None else values.learning_rate
    return Schedule(rate, steps, warmup, values.weight_decay_rate, values.clip_norm,
                    values.gradient_accumulation_steps, values.bias_correction,
                    loss_scaling=values.use_fp16)


def on_corpus(values, model, task, make_plans=None, teacher_config=None, more_settings=None):
    """Trains on the records of --input_file and measures on those of --eval_file, as the flags say.

    Args:
      values: flags of `training.flags.define_training_flags`, `input_file` and `eval_file`.
      model: models.Model.
      task: MaskedLm.
      make_plans: function of (files that train, files that select, rules as in `train`) -> list of Plan; None: plain
        training.
      teacher_config: of a teacher that reads the records too.
      more_settings: as in `open_run`.
    """
    if values.do_eval and not values.eval_file:
        raise UserError("--eval_file: --do_eval needs it")
    if values.do_train and not values.input_file:
        raise UserError("--input_file: --do_train needs it")
    train_files = tfrecord.matching_files(values.input_file, "input_file") if values.do_train else []
    eval_files = tfrecord.matching_files(values.eval_file, "eval_file", optional=True)
    for config in filter(None, (model.config, teacher_config)):
        for names in filter(None, (train_files, eval_files)):
            models.check_records(config, names)
    rules = _read_rules(values, model.files.vocab_file, [names for names in (train_files, eval_files) if names])
    if values.do_train:
        # Reading all of a large corpus for a digest would take long.
        sizes = {os.path.basename(name): os.path.getsize(name) for name in train_files + eval_files}
        run = open_run(values, model, dict(sizes, **(more_settings or {})))
        if run:
            train(values, run, model, task, train_files, eval_files,
                  make_plans and make_plans(train_files, eval_files, rules), rules=rules)
    if values.do_eval:
        checkpoint = models.best_model(values).checkpoint
        figures = measuring.evaluate(model.config, task, checkpoint, eval_files, values.eval_batch_size, rules)
        measuring.write_figures(values.output_dir, "eval", task, figures, "%s on %s" % (checkpoint, values.eval_file))


def _read_rules(values, vocab_file, sets):
    """The `masking.Rules` by which masks are drawn; None where all records hold masks.

    Args:
      values: flags of `training.flags.define_masking_flags`.
      vocab_file: of the model that is trained.
      sets: lists of TFRecord files.
    """
    given = [name for name in flags.MASKING_FLAGS if getattr(values, name) is not None]
    if any([records.without_masks(names) for names in sets]):
        return masking.rules_for(
            load_vocab(vocab_file), **{flags.MASKING_FLAGS[name]: getattr(values, name) for name in given})
    if given:
        raise UserError("--%s=%s: %s holds masks already; leave the flag out, or make records without masks "
                        "(bert.create_pretraining_data --masking=dynamic)"
                        % (given[0], getattr(values, given[0]), sets[0][0]))
    return None


def open_run(values, model, more_settings):
    """Finds out, before anything is written, whether a run can begin, goes on or is finished.

    Args:
      values: flags of `training.flags.define_training_flags`.
      model: models.Model.
      more_settings: dict; what decides the result besides flags, model and vocabulary: the data first of all.

    Returns:
      Run; None for one that is finished, which is said.

    Raises:
      UserError: devices that are not there, a batch that cannot be divided among them, or a run folder that
        was begun with other settings.
    """
    strategy, devices = runtime.distribution_strategy(values.num_gpus, values.num_cpu_replicas)
    if values.use_bf16:
        runtime.check_bf16(values.num_gpus)
    runtime.check_gpu_flags(values.num_gpus, use_fp16=values.use_fp16, use_xla=values.use_xla)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    parts = values.gradient_accumulation_steps
    if values.train_batch_size % (replicas * parts):
        raise UserError(
            "--train_batch_size=%d: cannot be divided among %d replicas and %d accumulated parts; give a "
            "multiple of %d" % (values.train_batch_size, replicas, parts, replicas * parts))
    if values.early_stopping and cluster.jobs():
        # Only the chief would stop, and the others would wait for it for ever.
        raise UserError("--early_stopping=%d: not with several machines (TF_CONFIG); choose --num_train_steps"
                        % values.early_stopping)
    settings = dict(flags.training_settings(command.own_flags()), model=dataclasses.asdict(model.config),
                    vocabulary=files.digest(model.files.vocab_file), **more_settings)
    if os.path.exists(os.path.join(values.output_dir, run_folder.SETTINGS)):
        run_folder.begin(values.output_dir, settings, {})
    finished = run_folder.finished(values.output_dir)
    if finished:
        print("%s: finished at step %d (%s); nothing to do" % (
            values.output_dir, finished["steps"], finished["reason"]), flush=True)
        return None
    return Run(strategy, devices, settings)


def choose_kernels(values):
    """Lets this process compute as its flags say; called before a graph is built.

    Raises:
      UserError: a kernel that does not run on the chosen devices.
    """
    native.use(values.native_ops and not values.num_gpus)
    lstm.use(values.lstm_kernel, values.num_gpus)


def plain_plan(values, make_model_fn):
    """The Plan of a run of one stage; make_model_fn: as in Plan."""
    return Plan("training", make_model_fn, patience=values.early_stopping)


def train(values, run, model, task, train_files, select_files, plans=None, contents=None, rules=None):
    """Trains to the end, or goes on where the run was stopped.

    The run folder is begun when the graph is built: a run that is refused leaves none, and the next is not
    held to its settings.

    Args:
      values: flags of `training.flags.define_training_flags`.
      run: Run.
      model: models.Model.
      task: MaskedLm or Classification.
      train_files: TFRecord files.
      select_files: TFRecord files that choose the best checkpoint; (): the last is the best.
      plans: list of Plan, the run's stages; None: one of plain training on the task.
      contents: dict of name -> text; files of the run folder beside config.json and vocab.txt.
      rules: `masking.Rules`, for records without masks.
    """
    plans = plans or [plain_plan(values, functools.partial(task_model_fn, model.config, task))]
    if len(plans) > 1 and cluster.jobs():
        raise UserError("--strategy=%s: not with several machines (TF_CONFIG); one stage can be trained there" % (
            values.strategy))
    num_texts = sum(map(tfrecord.count_records, train_files))
    steps = count_steps(values, num_texts, plans)
    print("training on {}, {:,} texts, {:,} updates of {:,}{}".format(
        ", ".join(run.devices), num_texts, sum(steps), values.train_batch_size,
        " (%s)" % ", ".join("%s %d" % (plan.name, count) for plan, count in zip(plans, steps))
        if len(plans) > 1 else ""), flush=True)
    epoch = -(-num_texts // values.train_batch_size)
    config = runtime.run_config(
        values.output_dir, values.random_seed, values.save_checkpoints_steps or epoch, strategy=run.strategy,
        devices=run.devices, use_bf16=values.use_bf16, use_fp16=values.use_fp16, use_xla=values.use_xla)
    with _start(values, model) as init:
        stages = [_stage(values, model.config, task, init, plan._replace(
            num_steps=steps[number], files=plan.files or train_files), number, sum(steps[number:]),
            lambda: _begin(values.output_dir, run, model, contents or {}), rules) for number, plan in enumerate(plans)]
        every_file = {name for plan in plans for name in plan.files or train_files} | set(select_files)
        with records.naming_damage(sorted(every_file)):
            result = loop.train(stages, config, _selection(values, model, task, select_files, rules), hooks_of(values))
    if result:
        print("%s: finished at step %d: %s" % (values.output_dir, result["steps"], result["reason"]), flush=True)
    else:
        print("%s: this worker has done its part; the chief saves the last checkpoint and tells the end"
              % values.output_dir, flush=True)


def _stage(values, config, task, start, plan, number, steps_to_come, begin, rules):
    """The `loop.Stage` of a Plan whose `num_steps` and `files` are known.

    start: Init of the run, or None; steps_to_come: updates of this stage and those behind it; begin: function that
    begins the run folder.
    """
    def model_fns(first_step):
        schedule = read_schedule(values, plan.num_steps, config.model_type)
        schedule = dataclasses.replace(schedule, first_step=first_step,
                                       learning_rate=plan.learning_rate or schedule.learning_rate)

        def progress(terms, scalars):
            if cluster.is_chief():
                begin()
            return ProgressHook(
                terms, scalars, first_step + steps_to_come, values.train_batch_size, schedule.num_parts,
                values.log_steps, values.output_dir if cluster.is_chief() else None,
                plan.name if first_step or steps_to_come > plan.num_steps else "")

        # Later graphs go on from the run's own checkpoint.
        init = None if saved.last(values.output_dir) else start
        phases = plan.phases(plan.num_steps)
        ends = [before for before, _ in phases[1:]] + [plan.num_steps]
        return [(first_step + end, plan.make_model_fn(schedule, None if phase else init, progress, trains))
                for phase, (end, (_, trains)) in enumerate(zip(ends, phases))]

    def make_input_fn(first_step, step):
        return records.training_input_fn(
            plan.files, task.feature_names, values.train_batch_size, values.gradient_accumulation_steps,
            values.random_seed + number, step - first_step, rules, plan.beside)

    return loop.Stage(plan.name, plan.num_steps, model_fns, make_input_fn, plan.patience, plan.evaluate)


def hooks_of(values):
    """Hooks of a whole run: that of --profile."""
    return [tf.train.ProfilerHook(save_steps=values.profile, output_dir=os.path.join(
        values.output_dir, "profile"))] if values.profile else []


@contextlib.contextmanager
def _start(values, model):
    """Yields the Init of a run, or None."""
    # A run that goes on has its own checkpoint and does not need the other any more.
    if saved.last(values.output_dir):
        yield None
    elif model.word_table:
        with word_table.as_init(model.word_table) as init:
            yield init
    else:
        yield model.init


def _begin(folder, run, model, contents):
    texts = dict(contents, **{"config.json": files.to_json(dataclasses.asdict(model.config))})
    contents = {name: text.encode("utf-8") for name, text in texts.items()}
    contents[run_folder.VOCABULARY] = files.read_bytes(model.files.vocab_file)
    contents[run_folder.COMMAND] = (" ".join(map(shlex.quote, ["python", *sys.argv])) + "\n").encode("utf-8")
    run_folder.begin(folder, run.settings, contents)


def _selection(values, model, task, select_files, rules):
    answers_of = measuring.answering(model.config, task, select_files, values.eval_batch_size, rules)

    def evaluate_one(checkpoint):
        figures = task.figures(answers_of(checkpoint))
        print("%s  %s" % (os.path.basename(checkpoint), "  ".join(
            "%s %.4f" % (name, figures[name]) for name in task.figures_to_select)), flush=True)
        return figures

    return loop.Selection(
        values.output_dir, checkpoints.copy_slim, evaluate_one if select_files else None, values.select_by,
        task.figures_to_select[values.select_by])
