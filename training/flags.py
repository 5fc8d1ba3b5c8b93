"""Flags that several commands have, defined inside functions that a command calls before parsing.

Defined at import time, two commands imported by one test would clash.
"""

from absl import flags

flags.disclaim_key_flags()  # so that --help lists them as the command's own

# They choose what is done, or where and how fast, and leave the result of training as it is (but for rounding); or they
# name a file whose content is recorded in place of its name.
WITHOUT_EFFECT_ON_TRAINING = frozenset([
    "do_train", "do_eval", "do_predict", "do_export", "export_dir", "export_formats", "prune_vocab",
    "predict_file", "output_dir", "log_steps",
    "eval_batch_size", "profile", "lstm_kernel", "native_ops", "num_gpus", "num_cpu_replicas", "vocab_file",
    "bert_config_file", "student_config_file", "labels_file", "teacher_cache"])

# Those of `define_masking_flags`, and what they are to `bert.masking.rules_for`.
MASKING_FLAGS = {
    "masked_lm_prob": "probability", "max_predictions_per_seq": "max_predictions", "max_ngram": "max_ngram"}

# Those of `define_text_flags`.
TEXT_FLAGS = (
    "data_dir", "max_seq_length", "truncation", "do_lower_case", "tokenizer", "labels_file", "label_separator",
    "class_weights", "label_smoothing", "head", "freeze_encoder", "errors", "do_predict", "predict_file", "do_export",
    "export_dir", "export_formats", "prune_vocab")


def define_model_flags(vocabulary_of="--init_checkpoint"):
    """Flags that choose the model that is trained, and where it starts.

    Args:
      vocabulary_of: the flag of the model whose vocabulary is the default.
    """
    flags.DEFINE_string(
        "vocab_file", None,
        "The vocabulary, one token a line. Default: the one beside %s." % vocabulary_of)
    flags.DEFINE_string(
        "init_checkpoint", None,
        "Where the model starts: a run folder of any of the commands (its best checkpoint), or the prefix "
        "of a checkpoint, such as Google's bert_model.ckpt. Default: random values.")
    flags.DEFINE_string(
        "init_layers", "",
        "Layers of --init_checkpoint that a BERT or ELECTRA keeps, counted from 0: 0,1,2,3,4,5 cuts 12 to their "
        "first 6. Of an ALBERT, whose layers are one, only their number counts. Default: all.")
    flags.DEFINE_string(
        "init_embeddings", None,
        "Where the word table starts, in place of --init_checkpoint: a file of word vectors in word2vec's text format "
        "(UTF-8, .gz too). A token takes the vector of the word that is spelled the same, so ##x does not take that of "
        "x; the others start at random. Wider vectors are reduced to the table's width, by principal components "
        "without taking the mean away, and all are scaled to a mean square length of 1: as short as random ones they "
        "helped a classifier no more than those, longer ones spoil masked-LM's start. In run_distill.py also "
        "\"teacher\": the teacher's word table, reduced in the same way and not scaled.")


def define_config_flags():
    """Flags for the architecture of the one model a command trains."""
    flags.DEFINE_string(
        "bert_config_file", None,
        "JSON of a BERT, ALBERT or ELECTRA. Default: the one beside --init_checkpoint.")
    flags.DEFINE_string(
        "student_config_file", None, "JSON of a BiLSTM student, in place of --bert_config_file.")


def define_training_flags(batch_size, num_train_epochs, learning_rates):
    """Flags of every training run.

    Args:
      batch_size, num_train_epochs: defaults.
      learning_rates: what the default of --learning_rate is, in words.
    """
    flags.DEFINE_string(
        "output_dir", None,
        "Needed: the run folder, with config.json, vocab.txt, checkpoints, best/model.ckpt and, at the end, "
        "finished.json. A run that was stopped goes on there.", required=True)
    flags.DEFINE_bool("do_train", False, "Train, or go on.")
    flags.DEFINE_bool("do_eval", False, "Measure the best checkpoint; writes eval.json.")
    flags.DEFINE_integer(
        "eval_batch_size", 32, "Texts of a batch when measuring or predicting.", lower_bound=1)
    _define_update_flags(batch_size, num_train_epochs, learning_rates)
    flags.DEFINE_integer(
        "save_checkpoints_steps", 0,
        "Updates between checkpoints; each is measured and the best kept. 0: an epoch.", lower_bound=0)
    flags.DEFINE_integer(
        "early_stopping", 0, "Stop after so many checkpoints without a better one; 0: never.", lower_bound=0)
    flags.DEFINE_integer(
        "random_seed", 12345, "Decides initial values, order of texts, dropout.",
        lower_bound=0, upper_bound=2 ** 31 - 1)
    flags.DEFINE_integer(
        "log_steps", 50, "Updates between progress lines and TensorBoard's points.", lower_bound=1)
    _define_device_flags()


