"""From the flags of run_distill.py to the stages of a run: what the student learns, when, and by which weights."""

import collections
import dataclasses
import os


from bert import records
from distill import layer_map
from distill import measure
from distill import schedule
from distill import terms
from distill import theseus
from distill.model_fn import Distillation
from distill.model_fn import distillation_model_fn
from tasks import runs
from training import cluster
from training import files
from training import saved
from training.command import UserError

DEFAULT_LABEL_WEIGHT = {"masked_lm": 0.0, "classification": 1.0}
BALANCE = "balance.json"  # in the run folder: stage -> logged name -> weight, with --balance_terms

# TFRecords. labelled: of texts with labels, or of a corpus; others: of texts without; selecting: of those that are
# measured on while training; rules: `masking.Rules` or None, for records without masks.
Files = collections.namedtuple("Files", "labelled others selecting rules", defaults=((), (), None))


def read(values, teacher, model):
    """What is learnt when, from the flags of run_distill.py.

    Args:
      values: the flags.
      teacher: Teacher.
      model: models.Model, the student.

    Returns:
      (list of `schedule.Stage`, function of (task, Files) -> list of `runs.Plan`, one for each stage).

    Raises:
      UserError: flags that do not fit the two models or each other.
    """
    pairs = layer_map.parse(values.layer_map, model.config.num_layers, teacher.config.num_layers,
                            "the teacher (%s)" % teacher.checkpoint)
    weights = _read_weights(values, pairs)
    if not any(weights.values()):
        raise UserError("--embedding_weight, --hidden_weights, --prediction_weight, --label_weight: "
                        "all are 0, and so are those of the other terms")
    if values.attention_weight:
        _check_heads(values, teacher, model)
    for name in terms.WHOLE_UPDATE:
        if getattr(values, name + "_weight"):
            _check_one_part(values, "--%s_weight=%g" % (name, getattr(values, name + "_weight")))
    if values.freeze_encoder:
        _check_frozen(pairs, weights)
    stages = _read_stages(values, weights, pairs)
    if values.do_train and any(stage.replacing for stage in stages):
        if values.perturbation:
            raise UserError("--perturbation=%g: not in stages of --strategy=%s that replace the teacher's layers; give "
                            "one of the two" % (values.perturbation, values.strategy))
        if values.freeze_encoder:
            raise UserError("--freeze_encoder: stages of --strategy=%s train the student's layers alone; give one of "
                            "the two" % values.strategy)
        theseus.check(model.config, teacher, model.init)
    if teacher.cache:
        _check_cache(values, teacher.cache, stages, weights, pairs)

    def make_plans(task, files_):
        distillation = Distillation(model.config, teacher, task, pairs, weights, values.temperature,
                                    bool(values.freeze_encoder), values.perturbation)
        return [_plan(values, stage, distillation, model, files_) for stage in stages]

    return stages, make_plans


def _read_stages(values, weights, pairs):
    """The stages of --strategy in which a term has a weight: list of `schedule.Stage`."""
    stages = schedule.read(values.strategy)
    for flag, field, number in (("stage_steps", "num_steps", int), ("stage_learning_rates", "learning_rate", float)):
        given = getattr(values, flag)
        try:
            numbers = [number(text) for text in given]
        except ValueError:
            numbers = [0]
        if given and (len(numbers) != len(stages) or min(numbers) <= 0):
            raise UserError("--%s=%s: a number above 0 for each of the %d stages of --strategy=%s is needed (%s)" % (
                flag, ",".join(given), len(stages), values.strategy, ", ".join(stage.name for stage in stages)))
        if given:
            stages = [dataclasses.replace(stage, **{field: value}) for stage, value in zip(stages, numbers)]
    kept = [stage for stage in stages if schedule.weights_of(stage, weights, pairs)]
    if not kept:
        raise UserError("--strategy=%s: no term of its stages has a weight" % values.strategy)
    for stage in stages:
        if stage not in kept:
            print("stage %s: no term of it has a weight; left out" % stage.name, flush=True)
    for stage in kept:
        if stage.gradual and values.unfreeze_steps != 0:
            _check_thaws(values, stage, schedule.weights_of(stage, weights, pairs), pairs)
    return kept


