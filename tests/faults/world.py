"""What the faults happen to: a tiny world, and every command that makes something of it."""

import collections
import os

from tests import tiny

# command: function of (world, folder to write) -> the command line; output: what of that folder is compared, "" for
# all; needs: names of the jobs whose results it reads.
Job = collections.namedtuple("Job", "command output needs", defaults=("", ()))

TRAINING = ["--train_batch_size=16", "--log_steps=50", "--save_checkpoints_steps=70", "--num_train_steps=200"]
STRATEGIES = ("joint", "two_stage", "three_stage", "layerwise", "theseus")


class World:
    """The files a user begins with, and below `done` the results of unbroken jobs.

    Attributes:
      folder: where everything stands.
    """

    def __init__(self, folder):
        self.folder = folder
        if not os.path.exists(self.at("ready")):
            _, size = tiny.write_vocabulary(self.at("vocab.txt"))
            tiny.write_corpus(self.at("corpus.txt"))
            tiny.write_lines(self.at("many.txt"), [text for _, text in tiny.texts(60000, seed=8)])
            tiny.write_task(self.at("task"))
            tiny.write_lines(self.at("unlabeled.txt"), [text for _, text in tiny.texts(200, seed=9)])
            for number in range(6):
                tiny.write_lines(self.at("texts/%d.txt" % number), [text for _, text in tiny.texts(1500, seed=number)])
            tiny.write_model(self.at("teacher.json"), tiny.TEACHER, size)
            tiny.write_model(self.at("student.json"), tiny.STUDENT, size)
            tiny.write_model(self.at("small_bert.json"), dict(tiny.TEACHER, num_hidden_layers=1), size)
            tiny.write_lines(self.at("ready"), [])

    def at(self, name):
        return os.path.join(self.folder, name)

    def done(self, name):
        """The folder of an unbroken job's result."""
        return self.at(os.path.join("done", name))


def _distill(strategy):
    def command(world, folder):
        student = "small_bert.json" if strategy == "theseus" else "student.json"
        more = ["--strategy=" + strategy]
        if strategy == "theseus":
            more = ["--method=theseus", "--init_checkpoint=" + world.done("classifier"), "--init_layers=0"]
        return ["run_distill.py", "--task=classification", "--data_dir=" + world.at("task"),
                "--unlabeled_file=" + world.at("unlabeled.txt"), "--teacher_checkpoint=" + world.done("classifier"),
                "--student_config_file=" + world.at(student), "--do_train", "--do_eval", "--do_predict",
                "--output_dir=" + folder, *TRAINING, *more]

    return Job(command, needs=("classifier",))


JOBS = collections.OrderedDict([
    ("vocabulary", Job(lambda world, folder: [
        "bert.vocabulary", "build", "--input_file=" + world.at("many.txt"), "--vocab_size=200",
        "--output_file=" + os.path.join(folder, "vocab.txt")])),
    ("create_pretraining_data", Job(lambda world, folder: [
        "bert.create_pretraining_data", "--input_file=" + world.at("many.txt"), "--dupe_factor=5", "--num_shards=8",
        "--vocab_file=" + world.at("vocab.txt"), "--max_seq_length=32", "--num_workers=2", "--document_per_line",
        "--output_file=" + os.path.join(folder, "x.tfrecord")])),
    ("records", Job(lambda world, folder: [
        "bert.create_pretraining_data", "--input_file=" + world.at("corpus.txt"), "--dupe_factor=2",
        "--vocab_file=" + world.at("vocab.txt"), "--max_seq_length=32", "--num_workers=1",
        "--output_file=" + os.path.join(folder, "x.tfrecord")])),
    ("pretraining", Job(lambda world, folder: [
        "run_pretraining.py", "--input_file=" + os.path.join(world.done("records"), "x.tfrecord"),
        "--eval_file=" + os.path.join(world.done("records"), "x.tfrecord"),
        "--bert_config_file=" + world.at("teacher.json"), "--vocab_file=" + world.at("vocab.txt"), "--do_train",
        "--do_eval", "--output_dir=" + folder, *TRAINING], needs=("records",))),
    ("classifier", Job(lambda world, folder: [
        "run_classifier.py", "--data_dir=" + world.at("task"), "--init_checkpoint=" + world.done("pretraining"),
        "--max_seq_length=32", "--do_train", "--do_eval", "--do_predict", "--do_export", "--output_dir=" + folder,
        "--learning_rate=3e-3", *TRAINING], needs=("pretraining",))),
    *(("distill_" + strategy, _distill(strategy)) for strategy in STRATEGIES),
    ("cache_teacher", Job(lambda world, folder: [
        "distill.cache_teacher", "--task=classification", "--data_dir=" + world.at("task"),
        "--unlabeled_file=" + world.at("unlabeled.txt"), "--teacher_checkpoint=" + world.done("classifier"),
        "--what=logits,states", "--output_dir=" + folder], needs=("classifier",))),
    ("export", Job(lambda world, folder: [
        "run_classifier.py", "--data_dir=" + world.at("task"), "--init_checkpoint=" + world.done("classifier"),
        "--do_export", "--output_dir=" + folder], needs=("classifier",))),
    ("batch_predict", Job(lambda world, folder: [
        "serving.batch_predict", "--export_dir=" + os.path.join(world.done("classifier"), "export"),
        "--input_file=" + world.at("texts/*.txt"), "--num_workers=2", "--output_dir=" + folder],
        needs=("classifier",))),
    ("tables", Job(lambda world, folder: [
        "experiments.tables", "--data_dir=" + world.at("task"), "--teacher_checkpoint=" + world.done("classifier"),
        "--student_config_file=" + world.at("student.json"), "--rows=none,paper", "--learning_rates=1e-2",
        "--num_train_steps=60", "--save_checkpoints_steps=20", "--train_batch_size=16", "--output_dir=" + folder],
        output="cells", needs=("classifier",))),
])


def prepare(world, name, run):
    """Runs a job, and before it those it needs, unbroken and once.

    Args:
      run: function of (command line) that raises when it fails.
    """
    for needed in JOBS[name].needs:
        prepare(world, needed, run)
    ready = world.done(name) + ".ready"
    if not os.path.exists(ready):
        run(JOBS[name].command(world, world.done(name)))
        tiny.write_lines(ready, [])
