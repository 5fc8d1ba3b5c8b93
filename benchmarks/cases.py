"""What is measured: for each case its races, and who takes part in them."""

import collections
import os
import sys

from benchmarks import material
from benchmarks import scaling
from benchmarks.turns import CHECKOUT, Contender
from bert.modeling import BertConfig
from student.modeling import BiLstmConfig
from training import files
from training import runtime

# title, text: for the page; races: function of material.Setting -> list of Race; needs_text: whether they need its
# texts; repetitions: factor of those in a turn; statistic: what is compared, as of `turns.summary`: the mean where one
# repetition is not like the other; goals: list of Goal.
Case = collections.namedtuple("Case", "title text races needs_text repetitions statistic goals",
                              defaults=(False, 1, "median", ()))

# most: the ratio of times that is asked for; of, against: how the titles of contenders begin, of the same TensorFlow
# where both say one; race: a part of the titles of the races meant.
Goal = collections.namedtuple("Goal", "most of against race", defaults=("",))

# work: of a repetition, (amount, unit); contenders: list of Contender, the first is what the others are compared with;
# sizes: of what grows from one to the next, () where nothing does.
Race = collections.namedtuple("Race", "title work contenders sizes", defaults=((),))

TENSORFLOW, TORCH = "benchmarks.tensorflow_contenders", "benchmarks.torch_contenders"
RUNTIME = "benchmarks.onnx_contenders"
COMMAND, PROCESS = "benchmarks.command_contenders", "benchmarks.process_contenders"
ANSWER = "benchmarks.answer_contenders"

MASKED_LM = {"batch": scaling.MEASURED_BATCH, "length": scaling.LENGTH, "predictions": scaling.PREDICTIONS,
             "layers": scaling.MEASURED.num_hidden_layers, "width": scaling.MEASURED.hidden_size}
# The rate of PyTorch's product of these sizes is what is called the machine's.
YARDSTICK = {"rows": 4096, "depth": 768, "columns": 3072}
LIBRARIES = ("MKL", "oneDNN")  # by which PyTorch can multiply
FIRST_PREDICTION = "from serving.predictor import Predictor\n"

# Tokens of a text: the middles of 32 equal parts of 6,000 reviews, by length, cut at 128.
REVIEWS = [11, 13, 14, 16, 17, 18, 18, 19, 20, 22, 23, 24, 25, 27, 28, 30, 31, 33, 35, 37, 39, 42, 45, 49, 52, 57, 63,
           71, 82, 101, 128, 128]


def _present(contenders):
    """Those whose interpreter is there."""
    return [contender for contender in contenders if contender.python]


def yardstick(setting):
    """`YARDSTICK` beside a race of GFLOP: (list of at most one Contender, its GFLOP)."""
    contender = Contender("the machine", setting.pythons["torch"], TORCH, "fastest_product",
                           dict(YARDSTICK, libraries=LIBRARIES))
    return _present([contender]), _product_gflop(**YARDSTICK)


def _product_gflop(rows, depth, columns):
    return 2e-9 * rows * depth * columns


def _matrix_products(setting):
    """TensorFlow's rate against the machine's, for the sizes that matter."""
    races, pythons = [], setting.pythons
    for arguments in (dict(YARDSTICK, depth=200, columns=800), dict(YARDSTICK, depth=400, columns=800), YARDSTICK):
        contenders = [Contender("PyTorch (%s)" % library, pythons["torch"], TORCH, "matrix_product",
                                dict(arguments, library=library)) for library in LIBRARIES] + [
            Contender(kind, pythons[kind], TENSORFLOW, "matrix_product", arguments) for kind in material.TENSORFLOWS]
        races.append(Race("[{rows} x {depth}] times [{depth} x {columns}]".format(**arguments),
                          (_product_gflop(**arguments), "GFLOP"), _present(contenders)))
    return races