def _check_thaws(values, stage, weights, pairs):
    """Raises UserError unless a term teaches the head, which alone trains when a gradual stage begins."""
    if not terms.of_groups(("answers", "labels"), pairs, weights):
        raise UserError("--strategy=%s: stage %s is gradual, so the head trains first, and of its terms with a weight "
                        "(%s) none teaches it; give it one of the answers or labels, or --unfreeze_steps=0"
                        % (values.strategy, stage.name, ", ".join(weights)))


def _read_weights(values, pairs):
    """dict of what a term is logged as -> weight."""
    by_term = {name: getattr(values, "%s_weight" % name) for name in terms.TERMS if name != "hidden"}
    if by_term["label"] is None:
        by_term["label"] = DEFAULT_LABEL_WEIGHT[values.task]
    weights = {logged: weight for name, weight in by_term.items() for logged, _ in terms.instances(name, pairs)}
    hidden = _hidden_weights(values.hidden_weights, pairs)
    weights.update({logged: hidden[layer] for logged, (layer, _) in terms.instances("hidden", pairs)})
    return weights


def _check_heads(values, teacher, model):
    """Raises UserError unless both models have attention, and as many heads."""
    flag = "--attention_weight=%g" % values.attention_weight
    heads = []
    for config, source in ((model.config, "the student (%s)" % model.files.config_file),
                           (teacher.config, "the teacher (%s)" % teacher.checkpoint)):
        heads.append(getattr(config, "num_attention_heads", 0))
        if not heads[-1]:
            raise UserError("%s: %s is a %s and has no attention; --attention_weight=0 does without"
                            % (flag, source, config.model_type))
    if heads[0] != heads[1]:
        raise UserError("%s: the student (%s) has %d heads a layer, and the teacher (%s) %d; they must be equal, or "
                        "--attention_weight=0 does without"
                        % (flag, model.files.config_file, heads[0], teacher.checkpoint, heads[1]))


def _check_one_part(values, flag):
    """Raises UserError where an update is cut, so that not all of its texts can be compared with each other."""
    for name in ("gradient_accumulation_steps", "num_cpu_replicas", "num_gpus"):
        if getattr(values, name) > 1:
            raise UserError("%s: compares all texts of an update, and --%s=%d cuts it into parts; give one of the two"
                            % (flag, name, getattr(values, name)))
    if cluster.jobs():
        raise UserError("%s: compares all texts of an update, and several machines (TF_CONFIG) cut it into parts; "
                        "leave it out" % flag)


def _check_frozen(pairs, weights):
    """Raises UserError where a term would teach the student's encoder, which is frozen."""
    asked = terms.of_groups(("embedding", "states"), pairs, weights)
    if asked:
        raise UserError("--freeze_encoder: the student's states stay as they are, and %s teach%s them; %s goes "
                        "with it" % (" and ".join(asked), "" if len(asked) > 1 else "es", terms.without(asked)))


def _check_cache(values, cache, stages, weights, pairs):
    """Raises UserError where the teacher must see what a cache cannot know, or it lacks what the terms look at."""
    replacing = [stage.name for stage in stages if stage.replacing]
    if replacing:
        raise UserError("--teacher_cache=%s: the teacher's layers take part in stage %s of --strategy=%s; leave the "
                        "flag out" % (values.teacher_cache, replacing[0], values.strategy))
    cache.check(terms.needs(pairs, weights), pairs)


def _hidden_weights(texts, pairs):
    """dict of student layer -> weight."""
    flag = "--hidden_weights=%s" % ",".join(texts)
    try:
        weights = [float(text) for text in texts]
    except ValueError:
        raise UserError("%s: numbers with commas between them are needed" % flag)
    weights = weights * len(pairs) if len(weights) == 1 else weights
    if len(weights) != len(pairs) or min(weights) < 0:
        raise UserError("%s: one weight, or one for each of the %d pairs of --layer_map is needed, "
                        "none below 0" % (flag, len(pairs)))
    return {student: weight for (student, _), weight in zip(pairs, weights)}


