"""Where the trials of a sweep lie: the same settings, however they are written, lead to the same trials."""

import json

from app.config import load_with_sweep
from app.files import write_json
from app.sweep.sweep import _find_sweep

SEARCHED = "sweep.space.optimizer.weight_decay=%s"


def begin(*overrides):
    """What `make sweep` does before its first trial."""
    experiment = load_with_sweep("tiny", overrides)
    found = _find_sweep(experiment, overrides, "81", "SQLite")
    write_json(found.path, found.record.content)
    return found.folder, found.record, found.experiment


def test_settings_that_are_equal_go_on_with_the_trials_that_there_are(home):
    folder, record, experiment = begin(SEARCHED % "[0, 0.0005]")
    again = begin(SEARCHED % "[0.0, 0.0005]", "sweep.trials=40", "dataset.data_dir=elsewhere")
    settings = record.settings
    del settings["training"]["sync_batch_norm"]  # as a version wrote it that had no such key
    write_json(folder / "sweep.json", record.content | {"settings": settings})
    later = begin(SEARCHED % "[0, 0.0005]")
    for other, other_record, other_experiment in (again, later):
        assert (other, other_record.study) == (folder, record.study)
        spaces = [json.dumps(each.settings["sweep"]["space"]) for each in (record, other_record)]
        assert spaces[0] == spaces[1]  # as texts: 0 == 0.0
        assert repr(other_experiment.sweep.space) == repr(experiment.sweep.space)
    assert again[2].sweep.trials == 40 and again[2].dataset.data_dir == "elsewhere"
    assert later[2].training.sync_batch_norm is False
