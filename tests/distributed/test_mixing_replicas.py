"""Several replicas: each mixes its own shard, and all that a recipe can have trains at once."""

import numpy as np
import pytest

from tests.distributed.test_replicas import BASELINE, THREE_DEVICES, run_program
from tests.training.stopped_runs import EVERYTHING

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from app.config import load_experiment
from app.distributed.process_group import ProcessGroup
from app.training.setup import prepare

mixing = "augmentation=[{mixup: {probability: 0.5}}, {cutmix: {probability: 0.5}}]"
changes = [mixing, "training.batch_size=101", "training.sync_batch_norm=true"]
job = prepare(load_experiment("baseline", changes), ProcessGroup())
classifier, strategy = job.classifier, job.replicas.strategy


def step(images, labels, weights, size):
    logits = classifier(images, training=True)  # replicas take turns in it, for their statistics
    mix = classifier._handed.mix
    loss = classifier.compute_loss(images, labels, logits, weights, training=True)
    return labels, weights, logits, mix.partner, mix.weight, loss


@tf.function(autograph=False)
def steps(iterator):
    return strategy.run(lambda data: step(*data), args=(next(iterator),))


names = ("labels", "weights", "logits", "partner", "own", "loss")
iterator, found = iter(job.batches()), {}
for number in range(job.steps_per_epoch):
    parts = [strategy.experimental_local_results(value) for value in steps(iterator)]
    for replica, values in enumerate(zip(*parts, strict=True)):
        for name, value in zip(names, values, strict=True):
            found[f"{number} {replica} {name}"] = value.numpy()
fitted = classifier.fit(job.batches(), steps_per_epoch=job.steps_per_epoch, shuffle=False, verbose=0)
trained = [[copy.numpy() for copy in variable.value.values] for variable in classifier.trainable_variables]
assert all(each.tobytes() == own[0].tobytes() for own in trained for each in own)
assert np.isfinite(fitted.history["loss"]).all()
np.savez(Path(sys.argv[1]) / "found.npz", **found)
"""


@pytest.mark.slow
def test_each_replica_mixes_its_own_shard(tmp_path):
    run_program(THREE_DEVICES + PROGRAM, tmp_path, {"baseline": BASELINE})
    with np.load(tmp_path / "found.npz") as stored:
        found = {key: stored[key] for key in stored.files}
    for number in range(17):
        own = []
        for replica in range(3):
            labels, weights, logits, partner, mixed, loss = (
                found[f"{number} {replica} {name}"]
                for name in ("labels", "weights", "logits", "partner", "own", "loss")
            )
            assert sorted(partner) == list(range(len(labels)))  # rows of this shard
            logits = logits.astype(np.float64)
            rows = np.arange(len(labels))
            losses = np.log(np.exp(logits).sum(axis=1))[:, None] - logits
            expected = mixed * losses[rows, labels] + (1 - mixed) * losses[rows, labels[partner]]
            assert loss == pytest.approx((weights * expected).mean() / 3, rel=1e-4, abs=1e-6)
            own.append(mixed[: min(len(mixed), 30)])
        if number < 16:
            assert all((own[one] != own[other]).any() for one, other in ((0, 1), (1, 2), (0, 2)))
    # The last batch has two images for three replicas: the one without gets both, and loses nothing by them.
    assert [len(found[f"16 {replica} labels"]) for replica in range(3)] == [1, 1, 2]
    assert found["16 2 loss"] == 0 and (found["16 2 weights"] == 0).all()


TRAINED = """
from tests.training.stopped_runs import compare

compare(["dataset.train_share=0.3"], 6, backend="tensorflow", replicas=3)  # in the second epoch
"""


@pytest.mark.slow
def test_all_that_a_recipe_can_have_resumes_on_replicas(tmp_path):
    run_program(THREE_DEVICES + TRAINED, tmp_path, {"tiny": EVERYTHING})
