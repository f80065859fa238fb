"""What a report of a bug needs: versions, processor, GPUs, and the precision that `auto` picks here."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from utils.hardware import choose_precision, cpu_features

PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy", "fire", "visdom", "torchnet", "gradio", "tensorboard")


def info() -> dict[str, str]:
    """{what: how it is here}, every value a short text."""
    gpu = torch.cuda.is_available()
    precision, why = choose_precision("auto", gpu)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    gpus = [f"{g.name}, {g.total_memory / 1e9:.0f} GB, compute capability {g.major}.{g.minor}" for g in gpus]
    facts = {"shihua": git_revision() or "no git checkout", "Python": platform.python_version()}
    facts |= {name: importlib.metadata.version(name) for name in PACKAGES} | {"torch": torch.__version__}
    facts |= {
        "CUDA of torch": torch.version.cuda or "none",
        "cuDNN": str(torch.backends.cudnn.version() or "none"),
        "system": platform.platform(),
        "CPU": f"{cpu}, {os.cpu_count()} cores, {' '.join(cpu_features()) or 'features unknown'}",
        "threads of torch": str(torch.get_num_threads()),
        "memory": _memory(),
        "GPUs": "; ".join(f"{number}: {gpu}" for number, gpu in enumerate(gpus)) or "none",
        "precision": f"auto is {precision}: {why}",
    }
    return facts


def git_revision() -> str:
    """The project's git revision, or "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        return ""


def _memory() -> str:
    pages = {"total": "SC_PHYS_PAGES", "free": "SC_AVPHYS_PAGES"}
    if not all(name in getattr(os, "sysconf_names", ()) for name in pages.values()):
        return "unknown"
    sizes = {k: os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") / 1e9 for k, name in pages.items()}
    return ", ".join(f"{size:.1f} GB {k}" for k, size in sizes.items())
