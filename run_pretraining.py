"""Trains an encoder, a BERT or a BiLSTM student, on masked-LM records.

    python run_pretraining.py --input_file='records/corpus.tfrecord*' --output_dir=output/teacher \\
        --bert_config_file=configs/teacher.json --vocab_file=vocab.txt --do_train
    python run_pretraining.py --input_file=reviews.tfrecord --eval_file=held_out.tfrecord \\
        --init_checkpoint=chinese_L-12_H-768_A-12/bert_model.ckpt --init_layers=0,1,2,3,4,5 \\
        --output_dir=output/teacher --do_train --do_eval

The records are made by `python -m bert.create_pretraining_data`. With --eval_file, the checkpoint with the
lowest loss there is kept as best/model.ckpt, else the last. A run that was stopped goes on when the same
command is given again.
"""

from absl import flags

from training import command
from bert import records
from tasks import runs
from tasks.masked_lm import MaskedLm
from training import flags as common
from training.command import UserError
from training.files import matching_files


def define_flags():
    flags.DEFINE_string("input_file", None, "TFRecords to train on, comma-separated, with * and ?.")
    flags.DEFINE_string("eval_file", None, "TFRecords to measure on; they choose the best checkpoint.")
    common.define_model_flags()
    common.define_config_flags()
    common.define_training_flags(32, 1.0, "5e-5 for a BERT, 1e-3 for a BiLSTM")
    common.define_select_flag(sorted(MaskedLm.figures_to_select, reverse=True))


def main():
    values = flags.FLAGS
    if not (values.do_train or values.do_eval):
        raise UserError("--do_train or --do_eval: at least one is needed")
    task = MaskedLm()
    model = runs.open_model(values)
    eval_files = matching_files(values.eval_file, "eval_file") if values.eval_file else []
    if values.do_train:
        if not values.input_file:
            raise UserError("--input_file: --do_train needs it")
        train_files = matching_files(values.input_file, "input_file")
        runs.check_length(model.config, records.first_length(train_files), "input_file")
        runs.train(values, model, task, train_files, eval_files)
    if values.do_eval:
        if not eval_files:
            raise UserError("--eval_file: --do_eval needs it")
        checkpoint = runs.best_checkpoint(values)
        figures = runs.evaluate(model.config, task, checkpoint, eval_files, values.eval_batch_size)
        runs.write_figures(values.output_dir, "eval", task, figures, "%s on %s" % (checkpoint, values.eval_file))


if __name__ == "__main__":
    command.run(main, define_flags)