def _plan(values, stage, distillation, model, files_):
    """The `runs.Plan` of a stage."""
    own = schedule.weights_of(stage, distillation.weights, distillation.layer_map)
    groups = {terms.TERMS[name].group for name in terms.TERMS if stage.has(name)}
    # A text without a label would have no part in the loss of labels alone.
    names = list(files_.labelled) + ([] if list(own) == ["label"] else list(files_.others))
    alone = distillation._replace(weights=own)
    balanced = {}  # measured once, when the stage begins

    def make_model_fn(rates, init, progress, trains):
        weights, told = own, progress
        if values.balance_terms:
            balanced.update(balanced or _balanced_weights(values, stage, alone, init, names, files_.rules))
            weights, told = balanced, _also_writing(progress, values.output_dir, stage, balanced)
        return distillation_model_fn(distillation, rates, init, told, trains, weights,
                                     values.replacing_base if stage.replacing else None)

    def phases(num_steps):
        if stage.replacing:
            return [(0, schedule.is_layer)]
        if not stage.gradual:
            return [(0, None)]
        return schedule.phases(model.config.num_layers, values.unfreeze_steps, num_steps)

    def loss_on_dev(checkpoint):
        input_fn = records.evaluation_input_fn(
            files_.selecting, distillation.task.feature_names, values.eval_batch_size, files_.rules,
            _beside(alone, own, files_.rules, files_.selecting))
        means = measure.term_means(alone, input_fn, checkpoint)
        return sum(own[name] * value for name, value in means.items())

    patience = values.early_stopping if stage.early_stopping < 0 else stage.early_stopping
    # What selects tells nothing of a stage that leaves the answers alone.
    by_loss = patience and files_.selecting and not groups & {"answers", "labels"}
    return runs.Plan(stage.name, make_model_fn, stage.num_steps, stage.learning_rate, phases, names, patience,
                     loss_on_dev if by_loss else None, _beside(distillation, own, files_.rules, names))


def _beside(distillation, weights, rules, names):
    """As `beside` of `records.training_input_fn`, for a stage's terms: what a cache has of the teacher, else None."""
    cache = distillation.teacher.cache
    if not cache:
        return None
    if rules:
        raise UserError("--teacher_cache=%s: the records hold no masks (%s), and the teacher would see others in each "
                        "epoch; leave the flag out" % (cache.folder, names[0]))
    return cache.beside(names, *(terms.needs(distillation.layer_map, some) for some in (weights, distillation.weights)))


def _balanced_weights(values, stage, distillation, init, names, rules):
    """The stage's weights of --balance_terms; those it began with, where it goes on."""
    path = os.path.join(values.output_dir, BALANCE)
    found = files.read_json(path).get(stage.name) if os.path.exists(path) else None
    if found:
        return found
    input_fn = records.training_input_fn(
        names, distillation.task.feature_names, values.train_batch_size, 1, values.random_seed, rules=rules,
        beside=_beside(distillation, distillation.weights, rules, names))
    means = measure.term_means(distillation, input_fn, saved.last(values.output_dir), init,
                               values.random_seed, measure.BALANCE_BATCHES)
    print("stage %s begins with %s" % (stage.name, "  ".join("%s %.4g" % item for item in means.items())), flush=True)
    return measure.balanced(distillation.weights, means)


def _also_writing(progress, folder, stage, weights):
    """`progress` that notes a stage's weights once the run folder is there."""
    def told(*args):
        hook = progress(*args)
        if cluster.is_chief():
            path = os.path.join(folder, BALANCE)
            found = files.read_json(path) if os.path.exists(path) else {}
            files.write_json(path, dict(found, **{stage.name: weights}))
        return hook

    return told
