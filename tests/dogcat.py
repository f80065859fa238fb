"""Runs of LeNet on small coloured pictures, which tests of the classifier share."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import main
from config import DogCatConfig
from options import parse
from tasks import dogcat, make_task
from tests.training import arguments, log_of

HUES = {"cat": (200, 70, 60), "dog": (60, 80, 200), "bird": (70, 190, 60)}
TWO = {name: HUES[name] for name in ("cat", "dog")}
BODY = "conv*,fc1.*,fc2.*"  # all of LeNet but its last layer


def write_picture(path: Path, hue: tuple[int, ...], seed: int, spread: int = 60) -> None:
    """30 x 24 pixels of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-spread, spread + 1, (6, 8, 3)) + np.array(hue)
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    image.resize((30, 24), Image.Resampling.BICUBIC).save(path)


def write_set(root: Path, classes: dict[str, tuple[int, ...]], train: int, val: int, spread: int = 60) -> Path:
    """Pictures of each class, named as Kaggle does, in the folders train and val."""
    for number, (name, hue) in enumerate(classes.items()):
        for i in range(train + val):
            folder = "train" if i < train else "val"
            write_picture(root / folder / f"{name}.{i}.png", hue, 1000 * number + i, spread)
    return root


def write_hard_set(root: Path) -> Path:
    """Two classes that nobody can tell apart in all cases."""
    near = {"cat": (120, 100, 110), "dog": (110, 100, 120)}
    return write_set(root, near, 12, 20, spread=110)


def options(folder: Path, data: Path, **more) -> dict:
    """Options of `train` for a run of 5 tiny steps an epoch."""
    small = {"backbone": "lenet", "image_size": 32, "batch_size": 8, "max_epoch": 2, "warmup": 2, "lr": 0.002, "ema": 0}
    place = {"data_root": data, "save_path": folder, "debug_file": folder / "debug"}
    other = {"use_visdom": False, "use_gpu": False, "precision": "fp32", "save_every": 0}
    return {"task": "dogcat", **small, **place, **other, **more}


def task_of(data: Path, **more) -> dogcat.DogCatTask:
    torch.manual_seed(0)
    return make_task(parse(DogCatConfig, options(Path("nowhere"), data, **more)))


def cli(capfd, command: str, code: int = 0, **given) -> tuple[str, str]:
    """What `main.py COMMAND` prints on stdout and stderr, in this process."""
    capfd.readouterr()
    assert main.main(arguments(command, **given)) == code, capfd.readouterr().err
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return out, err


def epochs_of(run_folder: Path, split: str) -> list[dict]:
    return [r for r in log_of(run_folder) if r["kind"] == "epoch" and r["split"] == split]
