"""Which layer of the student learns from which layer of the teacher, both counted from 1."""

from training.command import UserError

PRESETS = ("interval", "shallow", "deep", "uniform", "top")


def parse(text, student_layers, teacher_layers, source="the teacher"):
    """A layer map from its flag.

    Args:
      text: pairs `student:teacher`, e.g. "1:1,2:3,3:5", or a preset, with m student layers and n of the
        teacher: "interval" f(h) = 2h - 1 (Li et al. 2021); "shallow" the lowest, f(h) = h; "deep" the
        highest, f(h) = n - m + h; "uniform" f(h) = round(h n / m), which ends at the top; "top" the highest of
        the highest alone.
      student_layers, teacher_layers: how many each has.
      source: the teacher, for messages.

    Returns:
      list of (student layer, teacher layer), in the order of the student's.

    Raises:
      UserError: not such a map, or a layer that does not exist.
    """
    pairs = _preset(text, student_layers, teacher_layers) if text in PRESETS else _pairs(text)
    flag = "--layer_map=%s" % text
    for student, teacher in pairs:
        for layer, layers, whose in ((student, student_layers, "the student"), (teacher, teacher_layers, source)):
            if not 1 <= layer <= layers:
                raise UserError("%s: %s has %d layers, counted from 1: layer %d does not exist; presets: %s"
                                % (flag, whose, layers, layer, ", ".join(PRESETS)))
    twice = [student for student, _ in pairs if [s for s, _ in pairs].count(student) > 1]
    if twice:
        raise UserError("%s: student layer %d stands twice; each learns from one layer of the teacher"
                        % (flag, twice[0]))
    return sorted(pairs)


def _preset(name, student_layers, teacher_layers):
    if name == "top":
        return [(student_layers, teacher_layers)]
    functions = {
        "interval": lambda h: 2 * h - 1,
        "shallow": lambda h: h,
        "deep": lambda h: teacher_layers - student_layers + h,
        # Python rounds halves to even; upwards is meant.
        "uniform": lambda h: int(h * teacher_layers / student_layers + 0.5),
    }
    return [(h, functions[name](h)) for h in range(1, student_layers + 1)]


def _pairs(text):
    try:
        return [tuple(int(number) for number in _two(pair.split(":"))) for pair in text.split(",")]
    except ValueError:
        raise UserError("--layer_map=%s: pairs student:teacher are needed, e.g. 1:1,2:3,3:5, or one of %s"
                        % (text, ", ".join(PRESETS)))


def _two(parts):
    if len(parts) != 2:
        raise ValueError(parts)
    return parts
