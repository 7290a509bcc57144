"""Every kind of mistake in a file: the line it gives, with its place."""

# ruff: noqa: E501 - a row of the table is one mistake and its line
import pytest

from app.config.arguments import catalogue
from app.config.nodes import NO_ALIASES
from tests.config.conftest import BOMB, VALID

AT = "experiments/x.yaml"


# Each row: what to replace in the valid file, by what, and the lines expected.
ONE_MISTAKE = {
    "unknown_key": ("name: sgd", "name: sgd\n  learning_rte: 3", ["8:3: optimizer.learning_rte: unknown key; did you mean 'learning_rate'?"]),
    "misspelt_required": ("  epochs", "  epoch", ["10:3: training.epoch: unknown key; did you mean 'epochs'?"]),
    "far_from_any": ("epochs: 10", "epochs: 10\n  loss: {qqq: 1}", ["11:10: training.loss.qqq: unknown key; allowed: focal_gamma, label_smoothing, softmax_before_loss"]),
    "in_wrong_section": ("# A", "batch_size: 3 #", ["1:1: batch_size: unknown key; did you mean 'training.batch_size'?"]),
    "extend": ("# A", "extend: y.yaml #", ["1:1: extend: unknown key; did you mean 'extends'?"]),
    "derived_name": ("# A", "name: y #", ["1:1: name: unknown key; the file's name is the experiment's, its first comment line the description"]),
    "missing": ("  batch_size: 8\n", "", ["10:3: training.batch_size: required key is missing"]),
    "missing_section": ("model:\n  name: baseline\n", "", ["2:1: model: required key is missing"]),
    "null_section": ("  name: baseline\n", "", ["4:7: model: must be a mapping (keys: name, weights, freeze, unfreeze_epoch); got null"]),
    "text_for_int": ("epochs: 10", "epochs: '10'", ["10:11: training.epochs: must be a whole number from 1 to 100000, or 'auto'; got '10'"]),
    "float_for_int": ("epochs: 10", "epochs: 10.0", ["10:11: training.epochs: must be a whole number from 1 to 100000, or 'auto'; got 10.0"]),
    "bool_for_int": ("epochs: 10", "epochs: true", ["10:11: training.epochs: must be a whole number from 1 to 100000, or 'auto'; got true"]),
    "too_small": ("batch_size: 8", "batch_size: 0", ["11:15: training.batch_size: must be at least 1; got 0"]),
    "too_large": ("batch_size: 8", "batch_size: 65537", ["11:15: training.batch_size: must be at most 65536; got 65537"]),
    "seed_too_large": ("# A", "seed: 4294967296 #", ["1:7: seed: must be below 4294967296; got 4294967296"]),
    "huge_number": ("# A", f"seed: {'9' * 5000} #", [f"1:7: seed: not a usable int: '{'9' * 40}'"]),
    "bool_for_float": ("learning_rate: 0.1", "learning_rate: {schedule: cosine, peak: true}", ["8:43: optimizer.learning_rate.peak: must be a number; got true"]),
    "nan": ("learning_rate: 0.1", "learning_rate: .nan", ["8:18: optimizer.learning_rate: must be a finite number; got nan"]),
    "overflow": ("learning_rate: 0.1", "learning_rate: 1e999", ["8:18: optimizer.learning_rate: must be a finite number; got inf"]),
    "zero_rate": ("learning_rate: 0.1", "learning_rate: 0", ["8:18: optimizer.learning_rate: must be above 0; got 0"]),
    "rate_is_bool": ("learning_rate: 0.1", "learning_rate: true", ["8:18: optimizer.learning_rate: must be a number or a mapping with the key 'schedule'; got true"]),
    "misspelt_schedule": ("learning_rate: 0.1", "learning_rate: {schedul: cosine, peak: 0.1}", ["8:19: optimizer.learning_rate.schedul: unknown key; did you mean 'schedule'?"]),
    "no_schedule": ("learning_rate: 0.1", "learning_rate: {peak: 1}", ["8:18: optimizer.learning_rate.schedule: required key is missing; one of constant, cosine, exponential, one_cycle, reduce_on_plateau, step"]),
    "schedule_name": ("learning_rate: 0.1", "learning_rate: {schedule: cosin, peak: 1}", ["8:29: optimizer.learning_rate.schedule: unknown schedule 'cosin'; did you mean 'cosine'? allowed: constant, cosine, exponential, one_cycle, reduce_on_plateau, step"]),
    "schedule_key": ("learning_rate: 0.1", "learning_rate: {schedule: cosine, peak: 1, factor: 2}", ["8:46: optimizer.learning_rate.factor: unknown key; allowed: end, peak, per_images, schedule, span_epochs, warmup_epochs"]),
    "boundaries": ("learning_rate: 0.1", "learning_rate: {schedule: step, peak: 1, factor: 0.1, boundaries_epochs: [5, 5]}", ["8:76: optimizer.learning_rate.boundaries_epochs: must increase from one to the next; got [5, 5]"]),
    "no_boundaries": ("learning_rate: 0.1", "learning_rate: {schedule: step, peak: 1, factor: 0.1, boundaries_epochs: []}", ["8:76: optimizer.learning_rate.boundaries_epochs: must have at least 1 items; got []"]),
    "late_warmup": ("learning_rate: 0.1", "learning_rate: {schedule: cosine, peak: 1, warmup_epochs: 10}", ["8:61: optimizer.learning_rate.warmup_epochs: must be below training.epochs, which is 10; got 10"]),
    "late_peak": ("learning_rate: 0.1", "learning_rate: {schedule: one_cycle, peak: 1, peak_epoch: 12}", ["8:61: optimizer.learning_rate.peak_epoch: must be below training.epochs, which is 10; got 12"]),
    "late_boundary": ("learning_rate: 0.1", "learning_rate: {schedule: step, peak: 1, factor: 0.1, boundaries_epochs: [5, 10]}", ["8:76: optimizer.learning_rate.boundaries_epochs: the last must be below training.epochs, which is 10; got [5, 10]"]),
    "start_above_peak": ("learning_rate: 0.1", "learning_rate: {schedule: one_cycle, peak: 0.1, start: 0.2, peak_epoch: 1}", ["8:58: optimizer.learning_rate.start: must be at most the peak, which is 0.1; got 0.2"]),
    "end_above_peak": ("learning_rate: 0.1", "learning_rate: {schedule: cosine, end: 1, peak: 0.1}", ["8:42: optimizer.learning_rate.end: must be at most the peak, which is 0.1; got 1"]),
    "early_span": ("learning_rate: 0.1", "learning_rate: {schedule: cosine, peak: 1, warmup_epochs: 4, span_epochs: 3}", ["8:61: optimizer.learning_rate.warmup_epochs: must be below span_epochs, which is 3; got 4"]),
    "factors_of_keras": ("# A", "augmentation: [{random_hue: {factor: [-0.1, 0.5]}}] #", ["1:38: augmentation[0].random_hue.factor: every item must be at least 0; got [-0.1, 0.5]"]),
    "factor_of_ours": ("# A", "augmentation: [{random_saturation: {factor: 1.5}}] #", ["1:45: augmentation[0].random_saturation.factor: must be at most 1; got 1.5"]),
    "factor_of_keras": ("# A", "augmentation: [{random_brightness: {factor: -5}}] #", ["1:45: augmentation[0].random_brightness.factor: must be at least -1; got -5"]),
    "dataset": ("digits", "digit", ["3:9: dataset.name: unknown dataset 'digit'; did you mean 'digits'? allowed: " + ", ".join(catalogue()["datasets"])]),
    "image_size": ("digits", "digits\n  image_size: 32", ["4:15: dataset.image_size: must be a list; got 32"]),
    "image_size_short": ("digits", "digits\n  image_size: [32]", ["4:15: dataset.image_size[1]: item is missing"]),
    "image_size_long": ("digits", "digits\n  image_size: [1, 2, 3]", ["4:15: dataset.image_size: must have at most 2 items; got [1, 2, 3]"]),
    "image_size_item": ("digits", "digits\n  image_size: [32, 0]", ["4:20: dataset.image_size[1]: must be at least 1; got 0"]),
    "image_size_of_network": ("digits\nmodel:\n  name: baseline", "digits\n  image_size: [30, 32]\nmodel:\n  name: minimodel", ["4:15: dataset.image_size: must have sides of at least 32 pixels, multiples of 8, for minimodel; got [30, 32]"]),
    "channels": ("digits", "digits\n  channels: true", ["4:13: dataset.channels: must be 1 or 3; got true"]),
    "validation_one": ("digits", "digits\n  validation: 1.0", ["4:15: dataset.validation: must be a fraction between 0 and 1 (both excluded) or 'test'; got 1.0"]),
    "validation_text": ("digits", "digits\n  validation: train", ["4:15: dataset.validation: must be a fraction between 0 and 1 (both excluded) or 'test'; got 'train'"]),
    "mode": ("epochs: 10", "epochs: 10\n  monitor: val_loss\n  mode: max", ["12:3: training.mode: follows from training.monitor; leave it out"]),
    "monitor": ("epochs: 10", "epochs: 10\n  monitor: val_los", ["11:12: training.monitor: unknown value 'val_los'; did you mean 'val_loss'? allowed: accuracy, loss, val_accuracy, val_loss"]),
    "smoothing": ("epochs: 10", "epochs: 10\n  loss: {label_smoothing: 1}", ["11:27: training.loss.label_smoothing: must be below 1; got 1"]),
    "not_a_bool": ("epochs: 10", "epochs: 10\n  loss: {softmax_before_loss: no}", ["11:31: training.loss.softmax_before_loss: must be true or false; got 'no'; write false"]),
    "model_argument": ("name: baseline", "name: baseline\n  bn_momentm: 0.9", ["6:3: model.bn_momentm: unknown key; did you mean 'bn_momentum'?"]),
    "model_value": ("name: baseline", "name: baseline\n  bn_momentum: 1.0", ["6:16: model.bn_momentum: must be below 1; got 1.0"]),
    "model_name_type": ("name: baseline", "name: 5", ["5:9: model.name: must be text; got 5"]),
    "optimizer_refused": ("name: sgd", "name: lossscaleoptimizer", ["7:9: optimizer.name: optimizer 'lossscaleoptimizer' is refused: training.precision: float16 puts it around the optimizer by itself"]),
    "ftrl": ("name: sgd", "name: ftrl", ["7:9: optimizer.name: optimizer 'ftrl' is refused: made for sparse linear models, its first step replaces the weights that a network starts with"]),
    "pretrained_alone": ("# A", "normalization: pretrained #", ["1:16: normalization: pretrained goes with model.weights (imagenet, a file or a run)"]),
    "key_of_a_section": ("# A", "validation: 0.2 #", ["1:1: validation: unknown key; did you mean 'dataset.validation'?"]),
    "muon_alone": ("name: sgd", "name: muon", ["7:3: optimizer: muon needs the key 'others': the optimizer of biases, normalisations and the head, such as {name: sgd, learning_rate: 0.1, momentum: 0.9}"]),
    "muon_decay": ("name: sgd", "name: muon\n  weight_decay: 0.1\n  others: {name: sgd, learning_rate: 1}", ["8:3: optimizer.weight_decay: belongs to others: muon keeps the norm of kernels by itself"]),
    "others_alone": ("name: sgd", "name: sgd\n  others: {name: sgd, learning_rate: 1}", ["8:3: optimizer.others: belongs to muon; sgd trains all variables; leave it out"]),
    "others_name": ("name: sgd", "name: muon\n  others: {name: muon, learning_rate: 1}", ["8:18: optimizer.others.name: unknown other optimizer 'muon'; allowed: adadelta, adafactor, adagrad, adam, adamax, adamw, lamb, lion, nadam, rmsprop, sgd"]),
    "others_argument": ("name: sgd", "name: muon\n  others: {name: sgd, learning_rate: 1, momentm: 0.9}", ["8:41: optimizer.others.momentm: unknown key; did you mean 'momentum'?"]),
    "others_schedule": ("name: sgd", "name: muon\n  others: {name: sgd, learning_rate: {schedule: cosine, peak: -1}}", ["8:63: optimizer.others.learning_rate.peak: must be above 0; got -1"]),
    "others_warmup": ("name: sgd", "name: muon\n  others: {name: sgd, learning_rate: {schedule: cosine, peak: 1, warmup_epochs: 10}}", ["8:81: optimizer.others.learning_rate.warmup_epochs: must be below training.epochs, which is 10; got 10"]),
    "coupled_adam": ("name: sgd", "name: adam\n  decoupled: false", ["8:14: optimizer.decoupled: false makes sgd PyTorch's; adam knows true alone"]),
    "no_decay": ("name: sgd", "name: sgd\n  no_decay: bias", ["8:13: optimizer.no_decay: must be a list of patterns of variable paths, or 'norm_and_bias'; got 'bias'"]),
    "no_decay_item": ("name: sgd", "name: sgd\n  no_decay: [3]", ["8:13: optimizer.no_decay: must be a list of patterns of variable paths, or 'norm_and_bias'; got [3]"]),
    "schedule_free": ("name: sgd", "name: schedulefreeadamw", ["7:9: optimizer.name: optimizer 'schedulefreeadamw' is refused: on TensorFlow Keras computes another algorithm than the paper's, and weights that are not its average would be validated, saved and exported; use adamw"]),
    "lookahead_and_early_stopping": ("epochs: 10", "epochs: 10\n  early_stopping: {patience_epochs: 3}\n  lookahead: {every_steps: 5, decay: 0.5}", ["12:3: training.lookahead: cannot be combined with training.early_stopping: the weights become the average at the last of all epochs' steps, which a run that stops early does not reach; leave one of them out"]),
    "ema_and_lookahead": ("epochs: 10", "epochs: 10\n  ema: {decay: 0.9}\n  lookahead: {every_steps: 5, decay: 0.5}", ["11:3: training.ema: cannot be combined with training.lookahead, which replaces the weights by their average, while ema keeps one beside them; leave one of them out"]),
    "keras_ema": ("name: sgd", "name: sgd\n  use_ema: true", ["8:3: optimizer.use_ema: is refused: Keras averages without batch normalisation's statistics, validates the raw weights and replaces them when a fit ends; use training.ema"]),
    "optimizer_value": ("name: sgd", "name: sgd\n  nesterov: yes", ["8:13: optimizer.nesterov: must be true or false; got 'yes'; write true"]),
    "optimizer_null": ("name: sgd", "name: sgd\n  momentum: null", ["8:13: optimizer.momentum: must be a number; got null"]),
    "two_clips": ("name: sgd", "name: sgd\n  clipnorm: 1\n  clipvalue: 1", ["9:3: optimizer.clipvalue: only one of clipnorm and clipvalue may be given"]),
    "layer_argument": ("# A", "augmentation: [random_crop: {padding: 4}] #", ["1:30: augmentation[0].random_crop.padding: unknown key; did you mean 'padding_pixels'?"]),
    "layer_name_as_key": ("# A", "augmentation: [mix_up: {alpha: 1}] #", ["1:16: augmentation[0].mix_up: augmentation layer 'mix_up' is refused: it mixes images, but not the labels that belong to them here; use mixup"]),
    "mixing_not_last": ("# A", "augmentation: [mixup: , random_flip: ] #", ["1:16: augmentation[0].mixup: mixup must come last: it mixes what the other layers have made"]),
    "mixing_by_name_not_last": ("# A", "augmentation: [cutmix, alternating_flip] #", ["1:16: augmentation[0]: cutmix must come last: it mixes what the other layers have made", "1:24: augmentation[1]: alternating_flip must come first: images are flipped as they are read"]),
    "mixing_twice": ("# A", "augmentation: [mixup: {probability: 0.2}, mixup: {probability: 0.2}] #", ["1:43: augmentation[1].mixup: mixup may be given once"]),
    "mixing_too_much": ("# A", "augmentation: [cutmix: {probability: 0.6}, mixup: ] #", ["1:44: augmentation[1].mixup: an image is mixed once, so the probabilities of mixup and cutmix must add up to at most 1; got 1.6; give each a probability, such as 0.5"]),
    "mixing_probability": ("# A", "augmentation: [mixup: {probability: 2}] #", ["1:37: augmentation[0].mixup.probability: must be at most 1; got 2"]),
    "mixing_alpha": ("# A", "augmentation: [cutmix: {alpha: 0}] #", ["1:32: augmentation[0].cutmix.alpha: must be above 0; got 0"]),
    "layer_value": ("# A", "augmentation: [random_crop: {padding_pixels: 4.5}] #", ["1:46: augmentation[0].random_crop.padding_pixels: must be a whole number; got 4.5"]),
    "layer_choice": ("# A", "augmentation: [random_flip: {mode: up}] #", ["1:36: augmentation[0].random_flip.mode: must be one of 'horizontal', 'vertical', 'horizontal_and_vertical'; got 'up'"]),
    "layer_range_order": ("# A", "augmentation: [random_resized_crop: {area: [1, 0.08]}] #", ["1:44: augmentation[0].random_resized_crop.area: must be two numbers above 0 and at most 1, the smaller first; got [1, 0.08]"]),
    "layer_range_end": ("# A", "augmentation: [random_erasing: {area: [0, 0.4]}] #", ["1:39: augmentation[0].random_erasing.area: must be two numbers above 0 and at most 1, the smaller first; got [0, 0.4]"]),
    "layer_range_number": ("# A", "augmentation: [random_zoom: {scale: 0.8}] #", ["1:37: augmentation[0].random_zoom.scale: must be two numbers above 0, the smaller first; got 0.8"]),
    "layer_number": ("# A", "augmentation: [random_grayscale: {factor: [0.1, 0.3]}] #", ["1:43: augmentation[0].random_grayscale.factor: must be a number; got [0.1, 0.3]"]),
    "layer_factor_of_three": ("# A", "augmentation: [random_contrast: {factor: [0.1, 0.2, 0.3]}] #", ["1:42: augmentation[0].random_contrast.factor: must be a list of two numbers; got [0.1, 0.2, 0.3]"]),
    "layer_bits": ("# A", "augmentation: [random_posterization: {factor: 2.5}] #", ["1:47: augmentation[0].random_posterization.factor: must be a whole number or a list; got 2.5"]),
    "layer_required": ("# A", "augmentation: [random_brightness] #", ["1:16: augmentation[0]: random_brightness needs the argument 'factor' (a number or a list)"]),
    "layer_not_mapping": ("# A", "augmentation: [random_crop: 4] #", ["1:29: augmentation[0].random_crop: must be a mapping of the layer's arguments; got 4"]),
    "layer_two_keys": ("# A", "augmentation: [{random_crop: , random_flip: }] #", ["1:16: augmentation[0]: must be a layer's name, or one name with a mapping of its arguments; got a mapping (keys: random_crop, random_flip)"]),
    "augmentation_not_list": ("# A", "augmentation: {random_flip: } #", ["1:15: augmentation: must be a list; got a mapping (keys: random_flip)"]),
    "reference_source": ("# A", "reference: {epochs: 3} #", ["1:12: reference.source: required key is missing"]),
    "class_weight_factor": ("epochs: 10", 'epochs: 10\n  class_weight: {"1": -1}', ["11:17: training.class_weight: must be 'balanced', or a mapping of class names to numbers from 0 on; got a mapping (keys: 1)"]),
    "class_weight_bool": ("epochs: 10", 'epochs: 10\n  class_weight: {"1": true}', ["11:17: training.class_weight: must be 'balanced', or a mapping of class names to numbers from 0 on; got a mapping (keys: 1)"]),
    "class_weight_list": ("epochs: 10", "epochs: 10\n  class_weight: [1.0, 2.0]", ["11:17: training.class_weight: must be 'balanced', or a mapping of class names to numbers from 0 on; got [1.0, 2.0]"]),
    "views_below_alone": ("# A", "evaluation: {views_below: 0.5} #", ["1:27: evaluation.views_below: must be left out where test_time_views is none; got 0.5"]),
    "class_weight_word": ("epochs: 10", "epochs: 10\n  class_weight: balance", ["11:17: training.class_weight: must be 'balanced', or a mapping of class names to numbers from 0 on; got 'balance'"]),
    "duplicate": ("epochs: 10", "epochs: 10\n  epochs: 3", ["11:3: training.epochs: duplicate key; it was given first at line 10"]),
    "key_not_text": ("epochs: 10", "epochs: 10\n  3: 4", ["11:3: training: a key must be a word, or a number in quotes; got 3"]),
    "line_break_in_key": ("epochs: 10", 'epochs: 10\n  "no\\nerror": 4', ["11:3: training: a key must be a word, or a number in quotes; got no\\nerror"]),
    "custom_tag": ("# A", "seed: !dice 5 #", ["1:7: seed: tag !dice is not allowed"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_MISTAKE)
def test_one_mistake_gives_its_line(case, write, errors):
    old, new, expected = ONE_MISTAKE[case]
    text = VALID.replace(old, new, 1)
    assert text != VALID
    write(text)
    assert errors() == [f"{AT}:{line}" for line in expected]


def test_unknown_names_list_what_there_is_and_the_nearest(write, errors):
    others = "decoupled: false\n  others: {name: sgd, learning_rate: 0.1}"
    text = VALID.replace("baseline", "baselin").replace("sgd", f"sdg\n  {others}")
    write("augmentation: [random_corp, mix_up]\n" + text)
    first, second, third, fourth = errors()
    assert first.startswith(
        f"{AT}:1:16: augmentation[0]: unknown augmentation layer 'random_corp'; did you mean 'random_crop'?"
    )
    assert "random_flip" in first
    assert second.startswith(f"{AT}:1:29: augmentation[1]: augmentation layer 'mix_up' is refused: it mixes")
    assert third.startswith(
        f"{AT}:6:9: model.name: unknown model 'baselin'; did you mean 'baseline'? allowed: "
    )
    assert "resnet18" in third
    assert fourth.startswith(
        f"{AT}:8:9: optimizer.name: unknown optimizer 'sdg'; did you mean 'sgd'? allowed: "
    )


def test_milestones_fit_the_least_epochs_that_auto_can_be(write, errors):
    rate = "learning_rate: {schedule: cosine, peak: 1, warmup_epochs: 5}"
    write(VALID.replace("epochs: 10", "epochs: auto").replace("learning_rate: 0.1", rate))
    assert errors() == [
        f"{AT}:8:61: optimizer.learning_rate.warmup_epochs: must be below training.epochs, which may be 5 with "
        "auto; got 5"
    ]


def test_all_mistakes_are_reported_together_in_file_order(write, errors):
    write(
        "seed: -1\ndataset: {name: digits, tyop: 1}\nmodel: {name: baseline, bn_momentum: x}\n"
        "optimizer: {name: sgd, learning_rate: -1}\ntraining: {epochs: 2, epochs: 3, precision: 8}\n"
    )
    assert [line.split(": ")[1] for line in errors()] == [
        "seed",
        "dataset.tyop",
        "model.bn_momentum",
        "optimizer.learning_rate",
        "training.batch_size",
        "training.epochs",
        "training.precision",
    ]


def test_of_thousands_of_mistakes_fifty_are_named(write, errors):
    write(VALID + "".join(f"key{i}: {i}\n" for i in range(5_000)))
    lines = errors()
    assert lines[0].startswith(f"{AT}:12:1: key0: unknown key") and len(lines) == 51
    assert lines[-1] == f"{AT}: and 4950 more mistakes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", f"{AT}: empty"),
        ("# only a comment\n", f"{AT}: empty"),
        ("- a\n", f"{AT}:1:1: must be a mapping of keys; got ['a']"),
        ("a: [1\n", f"{AT}:2:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 2\n", f"{AT}:2:1: not valid YAML: but found another document"),
        ("a: *b\n", f"{AT}:1:4: *b: {NO_ALIASES}"),
        ("a: 1\nb: \x07\n", f"{AT}:2:4: not valid YAML: a control character"),
        ('a: "\\Uffffffff"\n', f"{AT}:1:7: not valid YAML: a number that is out of range"),
        (
            "a: " + "[" * 30 + "]" * 30,
            f"{AT}: nested deeper than 20 levels",
        ),
        ("a: " + "[" * 5000, f"{AT}: nested deeper than 20 levels"),
        ("a: &a [*a]\n", f"{AT}:1:4: &a: {NO_ALIASES}"),
        (VALID + BOMB, f"{AT}:12:5: &a0: {NO_ALIASES}"),
        ("<<: {a: 1}\n", f"{AT}:1:1: <<: {NO_ALIASES}"),
    ],
)
def test_a_file_without_usable_structure_gives_one_line(text, expected, write, errors):
    write(text)
    assert errors() == [expected]


def test_a_tag_that_would_run_code_is_refused(write, errors):
    write("seed: !!python/object/apply:os.mkdir [gone]\n" + VALID)
    assert errors() == [f"{AT}:1:7: seed: tag !!python/object/apply:os.mkdir is not allowed"]


def test_files_that_cannot_be_read(write, errors, tmp_path):
    path = write()
    path.write_bytes(b"# caf\xe9\n")
    assert errors() == [f"{AT}: not UTF-8 text (byte 5)"]
    path.write_text(VALID, encoding="utf-16")
    assert errors() == [f"{AT}: not UTF-8 text (byte 0)"]
    path.write_bytes(b"#" * 100_001)
    assert errors() == [f"{AT}: 100001 bytes; an experiment file has at most 100000"]
    assert errors(tmp_path / "no.yaml") == ["no.yaml: no such file"]
    assert errors(tmp_path / "experiments") == ["experiments: no such file"]
