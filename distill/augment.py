"""Makes more texts, without labels, from given ones: text to transfer on, `run_distill.py --unlabeled_file`.

    python -m distill.augment --method=words --input_file=data/train.tsv --output_file=data/augmented.jsonl
    python -m distill.augment --method=corpus --input_file=data/train.tsv --corpus_file='reviews/*.txt' \\
        --output_file=data/augmented.txt
    python -m distill.augment --method=masked_lm --input_file=data/train.tsv --num_copies=5 \\
        --teacher_checkpoint=output/teacher --output_file=data/augmented.txt

--method=words (Tang et al. 2019): of each copy's words a share becomes [MASK], another is replaced by words of the
same part of speech, drawn as often as they stand in the input; then some copies are cut to a few words in a row.
--method=corpus: the same, with words of --corpus_file, and by default nothing is masked or cut.
--method=masked_lm: words are masked, and each of their characters is drawn from the likeliest that a masked LM, the
teacher say, predicts there. Only words of Chinese characters are replaced, by such.

Read are .txt (one text a line), .tsv, .csv and .jsonl, as everywhere; labels are not. Of a pair the first text is
changed, the second, and both, in turns. Copies of a text that are the same, or the text itself, are left out. The
texts themselves are not written. A .jsonl row says which of its letters are [MASK] (key mask_token); a .txt file
cannot, nor can it hold pairs.

The seed, the input and the flags decide every byte, whatever --num_workers; with --method=masked_lm on one machine,
as sums of floats may round otherwise on another.
"""

import collections
import itertools
import json
import os
import pickle
import re
import tempfile

import numpy as np
from absl import flags

from training import command
from bert import checkpoints
from bert import corpus
from bert import workers
from bert.draws import Draws, keys_of
from bert.tokenization import FullTokenizer
from bert.words import Segmenter, Tagger
from distill import augmentation
from distill import word_replacement
from tasks import encoders
from tasks import models
from tasks.text_files import BadRows, read_rows
from training import files
from training import progress
from training.command import UserError

METHODS = ("words", "corpus", "masked_lm")
DEFAULTS = {  # where a method has another than the flag
    "words": {"mask_prob": 0.1, "ngram_prob": 0.25},
    "corpus": {"mask_prob": 0.0, "ngram_prob": 0.0}}
OF_WORDS = ("mask_prob", "pos_prob", "ngram_prob", "max_ngram", "num_workers")
OF_MASKED_LM = ("teacher_checkpoint", "bert_config_file", "vocab_file", "do_lower_case", "max_seq_length",
                "replace_prob", "top_k", "unit", "batch_size")
CHUNK_TEXTS = 100  # texts of one task; with masked_lm, those whose copies are sorted by length together


def define_flags():
    flags.DEFINE_enum("method", None, METHODS, "Needed: how copies are made, see above.", required=True)
    flags.DEFINE_string("input_file", None, "Needed: texts, comma-separated, with * and ?.", required=True)
    flags.DEFINE_string("output_file", None, "Needed: .jsonl, or .txt where nothing is masked.", required=True)
    flags.DEFINE_integer("num_copies", 20, "Copies of each text.", lower_bound=1)
    flags.DEFINE_integer("random_seed", 12345, "Seed of all that is drawn.", lower_bound=0, upper_bound=2 ** 63 - 1)
    flags.DEFINE_string("user_dict", None, "More words, in the format of jieba's user dictionaries: word [frequency] "
                        "[tag].")
    flags.DEFINE_enum("errors", "stop", ["stop", "skip"], "At a row that cannot be used: stop, or leave it out.")
    _define_word_flags()
    _define_masked_lm_flags()


