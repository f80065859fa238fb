"""What the machine can do: the CPU's features, the precision that is fastest on it, memory that is used again."""

import ctypes
import sys
import time
from functools import cache
from pathlib import Path

import torch

from utils.text import times_as_fast

MOST = 2**31 - 1  # bytes: the most that the C library can be told


def cpu_features() -> list[str]:
    """The features of the CPU that decide about precision, e.g. ["avx2", "avx512f", "amx_bf16"] (Linux; else empty)."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [w for w in wanted if w in flags]


@cache
def bf16_speedup(size: int = 512) -> float:
    """How many times faster a (size x size) product is in bf16 than in fp32 on this CPU, in a few milliseconds.

    Measured, not looked up: with AMX or AVX512-BF16 units it is 3 to 7, without them often under 0.5.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(size, size, dtype=dtype)
        a @ a  # the first product also sets up the library
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
        seconds[dtype] = best
    return seconds[torch.float32] / seconds[torch.bfloat16]


def pick_device(use_gpu: bool) -> str:
    """The device to compute on: "cuda" if a GPU is wanted and there is one, else "cpu"."""
    return "cuda" if use_gpu and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, gpu: bool) -> tuple[str, str]:
    """(precision, why). `wanted` is "auto", which becomes "fp32" or "bf16", or the precision itself."""
    if wanted != "auto":
        return wanted, "asked for"
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU has bf16 units") if fast else ("fp32", "this GPU has no bf16 units")
    speedup = bf16_speedup()
    reason = f"a matrix product in bf16 is {times_as_fast(speedup)} in fp32 here"
    return ("bf16" if speedup > 1.5 else "fp32"), reason


def keep_freed_memory(block: int = 128 << 20, free: int = 512 << 20) -> None:
    """Lets the C library use freed blocks again: those of up to `block` bytes, as long as no more than `free` wait.

    By default glibc gives what is large back to the system, which has to find and clear every page of the next one:
    up to a third of the time of a painting, a tenth of that of a training step (docs/decisions.md). A training
    needs the same memory again in the next step and may keep the most. Does nothing where there is no glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    # Older ones know no more than 32 MiB; the second limit without the first would make everything slower.
    if hasattr(libc, "mallopt") and any(libc.mallopt(-3, size) for size in (block, 32 << 20)):  # M_MMAP_THRESHOLD
        libc.mallopt(-1, free)  # M_TRIM_THRESHOLD
