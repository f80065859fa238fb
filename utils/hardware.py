"""What the machine can do: the CPU's features, the precision that is fastest on it, its cores, memory used again."""

import ctypes
import os
import re
import sys
import timeit
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from utils.errors import UserError
from utils.text import times_as_fast

OUT_OF_MEMORY = "out of memory|(can't|cannot) allocate memory|not enough memory"  # what torch says on each device
WORKERS_A_CORE = 4


def cpu_features() -> list[str]:
    """The features of the CPU that decide about precision, e.g. ["avx2", "avx512f", "amx_bf16"] (Linux; else empty)."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return [w for w in wanted if w in flags]


@cache
def bf16_speedup() -> float:
    """How many times faster a (512 x 512) product is in bf16 than in fp32 on this CPU; measured in milliseconds."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype)
        a @ a  # the first product also sets up the library
        seconds[dtype] = min(timeit.repeat(lambda a=a: a @ a, number=1, repeat=3))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def nnpack_is_faster() -> bool:
    """Whether NNPACK convolves large maps in float32 faster than oneDNN: where there is AVX2 and no AVX-512."""
    # Asked whether it is there, it also sets itself up.
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.nnpack.is_available()


def pick_device(use_gpu: bool) -> str:
    """The device to compute on: "cuda" if a GPU is wanted and there is one, else "cpu"."""
    return "cuda" if use_gpu and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, gpu: bool, attempt: Callable[[str], object] | None = None) -> tuple[str, str]:
    """(precision, why). `wanted` is "auto", which becomes "fp32" or "bf16", or the precision itself.

    `attempt(precision)` computes something tiny with the network: what torch cannot do here, auto never picks (an LSTM
    in bf16 without AVX-512). Raises UserError if it was asked for.
    """
    precision, why = _fastest(gpu) if wanted == "auto" else (wanted, "asked for")
    if precision == "fp32" or attempt is None:
        return precision, why
    try:
        attempt(precision)
    except RuntimeError as error:
        if re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
            raise
        lacking = f"this {'GPU' if gpu else 'CPU'} cannot compute the network in {precision}"
        if wanted != "auto":
            raise UserError(f"{lacking}; use precision=fp32", precision=wanted) from error
        return "fp32", lacking
    return precision, why


def _fastest(gpu: bool) -> tuple[str, str]:
    if gpu:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU has bf16 units") if fast else ("fp32", "this GPU has no bf16 units")
    speedup = bf16_speedup()
    reason = f"a matrix product in bf16 is {times_as_fast(speedup)} in fp32 here"
    return ("bf16" if speedup > 1.5 else "fp32"), reason


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raises UserError for more processes that read data than make sense here."""
    most = WORKERS_A_CORE * cores()
    if workers > most:
        raise UserError(f"this machine has {cores()} cores, for {most} such processes at most", num_workers=workers)


def free_memory() -> float:
    """Bytes of memory that can be had without taking them from others; infinity where the system does not say."""
    info, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not info.exists():
        return float("inf")
    free = 1024 * int(info.read_text().split("MemAvailable:")[1].split()[0])
    if limit.exists() and (most := limit.read_text().strip()).isdecimal():  # a container's own; else "max"
        free = min(free, int(most) - int(limit.with_name("memory.current").read_text()))
    return free


def check_memory(needed: float, what: str, advice: str, **argument: object) -> None:
    """Raises UserError, about `argument`, if so many bytes cannot be had."""
    if needed > (free := free_memory()):
        sizes = f"some {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free"
        raise UserError(f"{what} needs {sizes}: {advice}", **argument)


def tune_malloc(keep_all: bool = False) -> None:
    """Lets the C library reuse freed blocks of up to 128 MiB, as long as no more than 512 MiB are free; or all of them.

    By default glibc returns large blocks to the system, up to a third of the time of a painting, a tenth of that of a
    training step (docs/decisions.md). Does nothing where there is no glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    block, free = (2**31 - 1, 2**31 - 1) if keep_all else (128 << 20, 512 << 20)
    # Older ones know no more than 32 MiB; the second limit without the first would make everything slower.
    if hasattr(libc, "mallopt") and any(libc.mallopt(-3, size) for size in (block, 32 << 20)):  # M_MMAP_THRESHOLD
        libc.mallopt(-1, free)  # M_TRIM_THRESHOLD


def rank_and_world() -> tuple[int, int]:
    """(number of this process, number of all), which torchrun sets, else (0, 1); "cuda" is GPU LOCAL_RANK from now on.

    Raises UserError if the two make no sense.
    """
    given = [os.environ.get(name, alone) for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))]
    if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
        raise UserError(f"RANK={given[0]} of WORLD_SIZE={given[1]}: start by torchrun, or unset these variables")
    rank, world, local = map(int, given)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(local % torch.cuda.device_count())
    return rank, world
