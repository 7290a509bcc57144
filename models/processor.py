"""Which number formats the processor, and oneDNN within the limits set for it, has instructions for."""

import contextlib
import os

CPUINFO = "/proc/cpuinfo"
# Any one of them is enough; names as they stand in /proc/cpuinfo. Arm's bf16 and asimdhp are not: TensorFlow
# hands these formats over to oneDNN with AVX-512 alone.
_INSTRUCTIONS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}
# Parts of the names that ONEDNN_MAX_CPU_ISA gives to what includes them, besides no limit at all.
_UNLIMITED = {"DEFAULT", "ALL"}
_WITHIN_LIMIT = {"bfloat16": ("BF16", "FP16", "AMX", "AVX10"), "float16": ("FP16", "AVX10")}
# TensorFlow hands a format over to oneDNN wherever it sees this flag, and fails if the limit forbids that.
_HANDED_OVER = {"bfloat16": ("avx512f", ("AVX512", "AVX10")), "float16": ("avx512_fp16", ("FP16", "AVX10"))}


def cpuinfo(*keys: str) -> str:
    """Return the first value of any of `keys` in /proc/cpuinfo, empty where there is none."""
    with contextlib.suppress(OSError), open(CPUINFO, encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in keys:
                return value.strip()
    return ""


def cpu_flags() -> set[str]:
    """Return the names of the instruction sets, as Linux calls them on x86 and on Arm."""
    return set(cpuinfo("flags", "Features").split())


def onednn_settings() -> dict[str, str]:
    """Return the environment's settings of TensorFlow's oneDNN kernels, on which results depend."""
    off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    names = ("TF_SET_ONEDNN_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
    rounding = next(filter(None, map(os.environ.get, names)), "STRICT")  # of float32, before it is multiplied
    return {
        "TF_ENABLE_ONEDNN_OPTS": "0" if off else "1",
        "ONEDNN_MAX_CPU_ISA": limit.upper(),
        "TF_SET_ONEDNN_FPMATH_MODE": rounding.upper(),
    }


def computes_in(precision: str) -> bool:
    """Return whether this processor has instructions for a number format and TensorFlow's kernels use them.

    Args:
        precision: "float32", "bfloat16" or "float16".
    """
    if precision == "float32":
        return True
    enabled, limit, _ = onednn_settings().values()
    allowed = _includes(limit, _WITHIN_LIMIT[precision])
    return enabled == "1" and allowed and bool(_INSTRUCTIONS[precision] & cpu_flags())


def is_barred(precision: str) -> bool:
    """Return whether TensorFlow fails in a number format because of the limit that is set for oneDNN."""
    if precision == "float32":
        return False
    enabled, limit, _ = onednn_settings().values()
    flag, within = _HANDED_OVER[precision]
    return enabled == "1" and flag in cpu_flags() and not _includes(limit, within)


def _includes(limit: str, names: tuple[str, ...]) -> bool:
    return limit in _UNLIMITED or any(name in limit for name in names)