def _lstm_stacks(sizes, train):
    """Races of `lstm_stack`; sizes: list of (batch, length)."""
    def races(setting):
        found, pythons = [], setting.pythons
        for batch, length in sizes:
            for units in (100, 200):
                arguments = {"units": units, "batch": batch, "length": length, "train": train}
                contenders = [Contender("PyTorch nn.LSTM", pythons["torch"], TORCH, "lstm_stack", arguments)] + [
                    Contender("%s, %s" % (kernel, kind), pythons[kind], TENSORFLOW, "lstm_stack",
                              dict(arguments, kernel=kernel))
                    for kind in reversed(material.TENSORFLOWS) for kernel in ("native", "block")]
                gflop = 1e-9 * batch * scaling.lstm_flops(BiLstmConfig(
                    21128, hidden_size=2 * units, embedding_size=200), length) * (3 if train else 1)
                found.append(Race("batch %d, L %d, %d units a direction" % (batch, length, units),
                                  (gflop, "GFLOP"), _present(contenders)))
        return found

    return races


def _runs(setting, title, script, flags, **arguments):
    """A command as a contender, for each TensorFlow that is there, the newest first."""
    return _present([
        Contender("%s, %s" % (title, kind), setting.pythons[kind], COMMAND, script, dict(arguments, flags=flags))
        for kind in reversed(material.TENSORFLOWS)])


def _student(setting):
    return ["--data_dir=" + setting.data_dir, "--vocab_file=" + setting.vocab_file,
            "--student_config_file=configs/student.json"]


def _distilled(setting, teacher, student="configs/student.json"):
    return ["--task=classification", "--data_dir=" + setting.data_dir, "--teacher_checkpoint=" + teacher,
            "--student_config_file=" + student, "--unlabeled_file=" + setting.unlabeled_file]


def _lightly_distilled(setting):
    """By a teacher of 2 x 128, that leaves the rest of the work to be seen."""
    return _distilled(setting, setting.small_teacher) + ["--layer_map=1:1,3:2"]


# How the contenders of a race about padding differ.
_PADDED = (("128 tokens each, all computed", {"pad_to": 128, "filled": True}), ("padded to 128", {"pad_to": 128}),
           ("as they are", {}))


def _padding(setting):
    """Training with texts of similar length together, against the same texts at a fixed L."""
    races = []
    for title, script, flags in (
            ("student, labelled texts", "run_classifier.py", _student(setting)),
            ("teacher of 2 x 128, unlabelled texts", "run_pretraining.py", [
                "--input_file=" + setting.records, "--vocab_file=" + setting.vocab_file,
                "--bert_config_file=" + material.SMALL_BERT])):
        races.append(Race(title, (32, "texts"), [contender for how, changes in _PADDED for contender in _runs(
            setting, how, script, flags, **changes)]))
    return races


def _padded_answers(setting):
    """Evaluation and prediction, the same way."""
    jobs = (("evaluation", "labelled texts", {
                "run": setting.student, "record_file": os.path.join(setting.student, "records", "train.tfrecord")}),
            ("prediction", "unlabelled texts", {
                "export": os.path.join(setting.student, "export"), "text_file": setting.unlabeled_file}))
    return [Race("%s, %s" % (name, texts), (1, "runs"), _present([
        Contender("%s, %s" % (how, kind), setting.pythons[kind], ANSWER, name, dict(arguments, **changes))
        for how, changes in _PADDED for kind in reversed(material.TENSORFLOWS)])) for name, texts, arguments in jobs]


def _padding_and_accuracy(setting):
    """Whole trainings of the paper's student, a seed each."""
    flags = [*_student(setting), "--num_train_epochs=10", "--do_train", "--do_eval"]
    return [Race("student, labelled texts, 10 epochs", (1, "runs"), _present([
        Contender("%s, %s" % (how, kind), setting.pythons[kind], PROCESS, "process", {
            "arguments": [*words, "run_classifier.py", *flags], "output_flag": "--output_dir", "seeded": True,
            "figures": ["eval.json", ["accuracy"]]})
        for how, words in (("padded to 128, updates of any texts", ["-m", "benchmarks.padded_input", "128"]),
                           ("as they are, updates of similar texts", [])) for kind in reversed(material.TENSORFLOWS)]))]


