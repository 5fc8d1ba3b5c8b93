"""The rows of the paper's tables: for each, the commands that train it."""

import collections
import dataclasses
import os

from tasks import encoders
from tasks import text_settings
from tasks.classification_data import find_splits
from training import files

# title: for people; tables: of those it stands in, "methods" (Table 2) and "ablations" (Table 3); steps: function of
# Setting -> list of (folder or file within the cell's folder, arguments for Python, with {cell} for that folder and
# {seed}, or a function of the folder that gives them when those before it were run), the last is the row's model;
# needs: fields of Setting without which it cannot be run.
Row = collections.namedtuple("Row", "title tables steps needs", defaults=((),))

# What a cell is run with. data_dir, teacher: folders of the fold; student: its JSON; folder: of the table, for JSONs
# that are made; shared: flags that every training run has; unlabeled: files, comma-separated; dropout: of every
# student, "" for that of its JSON; corpus: its TFRecords, corpus_flags: of runs on it; pretrained: the teacher before
# it was fine-tuned, with a masked-LM head; cache: of the teacher's outputs on the fold. "" where there is none.
Setting = collections.namedtuple(
    "Setting", "data_dir teacher student folder shared unlabeled dropout corpus corpus_flags pretrained cache",
    defaults=("", "", (), "", ""))
SEED = "--random_seed={seed}"
DROPOUTS = {"bilstm": ("embedding_dropout_prob", "hidden_dropout_prob", "pooled_dropout_prob"),
            "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob")}


def _distil(setting, *more, student=None, folder="run", teacher=""):
    """A run of run_distill.py on the task; student: dict, its configuration; None: the table's student."""
    transfer = ["--unlabeled_file=" + setting.unlabeled] if setting.unlabeled else []
    return folder, ["run_distill.py", "--task=classification", "--data_dir=" + setting.data_dir,
                    "--teacher_checkpoint=" + (teacher or setting.teacher),
                    "--student_config_file=" + _student_file(setting, student), SEED, *transfer, *setting.shared,
                    *more]


def _on_corpus(setting, *more):
    """A run of run_distill.py on the corpus, into the cell's folder "corpus"."""
    return "corpus", ["run_distill.py", "--task=masked_lm", "--input_file=" + setting.corpus,
                      "--teacher_checkpoint=" + setting.pretrained,
                      "--student_config_file=" + _student_file(setting), SEED, *setting.corpus_flags, *more]


def _student_file(setting, config=None):
    """Writes the JSON of a student with the setting's dropout; returns its path."""
    config = config or dataclasses.asdict(encoders.read_config(setting.student))
    if setting.dropout:
        config = dict(config, **{key: float(setting.dropout) for key in DROPOUTS[config["model_type"]]})
    name = "%s_%dx%d%s.json" % (config["model_type"], config["num_hidden_layers"], config["hidden_size"],
                                setting.dropout and "_dropout_" + setting.dropout)
    files.write_json(os.path.join(setting.folder, name), config)
    return os.path.join(setting.folder, name)


def _plain(*more):
    """Steps of a row that is one run with some flags; it looks at no more of the teacher than a cache has."""
    return lambda setting: [_distil(setting, *more, *(
        ["--teacher_cache=" + setting.cache] if setting.cache else []))]


def _after_corpus(of_corpus, *more):
    """Steps of a row that learns on the corpus first, with some flags, and then on the task with others."""
    return lambda setting: [_on_corpus(setting, *of_corpus), *_plain(*more, "--init_checkpoint={cell}/corpus")(setting)]


