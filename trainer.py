"""The one training loop. It knows no task; a task gives it batches and a loss (tasks/base.py).

Lightning Fabric puts model and data on the devices and averages the gradients; what happens in a step stands here.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader
from torchnet.meter import AverageValueMeter
from tqdm import tqdm

from config import DefaultConfig
from tasks import make_task
from tasks.base import Task
from utils.debug import dump, first_bad_tensor, gradient_range
from utils.errors import UserError
from utils.files import atomic_save, atomic_write
from utils.hardware import choose_precision
from utils.recorder import Recorder
from utils.seed import rng_state, seed_everything, set_rng_state

STATE_VERSION = 1


@dataclass
class Progress:
    """Where a run stands. All of it is saved; a resumed run starts from it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # optimizer steps so far
    best: float = math.inf  # of the monitored figure
    best_epoch: int = -1
    lr_factor: float = 1.0  # what the plateau schedule has come to
    seconds: float = 0.0  # trained so far
    meters: dict[str, dict[str, float]] = field(default_factory=dict)  # running figures of this epoch


def learning_rate(cfg: DefaultConfig, progress: Progress, total_steps: int) -> float:
    """The learning rate of the next step: a function of the step and of what the plateau schedule has come to."""
    warm = min(1.0, (progress.step + 1) / max(1, cfg.warmup))
    if cfg.lr_schedule == "cosine":
        share = min(1.0, progress.step / max(1, total_steps))
        return cfg.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
    return cfg.lr * warm * progress.lr_factor


def make_fabric(cfg: DefaultConfig) -> tuple[Fabric, str]:
    """The devices and the precision to compute in, and a sentence about both."""
    gpu = cfg.use_gpu and torch.cuda.is_available()
    precision, why = choose_precision(cfg.precision, gpu)
    several = cfg.devices * cfg.num_nodes > 1
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=cfg.devices,
        num_nodes=cfg.num_nodes,
        strategy="ddp" if several else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    name = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    return fabric, f"{cfg.devices * cfg.num_nodes} x {name}; precision {precision} ({why})"


def train(cfg: DefaultConfig) -> dict[str, float]:
    """Trains the task of `cfg`, or goes on with the run that cfg.resume names. Returns the best validation figures.

    Leaves in the run's folder: log.jsonl, last.pt (all that is needed to go on), best.safetensors (the model alone).
    """
    fabric, machine = make_fabric(cfg)
    if cfg.devices * cfg.num_nodes > 1:
        fabric.launch()
    say = (lambda *words: print(*words, file=sys.stderr, flush=True)) if fabric.is_global_zero else lambda *_: None
    folder = Path(fabric.broadcast(str(run_folder(cfg))))
    state = read_state(folder / "last.pt") if cfg.resume else None
    seed_everything(cfg.seed + fabric.global_rank)
    say(f"{cfg.task}, config:\n{cfg}\n{machine}")
    task = make_task(cfg)
    say(f"{task}\nrun: {folder}")
    with lock(folder, fabric.is_global_zero):
        return Run(task, cfg, fabric, folder, state, say).train()


