"""What a run settles before it starts: number format by the device's instructions, kernels of TensorFlow."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from app.config import load_experiment
from app.doctor import doctor
from app.errors import UserError
from app.machine import check_processor
from app.runs import load_run_experiment
from app.training import startup
from app.training import train as runner
from models import processor
from tests.distributed.conftest import messages, no_exit  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
# Lines of /proc/cpuinfo.
ZEN_1 = "model name\t: AMD EPYC 7571\nflags\t\t: fpu sse2 avx avx2 fma bmi1 bmi2"
CASCADE_LAKE = "model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx2 fma avx512f avx512_vnni"
ZEN_4 = "model name\t: AMD EPYC 9R14\nflags\t\t: fpu avx2 fma avx512f avx512_vnni avx512_bf16"
SAPPHIRE_RAPIDS = "flags\t\t: avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile"
NEOVERSE_N1 = "BogoMIPS\t: 243.75\nFeatures\t: fp asimd fphp asimdhp asimddp"
NEOVERSE_V1 = "Features\t: fp asimd asimdhp sve bf16 i8mm"
CPU_ONLY = ["dataset={name: digits}", "training.devices=cpu"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Puts another processor's /proc/cpuinfo, and settings of oneDNN, in the place of those here."""

    def put(cpuinfo, **variables):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\n{cpuinfo}\nprocessor\t: 1\n{cpuinfo}\n")
        monkeypatch.setattr(processor, "CPUINFO", str(file))
        for name in ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def resolved(precision="auto"):
    asked = load_experiment("quickstart", [*CPU_ONLY, f"training.precision={precision}"])
    return asked, startup.resolve_precision(asked)


@pytest.mark.parametrize(
    ("cpuinfo", "variables", "expected"),
    [
        (ZEN_1, {}, "float32"),
        (CASCADE_LAKE, {}, "float32"),
        (NEOVERSE_N1, {}, "float32"),
        ("", {}, "float32"),
        (ZEN_4, {}, "bfloat16"),
        (SAPPHIRE_RAPIDS, {}, "bfloat16"),
        (NEOVERSE_V1, {}, "float32"),  # TensorFlow would emulate it
        (SAPPHIRE_RAPIDS, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "bfloat16"),
        (SAPPHIRE_RAPIDS, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bfloat16"),
        (SAPPHIRE_RAPIDS, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, "float32"),
        (SAPPHIRE_RAPIDS, {"DNNL_MAX_CPU_ISA": "avx2"}, "float32"),
        (SAPPHIRE_RAPIDS, {"TF_ENABLE_ONEDNN_OPTS": "0"}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_there_are_instructions_for_it(machine, cpuinfo, variables, expected):
    machine(cpuinfo, **variables)
    asked, used = resolved()
    assert used.training.precision == expected
    assert list(startup.remarks(asked, used, 100)) == [f"training.precision: auto is {expected} here"]
    assert startup.precision_advice("auto", "cpu") is None


def test_a_processor_without_avx_is_named_where_the_libraries_would_abort(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu sse4_2\n")
    with pytest.raises(UserError, match="need a processor with AVX"):
        check_processor(file)
    for content in (ZEN_1, NEOVERSE_N1, ""):
        file.write_text(content)
        check_processor(file)
    check_processor(tmp_path / "none")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((8, 0), "bfloat16"), ((9, 0), "bfloat16"), ((7, 5), "float32"), (None, "float32")],
)
def test_auto_on_a_gpu_goes_by_its_compute_capability(machine, monkeypatch, capability, expected):
    machine(SAPPHIRE_RAPIDS)
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["the card"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda card: details)
    asked = load_experiment("quickstart", ["training.precision=auto"])
    assert startup.resolve_precision(asked).training.precision == expected
    assert startup.precision_advice("float16") is None
    assert (startup.precision_advice("bfloat16") is None) == (expected == "bfloat16")


def test_what_is_emulated_is_said_and_what_would_be_faster(machine):
    machine(ZEN_1)
    for precision in ("bfloat16", "float16"):
        asked, used = resolved(precision)
        assert used is asked
        (remark,) = startup.remarks(asked, used, 100)
        assert f"{precision} is emulated here" in remark and "8.8 times" in remark
        finding = doctor._check_precision(asked, used)
        assert finding.level == "warn" and remark in str(finding)
    assert startup.precision_advice("float32", "cpu") is None

    machine(ZEN_4)
    asked, used = resolved("float32")
    assert not list(startup.remarks(asked, used, 100))  # float32 may be wanted: no line in every training
    finding = doctor._check_precision(asked, used)
    assert finding.level == "ok" and "auto would be faster: bfloat16" in finding.advice
    assert startup.precision_advice("bfloat16", "cpu") is None
    assert "float16 is emulated" in startup.precision_advice("float16", "cpu")


def test_format_that_tensorflow_would_fail_in_is_refused(machine):
    machine(ZEN_4, ONEDNN_MAX_CPU_ISA="AVX2")
    with pytest.raises(UserError, match="received 'bfloat16'.* ONEDNN_MAX_CPU_ISA=AVX2; unset"):
        startup.configure(seed=0, precision="bfloat16", devices="cpu")
    for cpuinfo, limit in ((ZEN_4, "AVX512_CORE"), (ZEN_1, "AVX2")):
        machine(cpuinfo, ONEDNN_MAX_CPU_ISA=limit)
        assert not processor.is_barred("bfloat16")


def test_workers_take_bfloat16_only_if_all_have_it(machine):
    machine(ZEN_4)
    asked, used = load_experiment("quickstart", [*CPU_ONLY, "training.precision=auto"]), []
    for other in (True, False):
        said = messages(
            lambda group: used.append(startup.resolve_precision(asked, group).training.precision),
            lambda group, other=other: group.all_gather("bfloat16", other),
        )
        assert said == [None, None]
    assert used == ["bfloat16", "float32"]


def test_run_keeps_the_format_that_was_chosen(home, machine):
    machine(ZEN_1)
    changes, out = ["training.precision=auto", "training.epochs=1"], io.StringIO()
    run = runner.train(load_experiment("tiny", changes), out, overrides=changes)
    assert "training.precision: auto is float32 here" in out.getvalue()
    assert load_run_experiment(run).training.precision == "float32"
    run.metrics.unlink()
    machine(ZEN_4)
    again = io.StringIO()
    runner.resume(run, again)
    assert load_run_experiment(run).training.precision == "float32"
    assert "precision" not in again.getvalue()


@pytest.mark.parametrize("package", ["app", "models"])
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_before_tensorflow_comes_unless_the_user_says_otherwise(package, given, expected):
    program = (
        "import contextlib, os, sys\nsys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        f"with contextlib.suppress(ImportError):\n    import {package}\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": given} if given else {}
    told = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)
    assert told.strip() == expected
