"""The whole job on real text, in about a quarter of an hour on two cores.

    bash scripts/demo.sh                 everything, or what is left of it
    bash scripts/demo.sh --folder=/tmp/demo

Of the reviews, three in ten keep their labels. A vocabulary and masked-LM records are made of them, a small
6-layer BERT teacher is pre-trained and fine-tuned, a BiLSTM student is distilled from it on the corpus and
then on the task, and its twin is trained on the labels alone, with as many updates. All are measured on the
same test texts, beside naive Bayes. Ends with a table, results.json and results.png in the folder. Run again,
it reuses what is done.
"""

import collections
import contextlib
import os
import time

from absl import flags

from training import command
from experiments import baselines
from experiments import cells
from experiments import demo_data
from experiments import figures
from experiments import report
from serving.predictor import Predictor
from tasks.classification_data import Split
from training import files

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# teacher, fine_tuned_teacher, student: JSON of the models, but for their vocab_size. records and what comes
# after the models are flags of the commands.
Recipe = collections.namedtuple("Recipe", [
    "vocab_size", "max_seq_length", "teacher", "fine_tuned_teacher", "student", "records", "pretrain",
    "fine_tune", "distill_corpus", "distill_task", "plain"])

# Small and short enough for a quarter of an hour. So small a teacher needs no dropout while it is
# pre-trained, many masks make more of every text, and small batches more of every minute: the first
# hundreds of updates learn little but how frequent each token is, whatever their size.
TEACHER = {"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 2,
           "intermediate_size": 128, "max_position_embeddings": 128, "initializer_range": 0.05,
           "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pooling": "mean"}
SAME_FOR_BOTH = ["--train_batch_size=32", "--num_train_steps=1000", "--save_checkpoints_steps=200"]
LABELLED_SHARE = 0.3
RECIPE = Recipe(
    vocab_size=5000,
    max_seq_length=128,
    teacher=TEACHER,
    fine_tuned_teacher=dict(TEACHER, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1),
    student={"model_type": "bilstm", "hidden_size": 100, "num_hidden_layers": 3, "pooling": "max",
             "embedding_dropout_prob": 0.3, "hidden_dropout_prob": 0.3, "pooled_dropout_prob": 0.3},
    records=["--dupe_factor=8", "--masked_lm_prob=0.3", "--max_predictions_per_seq=40"],
    pretrain=["--train_batch_size=24", "--num_train_steps=3000", "--learning_rate=1e-3",
              "--save_checkpoints_steps=1000"],
    fine_tune=["--train_batch_size=32", "--num_train_epochs=3", "--learning_rate=3e-4"],
    distill_corpus=["--train_batch_size=24", "--num_train_steps=600", "--learning_rate=3e-3"],
    distill_task=SAME_FOR_BOTH,
    plain=SAME_FOR_BOTH)

CLASSIFIERS = collections.OrderedDict([
    ("teacher", "teacher_classifier"), ("student_distilled", "student_classifier"),
    ("student_plain", "plain")])


def define_flags():
    flags.DEFINE_string("folder", os.path.join(CHECKOUT, "build", "demo"), "Where everything is written.")


def main():
    folder = os.path.abspath(flags.FLAGS.folder)
    task = demo_data.prepare(folder, labelled_share=LABELLED_SHARE)
    run(folder, task, RECIPE)


def run(folder, task, recipe):
    """Trains what is not trained yet, measures all, and writes results.json and results.png.

    Args:
      folder: for everything that is written.
      task: folder of train.tsv, dev.tsv, test.tsv, unlabeled.txt and corpus.txt.
      recipe: Recipe.

    Returns:
      dict, as in results.json.
    """
    clock = Clock(os.path.join(folder, "seconds.json"))
    steps = training_commands(folder, task, recipe)
    for number, (title, arguments) in enumerate(steps.items(), start=1):
        print("\n== %d/%d  %s" % (number, len(steps) + 1, title), flush=True)
        with clock.measure(title):
            cells.run(arguments)
    print("\n== %d/%d  measure" % (len(steps) + 1, len(steps) + 1), flush=True)
    with clock.measure("measure"):
        results = measure(folder, task)
    results["seconds"] = round(clock.total(), 1)
    files.write_json(os.path.join(folder, "results.json"), results)
    report.plot(results, os.path.join(folder, "results.png"))
    print("\n" + report.table(results))
    print("\n%s and results.png: written; %.0f s of work in all"
          % (os.path.join(folder, "results.json"), results["seconds"]), flush=True)
    return results


