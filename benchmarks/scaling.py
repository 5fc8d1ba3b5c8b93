"""On paper: what more devices and machines would give, from operations and bytes; checked where it can be measured.

A step takes (operations / rate), then (bytes of gradients over the slowest link); input is read meanwhile. Gradients
are exchanged when all are there, as `bert.optimization` does: nothing is hidden behind computing.
"""

import collections

from bert.modeling import BertConfig
from student.modeling import BiLstmConfig

# rate: of matrix products, FLOP/s; efficiency: share of it that a training step reaches; link, network: bytes/s between
# its devices and between machines; devices: of a machine.
Machine = collections.namedtuple("Machine", "rate efficiency link network devices")

V100_FLOPS, V100_FP16_FLOPS, NVLINK = 15.7e12, 125e12, 150e9  # NVIDIA's data sheet; NVLink in one direction
TEN_GIGABIT, HUNDRED_GIGABIT = 1.25e9, 12.5e9
EFFICIENCY, FP16_EFFICIENCY = 0.75, 0.35  # assumed, not measured
BYTES_OF_TEXT = 1500  # a padded record of 128 tokens with three features, as TFRecords hold it

# Of the case "pretraining", which is small enough to be measured.
MEASURED = BertConfig(21128, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
MEASURED_BATCH = 32
TEACHER = BertConfig(21128, hidden_size=768, num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072)
STUDENT = BiLstmConfig(21128)


def bert_flops(config, length, predictions=0):
    """Of the products of one text, forward: all layers, and the masked-LM head at its predictions."""
    width, inner = config.hidden_size, config.intermediate_size
    layer = length * (2 * (4 * width ** 2 + 2 * width * inner) + 4 * length * width)
    return config.num_hidden_layers * layer + predictions * 2 * width * (width + config.vocab_size)


def training_flops(config):
    """Of the products of one text in a masked-LM step; the gradient takes twice what the forward pass does."""
    return 3 * bert_flops(config, LENGTH, PREDICTIONS)


def lstm_flops(config, length):
    """Of the products of one text, forward: both directions of all layers."""
    units = config.hidden_size // 2 if config.merge == "concat" else config.hidden_size
    inputs = [config.embedding_size] + [config.hidden_size] * (config.num_hidden_layers - 1)
    return sum(length * 2 * 2 * (width + units) * 4 * units for width in inputs)


def bert_parameters(config):
    """Values that are trained, without a head."""
    width = config.hidden_size
    layer = 4 * width * (width + 1) + 2 * width * config.intermediate_size + config.intermediate_size + 5 * width
    return (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2) * width + (
        config.num_hidden_layers * layer)


def lstm_parameters(config):
    """Values that are trained, without a head."""
    units = config.hidden_size // 2 if config.merge == "concat" else config.hidden_size
    inputs = [config.embedding_size] + [config.hidden_size] * (config.num_hidden_layers - 1)
    return config.vocab_size * config.embedding_size + sum(
        2 * 4 * units * (width + units + 1) for width in inputs)


def ring_seconds(num_bytes, devices, link):
    """Of an all-reduce in a ring: every byte but a share passes each link twice (Patarasuk and Yuan 2009)."""
    return 2.0 * num_bytes * (devices - 1) / devices / link


def step_seconds(flops, parameters, machine, machines=1):
    """(computing, exchange within a machine, exchange between machines) of one step.

    Args:
      flops: of a device's share of the step.
      parameters: values that are trained, 4 bytes each.
      machine: Machine.
      machines: how many.
    """
    within = ring_seconds(4 * parameters, machine.devices, machine.link) if machine.devices > 1 else 0.0
    between = ring_seconds(4 * parameters, machines, machine.network) if machines > 1 else 0.0
    return flops / (machine.rate * machine.efficiency), within, between


MACHINES = [
    ("1 V100, float32", Machine(V100_FLOPS, EFFICIENCY, NVLINK, TEN_GIGABIT, 1), 1),
    ("8 V100, float32", Machine(V100_FLOPS, EFFICIENCY, NVLINK, TEN_GIGABIT, 8), 1),
    ("8 V100, float16", Machine(V100_FP16_FLOPS, FP16_EFFICIENCY, NVLINK, TEN_GIGABIT, 8), 1),
    ("8 x 8 V100, float16, 10 Gbit/s", Machine(V100_FP16_FLOPS, FP16_EFFICIENCY, NVLINK, TEN_GIGABIT, 8), 8),
    ("8 x 8 V100, float16, 100 Gbit/s", Machine(V100_FP16_FLOPS, FP16_EFFICIENCY, NVLINK, HUNDRED_GIGABIT, 8), 8)]
BATCH, LENGTH, PREDICTIONS = 64, 128, 20  # texts of a device and update; tokens; masked ones


def section(results):
    """The part of docs/performance.md, Markdown; results: dict of case -> what `benchmarks.run` found."""
    jobs = (("masked LM of the paper's teacher", training_flops(TEACHER), bert_parameters(TEACHER)),
            ("distillation into the paper's student", bert_flops(TEACHER, LENGTH) + 3 * lstm_flops(STUDENT, LENGTH),
             lstm_parameters(STUDENT)))
    lines = ["## On paper: more devices", "", " ".join(__doc__.split("\n\n")[1].split()), "",
             "%d texts of %d tokens a device and update. Assumed: a V100's data sheet, %.2f of its float32 and %.2f of "
             "its float16 rate reached, NVLink at %d GB/s, %d bytes of input a text; tables' gradients are whole." % (
                 BATCH, LENGTH, EFFICIENCY, FP16_EFFICIENCY, NVLINK / 1e9, BYTES_OF_TEXT), ""]
    for title, flops, parameters in jobs:
        lines += ["| %s, %.0f MB of gradients a step | computing, ms | exchange, ms | texts/s | of it exchange | "
                  "input, MB/s |" % (title, 4e-6 * parameters), "|---|---|---|---|---|---|"]
        for name, machine, machines in MACHINES:
            computing, within, between = step_seconds(BATCH * flops, parameters, machine, machines)
            seconds, texts = computing + within + between, BATCH * machine.devices * machines
            lines.append("| %s | %.1f | %.1f | %.0f | %.0f %% | %.0f |" % (
                name, 1e3 * computing, 1e3 * (within + between), texts / seconds,
                100 * (within + between) / seconds, texts * BYTES_OF_TEXT / seconds / 1e6))
        lines.append("")
    lines += ["So over 10 Gbit/s the exchange is what one waits for; `--gradient_accumulation_steps` makes it rarer. "
              "The student's steps one after the other are not in this: on a GPU they, not the teacher, may be what "
              "one waits for, which is what `--lstm_kernel=cudnn` is there for.", ""]
    return "\n".join(lines + check(results))


def check(results):
    """Lines that put the model beside what was measured, where it was."""
    def found(case, title):
        return [(race, _median(contender)) for race in results.get(case, {"races": []})["races"]
                for contender in race["contenders"] if contender["title"] == title]

    rates = [race["work"][0] * 1e9 / seconds for race, seconds in found("matrix_product", "tensorflow 2.15")]
    measured = [seconds for _, seconds in found("pretraining", "our ops, tensorflow 2.15")]
    if not rates or not measured:
        return []
    predicted = MEASURED_BATCH * training_flops(MEASURED) / max(rates)
    return ["Checked on this machine: products alone, at TensorFlow's own rate of %.0f GFLOP/s, would take %.0f ms of "
            "a masked-LM step of 6 x 384 (batch %d); measured were %.0f ms, %.0f %% of the rate. The rest is dropout, "
            "GELU, softmax, layer normalization and the optimizer, which a GPU's memory does faster." % (
                max(rates) / 1e9, 1e3 * predicted, MEASURED_BATCH, 1e3 * measured[0],
                100 * predicted / measured[0]), ""]


def _median(contender):
    return contender["seconds"]["median"]