class Run:
    """One training run: the state that changes, and the loop over it."""

    def __init__(self, task: Task, cfg: DefaultConfig, fabric: Fabric, folder: Path, state: dict | None, say):
        self.task, self.cfg, self.fabric, self.folder, self.say = task, cfg, fabric, folder, say
        self.progress = Progress(**state["progress"]) if state else Progress()
        optimizer = torch.optim.AdamW(
            task.model.parameters(), lr=cfg.lr, betas=(0.9, 0.99), weight_decay=cfg.weight_decay, fused=True
        )
        if state:
            task.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        self.model, self.optimizer = fabric.setup(task.model, optimizer)
        if state and fabric.is_global_zero:
            set_rng_state(state["rng"])
        elif state:
            seed_everything(cfg.seed + fabric.global_rank + 1000 * self.progress.step)
        self.meters = {name: _meter(values) for name, values in self.progress.meters.items()}
        self.recorder = self._make_recorder(resumed=state is not None)
        self.signal = 0
        self.saved_at = time.monotonic()

    # ------------------------------------------------------------------------------------------------ the loop

    def train(self) -> dict[str, float]:
        progress, cfg = self.progress, self.cfg
        best: dict[str, float] = {}
        with self._signals():
            if progress.step == 0:
                self.save()
            while progress.epoch < cfg.max_epoch:
                self.train_epoch()
                figures = self.validate()
                if self.improved(figures[self.task.monitor]):
                    best = figures
                self.finish_epoch(figures)
        self.recorder.final(progress.step, progress.epoch, {**best, "best_epoch": progress.best_epoch})
        self.recorder.close()
        self.say(
            f"best {self.task.monitor} {progress.best:.4f} in epoch {progress.best_epoch + 1}: "
            f"{self.folder / 'best.safetensors'}"
        )
        return best

    def train_epoch(self) -> None:
        """Trains from progress.batch to the end of the epoch."""
        progress, cfg, task = self.progress, self.cfg, self.task
        batches = task.train_batches(progress.epoch)
        total_steps = cfg.max_epoch * math.ceil(len(batches) / cfg.accumulate)
        bar = tqdm(
            initial=progress.batch, total=len(batches), desc=f"epoch {progress.epoch + 1}/{cfg.max_epoch}",
            unit="batch", leave=False, disable=not self.fabric.is_global_zero,
        )  # fmt: skip
        self.model.train()
        loader = self._loader(task.train_set, batches, progress.batch)
        mark = time.perf_counter()
        for batch, weight in loader:
            data_time = time.perf_counter() - mark
            debugging = self._debug_mode()
            lr = learning_rate(cfg, progress, total_steps)
            last_of_step = (progress.batch + 1) % cfg.accumulate == 0 or progress.batch + 1 == len(batches)
            with self.fabric.no_backward_sync(self.model, enabled=not last_of_step), self.fabric.autocast():
                output = task.step(self.model, batch)
                self._check(output["objective"], batch)
                self.fabric.backward(output["objective"] * (weight / cfg.accumulate))
            progress.batch += 1
            figures = self._figures(output)
            if last_of_step:
                figures["grad_norm"] = self._update(lr, batch)
                progress.step += 1
            if debugging:
                self._debug(batch, output)
            spent = time.perf_counter() - mark
            progress.seconds += spent
            self.recorder.batch(
                progress.step, progress.epoch, **figures, lr=lr, data_time=data_time, model_time=spent - data_time
            )
            bar.update()
            bar.set_postfix_str(" ".join(f"{k} {m.value()[0]:.3f}" for k, m in self.meters.items()))
            if last_of_step:
                self._save_if_due(bar)
            mark = time.perf_counter()
        bar.close()

    def _update(self, lr: float, batch: dict[str, Any]) -> float:
        """Clips the gradient and takes one step; returns the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        limit = self.cfg.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.task.model.parameters(), limit).item()
        if not math.isfinite(norm):
            self._stop_at_nan(batch)
        if self.progress.step % 100 == 0:
            self.recorder.gradients(self.progress.step, self.progress.epoch, gradient_range(self.task.model))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The figures on the validation set."""
        self.model.eval()
        dataset, batches = self.task.val_batches()
        with self.fabric.autocast():
            figures = evaluate(self.model, self.task, self._loader(dataset, batches), len(batches), self.fabric)
        self.model.train()
        return figures

    def improved(self, figure: float) -> bool:
        """Compares with the best so far, saves the model if it is better, else lets the plateau schedule decay."""
        progress = self.progress
        if not figure < progress.best:
            if self.cfg.lr_schedule == "plateau":
                progress.lr_factor *= self.cfg.lr_decay
            return False
        progress.best, progress.best_epoch = figure, progress.epoch
        if self.fabric.is_global_zero:
            self.task.model.save(
                self.folder / "best.safetensors", **self.task.model_metadata(), config=self.cfg.as_dict(),
                revision=git_revision(), epoch=progress.epoch + 1, step=progress.step, seconds=round(progress.seconds),
                **{self.task.monitor: figure},
            )  # fmt: skip
        return True

    def finish_epoch(self, figures: dict[str, float]) -> None:
        """Records the epoch, shows examples, moves on to the next and saves."""
        progress = self.progress
        trained = self.task.summarise({name: meter.value()[0] for name, meter in self.meters.items()})
        self.recorder.epoch(progress.step, progress.epoch, "train", **trained)
        self.recorder.epoch(progress.step, progress.epoch, "val", **figures, lr_factor=progress.lr_factor)
        told = " ".join(f"{k} {v:.3f}" for k, v in trained.items())
        told += " | val " + " ".join(f"{k} {v:.3f}" for k, v in figures.items())
        self.say(f"epoch {progress.epoch + 1}/{self.cfg.max_epoch}  {told}  ({progress.seconds:.0f} s)")
        if self.fabric.is_global_zero:
            for name, parameter in self.task.model.named_parameters():
                self.recorder.histogram(progress.step, progress.epoch, name, parameter.detach().float().cpu().numpy())
            state = rng_state()  # what the examples draw must not change the training
            self.task.show(self.recorder, progress.step, progress.epoch)
            set_rng_state(state)
        self.meters.clear()
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self.save()

    # ------------------------------------------------------------------------------------- saving and stopping

    def save(self) -> None:
        """Writes last.pt: plain numbers, strings and tensors, so that reading it runs no code."""
        self.progress.meters = {name: _meter_values(meter) for name, meter in self.meters.items()}
        self.saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        state = {
            "version": STATE_VERSION,
            "config": self.cfg.as_dict(),
            "progress": asdict(self.progress),
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": rng_state(),
        }
        atomic_save(self.folder / "last.pt", lambda path: torch.save(state, path))

    def _save_if_due(self, bar: tqdm) -> None:
        stop = self.signal
        if self.fabric.world_size > 1:  # a signal may have reached one process only
            stop = int(self.fabric.all_reduce(torch.tensor(float(stop)), reduce_op="max"))
        if stop or time.monotonic() - self.saved_at >= self.cfg.save_every:
            self.save()
        if stop:
            bar.close()
            self.recorder.close()
            self.say(
                f"stopped by {signal.Signals(stop).name}, nothing is lost; to go on:\n"
                f"  python main.py train --resume={self.folder}"
            )
            raise SystemExit(128 + stop)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the step finish and save; a second Ctrl-C ends the process at once."""

        def note(number: int, frame: object) -> None:
            self.signal = number
            signal.signal(number, signal.SIG_DFL)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # ------------------------------------------------------------------------------------------------- helpers

    def _loader(self, dataset, batches: list[list[int]], skip: int = 0) -> Iterator[tuple[dict[str, Any], float]]:
        """(batch on the device, weight) for this process's share of the batches after the first `skip`.

        The weight makes the average over the processes the mean over the whole batch, however it was divided.
        """
        rank, world = self.fabric.global_rank, self.fabric.world_size
        shares = [(b[rank::world], len(b)) for b in batches[skip:]]
        loader = DataLoader(
            dataset,
            batch_sampler=[share or batches[0][:1] for share, _ in shares],
            collate_fn=self.task.collate,
            num_workers=self.cfg.num_workers,
            pin_memory=self.fabric.device.type == "cuda",
            generator=torch.Generator(),  # its own: the global one must not depend on how often a run was resumed
        )
        for batch, (share, whole) in zip(loader, shares, strict=True):
            yield self.fabric.to_device(batch), len(share) * world / whole

    def _figures(self, output: dict[str, torch.Tensor]) -> dict[str, float]:
        """Adds the step's figures to the running ones; returns them as numbers."""
        figures, count = _reduced(output, self.fabric)
        for name, value in figures.items():
            self.meters.setdefault(name, _meter()).add(value * count, count)
        return figures

    def _check(self, objective: torch.Tensor, batch: dict[str, Any]) -> None:
        if not torch.isfinite(objective):
            self._stop_at_nan(batch)

    def _stop_at_nan(self, batch: dict[str, Any]) -> None:
        with self.fabric.autocast():
            name = first_bad_tensor(self.task.model, batch, lambda: self.task.step(self.task.model, batch))
        raise UserError(
            f"step {self.progress.step + 1}: the loss is not finite; the first bad tensor is {name}. Try a smaller "
            f"--lr, --grad_clip=1 or --precision=fp32; the last good state is {self.folder / 'last.pt'}"
        )

    def _debug_mode(self) -> bool:
        """Whether the debug file exists; anomaly detection follows it."""
        on = os.path.exists(self.cfg.debug_file)
        if on != torch.is_anomaly_enabled():
            torch.autograd.set_detect_anomaly(on)
            self.say(f"debug mode {'on' if on else 'off'} ({self.cfg.debug_file})")
        return on

    def _debug(self, batch: dict[str, Any], output: dict[str, torch.Tensor]) -> None:
        if not self.fabric.is_global_zero:
            return
        if sys.stdin.isatty() and sys.stderr.isatty():
            model = self.task.model  # noqa: F841  for the person at the prompt
            breakpoint()  # batch, output, model; `c` goes on, removing the debug file ends debug mode
        else:
            dump(self.folder / "debug.jsonl", self.progress.step, self.task.model, batch, output)

    def _make_recorder(self, resumed: bool) -> Recorder:
        sinks = []
        if self.cfg.use_visdom and self.fabric.is_global_zero:
            from utils.visualize import Visualizer

            sinks = [Visualizer(env=self.cfg.env or self.folder.name, port=self.cfg.vis_port, folder=self.folder)]
        folder = self.folder if self.fabric.is_global_zero else None
        recorder = Recorder(folder, sinks, resume_step=self.progress.step if resumed else None)
        recorder.config(self.cfg.as_dict())
        return recorder


