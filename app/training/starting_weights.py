"""Training that starts from the weights of another run, or from published ones."""

import http.client
import importlib.util
import math
import shutil
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.classifier_files import load_classifier
from app.config import Experiment
from app.data.dataset import Dataset
from app.data.normalization import normalization_constants
from app.errors import UserError
from app.files import atomic_path, file_hash
from app.paths import data_root, shown
from app.preflight import IMAGENET, weights_file, weights_run
from app.reading import read_record
from app.records import DatasetRecord
from app.runs import Run, load_run_experiment
from app.wording import install_extra, received
from models.inspect import weighted_layers
from models.network import MODELS, Network
from models.pretrained.keras_files import read_keras_file
from models.pretrained.matching import match
from models.pretrained.published import Pretrained
from models.pretrained.torch_files import read_torch_file
from models.registry import model_arguments
from models.variables import assign

EPSILONS = ("bn_epsilon", "stem_bn_epsilon")  # change what given weights compute, too


class StartingWeights(NamedTuple):
    """What a training started from: a line on it, file or run and its hash, licence, a warning."""

    line: str = ""
    record: dict[str, Any] = {}
    warning: str = ""


def start_of(experiment: Experiment, network: Network, dataset: Dataset) -> StartingWeights:
    """Put the weights that an experiment names into its network, if it names any.

    Raises:
        UserError: They do not fit, or the constants of published weights are asked for with those of a run
            that was trained with others.
    """
    ours = experiment.normalization
    if published := published_weights(experiment):
        _check_epsilons(experiment)
        return start_from_published(experiment, published, network)
    if run := weights_run(experiment):
        theirs = load_run_experiment(run).normalization
        if theirs != ours == "pretrained":
            raise UserError(f"normalization: pretrained needs a run that had it; {run.name} has {theirs}")
        others = f"warning: {run.name} was trained with normalization: {theirs}; the experiment has {ours}"
        warnings = [others] * (theirs != ours)
        now, drawn = DatasetRecord(**dataset.as_json()), not experiment.dataset.validates_on_test
        if drawn and run.dataset.is_file() and read_record(run.dataset, DatasetRecord).held_out_others(now):
            warnings.append(
                f"warning: model.weights: {run.name} held out other images of the same classes, so it may "
                "have been trained on what now validates, and the accuracy be too good. Keep these in val/"
            )
        record = {"run": run.name, "sha256": file_hash(run.best_model)}  # it may be trained further
        return StartingWeights(start_from(run, network, dataset.class_names), record, "\n".join(warnings))
    return StartingWeights()


