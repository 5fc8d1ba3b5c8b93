"""Fine-tunes, measures, applies and exports a text classifier: a BERT (or its kin) or a BiLSTM student.

    python run_classifier.py --data_dir=data --init_checkpoint=output/teacher \\
        --output_dir=output/classifier --do_train --do_eval
    python run_classifier.py --data_dir=data --student_config_file=configs/student.json \\
        --vocab_file=vocab.txt --output_dir=output/plain --do_train --do_eval
    python run_classifier.py --data_dir=data --init_checkpoint=output/student --freeze_encoder --head=cnn \\
        --output_dir=output/head --do_train --do_eval
    python run_classifier.py --output_dir=output/classifier --do_predict --predict_file=texts.txt
    python run_classifier.py --output_dir=output/classifier --do_export

Every checkpoint is measured on dev while training, and the best is kept as best/model.ckpt; --do_eval
reports test, where there is one. A run that was stopped goes on when the same command is given again.
"""

from absl import flags

from training import command
from serving import export
from serving import variants
from tasks import classify
from tasks import models
from tasks import runs
from tasks.classification import Classification
from training import flags as common


def define_flags():
    common.define_text_flags()
    common.define_model_flags()
    common.define_config_flags()
    common.define_training_flags(32, 3.0, "1e-3 for a BiLSTM, 5e-5 else")
    common.define_select_flag(sorted(Classification.figures_to_select))


def main():
    values = flags.FLAGS
    runs.choose_kernels(values)
    classify.check_flags(values)
    variants.check_flags(values)
    model = models.open_model(values, models.one_config_file(values))
    data = classify.open_data(values, model.files, model.files.vocab_file, values.head)
    models.check_length(model.config, data.text.max_seq_length, "--max_seq_length")
    if values.do_train:
        classify.train(values, model, data)
    if values.do_eval:
        classify.evaluate(values, model, data)
    if values.do_predict:
        classify.predict(values, model, data)
    if values.do_export:
        export.export_best(values, model, data)


if __name__ == "__main__":
    command.run(main, define_flags, writes="output_dir")
