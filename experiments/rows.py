"""The rows of the paper's tables: for each, the commands that train it."""

import collections
import os

from tasks import encoders
from training import files

# title: for people; tables: of those it stands in, "methods" (Table 2) and "ablations" (Table 3); steps: function of
# Setting -> list of (folder within the cell's, arguments for Python); the last is the row's model.
Row = collections.namedtuple("Row", "title tables steps")

# What a cell is run with. data_dir, teacher: folders of the fold; student: its JSON; folder: of the table, for JSONs
# that are made; shared: flags that every row's last run has; rate: learning rate, "" for the command's.
Setting = collections.namedtuple("Setting", "data_dir teacher student folder shared unlabeled rate")


def _distil(setting, *more, student="", folder="run", teacher=""):
    """A run of run_distill.py on the task."""
    return folder, ["run_distill.py", "--task=classification", "--data_dir=" + setting.data_dir,
                    "--teacher_checkpoint=" + (teacher or setting.teacher),
                    "--student_config_file=" + (student or setting.student)] + _transfer(setting) + _rate(
                        setting) + setting.shared + list(more)


def _transfer(setting):
    return ["--unlabeled_file=" + setting.unlabeled] if setting.unlabeled else []


def _rate(setting):
    return ["--learning_rate=" + setting.rate] if setting.rate else []


def _plain(*more):
    """Steps of a row that is one run with some flags."""
    return lambda setting: [_distil(setting, *more)]


def _tinybert(setting):
    return [_distil(setting, "--method=tinybert", student=transformer_config(setting, 3, like_teacher=False))]


def transformer_config(setting, layers, like_teacher):
    """Writes the JSON of a BERT student; returns its path.

    Args:
      setting: Setting.
      layers: int.
      like_teacher: as wide as the teacher; else of the BiLSTM's width, to a multiple of the teacher's heads.
    """
    teacher = encoders.read_config(os.path.join(setting.teacher, "config.json"))
    heads = teacher.num_attention_heads
    width = teacher.hidden_size
    if not like_teacher:
        width = max(1, encoders.read_config(setting.student).hidden_size // heads) * heads
    path = os.path.join(setting.folder, "bert_%dx%d.json" % (layers, width))
    files.write_json(path, {
        "model_type": "bert", "vocab_size": teacher.vocab_size, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": width * teacher.intermediate_size // teacher.hidden_size,
        "hidden_act": teacher.hidden_act, "max_position_embeddings": teacher.max_position_embeddings,
        "type_vocab_size": teacher.type_vocab_size, "pooling": teacher.pooling})
    return path


def _theseus(setting):
    student = transformer_config(setting, 3, like_teacher=True)
    return [_distil(setting, "--method=theseus", "--init_checkpoint=" + setting.teacher, "--init_layers=0,1,2",
                    student=student)]


def _etd(setting):
    student = transformer_config(setting, 3, like_teacher=True)
    cut = "{cell}/cut"
    return [("cut", ["-m", "distill.extraction", "--teacher_checkpoint=" + setting.teacher,
                     "--student_config_file=" + student]),
            _distil(setting, "--method=etd", "--init_checkpoint=" + cut, student=student)]


def _with_augmentation(setting):
    made = "{cell}/augmented.jsonl"
    more = setting._replace(unlabeled=",".join(filter(None, [setting.unlabeled, made])))
    return [("augmented.jsonl", ["-m", "distill.augment", "--method=words",
                                 "--input_file=" + os.path.join(setting.data_dir, "train.tsv")]),
            _distil(more, "--method=logits")]


def _assistant(setting):
    middle = transformer_config(setting, 3, like_teacher=True)
    return [_distil(setting, "--method=assistant", student=middle, folder="middle"),
            _distil(setting, "--method=assistant", teacher="{cell}/middle")]


def _small_transformer(setting):
    """2 layers of width 128, on labels alone."""
    path = os.path.join(setting.folder, "bert_2x128.json")
    teacher = encoders.read_config(os.path.join(setting.teacher, "config.json"))
    files.write_json(path, {
        "model_type": "bert", "vocab_size": teacher.vocab_size, "hidden_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 512, "max_position_embeddings": teacher.max_position_embeddings,
        "pooling": teacher.pooling})
    return [_distil(setting, "--method=none", student=path)]


PLAIN = "none"  # the student without distillation, which every other row is compared with
METHODS, ABLATIONS = ("methods",), ("ablations",)

ROWS = collections.OrderedDict([
    (PLAIN, Row("student, labels only", METHODS + ABLATIONS, _plain("--method=none"))),
    ("logits", Row("logits (Tang et al.)", METHODS, _plain("--method=logits"))),
    ("logits_words", Row("logits, 20 copies of each text", METHODS, _with_augmentation)),
    ("paper", Row("the paper", METHODS + ABLATIONS, _plain("--method=paper"))),
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