def _distillation(setting):
    """Distillation with the paper's student in both readings, against the loop that every toolkit ships."""
    races = []
    for width in (200, 400):
        flags = _distilled(setting, setting.teacher, material.student_config(hidden_size=width))
        contenders = [Contender("PyTorch, eager, fixed L", setting.pythons["torch"], TORCH, "distillation_loop",
                                {"batch": 32, "length": 128, "units": width // 2})]
        contenders += _runs(setting, "ours, padded to 128", "run_distill.py", flags, pad_to=128)[:1]
        contenders += _runs(setting, "ours", "run_distill.py", flags)
        contenders += _runs(
            setting, "ours, cached teacher", "run_distill.py", flags + ["--teacher_cache=" + setting.cache])
        races.append(Race("teacher 6 x 768, batch 32, student %d wide" % width, (32, "texts"), _present(contenders)))
    return races


def _input(setting):
    """Real input against some batches that are repeated from memory, all of one size."""
    races = []
    for script, flags in (
            ("run_classifier.py", _student(setting)), ("run_distill.py", _lightly_distilled(setting)),
            ("run_pretraining.py", ["--input_file=" + setting.records, "--vocab_file=" + setting.vocab_file,
                                    "--student_config_file=configs/student.json"])):
        contenders = [contender for title, repeat in (("some batches, again and again", True), ("records", False))
                      for contender in _runs(setting, title, script, flags, repeat=repeat, pad_to=128)[:1]]
        races.append(Race(script, (32, "texts"), _present(contenders)))
    return races


def _replicas(setting):
    """Two logical CPUs against one, at the same global batch."""
    contenders = [contender for replicas in (1, 2) for contender in _runs(
        setting, "%d replicas" % replicas, "run_classifier.py",
        _student(setting) + ["--num_cpu_replicas=%d" % replicas])]
    return [Race("student, labelled texts", (32, "texts"), _present(contenders))]


def _inference(setting):
    """Every text full."""
    return [_encoders(setting, "batch %d, L %d" % (batch, length), [batch * [length]])
            for batch, length in ((1, 32), (1, 64), (1, 128), (32, 32), (32, 64), (32, 128))]


def _real_lengths(setting):
    """Texts as long as reviews are."""
    return [_encoders(setting, "one by one", [[length] for length in REVIEWS]),
            _encoders(setting, "at once, padded to the longest", [REVIEWS])]


def _encoders(setting, title, batches):
    """The paper's teacher and student, and a student with 200 units a direction, ids to one vector a text."""
    teacher, student = [files.read_json(os.path.join(CHECKOUT, "configs", name + ".json")) for name in (
        "teacher", "student")]
    arguments = {"batches": batches}
    contenders = [Contender("teacher, 6 x 768, %s" % kind, setting.pythons[kind], TENSORFLOW, "encoder",
                            dict(arguments, config=teacher)) for kind in reversed(material.TENSORFLOWS)]
    contenders += [
        Contender("student, %d wide, %s, %s" % (width, kernel, kind), setting.pythons[kind], TENSORFLOW, "encoder",
                  dict(arguments, config=dict(student, hidden_size=width), kernel=kernel))
        for width in (200, 400) for kernel in ("block", "native") for kind in reversed(material.TENSORFLOWS)]
    contenders += [Contender("student, %d wide, ONNX Runtime" % width, setting.pythons[material.ONNX],
                             RUNTIME, "encoder",
                             dict(arguments, config=dict(student, hidden_size=width))) for width in (200, 400)]
    return Race(title, (sum(map(len, batches)), "texts"), _present(contenders))


def _encoder(setting):
    """A Transformer's forward pass against its matrix products alone, for each TensorFlow."""
    teacher, races = files.read_json(os.path.join(CHECKOUT, "configs", "teacher.json")), []
    for width in (768, 384):
        config = dict(teacher, hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // 64)
        arguments = {"config": config, "batches": [32 * [128]]}
        gflop = 32e-9 * scaling.bert_flops(BertConfig.from_dict(config, "configs/teacher.json"), 128)
        for kind in (*material.TENSORFLOWS, material.INTEL):
            contenders = [
                Contender("its products alone", setting.pythons[kind], TENSORFLOW, "encoder_products",
                          {"config": config, "batch": 32, "length": 128}),
                Contender("our ops", setting.pythons[kind], TENSORFLOW, "encoder", arguments),
                Contender("TensorFlow's ops", setting.pythons[kind], TENSORFLOW, "encoder",
                          dict(arguments, native_ops=False))]
            if setting.pythons[kind]:
                races.append(Race("6 x %d, batch 32, L 128, %s" % (width, kind), (gflop, "GFLOP"), contenders))
    return races


def _masked_lm_race(contenders):
    """Of `pretraining_step` with MASKED_LM."""
    gflop = 1e-9 * scaling.MEASURED_BATCH * scaling.training_flops(scaling.MEASURED)
    return Race("6 x 384, batch 32, L 128, 20 predictions", (gflop, "GFLOP"), _present(contenders))


def _pretraining(setting):
    """One step of masked LM against Google's graph."""
    def step(title, kind, **more):
        return Contender("%s, %s" % (title, kind), setting.pythons[kind], TENSORFLOW, "pretraining_step",
                         dict(MASKED_LM, **more))

    contenders = [step("Google's graph", "tensorflow 1.15", google=True)]
    for kind in (*material.TENSORFLOWS, material.INTEL):
        contenders += [step("TensorFlow's ops", kind, native_ops=False), step("our ops", kind)]
    if runtime.has_bf16_units():
        contenders.append(step("in bfloat16 by our ops", "tensorflow 2.15", use_bf16=True))
    return [_masked_lm_race(contenders)]


def _intel_threads(setting):
    """Intel's build has threads of OpenMP beside those of TensorFlow: how long they wait for work, how many, where."""
    if not setting.pythons[material.INTEL]:
        return []
    environments = [{"KMP_BLOCKTIME": "200"}, {"KMP_BLOCKTIME": "0"}, {"KMP_BLOCKTIME": "1"}, {"OMP_NUM_THREADS": "1"},
                    {"KMP_BLOCKTIME": "1", "KMP_AFFINITY": "granularity=fine,compact"}]
    contenders = [Contender(" ".join("%s=%s" % item for item in environment.items()),
                            setting.pythons[material.INTEL], TENSORFLOW, "pretraining_step", MASKED_LM, environment)
                  for environment in environments]
    contenders.append(Contender("tensorflow 1.15", setting.pythons["tensorflow 1.15"], TENSORFLOW, "pretraining_step",
                                MASKED_LM))
    return [_masked_lm_race(contenders)]


def _optimizer(setting):
    """The update of the student's word table, and of the teacher's, for each TensorFlow."""
    return [Race("%d x %d, %s" % (rows, width, kind), (1, "updates"), [
        Contender(title, setting.pythons[kind], TENSORFLOW, "table_update",
                  {"rows": rows, "width": width, "native_ops": native_ops})
        for title, native_ops in (("TensorFlow's ops", False), ("our op", True))])
            for kind in material.TENSORFLOWS if setting.pythons[kind] for rows, width in ((21128, 200), (21128, 768))]


def _growth(setting):
    """Time and memory of commands against what may grow."""
    lengths, batches, kilobytes = (64, 128, 256, 512), (16, 32, 64, 128), (1000, 4000, 16000)
    vocabulary = "--vocab_file=" + setting.vocab_file
    bert = [vocabulary, "--bert_config_file=" + material.SMALL_BERT]
    masked = bert + ["--input_file=" + setting.records]
    answered = ["distill.cache_teacher", "--task=classification", "--data_dir=" + setting.data_dir,
                "--teacher_checkpoint=" + setting.small_teacher, "--what=logits,states"]

    def of_vocabulary(size):
        return ["--data_dir=" + setting.data_dir, "--vocab_file=" + material.vocabulary(setting.vocab_file, size),
                "--student_config_file=" + material.student_config(vocab_size=size)]

    return [
        _growing(setting, "run_classifier.py, student, tokens a text (L)", lengths, _longer(_student(setting)),
                 pad_to=lambda length: length),
        _growing(setting, "run_classifier.py, BERT of 2 x 128, tokens a text (L)", lengths,
                 _longer(bert + ["--data_dir=" + setting.data_dir]), pad_to=lambda length: length),
        _growing(setting, "run_distill.py, teacher of 2 x 128, tokens a text (L)", lengths,
                 _longer(_lightly_distilled(setting)), pad_to=lambda length: length),
        _growing(setting, "run_classifier.py, student, texts an update", batches,
                 lambda size: _student(setting) + ["--train_batch_size=%d" % size]),
        _growing(setting, "run_pretraining.py, BERT of 2 x 128, texts an update", batches,
                 lambda size: masked + ["--train_batch_size=%d" % size]),
        _growing(setting, "run_classifier.py, student, tokens of the vocabulary", material.VOCABULARIES,
                 of_vocabulary),
        _longer_files(setting, "--input_file", "--output_file", kilobytes, "bert.vocabulary", "build"),
        _longer_files(setting, "--input_file", "--output_file", kilobytes, "bert.create_pretraining_data", vocabulary),
        _longer_files(setting, "--unlabeled_file", "--output_dir", (100, 400, 1600), *answered),
        _longer_files(setting, "--input_file", "--output_dir", (100, 400, 1600), "serving.batch_predict",
                      "--export_dir=" + os.path.join(setting.student, "export"))]


def _longer(flags):
    """Function of L -> flags of a command."""
    return lambda length: flags + ["--max_seq_length=%d" % length]


def _growing(setting, title, sizes, flags, pad_to=lambda size: 128):
    """Updates of a training command; flags, pad_to: functions of a size."""
    script = title.split(",")[0]
    return Race(title, (1, "updates"), [
        _runs(setting, str(size), script, flags(size), pad_to=pad_to(size))[0] for size in sizes], sizes)


def _longer_files(setting, input_flag, output_flag, kilobytes, *words):
    """A command from its start to its end, on a text again and again up to some sizes."""
    return Race("%s, KB of text" % words[0].split(".")[-1], (1, "runs"), [
        Contender(str(size), sys.executable, PROCESS, "process", {
            "arguments": ["-m", *words, "%s=%s" % (input_flag, material.repeated(setting.unlabeled_file, size))],
            "output_flag": output_flag}) for size in kilobytes], kilobytes)


def _start(setting):
    """Whole processes that only tell what they are for."""
    return [Race("--help of", (1, "runs"), _present([
        Contender("%s, %s" % (words[-1], kind), setting.pythons[kind], PROCESS, "process", {
            "arguments": [*words, "--help"]}) for kind in reversed(material.TENSORFLOWS) for words in (
                ["run_classifier.py"], ["run_distill.py"], ["run_pretraining.py"],
                ["-m", "bert.create_pretraining_data"], ["-m", "experiments.tables"], ["-m", "serving.predictor"])]))]


def _first_prediction(setting):
    """What a process waits for before it has its first answer."""
    export = os.path.join(setting.student, "export")
    return [Race("student 200 wide, %s" % kind, (1, "runs"), [
        Contender(title, setting.pythons[kind], PROCESS, "process", {"arguments": ["-c", FIRST_PREDICTION + more]})
        for title, more in (("import alone", ""), ("import, load, one text", "Predictor(%r).predict([%r])" % (
            export, "聚氯乙烯生产车间招聘操作工")))])
            for kind in material.TENSORFLOWS if setting.pythons[kind]]


_SERVED = [Goal(1.0, "student, %d wide, native" % width, "student, %d wide, ONNX Runtime" % width)
           for width in (200, 400)]

CASES = collections.OrderedDict([
    ("matrix_product", Case(
        "Matrix products", "What the machine gives, and what TensorFlow gets of it: float32, two threads. PyTorch "
        "takes MKL's where nothing else is asked for, as in the loop under \"Distillation\".", _matrix_products)),
    ("lstm_training", Case(
        "The BiLSTM, one training step", "Three layers over vectors of 200, every text full: forward and the gradient "
        "of every weight and of the input, without embeddings and optimizer.", _lstm_stacks([(32, 128)], train=True),
        goals=[Goal(0.8, "native", "PyTorch nn.LSTM")])),
    ("lstm_inference", Case(
        "The BiLSTM, forward", "The same three layers. `native` serves training and this project's own processes, the "
        "predictor too; what is exported holds `block`.",
        _lstm_stacks([(1, 32), (1, 128), (32, 32), (32, 128)], train=False), False, 5,
        goals=[Goal(1.0, "native", "PyTorch nn.LSTM")])),
    ("inference", Case(
        "Teacher and student, ids to one vector a text", "Forward alone, in a session that is kept. An export "
        "holds `block`; the predictor computes it by `native` where that is compiled.", _inference, False, 7,
        goals=[Goal(1 / 20, "student, 200 wide, native", "teacher", "batch 1, L 128"),
               Goal(1 / 10, "student, 400 wide, native", "teacher", "batch 1, L 128"), *_SERVED])),
    ("real_lengths", Case(
        "Teacher and student, texts of real lengths", "The same of 32 texts, as long as reviews are: 11 to 128 "
        "tokens, on average 41.", _real_lengths, False, 3, goals=_SERVED)),
    ("encoder", Case(
        "The Transformer, forward", "Ids to one vector a text, against the same matrix products one after the other "
        "with nothing between them: what is beyond 1 is embedding, softmax, GELU, normalization and moving.",
        _encoder, goals=[Goal(1 / 0.95, "our ops", "its products alone")])),
    ("pretraining", Case(
        "Masked LM, one training step", "Forward, gradients and optimizer, dropout on; the graph of the package "
        "bert-tensorflow has a next-sentence head, a product with one-hot vectors for the segments, and positions "
        "gathered twice.", _pretraining, goals=[Goal(1.0, "our ops", "Google's graph")])),
    ("intel_threads", Case(
        "Intel's TensorFlow and its threads", "Masked LM, one training step by our ops, with some of OpenMP's "
        "environment variables: KMP_BLOCKTIME is 200 by itself, and 1 in our commands where nothing else is said.",
        _intel_threads)),
    ("optimizer", Case(
        "Optimizer", "Clipping, decay and Adam for a table of word vectors of which 2,048 rows have a gradient.",
        _optimizer, False, 10)),
    ("padding", Case(
        "Padding", "An update has texts of similar length and is as long as the longest. Measured against the same "
        "updates with 128 tokens each (and 20 predictions): where padding passes for text, as in a model that knows no "
        "lengths, and where our BiLSTM leaves it out.", _padding, True, 10, "mean",
        # 0.85 of what leaving padding out can give.
        [Goal(1 / (0.85 * 1.57), "as they are", "128 tokens each", ", labelled"),
         Goal(1 / (0.85 * 3.07), "as they are", "128 tokens each", "unlabelled")])),
    ("padded_answers", Case(
        "Padding: evaluation and prediction", "The paper's student answers to the same texts: all records once, as "
        "`--do_eval` does, and 960 texts by the predictor, from ids to labels.", _padded_answers, True,
        goals=[Goal(1 / (0.85 * 1.57), "as they are", "128 tokens each", ", labelled"),
               Goal(1 / (0.85 * 3.07), "as they are", "128 tokens each", "unlabelled")])),
    ("padding_accuracy", Case(
        "Padding: a whole training, and what it comes to", "From the start of the command to the figures of test, a "
        "seed for each repetition: the accuracy on test.", _padding_and_accuracy,
        True)),
    ("distillation", Case(
        "Distillation", "The paper's student, three terms, labelled and unlabelled texts mixed. PyTorch runs the plain "
        "loop: teacher, student, projections, three losses, Adam, every text padded to L.", _distillation, True, 4,
        "mean", [Goal(1.0, "ours, padded", "PyTorch"),
                 Goal(1 / 2.5, "ours, tensorflow", "PyTorch", "200 wide"),
                 Goal(1 / 10, "ours, cached", "PyTorch", "200 wide"),
                 Goal(1 / 2, "ours, tensorflow", "PyTorch", "400 wide"),
                 Goal(1 / 5, "ours, cached", "PyTorch", "400 wide")])),
    ("input", Case(
        "Input", "What reading, shuffling and batching costs beside training, every text padded to L 128 so that all "
        "updates are alike.", _input, True, 20, goals=[Goal(1.03, "records", "some batches")])),
    ("replicas", Case(
        "Replicas", "MirroredStrategy on two logical CPUs of one machine against one process with the same batch: what "
        "replication itself costs. Exchanged are the gradients that one replica has of an update, counted in the "
        "graph: of the word table the rows that have one.", _replicas, True, 10, "mean",
        [Goal(1.1, "2 replicas", "1 replicas")])),
    ("growth", Case(
        "Growth", "Time and memory of one more update (or run) as one size grows. The exponents are fitted: 1 is in "
        "proportion, and what does not grow with it (TensorFlow itself, the optimizer) makes them smaller.", _growth,
        True)),
    ("start", Case("Start", "Until a command has told its --help, TensorFlow left alone.", _start)),
    ("first_prediction", Case(
        "First prediction", "Processes that import `serving.predictor`, and that answer one text with it besides.",
        _first_prediction, True))])
