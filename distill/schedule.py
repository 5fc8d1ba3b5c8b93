"""In which stages a student learns: which terms each has, how long it is, and what trains in it.

A strategy is JSON, one of `configs/recipes` or the user's own:

    {"stages": [{"name": "representation", "terms": ["embedding", "states"]},
                {"name": "task", "terms": ["prediction", "labels"], "num_steps": 500, "learning_rate": 5e-4,
                 "gradual": true, "early_stopping": 3}]}

A term is one of `terms.TERMS` or a group of them (`terms.GROUPS`). In a stage that is gradual the student is frozen at
first but for its head, and thawed from the top: head, top layer ... lowest layer, embeddings (Howard and Ruder 2018,
section 3.3); it must have answers or labels, which teach the head.
"""

import dataclasses
import difflib
import functools
import os

from bert import checkpoints
from distill import terms
from training import config as configs
from training import files
from training.command import UserError

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "configs", "recipes")
STRATEGIES = ("joint", "two_stage", "three_stage", "layerwise", "lrc", "theseus")
HEAD = 10 ** 6  # stands above every layer


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a strategy.

    `terms`: names or groups. `num_steps`: updates, 0 for an even share of the run's. `learning_rate`: 0 for the run's.
    `early_stopping`: as the flag of that name, -1 for what the flag says. `replacing`: the student's layers train
    among those of the teacher, and nothing else of it does, see `theseus`.
    """
    name: str
    terms: list
    num_steps: int = 0
    learning_rate: float = 0.0
    gradual: bool = False
    early_stopping: int = -1
    replacing: bool = False

    def __post_init__(self):
        known = list(terms.TERMS) + list(terms.GROUPS)
        for name in self.terms:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                raise ValueError("'terms' of stage %r: %r is no term%s" % (
                    self.name, name, "; did you mean %r?" % near[0] if near else "; known: " + ", ".join(known)))
        for name, least in (("num_steps", 0), ("learning_rate", 0), ("early_stopping", -1)):
            if getattr(self, name) < least:
                raise ValueError("%r of stage %r must be at least %d, found %g"
                                 % (name, self.name, least, getattr(self, name)))

    def has(self, term):
        """Whether a term of `terms.TERMS` is one of the stage's."""
        return term in self.terms or terms.TERMS[term].group in self.terms


def read(strategy):
    """The stages of a strategy: list of Stage.

    Args:
      strategy: a name in `STRATEGIES`, or the path of a JSON file.

    Raises:
      UserError: neither, or a file that is wrong.
    """
    path = os.path.join(FOLDER, strategy + ".json") if strategy in STRATEGIES else strategy
    if not os.path.exists(path):
        raise UserError("--strategy=%s: no such file, and none of %s" % (strategy, ", ".join(STRATEGIES)))
    values = files.read_json(path)
    if not isinstance(values, dict) or list(values) != ["stages"] or not isinstance(values["stages"], list):
        raise UserError('%s: {"stages": [...]} is needed' % path)
    stages = [configs.from_dict(Stage, stage, "%s, stage %d" % (path, number))
              for number, stage in enumerate(values["stages"], start=1)]
    names = [stage.name for stage in stages]
    if not stages or len(set(names)) < len(names):
        raise UserError("%s: %s" % (path, "two stages have one name" if stages else "no stage"))
    return stages


def weights_of(stage, weights, layer_map):
    """What of a run's weights counts in a stage: dict of logged name -> weight, those that are 0 left out."""
    return {logged: weights[logged] for name in terms.TERMS if stage.has(name)
            for logged, _ in terms.instances(name, layer_map) if weights.get(logged)}


def phases(num_layers, unfreeze_steps, num_steps):
    """When what thaws: list of (updates of the stage before, function of a variable's name: whether it trains then).

    Args:
      num_layers: of the student.
      unfreeze_steps: updates between two thaws; None: a tenth of the stage's.
      num_steps: updates of the stage.
    """
    between = max(1, num_steps // 10) if unfreeze_steps is None else unfreeze_steps
    if not between:
        return [(0, None)]
    lowest = [HEAD] + list(range(num_layers, -1, -1))
    found = [(number * between, functools.partial(_stands_above, depth)) for number, depth in enumerate(lowest)]
    return [(start, trains) for start, trains in found if start < num_steps]


def is_layer(name):
    """Whether a variable of the student is one of a layer."""
    return 0 < depth_of(name) < HEAD


def _stands_above(lowest, name):
    return depth_of(name) >= lowest


def depth_of(name):
    """Where a variable of the student stands: 0 embeddings, 1 the lowest layer ..., `HEAD` what is no encoder's.

    The layers of a BiLSTM are counted from 1 in names, those of a BERT from 0; the one shared layer of an ALBERT is 1.
    """
    if "/embeddings" in name:
        return 0
    layer = checkpoints.LAYER.search(name)
    if layer:
        return int(layer.group(2)) + (0 if name.startswith("student/") else 1)
    return 1 if "/encoder/" in name else HEAD