def evaluate(model: Any, task: Task, loader: Iterator, batches: int, fabric: Fabric | None = None) -> dict[str, float]:
    """The figures of `task.step` over all batches, each weighted by its count."""
    meters: dict[str, AverageValueMeter] = {}
    quiet = fabric is not None and not fabric.is_global_zero
    for batch, weight in tqdm(loader, total=batches, desc="val", unit="batch", leave=False, disable=quiet):
        output = task.step(model, batch)
        if not weight:
            output = {**output, "count": output["count"] * 0}
        figures, count = _reduced(output, fabric)
        for name, value in figures.items():
            meters.setdefault(name, _meter()).add(value * count, count)
    return task.summarise({name: meter.value()[0] for name, meter in meters.items()})


def _reduced(output: dict[str, torch.Tensor], fabric: Fabric | None) -> tuple[dict[str, float], float]:
    """The figures of a step and their count, over all processes."""
    names = [k for k in output if k not in ("objective", "count")]
    count = float(output["count"])
    if fabric is None or fabric.world_size == 1:
        return {k: float(output[k]) for k in names}, count
    sums = torch.tensor([float(output[k]) * count for k in names] + [count], dtype=torch.float64)
    *sums, count = fabric.all_reduce(sums.to(fabric.device), reduce_op="sum").tolist()
    return {k: s / max(count, 1) for k, s in zip(names, sums, strict=True)}, count