def _define_update_flags(batch_size, num_train_epochs, learning_rates):
    """What an update is, and how many there are; arguments as of `define_training_flags`."""
    flags.DEFINE_integer(
        "train_batch_size", batch_size, "Texts of one update, over all replicas and accumulated parts.",
        lower_bound=1)
    flags.DEFINE_float(
        "learning_rate", None, "Peak learning rate. Default: %s." % learning_rates, lower_bound=0.0)
    flags.DEFINE_float(
        "num_train_epochs", num_train_epochs, "Passes over the training texts.", lower_bound=0.0)
    flags.DEFINE_integer("num_train_steps", None, "Updates, in place of --num_train_epochs.", lower_bound=1)
    flags.DEFINE_float(
        "warmup_proportion", 0.1, "Share of the updates in which the rate rises from 0.",
        lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer("num_warmup_steps", None, "Updates, in place of --warmup_proportion.", lower_bound=0)
    flags.DEFINE_float(
        "weight_decay_rate", 0.01, "Decoupled weight decay; none for biases and LayerNorm.", lower_bound=0.0)
    flags.DEFINE_bool(
        "bias_correction", False,
        "Correct the bias of Adam's moments. Without, as BERT was trained, the first updates are several times as "
        "large as --learning_rate says, and fine-tuning on few labels may fail.")
    flags.DEFINE_float("clip_norm", 1.0, "Bound of the gradient's global norm; 0: none.", lower_bound=0.0)
    flags.DEFINE_integer(
        "gradient_accumulation_steps", 1,
        "Parts an update is computed in, one after the other: the same result in less memory.", lower_bound=1)


def _define_device_flags():
    """What computes, and in what precision."""
    flags.DEFINE_bool(
        "use_bf16", False,
        "Multiply matrices in bfloat16, on CPUs that have units for it (AMX, AVX-512's BF16) and TensorFlow 2; "
        "variables stay float32.")
    flags.DEFINE_bool(
        "use_fp16", False,
        "Compute in float16 where that is safe, with a scaled loss, on GPUs that are faster so (Volta and later).")
    flags.DEFINE_bool("use_xla", False, "Let XLA compile what it can, on GPUs.")
    flags.DEFINE_integer(
        "profile", 0, "Write a Chrome trace of every so-many-th update, for chrome://tracing, to "
        "<output_dir>/profile; 0: none.", lower_bound=0)
    flags.DEFINE_enum(
        "lstm_kernel", "auto", ["auto", "native", "block", "cell", "cudnn"],
        "What computes a BiLSTM: native, our op, compiled for this CPU; block, TensorFlow's BlockLSTM; cell, its "
        "LSTMCell, slow; cudnn, NVIDIA's, for GPUs, never run where this was written. The same numbers, but for "
        "rounding. auto: native where --native_ops are, block else. Exports hold block.")
    flags.DEFINE_bool(
        "native_ops", True,
        "Compute by our ops, compiled for this CPU, where a C++ compiler is and no GPU is used: --nonative_ops takes "
        "TensorFlow's alone, which are slower. The same numbers, but for rounding.")
    flags.DEFINE_integer("num_gpus", 0, "GPUs of this machine to train on; 0: the CPU.", lower_bound=0)
    flags.DEFINE_integer(
        "num_cpu_replicas", 1, "Logical CPU devices to train on, to try replication out.", lower_bound=1)


def define_select_flag(choices):
    """--select_by; the first choice is the default."""
    flags.DEFINE_enum("select_by", choices[0], choices, "The figure that chooses the best checkpoint.")


def define_masking_flags():
    """Flags of masks that are drawn while records are read: `MASKING_FLAGS`."""
    flags.DEFINE_float(
        "masked_lm_prob", None,
        "Share of a text's tokens that is masked, for records without masks (--masking=dynamic). Default: 0.15.",
        lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer(
        "max_predictions_per_seq", None, "Masked tokens of a text at most, for records without masks. Default: 20.",
        lower_bound=1)
    flags.DEFINE_integer(
        "max_ngram", None,
        "Words that are masked together at most, for records without masks: n in a row with weight "
        "max_ngram + 1 - n. Default: 1.", lower_bound=1, upper_bound=16)


def define_data_flags(settings_of):
    """Flags of which texts there are and how they become tokens; --errors.

    Args:
      settings_of: the flag of the model whose labels and text settings are the default.
    """
    flags.DEFINE_string(
        "data_dir", None,
        "Folder with the files train, dev and, if there is one, test (.tsv, .csv, .jsonl; columns label, "
        "text_a and, for pairs, text_b). With a test file, dev chooses the best checkpoint and test is "
        "reported; without, a tenth of train chooses and dev is reported.")
    flags.DEFINE_integer(
        "max_seq_length", None,
        "Tokens of a text, with [CLS] and [SEP]. Default: as %s was trained, else 128." % settings_of)
    flags.DEFINE_enum(
        "truncation", None, ["head", "tail", "head_tail"],
        "What stays of a text that is too long. Default: as %s was trained, else head." % settings_of)
    flags.DEFINE_bool(
        "do_lower_case", None,
        "Lower-case texts and drop accents. Default: as %s was trained, else yes." % settings_of)
    flags.DEFINE_enum(
        "tokenizer", None, ["wordpiece", "words"],
        "What a token is: a piece of a WordPiece vocabulary, or a word as jieba finds it, lower-cased, accents kept, "
        "of a vocabulary of tasks.word_vocabulary. Default: as %s was trained, else wordpiece." % settings_of)
    flags.DEFINE_string(
        "labels_file", None,
        "The labels, one a line. Default: those of %s, else of the training file." % settings_of)
    flags.DEFINE_string(
        "label_separator", None,
        "What stands between the labels of a text that may have several, e.g. ','. Default: each "
        "text has one.")
    flags.DEFINE_enum(
        "errors", "stop", ["stop", "skip"],
        "At a row that cannot be used: stop and name it, or skip it and count.")


def define_text_flags(settings_of="--init_checkpoint"):
    """Flags of commands that classify texts; settings_of: as in `define_data_flags`, which are among them."""
    define_data_flags(settings_of)
    flags.DEFINE_enum(
        "class_weights", "none", ["none", "balanced"],
        "balanced: the rarer a label, the more its texts count.")
    flags.DEFINE_float(
        "label_smoothing", 0.0, "Share of the target spread over all labels.",
        lower_bound=0.0, upper_bound=0.99)
    flags.DEFINE_enum(
        "head", None, ["pooled", "cnn", "attention"],
        "What makes one vector of a text: the encoder's own (of [CLS], or the last state), or a network over its "
        "sequence of vectors: convolutions with a maximum over time, or attention. Default: that of "
        "--init_checkpoint, else pooled.")
    # None, not False: a run that was begun before there was the flag goes on.
    flags.DEFINE_bool(
        "freeze_encoder", None,
        "Train the head alone: the encoder of --init_checkpoint stays as it is, without dropout. Over a BERT, a head "
        "needs a higher --learning_rate, such as 1e-3.")
    flags.DEFINE_bool(
        "do_predict", False,
        "Write <output_dir>/predictions.tsv: label and probabilities for each text of "
        "--predict_file, in its order.")
    flags.DEFINE_string(
        "predict_file", None,
        "Texts (.tsv, .csv, .jsonl, or .txt: one a line). Default: the texts of --data_dir that "
        "are reported.")
    flags.DEFINE_bool("do_export", False, "Write the best checkpoint as a SavedModel that takes raw text.")
    flags.DEFINE_list(
        "export_formats", ["saved_model"],
        "What an export holds besides the SavedModel, which is always there: tflite (phones), onnx. Both are for "
        "BiLSTM students, need requirements-export.txt, and are measured on the texts of --data_dir, if given.")
    flags.DEFINE_string(
        "prune_vocab", "",
        "How many tokens the vocabulary of tflite and onnx keeps, the most frequent in the training texts of "
        "--data_dir; \"seen\": all that occur there. Default: all that any text could lead to: no answer changes.")
    flags.DEFINE_string("export_dir", None, "Folder of the exports. Default: <output_dir>/export.")


def training_settings(values):
    """Of a command's flags (dict of name -> value), those that decide what training gives."""
    return {name: value for name, value in values.items() if name not in WITHOUT_EFFECT_ON_TRAINING}