def _define_word_flags():
    flags.DEFINE_float("mask_prob", None, "Of a word to become [MASK]. Default: 0.1 (words), 0 (corpus).",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_float("pos_prob", 0.1, "Of a word to be replaced by one of the same part of speech (words, corpus).",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_float("ngram_prob", None, "Of a copy to be cut to a few words. Default: 0.25 (words), 0 (corpus).",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer("max_ngram", 5, "Words that stay of a copy that is cut, at most (words, corpus).",
                         lower_bound=1)
    flags.DEFINE_string("corpus_file", None, "Where words are drawn from, files like --input_file (corpus).")
    flags.DEFINE_integer("num_workers", None, "Processes; all cores when not given (words, corpus).", lower_bound=1)


def _define_masked_lm_flags():
    flags.DEFINE_string("teacher_checkpoint", None, "Run folder or checkpoint with a masked-LM head (masked_lm).")
    flags.DEFINE_string("bert_config_file", None, "Its JSON. Default: the one beside it.")
    flags.DEFINE_string("vocab_file", None, "Its vocabulary. Default: the one beside it.")
    flags.DEFINE_bool("do_lower_case", True, "Lower-case the text that it sees and drop accents.")
    flags.DEFINE_integer("max_seq_length", 128, "Tokens that it sees of a text, with [CLS] and [SEP]; what is behind "
                         "them is never replaced.", lower_bound=3)
    flags.DEFINE_float("replace_prob", 0.15, "Share of a text's words that is replaced, one at least (masked_lm).",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_integer("top_k", 10, "A character is drawn from so many, the likeliest (masked_lm).", lower_bound=1)
    flags.DEFINE_enum("unit", "word", ["word", "character"], "What is replaced whole: words, found by jieba, or single "
                      "characters (masked_lm).")
    flags.DEFINE_integer("batch_size", 64, "Copies that the model sees at once (masked_lm).", lower_bound=1)


def main():
    values = flags.FLAGS
    _check_flags(values)
    inputs = files.matching_files(values.input_file, "input_file")
    others = files.matching_files(values.corpus_file, "corpus_file", optional=True)
    corpus.check_outputs([values.output_file], inputs + others)
    bad_rows = BadRows(values.errors)
    num_texts = _check_texts(inputs, values.output_file, bad_rows)
    # From here on rows that cannot be used are known and counted.
    make = _by_masked_lm if values.method == "masked_lm" else _by_words
    totals = collections.Counter(texts=num_texts)
    with files.whole_file(values.output_file) as temporary:
        with open(temporary, "w", encoding="utf-8", newline="\n") as stream:
            for lines, counts in make(values, inputs, others, num_texts):
                stream.write(lines)
                totals.update(counts)
        if not totals["copies"]:
            raise UserError("--input_file=%s: no copy differs from its text; raise the probabilities or --num_copies"
                            % values.input_file)
    print(summary(values, totals, bad_rows))


def _check_flags(values):
    """Fills in the method's defaults; raises UserError where flags do not fit together."""
    foreign = OF_WORDS + ("corpus_file",) if values.method == "masked_lm" else OF_MASKED_LM
    foreign += ("corpus_file",) if values.method == "words" else ()
    for name in foreign:
        if values[name].present:
            raise UserError("--%s=%s: not for --method=%s" % (name, values[name].value, values.method))
    for name, value in DEFAULTS.get(values.method, {}).items():
        if not values[name].present:
            values[name].value = value
    for method, name in (("corpus", "corpus_file"), ("masked_lm", "teacher_checkpoint")):
        if values.method == method and not values[name].value:
            raise UserError("--%s: --method=%s needs it" % (name, method))
    if values.user_dict and values.unit == "character":
        raise UserError("--user_dict=%s: of no use with --unit=character" % values.user_dict)
    _check_output(values)


def _check_output(values):
    if os.path.splitext(values.output_file)[1] not in (".txt", ".jsonl"):
        raise UserError("--output_file=%s: the name must end in .txt or .jsonl" % values.output_file)
    if values.method == "masked_lm":
        return
    if values.mask_prob + values.pos_prob > 1:
        raise UserError("--mask_prob=%g: with --pos_prob=%g more than 1; a word is masked, replaced or neither"
                        % (values.mask_prob, values.pos_prob))
    if values.mask_prob and not _is_json(values.output_file):
        raise UserError("--output_file=%s: a .txt file cannot hold the token [MASK]; name a .jsonl file, or mask "
                        "nothing (--mask_prob=0)" % values.output_file)


def _is_json(path):
    return path.endswith(".jsonl")


# ---- reading

def _check_texts(paths, output_file, bad_rows):
    """How many texts there are; raises UserError where one cannot be used, before the work begins."""
    number = 0
    for path in paths:
        for row in read_rows(path, None, bad_rows):
            number += 1
            if row.mask_token is not None:
                raise UserError("%s:%d: is a copy already (mask_token); give the texts that copies were made from"
                                % (path, row.line))
            if row.text_b is not None and not _is_json(output_file):
                raise UserError("%s:%d: a pair, and --output_file=%s cannot hold pairs; name a .jsonl file"
                                % (path, row.line, output_file))
    if not number:
        raise UserError("%s: no text to use%s" % (",".join(paths), "; %d rows left out, the first: %s" % (
            bad_rows.count, bad_rows.first) if bad_rows.count else ""))
    return number


def _chunks(paths, errors):
    """Yields lists of (number, list of one or two texts); texts are numbered from 0 over all files."""
    rows = (row for path in paths for row in read_rows(path, None, BadRows(errors)))
    texts = enumerate([text for text in (row.text_a, row.text_b) if text is not None] for row in rows)
    return iter(lambda: list(itertools.islice(texts, CHUNK_TEXTS)), [])


def _keys(values, number, part):
    """uint64 [N], the streams of the copies of a text."""
    return keys_of(values.random_seed, number, part, np.arange(values.num_copies))


# ---- words and corpus

def _by_words(values, inputs, others, num_texts):
    """Yields (lines, Counter) of each chunk."""
    tagger = Tagger(values.user_dict)
    num_workers = values.num_workers or len(os.sched_getaffinity(0))
    rules = augmentation.Rules(values.mask_prob, values.pos_prob, values.ngram_prob, values.max_ngram)

    def tag(chunk):
        tagged = [(number, [augmentation.words_of(tagger.tag(text)) for text in texts]) for number, texts in chunk]
        counts = collections.Counter((word.text, word.tag) for _, texts in tagged for words in texts for word in words)
        return len(tagged), pickle.dumps(tagged), counts

    def copy(pickled):
        return _copy_words(values, pickle.loads(pickled), lexicon, rules)

    # Without a name, so that nothing is left of it by a process that is killed.
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(values.output_file))) as spool:
        counts = _tag(tag, inputs, values.errors, num_workers, num_texts, "tagging", spool)
        if others:
            counts = _tag(tag, others, values.errors, num_workers, None, "tagging --corpus_file")
        lexicon = augmentation.Lexicon(counts)
        spool.seek(0)
        with progress.bar(num_texts, "copying", " texts") as bar:
            for lines, counts in _in_order(copy, _pickles(spool), num_workers):
                yield lines, counts
                bar.update(counts["texts_done"])


def _tag(tag, paths, errors, num_workers, total, what, spool=None):
    """Tags all texts of files: Counter of (word, tag); the tagged texts go to `spool`."""
    totals = collections.Counter()
    with progress.bar(total, what, " texts") as bar:
        for number, pickled, counts in _in_order(tag, _chunks(paths, errors), num_workers):
            totals.update(counts)
            if spool:
                pickle.dump(pickled, spool)
            bar.update(number)
    return totals


def _pickles(spool):
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


def _in_order(function, tasks, num_workers):
    """Yields what a function gives for each task, in their order."""
    if num_workers == 1:
        yield from map(function, tasks)
        return
    ready, wanted = {}, 0
    for number, result in workers.run(
            lambda task: (task[0], function(task[1])), enumerate(tasks), num_workers):
        ready[number] = result
        while wanted in ready:
            yield ready.pop(wanted)
            wanted += 1


def _copy_words(values, tagged, lexicon, rules):
    """(lines, Counter) of a chunk of (number, list of one or two lists of `Word`)."""
    counts, rows = collections.Counter(), []
    for number, texts in tagged:
        made = []
        for part, words in enumerate(texts):
            copies, counted = augmentation.copies(words, lexicon, rules, Draws(_keys(values, number, part)))
            made.append(copies)
            counts.update(counted)
        rows.append(([augmentation.plain(words) for words in texts], made))
    return _lines(values, rows, counts)


# ---- masked_lm

def _by_masked_lm(values, inputs, others, num_texts):
    """Yields (lines, Counter) of each chunk."""
    del others
    replacer = _replacer(values)
    with progress.bar(num_texts, "copying", " texts") as bar:
        for chunk in _chunks(inputs, values.errors):
            yield _copy_by_masked_lm(values, chunk, replacer)
            bar.update(len(chunk))


def _replacer(values):
    found = checkpoints.find_model(values.teacher_checkpoint, "teacher_checkpoint")
    config_file = values.bert_config_file or found.config_file
    vocab_file = values.vocab_file or found.vocab_file
    for name, path in (("bert_config_file", config_file), ("vocab_file", vocab_file)):
        if not path:
            raise UserError("--%s: needed, there is none beside %s" % (name, found.checkpoint))
    config = encoders.read_config(config_file)
    models.check_vocabulary(config, config_file, vocab_file)
    models.check_length(config, values.max_seq_length, "--max_seq_length")
    word_replacement.check_head(found.checkpoint)
    tokenizer = FullTokenizer(vocab_file, values.do_lower_case)
    available = len(word_replacement.characters_of(tokenizer.vocab))
    if values.top_k > available:
        raise UserError("--top_k=%d: %s has %d Chinese characters" % (values.top_k, vocab_file, available))
    segmenter = Segmenter(values.user_dict) if values.unit == "word" else None
    predictor = word_replacement.Predictor(config, found.checkpoint, tokenizer.vocab, values.top_k)
    return word_replacement.Replacer(
        tokenizer, segmenter, predictor, values.replace_prob, values.max_seq_length, values.batch_size)


def _copy_by_masked_lm(values, chunk, replacer):
    """(lines, Counter) of a chunk of (number, list of one or two str)."""
    texts = [text for _, pair in chunk for text in pair]
    keys = [_keys(values, number, part) for number, pair in chunk for part in range(len(pair))]
    made, counts = replacer.copies(texts, keys)
    copies = iter([[[(text, "")] for text in of_one] for of_one in made])
    rows = [([[(text, "")] for text in pair], [next(copies) for _ in pair]) for _, pair in chunk]
    return _lines(values, rows, counts)


# ---- writing

def _lines(values, rows, counts):
    """What is written of some texts.

    Args:
      values: flags.
      rows: list of (original, made), as of `augmentation.alternate`.
      counts: Counter of the method.

    Returns:
      (str; `counts` with "texts_done", "copies" and "duplicates").
    """
    write = _json_line if _is_json(values.output_file) else _txt_line
    written = []
    for original, made in rows:
        copies = [augmentation.fields_of(row) for row in augmentation.alternate(original, made)]
        kept = augmentation.distinct(augmentation.fields_of(original), copies)
        written.extend(map(write, kept))
        counts.update(texts_done=1, copies=len(kept), duplicates=len(copies) - len(kept))
    return "".join(written), counts


def _json_line(fields):
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _txt_line(fields):
    # A text of a .csv or .jsonl file may have line breaks; a tokenizer sees white space in either.
    return re.sub("[\r\n]", " ", fields["text_a"]) + "\n"


def summary(values, totals, bad_rows):
    """What was done, in a few lines."""
    lines = ["%s: texts %d, copies %d; duplicates %d, left out" % (
        values.output_file, totals["texts"], totals["copies"], totals["duplicates"])]
    if values.method == "masked_lm":
        lines.append("of the tokens %.1f %% masked, %.1f %% replaced by another" % _shares(totals, "tokens"))
        if totals["cut"]:
            lines.append("texts longer than --max_seq_length %d; what is behind it is as it was" % totals["cut"])
    else:
        lines.append("of the words %.1f %% masked, %.1f %% replaced" % _shares(totals, "words"))
    if bad_rows.count:
        lines.append("rows left out %d, the first: %s" % (bad_rows.count, bad_rows.first))
    return "\n".join(lines)


def _shares(totals, of):
    return tuple(100.0 * totals[name] / max(totals[of], 1) for name in ("masked", "replaced"))


if __name__ == "__main__":
    command.run(main, define_flags)
