"""A run folder: what a run was asked, what it found, and whether it is finished."""

import os

from training import files
from training.command import UserError

SETTINGS, EVALUATIONS, FINISHED = "run.json", "evaluations.json", "finished.json"
STAGES = "stages.json"
VOCABULARY = "vocab.txt"  # its digest is a setting
STOPPED = "stopped.json"
COMMAND = "command.txt"  # as it was typed when the run was begun
BEST_FIGURES = os.path.join("best", "figures.json")


def begin(folder, settings, contents):
    """Records what decides a run's result, or checks that it is what the run was begun with.

    Args:
      folder: `--output_dir`.
      settings: dict, flags' names first of all -> JSON values.
      contents: dict of name of a file in the folder -> its bytes.

    Raises:
      UserError: the folder holds a run with other settings, or its vocabulary is damaged.
    """
    path = os.path.join(folder, SETTINGS)
    if os.path.exists(path):
        _check_same(folder, files.read_json(path), settings)
        verify_vocabulary(folder)
        return
    for name, content in contents.items():
        files.write_bytes(os.path.join(folder, name), content)
    files.write_json(path, settings)


def verify_vocabulary(folder):
    """Raises UserError where a run's vocabulary is not the one that it was begun with.

    A character in another's place would pass for a vocabulary. Folders that are no run's are not looked at.
    """
    settings, path = os.path.join(folder, SETTINGS), os.path.join(folder, VOCABULARY)
    if not (os.path.exists(settings) and os.path.exists(path)):
        return
    begun = files.read_json(settings).get("vocabulary")
    if begun and files.digest(path) != begun:
        raise UserError("%s: damaged: not the vocabulary that the run was begun with; copy that one here again"
                        % path)


def _check_same(folder, old, new):
    for name in sorted(set(old) | set(new)):
        if old.get(name) != new.get(name):
            raise UserError("--output_dir=%s: the run there was begun with %s=%s, now it is %s; give that value to go "
                            "on with it, or another --output_dir" % (folder, name, old.get(name), new.get(name)))


def ended_stages(folder):
    """What `end_stages` wrote; [] before."""
    path = os.path.join(folder, STAGES)
    return files.read_json(path) if os.path.exists(path) else []


def end_stages(folder, ended):
    """Records the stages of a run that have ended: list of dict with "name", "step" and "reason"."""
    files.write_json(os.path.join(folder, STAGES), ended)


def stopped_at(folder):
    """The step at which a signal last stopped the run, of a checkpoint an unbroken run would not have; or None."""
    path = os.path.join(folder, STOPPED)
    return files.read_json(path)["step"] if os.path.exists(path) else None


def stop(folder, step):
    """Records that; before the checkpoint is saved."""
    files.write_json(os.path.join(folder, STOPPED), {"step": step})


def finished(folder):
    """What `finish` wrote, or None."""
    path = os.path.join(folder, FINISHED)
    return files.read_json(path) if os.path.exists(path) else None


def finish(folder, result):
    """Writes the last file of a run."""
    files.write_json(os.path.join(folder, FINISHED), result)
    if stopped_at(folder) is not None:
        os.remove(os.path.join(folder, STOPPED))


def best_figures(folder):
    """The figures by which the best checkpoint was chosen: dict with "step", or None."""
    path = os.path.join(folder, BEST_FIGURES)
    return files.read_json(path) if os.path.exists(path) else None