def _meter(values: dict[str, float] | None = None) -> AverageValueMeter:
    meter = AverageValueMeter()
    vars(meter).update(values or {})
    return meter


def _meter_values(meter: AverageValueMeter) -> dict[str, float]:
    return {name: float(value) for name, value in vars(meter).items()}


# --------------------------------------------------------------------------------------------- runs and their files


def run_folder(cfg: DefaultConfig) -> Path:
    """The folder of this run: the resumed one's, or a new one that did not exist."""
    if cfg.resume:
        return Path(cfg.resume)
    name = cfg.run or f"{cfg.task}_{time.strftime('%m%d_%H%M%S')}"
    folder = Path(cfg.save_path) / name
    if (folder / "last.pt").exists():
        raise UserError(f"{folder} holds a run: go on with it by --resume={folder}, or choose another name with --run=")
    return folder


def resumed_options(overrides: dict[str, Any]) -> dict[str, Any]:
    """The options of the run that --resume names (without a value: the latest), changed by the others given."""
    name = str(overrides["resume"])
    if name.lower() == "true":
        states = Path(overrides.get("save_path", DefaultConfig.save_path)).glob("*/last.pt")
        states = sorted(states, key=lambda p: p.stat().st_mtime)
        if not states:
            raise UserError("--resume: there is no run to go on with; start one with python main.py train")
        name = str(states[-1].parent)
    folder = Path(name).parent if name.endswith("last.pt") else Path(name)
    stored = read_state(folder / "last.pt")["config"]
    return {**stored, **overrides, "resume": str(folder)}


def read_state(path: Path) -> dict[str, Any]:
    """Reads a last.pt without running any code from it. Raises UserError if it is none, or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give --resume the folder of a run") from None
    except Exception as error:  # torch raises half a dozen kinds here, all meaning the same
        raise UserError(f"{path} is not a training state, or is damaged: {str(error).splitlines()[0][:100]}") from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != STATE_VERSION:
        raise UserError(f"{path} is a training state of version {version}, this program reads {STATE_VERSION}")
    return state


@contextmanager
def lock(folder: Path, mine: bool) -> Iterator[None]:
    """Keeps a second training out of the run's folder while this one is alive."""
    import fcntl

    if not mine:
        yield
        return
    atomic_write(folder / ".lock", "") if not (folder / ".lock").exists() else None
    with open(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{folder} is being trained by another process: wait for it, or choose another --run"
            ) from None
        yield


def git_revision() -> str:
    """The project's git revision, or "" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip()