def _bert(setting, layers, width=None):
    """The configuration of a BERT student with the teacher's heads: dict.

    Args:
      setting: Setting.
      layers: int.
      width: None for the teacher's.
    """
    teacher = encoders.read_config(os.path.join(setting.teacher, "config.json"))
    width = width or teacher.hidden_size
    return dict(dataclasses.asdict(teacher), num_hidden_layers=layers, hidden_size=width,
                intermediate_size=width * teacher.intermediate_size // teacher.hidden_size)


def _tinybert(setting):
    """Of the BiLSTM's width, to a multiple of the teacher's heads, which attention needs."""
    heads = _bert(setting, 3)["num_attention_heads"]
    width = max(1, encoders.read_config(setting.student).hidden_size // heads) * heads
    return [_distil(setting, "--method=tinybert", student=_bert(setting, 3, width))]


def _theseus(setting):
    return [_distil(setting, "--method=theseus", "--init_checkpoint=" + setting.teacher, "--init_layers=0,1,2",
                    student=_bert(setting, 3))]


def _etd(setting):
    student = _bert(setting, 3)
    return [("cut", ["-m", "distill.extraction", "--teacher_checkpoint=" + setting.teacher,
                     "--student_config_file=" + _student_file(setting, student), SEED]),
            _distil(setting, "--method=etd", "--init_checkpoint={cell}/cut", student=student)]


def _augmented(method, *of_augmentation):
    """Steps of a row that makes texts out of the labelled ones by distill.augment, with some flags."""
    def steps(setting):
        more = setting._replace(unlabeled=",".join(filter(None, [setting.unlabeled, "{cell}/augmented.jsonl"])))
        flags = [flag.format(pretrained=setting.pretrained) for flag in of_augmentation]
        return [("augmented.jsonl", ["-m", "distill.augment", *flags, SEED,
                                     "--input_file=" + find_splits(setting.data_dir)["train"]]),
                _distil(more, "--method=" + method)]

    return steps


def _assistant(setting):
    return [_distil(setting, "--method=assistant", student=_bert(setting, 3), folder="middle"),
            _distil(setting, "--method=assistant", teacher="{cell}/middle")]


def _words(setting):
    """The student on words as jieba finds them, of a vocabulary of the training texts."""
    def train(folder):
        words, config = os.path.join(folder, "words.txt"), os.path.join(folder, "words.json")
        files.write_json(config, dict(files.read_json(_student_file(setting)), vocab_size=len(files.read_lines(words))))
        text = text_settings.read(os.path.join(setting.teacher, text_settings.FILE), {})
        return ["run_classifier.py", "--data_dir=" + setting.data_dir, "--tokenizer=words", "--vocab_file=" + words,
                "--student_config_file=" + config, "--max_seq_length=%d" % text.max_seq_length,
                "--truncation=" + text.truncation, SEED, *setting.shared]

    return [("words.txt", ["-m", "tasks.word_vocabulary", "--input_file=" + find_splits(setting.data_dir)["train"]]),
            ("run", train)]


def _small_transformer(setting):
    return [_distil(setting, "--method=none", student=dict(_bert(setting, 2, 128), num_attention_heads=2))]


PLAIN = "none"  # the student without distillation, which every other row is compared with
METHODS, ABLATIONS = ("methods",), ("ablations",)
OF_CORPUS = ("corpus", "pretrained")

ROWS = collections.OrderedDict([
    (PLAIN, Row("student, labels only", METHODS + ABLATIONS, _plain("--method=none"))),
    ("words", Row("student on jieba's words, labels only", METHODS, _words)),
    ("mlm", Row("masked LM, then labels", METHODS, _after_corpus(["--method=mlm"], "--method=mlm"), OF_CORPUS)),
    ("mlm_logits", Row("masked LM, then answers (Turc et al.)", METHODS,
                       _after_corpus(["--method=mlm_logits"], "--method=mlm_logits"), OF_CORPUS)),
    ("logits", Row("logits (Tang et al.)", METHODS, _plain("--method=logits"))),
    ("logits_words", Row("logits, 20 copies of each text", METHODS, _augmented("logits", "--method=words"))),
    ("augment", Row("answers, texts reworded by masked LM", METHODS, _augmented(
        "augment", "--method=masked_lm", "--teacher_checkpoint={pretrained}"), ("pretrained",))),
    ("paper", Row("the paper", METHODS + ABLATIONS, _plain("--method=paper"))),
    ("paper_corpus", Row("the paper, on the corpus first", METHODS, _after_corpus(
        ["--method=paper"], "--method=paper"), OF_CORPUS)),
    ("structured", Row("structured knowledge", METHODS, _plain("--method=structured"))),
    ("pkd", Row("PKD", METHODS, _plain("--method=pkd"))),
    ("lrc", Row("LRC-BERT", METHODS, _plain("--method=lrc"))),
    ("distilbert", Row("DistilBERT's terms", METHODS, _plain("--method=distilbert", "--cosine_weight=1"))),
    ("assistant", Row("teacher assistant", METHODS, _assistant)),
    ("tinybert", Row("TinyBERT (3-layer BERT)", METHODS, _tinybert)),
    ("theseus", Row("BERT-of-Theseus (3-layer BERT)", METHODS, _theseus)),
    ("etd", Row("extract then distil (3-layer BERT)", METHODS, _etd)),
    ("transformer", Row("2-layer BERT, labels only", METHODS, _small_transformer)),
    ("no_hidden", Row("the paper without hidden", ABLATIONS, _plain("--hidden_weights=0"))),
    ("no_embedding", Row("the paper without embedding", ABLATIONS, _plain("--embedding_weight=0"))),
    ("no_prediction", Row("the paper without prediction", ABLATIONS, _plain("--prediction_weight=0"))),
    ("shallow", Row("the paper, shallow map", ABLATIONS, _plain("--layer_map=shallow"))),
    ("deep", Row("the paper, deep map", ABLATIONS, _plain("--layer_map=deep"))),
    ("two_stage", Row("the paper in two stages", ABLATIONS, _plain("--strategy=two_stage"))),
    ("three_stage", Row("the paper in three stages", ABLATIONS, _plain("--strategy=three_stage"))),
    ("layerwise", Row("the paper, layer by layer", ABLATIONS, _plain("--strategy=layerwise")))])
