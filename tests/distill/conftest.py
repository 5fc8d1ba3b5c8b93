import pytest

from distill.teacher import Teacher
from tests import batches
from tests.distill import pairs


@pytest.fixture(scope="session")
def saved_teacher(tmp_path_factory):
    """A teacher's checkpoint by (kind, task): (Teacher, its weights)."""
    made = {}

    def get(kind, task):
        if (kind, task) not in made:
            path = tmp_path_factory.mktemp("teacher") / "model.ckpt"
            prefix, weights = batches.save_model(path, pairs.TEACHERS[kind], batches.TASKS[task], scale=0.6)
            made[kind, task] = Teacher(pairs.TEACHERS[kind], prefix, ()), weights
        return made[kind, task]

    return get
