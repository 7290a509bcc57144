"""The page of a run: complete, self-contained, and honest where something is missing."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from app import cli
from app.reading import read_json
from app.reports import html as page
from app.reports.report import write_report
from app.runs import Run


class Page(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_training_leaves_a_page_that_loads_nothing_from_outside(digits_run):
    text = digits_run.report.read_text()
    found = Page(text)
    assert digits_run.report.stat().st_size < 3e6
    assert all(address.startswith("data:") for address in found.addresses)
    assert not re.search(r"@import|url\(|<script", text)
    pictures = [address for address in found.addresses if address.startswith("data:image/png;base64,")]
    assert len(pictures) >= 6  # curves and five of the evaluation
    for address in pictures:
        Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).load()
    words = " ".join(found.text)
    metrics = read_json(digits_run.metrics)
    assert f"{100 * metrics['headline']['val_accuracy']:.2f} %" in words
    assert f"make train FROM={digits_run.name}" in words
    calibrated = metrics["calibration"]["best"]
    assert f"temperature {calibrated['temperature']:.3f}, fitted on the validation images" in words
    assert f"below a probability of {calibrated['unsure_below']:.3f} are called unsure" in words
    assert f"{100 * calibrated['sure_fraction']:.2f} % of these images are sure" in words
    assert f"({100 * calibrated['expected_calibration_error_before']:.2f} % before temperature" in words
    assert "batch_size" in words and f"{metrics['parameters']['macs'] / 1e6:,.1f} M" in words


def test_make_report_writes_it_again_from_the_folder(digits_run, own_run, capsys):
    shutil.rmtree(own_run.evaluations)
    own_run.report.unlink()
    assert cli.main(["report", "--run", str(own_run.path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert own_run.report.read_text().count("<img") == digits_run.report.read_text().count("<img")


def test_a_run_without_a_temperature_has_a_page_without_one(digits_run, own_run):
    shutil.rmtree(own_run.evaluations)
    metrics = read_json(own_run.metrics)
    del metrics["calibration"]
    own_run.metrics.write_text(json.dumps(metrics))
    text = write_report(own_run).read_text()
    assert text.count("<img") == digits_run.report.read_text().count("<img")
    assert "expected calibration error" in text and "unsure" not in text and "temperature" not in text


def test_a_run_that_mixed_images_says_what_it_measured(digits_run, own_run, monkeypatch):
    labels, plot = set(), Axes.plot

    def labelled(axes, *values, **more):
        labels.add(more.get("label"))
        return plot(axes, *values, **more)

    monkeypatch.setattr(Axes, "plot", labelled)
    text = own_run.experiment.read_text()
    assert text.count("augmentation: []") == 1
    own_run.experiment.write_text(text.replace("augmentation: []", "augmentation: [mixup]"))
    assert "those of mixed images" in write_report(own_run).read_text()
    assert {"Training Loss (mixed)", "Validation Loss"} <= labels
    assert "mixed images" not in digits_run.report.read_text()


@pytest.mark.parametrize("note", ["on the test split", "On the test split."])
def test_what_the_source_reports_is_said_in_sentences(own_run, note):
    text = own_run.experiment.read_text()
    reference = f'{{source: "a paper", last_val_accuracy: 0.9, data: "other pixels", note: "{note}"}}'
    assert text.count("reference: null") == 1
    own_run.experiment.write_text(text.replace("reference: null", f"reference: {reference}"))
    said = write_report(own_run).read_text()
    assert "Source: a paper; it reports 90.00 % on other pixels. On the test split.<" in said


def test_changed_images_are_said_and_cost_only_their_pictures(own_run):
    shutil.rmtree(own_run.evaluations)
    facts = json.loads(own_run.dataset.read_text())
    own_run.dataset.write_text(json.dumps(facts | {"fingerprint": "0" * 64}))
    text = write_report(own_run).read_text()
    assert "the images have changed" in text and text.count("<img") == 1


def test_damaged_predictions_and_a_missing_summary_cost_only_their_parts(own_run):
    shutil.rmtree(own_run.evaluations)
    own_run.predictions.write_bytes(b"junk")
    own_run.summary.unlink()
    text = write_report(own_run).read_text()
    assert "predictions.npz is damaged" in text and text.count("<img") == 1
    assert "experiment.yaml, defaults included" in text and "summary.txt" not in text


def test_predictions_of_other_images_are_said(digits_run, own_run):
    shutil.rmtree(own_run.evaluations)
    with np.load(digits_run.predictions) as stored:
        np.savez(own_run.predictions, **{name: stored[name][:-1] for name in stored})
    text = write_report(own_run).read_text()
    assert "predictions.npz is of other images" in text and text.count("<img") == 1


def test_evaluations_of_before_the_run_was_trained_further_are_left_out(own_run):
    folder = own_run.evaluations / "validation-last"
    shutil.copytree(own_run.evaluations / "validation-best", folder, dirs_exist_ok=True)
    found = read_json(folder / "evaluation.json")
    for epoch in (1, 2):  # of two
        (folder / "evaluation.json").write_text(json.dumps(found | {"checkpoint": "last", "epoch": epoch}))
        assert (f"last epoch ({epoch})" in write_report(own_run).read_text()) == (epoch == 2)
    (folder / "evaluation.json").write_text(json.dumps(found | {"checkpoint": "last", "fingerprint": "0"}))
    assert "last epoch (2)" not in write_report(own_run).read_text()


def test_the_page_of_a_copy_names_the_experiment_that_was_trained(digits_run, tmp_path):
    copy = Run(tmp_path / "the best" / digits_run.path.name)
    shutil.copytree(digits_run.path, copy.path)
    copy.environment.write_text(json.dumps(read_json(copy.environment) | {"overrides": ["seed=2"]}))
    assert f"make train EXP={digits_run.path.parent.name} SET=" in write_report(copy).read_text()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_damaged_pictures_are_said(tmp_path, content):
    (tmp_path / "classes.png").write_bytes(content)
    assert "classes.png cannot be shown" in page.picture(tmp_path / "classes.png", "classes")


def test_an_unfinished_run_has_no_page(own_run, capsys):
    own_run.metrics.unlink()
    own_run.report.unlink()
    assert cli.main(["report", "--run", str(own_run.path)]) == 2
    assert "not finished" in capsys.readouterr().err and not own_run.report.exists()


def test_text_of_users_is_never_markup(tmp_path):
    nasty = '<script>alert("x")</script>&'
    rows = [(nasty, "1")]
    page.write_page(
        tmp_path / "page.html",
        nasty,
        [
            page.heading(nasty),
            page.paragraph(nasty),
            page.code(nasty),
            page.tiles(rows),
            page.table(("a", "b"), rows),
        ],
    )
    text = (tmp_path / "page.html").read_text()
    assert (
        "<script" not in text and "".join(Page(text).text).count(nasty) == 7
    )  # title, four headings and texts, tile, cell


def test_large_pictures_are_kept_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype("uint8")
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > page.LARGE_BYTES
    part = page.picture(tmp_path / "noise.png", "noise")
    assert len(part) < 0.6 * (tmp_path / "noise.png").stat().st_size
    assert 'width="400" height="400"' in part


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.slow
def test_in_a_browser(digits_run, tmp_path, width, scheme):
    """Open the page in a real browser: no console errors, every picture loads, nothing sticks out."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    import subprocess

    probe = digits_run.report.read_text().replace(
        "</body>",
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "wide: document.documentElement.scrollWidth - innerWidth,"
        "broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,"
        "images: document.images.length,"
        "paper: getComputedStyle(document.body).backgroundColor}); })</script></body>",
    )
    (tmp_path / "probe.html").write_text(probe)
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000",
        *(["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []),
        "--dump-dom", (tmp_path / "probe.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(re.search(r"<title>(\{.*?\})</title>", done.stdout)[1].replace("&quot;", '"'))
    assert "CONSOLE" not in done.stderr
    assert found["broken"] == 0 and found["images"] >= 6
    assert found["wide"] <= 0
    assert found["paper"] == ("rgb(22, 22, 22)" if scheme == "dark" else "rgb(255, 255, 255)")


@pytest.mark.parametrize(
    "difference", [{}, {"differs": ["threads: ..."]}, {"forced": ["keras: ..."]}, {"replicas": 2}]
)
def test_a_resume_elsewhere_takes_the_promise_of_equal_bits_back(own_run, difference):
    resumes = [{"epoch": 2, "step": 1, "workers": 1, "replicas": 1} | difference]
    changes = {"deterministic": True, "resumes": resumes}
    own_run.environment.write_text(json.dumps(read_json(own_run.environment) | changes))
    said = write_report(own_run).read_text()
    assert ("not promised" in said) == bool(difference)
