"""Why a model answers so: an HTML page of some texts, with the tokens that moved the answer, beside the teacher's view.

    python -m serving.explain --export_dir=output/student_classifier/export \\
        --teacher_export_dir=output/teacher_classifier/export --input_file=texts.txt --output_file=explained.html

What a token did is told by leaving it out (occlusion): how much less probable the student's answer becomes without
it. Tokens that spoke for the answer are green, those against it red. Texts on which student and teacher disagree come
first.
The page needs no other file and no network. Needs the package jinja2 (requirements-export.txt).
"""

import collections

from absl import flags

from training import command
import numpy as np

from bert.tokenization import SEP
from serving.predictor import Predictor
from training import files
from training import progress
from training.command import UserError

try:
    import jinja2
except ImportError:
    jinja2 = None

# text: str; student, teacher: Prediction, None without a teacher; tokens: list of (str, what it did: the answer's
# probability with it minus that without it).
Explained = collections.namedtuple("Explained", "text student teacher tokens")

PAGE = """<!DOCTYPE html>
<html lang="zh"><head><meta charset="utf-8"><title>Why these labels</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body { font: 16px/1.6 sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222; }
article { border-top: 1px solid #ccc; padding: 1em 0; }
.tokens { font-size: 1.15em; overflow-wrap: anywhere; }
.tokens span { padding: .1em .05em; border-radius: .2em; }
table { border-collapse: collapse; font-size: .9em; } td, th { padding: .1em .8em .1em 0; text-align: left; }
.bar { display: inline-block; height: .7em; background: #4a7fb5; } .other { color: #b03030; font-weight: bold; }
</style></head><body>
<h1>Why these labels</h1>
<p>{{ texts|length }} texts{% if with_teacher %}; student and teacher agree on {{ agreeing }} of them{% endif %}.
A green token spoke for the student's answer, a red one against it; the deeper, the more its probability changes when
the token is left out (point at a token for the number).</p>
{% for one in texts %}<article>
<p class="tokens">{% for token, effect in one.tokens %}<span title="{{ '%+.3f'|format(effect) }}"
 style="background: rgba({{ '40,150,60' if effect > 0 else '200,50,50' }},{{ '%.2f'|format(strength(effect)) }})">{{
 token }}</span>{% endfor %}</p>
<table><tr><th>label</th><th>student</th>{% if one.teacher %}<th>teacher</th>{% endif %}</tr>
{% for name in labels %}{% set number = loop.index0 %}<tr><td>{{ name }}</td>
{% for found in (one.student, one.teacher) if found %}<td><span class="bar"
 style="width: {{ '%.1f'|format(8 * found.probabilities[number]) }}em"></span>
 {{ '%.3f'|format(found.probabilities[number]) }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>Student: {{ one.student.label or 'none' }}{% if one.teacher %}; teacher:
<span{% if one.teacher.label != one.student.label %} class="other"{% endif %}>{{ one.teacher.label or 'none' }}</span>
{% endif %}</p></article>
{% endfor %}</body></html>
"""


def define_flags():
    flags.DEFINE_string("export_dir", None, "An export of the student, or the folder that holds them.", required=True)
    flags.DEFINE_string("teacher_export_dir", None, "One of the teacher. Default: the student alone.")
    flags.DEFINE_string("input_file", None, "Texts, one a line.", required=True)
    flags.DEFINE_string("output_file", None, "The page.", required=True)
    flags.DEFINE_integer("max_texts", 100, "Of more, the first: each costs as many predictions as it has tokens.",
                         lower_bound=1)


def main():
    values = flags.FLAGS
    command.check_packages(jinja2 is not None, "serving.explain", "jinja2")
    texts = [text.strip() for text in files.read_lines(values.input_file) if text.strip()][:values.max_texts]
    if not texts:
        raise UserError("--input_file=%s: no text in it" % values.input_file)
    student = Predictor(values.export_dir)
    teacher = Predictor(values.teacher_export_dir) if values.teacher_export_dir else None
    if teacher and teacher.labels.names != student.labels.names:
        raise UserError("--teacher_export_dir=%s: its labels are %s, and the student's are %s" % (
            values.teacher_export_dir, ", ".join(teacher.labels.names), ", ".join(student.labels.names)))
    with progress.bar(len(texts), "explaining", "texts") as bar:
        explained = []
        for text in texts:
            explained.append(explain(text, student, teacher))
            bar.update(1)
    files.write_text(values.output_file, page(explained, student.labels.names))
    print("%s: %d texts" % (values.output_file, len(explained)))


def explain(text, student, teacher=None):
    """The `Explained` of a text.

    Args:
      text: str.
      student, teacher: Predictor.
    """
    features = student.features(text)
    ids = features["input_ids"]
    places = [place for place, number in enumerate(ids)
              if 0 < place and student.tokens([number])[0] != SEP]
    without = [{name: values[:place] + values[place + 1:] for name, values in features.items()} for place in places]
    whole, *others = student.predict_features([features] + without)
    chosen = int(np.argmax(whole.probabilities))
    effects = [float(whole.probabilities[chosen] - other.probabilities[chosen]) for other in others]
    tokens = [_shown(token) for token in student.tokens([ids[place] for place in places])]
    return Explained(text, whole, teacher.predict([text])[0] if teacher else None, list(zip(tokens, effects)))


def _shown(token):
    """A piece that goes on a word without its ##, a word that others may follow with a space."""
    return token[2:] if token.startswith("##") and len(token) > 2 else (
        " " + token if "0" <= token[:1] <= "z" and token[:1].isalnum() else token)


def page(explained, labels):
    """The HTML of a list of Explained; labels: names of the classes."""
    def agrees(one):
        return not one.teacher or one.teacher.label == one.student.label

    largest = max([abs(effect) for one in explained for _, effect in one.tokens] or [0.0]) or 1.0
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(PAGE).render(
        texts=sorted(explained, key=agrees), labels=labels, with_teacher=any(one.teacher for one in explained),
        agreeing=sum(map(agrees, explained)), strength=lambda effect: min(1.0, (abs(effect) / largest) ** 0.7))


if __name__ == "__main__":
    command.run(main, define_flags)