def constants_of(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return what images are normalised by, see `normalization_constants`.

    Raises:
        UserError: Constants of published weights are asked for, but there are none or images are gray.
    """
    if experiment.normalization != "pretrained":
        return normalization_constants(experiment.normalization, dataset.train)
    published = published_weights(experiment)
    if published is None and experiment.model.weights:  # a run, which began with published weights
        fitting = _fitting(experiment, MODELS[experiment.model.name].pretrained)
        published = fitting[0] if len({(each.mean, each.deviation) for each in fitting}) == 1 else None
    if published is None:
        raise UserError(
            f"normalization: pretrained goes with model.weights: {IMAGENET}, a file of such weights, or a "
            "run of a network for which there is one kind of them"
        )
    if dataset.image_shape[-1] != 3:
        raise UserError("normalization: pretrained is for RGB images; set dataset.channels: 3")
    return {"mean": list(published.mean), "deviation": list(published.deviation)}


def start_from(run: Run, network: Network, class_names: tuple[str, ...]) -> str:
    """Copy the best weights of another run into `network`, and return a line on what was taken.

    The head stays new where the classes differ.
    """
    trained = load_classifier(run.best_model)
    theirs, ours = trained.network.weights, network.weights
    if type(trained.network) is not type(network) or len(theirs) != len(ours):
        raise UserError(
            f"model.weights: {run.name} holds a {type(trained.network).__name__} with {len(theirs)} weights, "
            f"the experiment makes a {type(network).__name__} with {len(ours)}; both must be the same network"
        )
    for key in (*network.unseen_by_shapes, *EPSILONS):
        before, now = (each.get_config().get(key) for each in (trained.network, network))
        if before != now:
            raise UserError(
                f"model.weights: {run.name} was trained with model.{key} {received(before)}, the experiment "
                f"has {received(now)}, with which its weights compute something else; give the same"
            )
    head = [*weighted_layers(network).values()][-1]
    new = [each.path for each in head.weights] if tuple(trained.class_names) != class_names else []
    for source, variable in zip(theirs, ours, strict=True):
        if variable.path in new:
            continue
        if source.shape != variable.shape:
            raise UserError(
                f"model.weights: {variable.path} has shape {tuple(source.shape)} in {run.name}, "
                f"{tuple(variable.shape)} here; use the same model arguments and image size"
            )
        assign(variable, source.numpy())
    start, before, now = f"starts from the weights of {run.name}", len(trained.class_names), len(class_names)
    if not new:
        return f"{start}: all {len(ours)} variables"
    reason = f"{now} classes instead of {before}" if now != before else "other classes"
    return f"{start}: {len(ours) - len(new)} of {len(ours)} variables; new: {', '.join(new)} ({reason})"


def published_weights(experiment: Experiment) -> Pretrained | None:
    """Return what is known of the published weights that an experiment starts from; None for another start.

    Raises:
        UserError: There are none for its network with these arguments.
    """
    model, file = experiment.model, weights_file(experiment, must_exist=False)  # a resume goes without it
    if model.weights != IMAGENET and file is None:
        return None
    offers = _offers(model.name, file)
    if fitting := _fitting(experiment, offers):
        return fitting[0]
    if offers:
        sets = (", ".join(f"{key}: {value}" for key, value in offer.arguments.items()) for offer in offers)
        raise UserError(
            f"model.weights: {model.weights} fits {model.name} only with one of: {'; '.join(sets)}"
        )
    weights = f"published weights{f' in {file.suffix} files' if file else ''}"
    known = ", ".join(name for name in MODELS if _offers(name, file))
    raise UserError(
        f"model.weights: no {weights} fit {model.name}; there are some for {known}. Any network takes a run's"
    )


def _check_epsilons(experiment: Experiment) -> None:
    """Refuse another epsilon than that of `imagenet`, but 1.001e-5 for 1e-5; that of a file is not known."""
    model, usual = experiment.model, model_arguments(experiment.model.name)
    for key in EPSILONS:
        given = model.arguments.get(key)
        if model.weights == IMAGENET and given and not math.isclose(given, usual[key], rel_tol=0.01):
            rule = f"published weights go with {usual[key]:g}; leave it out"
            raise UserError(f"model.{key}: received {given:g}; {rule}")


def start_from_published(experiment: Experiment, offer: Pretrained, network: Network) -> StartingWeights:
    """Put published weights into `network`; its head stays new where their number of classes is another.

    Raises:
        UserError: The file is absent, damaged, not the published one, or does not fit.
    """
    given = weights_file(experiment)
    path = given or _published_file(offer)
    digest = file_hash(path)
    try:
        arrays = _read(path)
        matched = match(
            network.published_layers(offer.layout), arrays, offer.layout, blue_first=offer.blue_first
        )
    except ValueError as error:
        raise UserError(f"model.weights: {shown(path)}: {error}") from error
    matched.assign()
    record = {"file": path.name, "sha256": digest, "licence": "not known" if given else offer.licence}
    new = f"; new: {', '.join(matched.new)} (other classes, or none in the file)" if matched.new else ""
    line = f"starts from {path.name} (licence: {record['licence']}): {len(matched.values)} of "
    line += f"{len(network.weights)} variables{new}"
    ours = experiment.normalization
    others = f"these weights expect normalization: pretrained; the experiment has {ours}"
    return StartingWeights(line, record, "" if ours == "pretrained" else others)


def _offers(name: str, file: Path | None) -> list[Pretrained]:
    """Return a network's published weights; with a file, those of its kind."""
    layout = "keras" if file and file.suffix == ".h5" else "torch"
    return [each for each in MODELS[name].pretrained if file is None or each.layout == layout]


def _fitting(experiment: Experiment, offers: Iterable[Pretrained]) -> list[Pretrained]:
    """Return the published weights that fit the arguments of an experiment's network."""
    arguments = model_arguments(experiment.model.name) | experiment.model.arguments
    return [each for each in offers if all(arguments[key] == value for key, value in each.arguments.items())]


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".h5":
        return read_keras_file(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"cannot be read as a safetensors file ({error})") from error
    return read_torch_file(path)


def _published_file(offer: Pretrained) -> Path:
    """Return the file of published weights: from its package, from data/weights/, or downloaded there."""
    path = data_root() / "weights" / offer.file
    if not path.is_file() and offer.package:
        module = importlib.util.find_spec(offer.package.replace("-", "_"))
        if module is None or module.origin is None:
            raise UserError(
                f"model.weights: the package {offer.package} is not installed: {install_extra('pretrained')}"
            )
        path = Path(module.origin).parent / "models" / offer.file
    elif not path.is_file():
        url = offer.url + offer.file
        print(f"downloading {url} to {shown(path)}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(url, timeout=60) as reply, atomic_path(path) as temporary:
                with open(temporary, "wb") as file:
                    shutil.copyfileobj(reply, file)
                if wrong := _wrong_digest(temporary, offer):
                    raise OSError(f"what came was cut off, or another file: {wrong}")
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"model.weights: {url} cannot be downloaded ({error}); put the file at {shown(path)}"
            ) from error
        return path
    if wrong := _wrong_digest(path, offer):
        what = "install its package anew" if offer.package else "delete it, and it is fetched anew"
        raise UserError(f"model.weights: {shown(path)} is not the published {offer.file}: {wrong}; {what}")
    return path


def _wrong_digest(path: Path, offer: Pretrained) -> str:
    """Return what is wrong with a file's hash; nothing where it is the published file's."""
    digest = f"md5:{file_hash(path, 'md5')}" if offer.digest.startswith("md5:") else file_hash(path)
    return "" if digest.startswith(offer.digest) else f"its hash is {digest}, expected {offer.digest}"