def training_commands(folder, task, recipe):
    """Every command of the job, in order: OrderedDict of title -> arguments for Python."""
    def at(name):
        return os.path.join(folder, name)

    def of_task(name):
        return os.path.join(task, name)

    _write_configs(folder, recipe)
    corpus, records = "--input_file=" + of_task("corpus.txt"), at("corpus.tfrecord")
    vocab, length = "--vocab_file=" + at("vocab.txt"), "--max_seq_length=%d" % recipe.max_seq_length
    student = "--student_config_file=" + at("student.json")

    def train(script, name, arguments):
        return [script, "--output_dir=" + at(name), "--do_train"] + arguments

    def classify(script, name, arguments):
        return train(script, name, ["--data_dir=" + task, length, "--do_export"] + arguments)

    return collections.OrderedDict([
        ("vocabulary", ["-m", "bert.vocabulary", "build", corpus, "--output_file=" + at("vocab.txt"),
                        "--vocab_size=%d" % recipe.vocab_size]),
        ("masked-LM records", [
            "-m", "bert.create_pretraining_data", corpus, vocab, "--output_file=" + records,
            "--samples=packed", length] + recipe.records),
        ("pre-train the teacher", train("run_pretraining.py", "teacher", [
            "--input_file=" + records, "--bert_config_file=" + at("teacher.json"), vocab] + recipe.pretrain)),
        ("fine-tune the teacher", classify("run_classifier.py", "teacher_classifier", [
            "--init_checkpoint=" + at("teacher"),
            "--bert_config_file=" + at("fine_tuned_teacher.json")] + recipe.fine_tune)),
        ("distil on the corpus", train("run_distill.py", "student", [
            "--task=masked_lm", "--input_file=" + records, "--teacher_checkpoint=" + at("teacher"),
            student] + recipe.distill_corpus)),
        ("distil on the task", classify("run_distill.py", "student_classifier", [
            "--task=classification", "--unlabeled_file=" + of_task("unlabeled.txt"),
            "--teacher_checkpoint=" + at("teacher_classifier"),
            "--init_checkpoint=" + at("student")] + recipe.distill_task)),
        ("train the same student without distillation", classify("run_classifier.py", "plain", [
            student, vocab] + recipe.plain)),
    ])


def _write_configs(folder, recipe):
    for name in ("teacher", "fine_tuned_teacher", "student"):
        files.write_json(os.path.join(folder, name + ".json"),
                         dict(getattr(recipe, name), vocab_size=recipe.vocab_size))


class Clock:
    """Seconds of each step, kept in a file; a step that is found done keeps the time it once took."""

    def __init__(self, path):
        self._path = path
        self._seconds = files.read_json(path) if os.path.exists(path) else {}

    @contextlib.contextmanager
    def measure(self, title):
        started = time.time()
        yield
        self._seconds[title] = max(self._seconds.get(title, 0.0), time.time() - started)
        files.write_json(self._path, self._seconds)

    def total(self):
        return sum(self._seconds.values())


def measure(folder, task):
    """Accuracy, macro-F1, size and speed of the three models and of naive Bayes on the test texts."""
    train, test = figures.read_labelled(
        *(Split(name, os.path.join(task, name + ".tsv")) for name in ("train", "test")))
    labels, texts = ([row[column] for row in test] for column in (0, 1))
    models, predicted = [], {}
    for name, run_name in CLASSIFIERS.items():
        predictor = Predictor(os.path.join(folder, run_name, "export"))
        predicted[name] = [found.label for found in predictor.predict(texts)]
        models.append(figures.of_model(
            name, labels, predicted[name], figures.count_parameters(os.path.join(folder, run_name)),
            latency_ms_p50=figures.latency(predictor.predict, texts)))
    bayes = baselines.naive_bayes([text for _, text in train], [label for label, _ in train], texts)
    models.append(figures.of_model("naive_bayes", labels, bayes.predictions, bayes.parameters,
                                   latency_ms_p50=figures.latency(bayes.predict, texts)))
    _show_predictions(Predictor(os.path.join(folder, CLASSIFIERS["student_distilled"], "export")), texts[:3])
    return {"models": models, "test_texts": len(texts), "labelled_texts": len(train),
            "distilled_over_plain": figures.distilled_over_plain(labels, predicted)}


def _show_predictions(predictor, texts):
    print("the distilled student, exported, on three texts:")
    for text, prediction in zip(texts, predictor.predict(texts)):
        print("  %s  %.2f  %s" % (prediction.label, prediction.probabilities.max(), text[:60]))


if __name__ == "__main__":
    command.run(main, define_flags, writes="folder")
