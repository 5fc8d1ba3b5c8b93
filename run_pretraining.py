"""Trains an encoder, a BERT (or its kin) or a BiLSTM student, on masked-LM records.

    python run_pretraining.py --input_file='records/corpus.tfrecord-*' --output_dir=output/teacher \\
        --bert_config_file=configs/teacher.json --vocab_file=vocab.txt --do_train
    python run_pretraining.py --input_file=reviews.tfrecord --eval_file=held_out.tfrecord \\
        --init_checkpoint=chinese_L-12_H-768_A-12/bert_model.ckpt --init_layers=0,1,2,3,4,5 \\
        --output_dir=output/teacher --do_train --do_eval

The records are made by `python -m bert.create_pretraining_data`. Those of its --masking=dynamic hold no masks:
each epoch draws others, each evaluation the same. With --eval_file, the checkpoint with the lowest loss there is
kept as best/model.ckpt, else the last. A run that was stopped goes on when the same command is given again.
"""

from absl import flags

from training import command
from tasks import models
from tasks import runs
from tasks.masked_lm import MaskedLm
from training import flags as common
from training.command import UserError


def define_flags():
    flags.DEFINE_string("input_file", None, "TFRecords to train on, comma-separated, with * and ?.")
    flags.DEFINE_string("eval_file", None, "TFRecords to measure on; they choose the best checkpoint.")
    common.define_masking_flags()
    common.define_model_flags()
    common.define_config_flags()
    common.define_training_flags(32, 1.0, "1e-3 for a BiLSTM, 5e-5 else")
    common.define_select_flag(sorted(MaskedLm.figures_to_select, reverse=True))


def main():
    values = flags.FLAGS
    runs.choose_kernels(values)
    if not (values.do_train or values.do_eval):
        raise UserError("--do_train or --do_eval: at least one is needed")
    runs.on_corpus(values, models.open_model(values, models.one_config_file(values)), MaskedLm())


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
