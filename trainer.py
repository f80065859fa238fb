"""The one training loop. It knows no task; a task gives it batches and a loss (tasks/base.py).

Lightning Fabric puts model and data on the devices and averages the gradients; what happens in a step stands here.
"""

import bdb
import dataclasses
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch.utils.data import DataLoader, Dataset
from torchnet.meter import AverageValueMeter
from tqdm import tqdm

from config import DefaultConfig
from data.loading import batches_of
from tasks import make_task
from tasks.base import Task
from training.diagnostics import dump, first_bad_tensor, gradient_range
from training.optimizers import add_l1_gradient, learning_rate, lr_epochs, make_optimizer
from training.parameters import MovingAverage, checkpoint_layers, freeze, parameter_groups, train_mode
from training.profiler import StepProfiler
from training.recorder import Recorder
from training.state import STATE_VERSION, lock, read_state, run_folder
from training.trial import check_batch, trial_step
from utils.errors import UserError, did_you_mean
from utils.files import atomic_save
from utils.hardware import check_workers, choose_precision, cores, pick_device, tune_malloc
from utils.info import git_revision
from utils.seed import rng_state, seed_everything, set_rng_state
from utils.text import short

SCHEDULE = ("lr", "lr_schedule", "lr_epochs", "lr_decay", "max_epoch", "warmup")  # what the learning rate depends on


@dataclass
class Progress:
    """Where a run stands. All of it is saved; a resumed run starts from it."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    batches: int = 0  # that it has
    step: int = 0  # optimizer steps so far
    best: dict[str, float] = field(default_factory=dict)  # validation figures of the best epoch
    best_epoch: int = -1
    lr_factor: float = 1.0  # what the plateau schedule has come to
    seconds: float = 0.0  # trained so far
    meters: dict[str, dict[str, float]] = field(default_factory=dict)  # running figures of this epoch
    extremes: dict[str, list[float]] = field(default_factory=dict)  # loss and number of its best and worst batch


class Stopped(Exception):
    """The process was asked to end, by SIGINT or SIGTERM."""


def make_fabric(cfg: DefaultConfig, task: Task) -> tuple[Fabric, str]:
    """The devices to compute on, and a sentence about them and the precision, which task.cfg has from now on.

    Raises UserError where `task` cannot be trained as cfg asks for: its precision, or a batch that cannot fit.
    """
    kind = pick_device(cfg.use_gpu)
    if kind == "cpu":
        tune_malloc(keep_all=True)
    devices = _devices(cfg.devices, kind == "cuda")
    numbers = list(range(devices)) if isinstance(devices, int) else devices
    device = kind if kind == "cpu" else f"cuda:{numbers[int(os.environ.get('LOCAL_RANK', 0))]}"
    task.to(device)
    precision, why = choose_precision(cfg.precision, kind == "cuda", lambda name: trial_step(task, name, device))
    task.cfg = dataclasses.replace(task.cfg, precision=precision)
    if kind == "cpu":
        check_batch(task, len(numbers))
    count = cfg.num_nodes * len(numbers)
    # Fabric itself would make bf16 of fp16 on a CPU. fp16 needs its losses scaled, which the plugin does.
    plugins = {"bf16": [MixedPrecision("bf16-mixed", kind)], "fp16": [MixedPrecision("16-mixed", kind)]}
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=cfg.num_nodes,
        strategy="ddp" if count > 1 else "auto",
        plugins=plugins.get(precision),
    )
    name = torch.cuda.get_device_name(fabric.device) if kind == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return fabric, f"{count} x {name}; precision {precision} ({why})"


def check_machine(cfg: DefaultConfig) -> None:
    """Raises UserError for more processes than this machine has a use for, before anything else is done."""
    _devices(cfg.devices, pick_device(cfg.use_gpu) == "cuda")
    check_workers(cfg.num_workers)


def _devices(text: str, gpu: bool) -> int | list[int]:
    """--devices as Fabric wants it: how many, or which GPUs."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise UserError(f"--devices={text}: expected a number of devices, or the numbers of GPUs as in 0,2") from None
    here = torch.cuda.device_count() if gpu else 0
    if "," not in text:
        most = here if gpu else max(2, cores())  # two, to try it, on every machine
        if not 1 <= numbers[0] <= most:
            there = f"there are {here} GPUs here" if gpu else f"this machine has {cores()} cores"
            raise UserError(f"--devices={text}: {there}, give 1 to {most}")
        return numbers[0]
    if not set(numbers) <= set(range(here)) or len(set(numbers)) < len(numbers):
        raise UserError(f"--devices={text} names GPUs, and those here are {', '.join(map(str, range(here))) or 'none'}")
    return numbers


def train(cfg: DefaultConfig) -> dict[str, float]:
    """Trains the task of `cfg`, or goes on with the run that cfg.resume names. Returns the best validation figures.

    Leaves in the run's folder: log.jsonl, last.pt (all that is needed to go on), best.safetensors (the model alone).
    Raises UserError for whatever the user can mend, before other processes (cfg.devices) are started if possible.
    """
    if cfg.fast_dev_run:
        if cfg.resume:
            raise UserError("--fast_dev_run is a run of its own: leave --resume out; --load=FILE starts from a model")
        with TemporaryDirectory() as folder:
            once = dataclasses.replace(cfg, max_epoch=1, save_path=folder, run="fast_dev_run")
            return _train(once, batches=1)
    return _train(cfg)


def _train(cfg: DefaultConfig, batches: int | None = None) -> dict[str, float]:
    """The same, with so many batches in an epoch."""
    folder = run_folder(cfg)
    state = read_state(folder / "last.pt") if cfg.resume else None
    if state and state["progress"]["epoch"] >= cfg.max_epoch:
        _say(f"{folder} has done its {state['progress']['epoch']} epochs; to go on, give a larger --max_epoch")
        return state["progress"]["best"]
    check_machine(cfg)
    if cfg.sync_bn and pick_device(cfg.use_gpu) != "cuda":
        raise UserError("--sync_bn is for several GPUs; on a CPU leave it out")
    # Another number of threads adds up in another order. (With other devices, the bits are others anyway.)
    alike = state and all(state["config"][name] == getattr(cfg, name) for name in ("devices", "num_nodes", "use_gpu"))
    threads = state["threads"] if alike else torch.get_num_threads()
    torch.set_num_threads(threads)
    seed_everything(cfg.seed, cfg.deterministic)
    task = make_task(cfg, state["arguments"] if state and _began_with_a_file(cfg) else None)
    # Now, before there is a folder: there may be no data to validate with, or a pattern that fits nothing.
    task.val_batches()
    freeze(task.model, cfg.freeze)
    parameter_groups(task.model, cfg.weight_decay, cfg.lr_scale)
    checkpoint_layers(task.model, cfg.checkpoint_layers)
    if cfg.lr_schedule in ("step", "multistep"):
        lr_epochs(cfg)
    if cfg.monitor and cfg.monitor not in task.monitors:
        hint = did_you_mean(cfg.monitor, task.monitors)
        raise UserError(f"--monitor={cfg.monitor}: choose one of {', '.join(task.monitors)}{hint}")
    fabric, machine = make_fabric(cfg, task)
    # What was left to the task and to the machine is settled now, and a resumed run must not choose anew.
    cfg = task.cfg
    say = _say if fabric.is_global_zero else lambda text: None
    say(f"{cfg.task}, config:\n{cfg}\n{machine}")
    if state and (changes := _changes(state["config"], cfg.as_dict())):
        if state["progress"]["batch"] and (moved := [k for k in ("batch_size", "accumulate", "seed") if k in changes]):
            raise UserError(f"--{moved[0]} can be changed between two epochs only: go on without it to the epoch's end")
        say(f"changed since the run was saved: {', '.join(changes.values())}")
    if torch.get_num_threads() != threads:
        say(f"torch has {torch.get_num_threads()} threads here, not {threads} as before: rounding will differ")
    say(f"{task}\nrun: {folder}")
    with lock(folder) if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            run_folder(cfg)  # again: another training may have ended here since
        if fabric.world_size > 1:
            fabric.launch()
            if alike:
                torch.set_num_threads(threads)  # launch has set a number of its own
            folder = Path(fabric.broadcast(str(folder)))
        run = Run(task, cfg, fabric, folder, state, say, batches)
        state = None  # a second copy of the weights
        return run.train()


def _began_with_a_file(cfg: DefaultConfig) -> bool:
    """Whether the first weights were those of a file. It may be gone by now: a run has its weights in its own state."""
    words = ("", "auto", "imagenet", "none")  # that --pretrained may be instead
    return any(getattr(cfg, option, "") not in words for option in ("load", "init", "pretrained"))


class Run:
    """One training run: the state that changes, and the loop over it."""

    def __init__(
        self,
        task: Task,
        cfg: DefaultConfig,
        fabric: Fabric,
        folder: Path,
        state: dict | None,
        say: Callable[[str], None],
        batches: int | None = None,
    ):
        self.task, self.cfg, self.fabric, self.folder, self.say = task, cfg, fabric, folder, say
        self.limit = batches  # in an epoch, of training and of validation; None: all
        self.monitor = cfg.monitor or next(iter(task.monitors))
        self.progress = Progress(**state["progress"]) if state else Progress()
        self.meters = {name: _meter(values) for name, values in self.progress.meters.items()}
        self.faults: set[str] = set()  # what this process could not read
        self.told: set[str] = set()  # what of all that the user knows
        self.step_weight = 0.0  # of the batches since the last step
        task.to(fabric.device)
        groups = parameter_groups(task.model, cfg.weight_decay, cfg.lr_scale)
        self.raw_optimizer = make_optimizer(cfg.optimizer, groups, cfg.lr, cfg.momentum, fused=cfg.precision != "fp16")
        self._set_up()
        self.average = MovingAverage(task.model, cfg.ema) if cfg.ema else None
        self.before = cfg  # of a resumed run: with the schedule that it had
        if state:
            self._restore(state)
        if fabric.global_rank:  # each process has its own dropout; the first one's is exact after a resume
            seed_everything(cfg.seed + fabric.global_rank + 1000 * self.progress.step, cfg.deterministic)
        self.recorder = self._make_recorder(state)
        self.profiler = StepProfiler(folder, 0 if fabric.global_rank else cfg.profile, say)
        self.signal = 0
        self.between = False  # two epochs, where one process need not wait for the end of a step to stop
        self.saved_at = time.monotonic()

    def _set_up(self) -> None:
        """Freezes what is to be frozen now, and puts model and optimizer on the devices."""
        cfg = self.cfg
        self.frozen = bool(cfg.freeze) and not 0 < cfg.unfreeze_epoch <= self.progress.epoch
        freeze(self.task.model, cfg.freeze if self.frozen else "")
        model = self.task.model
        if cfg.sync_bn:
            model = self.task.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
        # task.model is the network itself, self.model what a step calls: compiled, averaging over processes
        model = torch.compile(model) if cfg.compile else model
        self.model, self.optimizer = self.fabric.setup(model, self.raw_optimizer)

    # ------------------------------------------------------------------------------------------------ the loop

    def train(self) -> dict[str, float]:
        """Trains to the last epoch. Returns the best validation figures."""
        progress = self.progress
        with self._session():
            if progress.step == 0:
                self.save()
            while progress.epoch < self.cfg.max_epoch and not self._hopeless():
                self.train_epoch()
                with self.average.applied() if self.average else nullcontext():
                    figures = self.validate()
                    self.compare(figures)
                    self.show()
                self.finish_epoch(figures)
            self.recorder.final(progress.step, progress.epoch, {**progress.best, "best_epoch": progress.best_epoch})
            if self.fabric.is_global_zero and (self.folder / "best.safetensors").exists():
                self.task.finish(self.folder / "best.safetensors", self.limit)
        if progress.best:
            self.say(
                f"best {self.monitor} {short(progress.best[self.monitor], 4)} in epoch {progress.best_epoch + 1}: "
                f"{self.folder / 'best.safetensors'}"
            )
        return progress.best

    def _hopeless(self) -> bool:
        """Whether cfg.patience epochs have brought no improvement."""
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        if not self.cfg.patience or waited < self.cfg.patience:
            return False
        self.say(f"no better {self.monitor} for {waited} epochs (--patience={self.cfg.patience})")
        return True

    def train_epoch(self) -> None:
        """Trains from progress.batch to the end of the epoch."""
        progress, cfg, task = self.progress, self.cfg, self.task
        if self.frozen and 0 < cfg.unfreeze_epoch <= progress.epoch:
            self._set_up()
            self.say(f"--freeze={cfg.freeze} ends: everything learns now")
        self.between = self.fabric.world_size == 1
        with self.average.following() if self.average else nullcontext():
            batches = self.batches = self._train_batches()
        self.between = False
        if progress.batch and len(batches) != progress.batches:
            raise UserError(
                f"this epoch had {progress.batches} batches and has {len(batches)} now: go on with the data "
                f"and options of before to its end (--max_epoch={progress.epoch + 1}), and change them then"
            )
        progress.batches = len(batches)
        steps = math.ceil(len(batches) / cfg.accumulate)
        total_steps = cfg.max_epoch * steps
        self._tell_jump(steps)
        train_mode(self.model)
        with self._bar(f"epoch {progress.epoch + 1}/{cfg.max_epoch}", len(batches), progress.batch) as bar:
            mark = time.perf_counter()
            for batch, weight in self._loader(task.train_set, batches, progress.batch, cfg.accumulate):
                data_time = time.perf_counter() - mark
                debugging = self._debug_mode()
                lr = learning_rate(cfg, progress, total_steps)
                number = progress.step + 1  # of the step that this batch belongs to
                progress.batch += 1
                ends_step = progress.batch % cfg.accumulate == 0 or progress.batch == len(batches)
                with self.fabric.no_backward_sync(self.model, enabled=not ends_step):
                    with self.fabric.autocast():
                        output = task.step(self.model, batch)
                    self._stop_if_bad(output["objective"], batch)
                    self.fabric.backward(output["objective"] * weight)
                self.step_weight += weight
                figures = self._count(self.meters, output, weight)
                self._note_extremes(figures)
                if debugging:
                    self._debug(batch, output)
                if ends_step:
                    figures |= self._update(lr, batch)
                spent = time.perf_counter() - mark
                progress.seconds += spent
                times = {"data_time": data_time, "model_time": spent - data_time}
                self.recorder.batch(number, progress.epoch, **figures, lr=lr, **times)
                bar.set_postfix_str(
                    " ".join(f"{k} {short(m.value()[0])}" for k, m in self.meters.items()), refresh=False
                )
                bar.update()
                if ends_step:
                    self.profiler.step()
                    self._stop_if_asked()
                    if time.monotonic() - self.saved_at >= cfg.save_every:
                        self.save()
                mark = time.perf_counter()

    def _train_batches(self) -> list[list[int]]:
        """The batches of this epoch; with --overfit_batches the first ones of the first epoch, again and again."""
        epoch = 0 if self.cfg.overfit_batches else self.progress.epoch
        return self.task.train_batches(epoch)[: self.cfg.overfit_batches or self.limit]

    def _note_extremes(self, figures: dict[str, float]) -> None:
        """Remembers the last batch if its loss is the lowest or the highest of the epoch so far."""
        for name, sign in (("best", 1), ("worst", -1)):
            loss, extremes = figures.get("loss"), self.progress.extremes
            if loss is not None and (name not in extremes or sign * loss < sign * extremes[name][0]):
                extremes[name] = [loss, self.progress.batch - 1]

    def _update(self, lr: float, batch: dict[str, Any]) -> dict[str, float]:
        """Clips the gradient and takes one step; returns the gradient's norm before clipping."""
        if not self._largest(self.step_weight):  # nothing in these batches could be read
            self.optimizer.zero_grad()
            return {}
        self.step_weight = 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if self.fabric.world_size > 1 and self.task.in_parts:  # what no process has used is left out, as by one alone
            for parameter in self.task.model.parameters():
                if parameter.grad is not None and not parameter.grad.any():
                    parameter.grad = None
        precision = self.fabric.strategy.precision
        precision.unscale_gradients(self.raw_optimizer)  # fp16 only
        parameters = list(self.task.model.parameters())
        if self.cfg.l1:
            add_l1_gradient(self.task.model, self.cfg.l1)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not precision.state_dict():  # fp16's scaler leaves a step out whose gradients overflow
            self._stop_if_bad(norm, batch, gradient=True)  # clipping would spread what is not finite to all of them
        if self.cfg.clip_value:
            torch.nn.utils.clip_grad_value_(parameters, self.cfg.clip_value)
            torch.nn.utils.clip_grad_norm_(parameters, self.cfg.grad_clip or math.inf)
        elif self.cfg.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.cfg.grad_clip, norm)
        self.progress.step += 1
        if self.progress.step % 100 == 1:
            self.recorder.gradients(self.progress.step, self.progress.epoch, gradient_range(self.task.model))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.progress.step)
        return {"grad_norm": norm.item()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The figures on the validation set."""
        self.model.eval()
        dataset, batches = self.task.val_batches()
        batches = batches[: self.limit]
        meters: dict[str, AverageValueMeter] = {}
        samples: list[dict[str, torch.Tensor]] = []
        with self.fabric.autocast(), self._bar("val", len(batches)) as bar:
            for batch, weight in self._loader(dataset, batches):
                output = self.task.step(self.model, batch)
                self._count(meters, output, weight)
                if weight and "samples" in output:
                    samples.append({name: tensor.cpu() for name, tensor in output["samples"].items()})
                bar.update()
                self._stop_if_asked()
        if not meters or not any(meter.n for meter in meters.values()):
            raise UserError("none of the validation samples can be read; the log names them")
        samples = [part for parts in self._gathered(samples) for part in parts]
        judged = self.task.compute_metrics(
            {name: torch.cat([part[name] for part in samples]) for name in (samples or [{}])[0]}
        )
        return self.task.summarise(_means(meters)) | judged

    def compare(self, figures: dict[str, float]) -> None:
        """Compares with the best so far: saves the model if it is better, else lets the plateau schedule decay."""
        progress, monitor = self.progress, self.monitor
        sign = -1 if self.task.monitors[monitor] == "max" else 1
        if sign * figures[monitor] < sign * progress.best.get(monitor, sign * math.inf):
            progress.best, progress.best_epoch = figures, progress.epoch
            if self.fabric.is_global_zero:
                self.task.model.save(
                    self.folder / "best.safetensors", **self.task.model_metadata(), config=self._public_config(),
                    revision=git_revision(), epoch=progress.epoch + 1, step=progress.step,
                    seconds=round(progress.seconds), **{monitor: figures[monitor]},
                )  # fmt: skip
        elif self.cfg.lr_schedule == "plateau":
            progress.lr_factor *= self.cfg.lr_decay

    def _public_config(self) -> dict[str, Any]:
        """The config without what is only about this machine: a model file may be given to others."""
        private = ("save_path", "run", "resume", "env", "debug_file", *self.task.paths)
        return {k: v for k, v in self.cfg.as_dict().items() if k not in private}

    def show(self) -> None:
        """Examples of what the model can do now."""
        if self.fabric.is_global_zero:
            state = rng_state()  # what the examples draw must not change the training
            where = self.recorder, self.progress.step, self.progress.epoch
            self.task.show(*where)
            for name, (loss, number) in self.progress.extremes.items() if self.cfg.samples else ():
                samples = [self.task.train_set[i] for i in self.batches[int(number)]]  # the same again
                self.task.show_batch(*where, f"{name} batch", self.task.collate(samples), loss)
            set_rng_state(state)

    def finish_epoch(self, figures: dict[str, float]) -> None:
        """Records the epoch, moves on to the next and saves."""
        progress = self.progress
        trained = self.task.summarise(_means(self.meters))
        self.recorder.epoch(progress.step, progress.epoch, "train", **trained)
        self.recorder.epoch(progress.step, progress.epoch, "val", **figures, lr_factor=progress.lr_factor)
        told = " ".join(f"{k} {short(v)}" for k, v in trained.items())
        told += " | val " + " ".join(f"{k} {short(v)}" for k, v in figures.items())
        self.say(f"epoch {progress.epoch + 1}/{self.cfg.max_epoch}  {told}  ({progress.seconds:.0f} s)")
        if self.fabric.is_global_zero:
            for name, parameter in self.task.model.named_parameters():
                self.recorder.histogram(progress.step, progress.epoch, name, parameter.detach().float().cpu().numpy())
        self._tell_faults(set().union(*self._gathered(self.faults)))
        self.meters.clear()
        progress.extremes.clear()
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self.save()

    # ------------------------------------------------------------------------------------- saving and stopping

    def save(self) -> None:
        """Writes last.pt: plain numbers, strings and tensors, so that reading it runs no code."""
        self.saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        self.progress.meters = {name: _meter_values(meter) for name, meter in self.meters.items()}
        state = {
            "version": STATE_VERSION,
            "threads": torch.get_num_threads(),
            "config": self.cfg.as_dict(),
            "progress": dataclasses.asdict(self.progress),
            "arguments": self.task.model.arguments,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "scaler": self.fabric.strategy.precision.state_dict(),
            "rng": rng_state(),
            "log_size": self.recorder.size,
        }
        atomic_save(self.folder / "last.pt", lambda path: torch.save(state, path))

    def _restore(self, state: dict[str, Any]) -> None:
        """Takes over what `save` wrote. Raises UserError if it is of another network."""
        old, new = state["arguments"], self.task.model.arguments
        other = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        if other or state["model"].keys() != self.task.model.state_dict().keys():
            best = self.folder / "best.safetensors"
            raise UserError(
                f"{self.folder} was trained with another {' and '.join(other) or 'network'}: a run goes on with the "
                f"data and the network it began with; start a new one from its weights by --load={best}"
            )
        self.task.model.load_state_dict(state["model"])
        if [len(group["params"]) for group in state["optimizer"]["param_groups"]] != [
            len(group["params"]) for group in self.raw_optimizer.param_groups
        ]:
            raise UserError("--lr_scale: a run goes on with the patterns it began with; their factors may change")
        if (began := state["config"]["optimizer"]) != self.cfg.optimizer:
            raise UserError(f"--optimizer={self.cfg.optimizer}: a run goes on with {began}, which it began with")
        groups = [  # the options are those of now, the numbers of the parameters those of the file
            {**now, "params": then["params"]}
            for now, then in zip(self.raw_optimizer.param_groups, state["optimizer"]["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        if self.average:
            self.average.load_state_dict(state["average"] or state["model"])
        self.before = dataclasses.replace(self.cfg, **{name: state["config"][name] for name in SCHEDULE})
        if state["scaler"]:  # fp16 then; other precisions have none
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        set_rng_state(state["rng"])

    def _tell_jump(self, steps: int) -> None:
        """Says, once, what changed options make of the next step's learning rate; `steps`: of an epoch."""
        old, new = (learning_rate(cfg, self.progress, cfg.max_epoch * steps) for cfg in (self.before, self.cfg))
        self.before = self.cfg
        if not math.isclose(old, new, rel_tol=0.01):
            self.say(f"the learning rate of the next step was to be {old:.2e} and is {new:.2e} by the changed options")

    def _stop_if_asked(self) -> None:
        """Raises Stopped if this process, or another one of the run, got SIGINT or SIGTERM."""
        if number := int(self._largest(self.signal)):
            raise Stopped(number)

    def _stop_if_bad(self, value: torch.Tensor, batch: dict[str, Any], gradient: bool = False) -> None:
        """Ends the run if this loss, or norm of the gradient, is not finite in any of the processes."""
        fabric, task = self.fabric, self.task
        culprit = int(self._largest(-1 if torch.isfinite(value) else fabric.global_rank))
        if culprit < 0:
            return
        with fabric.autocast():
            name = first_bad_tensor(task.model, batch, lambda: task.step(task.model, batch), gradient)
        name = fabric.broadcast(name, culprit)
        if not fabric.is_global_zero:
            raise SystemExit(0)
        raise UserError(
            f"step {self.progress.step + 1}: the loss is not finite; the first bad tensor is {name}. Try a smaller "
            f"--lr, --grad_clip=1 or --precision=fp32; the last good state is {self.folder / 'last.pt'}"
        )

    def _largest(self, number: float) -> float:
        """The largest of the numbers that the processes give."""
        if self.fabric.world_size == 1:
            return number
        return self.fabric.all_reduce(torch.tensor(float(number), device=self.fabric.device), reduce_op="max").item()

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the step finish and save; a second Ctrl-C ends the process at once."""

        own = os.getpid()  # processes that read data have this handler, too

        def note(number: int, frame: object) -> None:
            self.signal = number
            signal.signal(number, signal.SIG_DFL)
            if self.between and os.getpid() == own:
                raise Stopped(number)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except Stopped as stopped:
            (number,) = stopped.args
            if not self.between:  # where all is saved, and the task may be about to change the weights
                self.save()
            self.say(
                f"stopped by {signal.Signals(number).name}, nothing is lost; to go on:\n"
                f"  python main.py train --resume={shlex.quote(str(self.folder))}"
            )
            # The launcher kills everybody as soon as one of the others ends with an error.
            raise SystemExit(128 + number if self.fabric.is_global_zero else 0) from None
        except bdb.BdbQuit:
            raise UserError(f"the debugger was left by q; --resume={self.folder} goes on from the last save") from None
        except RuntimeError as error:
            if self.fabric.global_rank and "by peer" in str(error):  # the first process has ended, and has said why
                raise SystemExit(1) from None
            raise
        finally:
            self.profiler.close()
            self.recorder.close()
            torch.autograd.set_detect_anomaly(False)
            for number, handler in before.items():
                signal.signal(number, handler)

    # ------------------------------------------------------------------------------------------------- helpers

    def _loader(
        self, dataset: Dataset, batches: list[list[int]], skip: int = 0, accumulate: int = 1
    ) -> Iterator[tuple[dict[str, Any], float]]:
        """(batch on the device, weight) for this process's share of the batches after the first `skip`.

        The weights make the objectives of a step add up to the mean over all its samples, however these were divided
        among processes and among the `accumulate` batches of the step. Samples that cannot be read are told and left
        out; those that remain of the batch count for them. Where none remains, another sample stands in with weight 0:
        the other processes wait for this one.
        """
        rank, world = self.fabric.global_rank, self.fabric.world_size
        shares, weights = [], []
        for i in range(skip, len(batches)):
            start = i - i % accumulate
            samples = sum(len(b) for b in batches[start : start + accumulate])  # of the whole step
            share = batches[i][rank::world]
            shares.append(share or batches[i][:1])  # a process without a sample computes along with weight 0
            weights.append(len(share) * world / samples)
        loader = DataLoader(
            dataset,
            batch_sampler=shares,
            collate_fn=self.task.collate,
            num_workers=self.cfg.num_workers,
            pin_memory=self.fabric.device.type == "cuda",
            generator=torch.Generator(),  # its own: the global one must not depend on how often a run was resumed
        )
        for share, batch, weight in zip(shares, batches_of(loader), weights, strict=True):
            self.faults.update(self.task.left_out(dataset, share, batch))
            if self.fabric.world_size == 1:  # else at the end of the epoch, those of all processes
                self._tell_faults(self.faults)
            if batch is None:
                batch, weight = self._stand_in(dataset), 0.0
            yield self.fabric.to_device(batch), weight

    def _stand_in(self, dataset: Dataset) -> dict[str, Any]:
        """A batch of the first sample that can be read."""
        for i in range(len(dataset)):
            if (batch := self.task.collate([dataset[i]])) is not None:
                return batch
        raise UserError(f"none of the {len(dataset)} samples can be read; the first: {dataset.fault(0)}")

    def _tell_faults(self, faults: set[str]) -> None:
        """Names, in the log and to the user, what could not be read."""
        for fault in sorted(faults - self.told):
            self.told.add(fault)
            self.say(f"left out: {fault}")
            self.recorder.text(self.progress.step, self.progress.epoch, "left out", fault)

    def _gathered(self, value: Any) -> list[Any]:
        """What each of the processes gives as `value`."""
        if self.fabric.world_size == 1:
            return [value]
        values = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def _count(
        self, meters: dict[str, AverageValueMeter], output: dict[str, torch.Tensor], weight: float
    ) -> dict[str, float]:
        """The step's figures over all processes, as numbers; they are also added to the running ones in `meters`.

        A batch of weight 0 (a process that had no sample of its own) does not count.
        """
        names = [k for k in output if k not in ("objective", "count", "samples")]
        count = float(output["count"]) if weight else 0.0
        sums = [float(output[k]) * count for k in names]
        if self.fabric.world_size > 1:
            together = torch.tensor([*sums, count], dtype=torch.float64, device=self.fabric.device)
            *sums, count = self.fabric.all_reduce(together, reduce_op="sum").tolist()
        if not count:  # nothing in this batch could be read
            return {}
        for name, value in zip(names, sums, strict=True):
            meters.setdefault(name, _meter()).add(value, count)
        return {name: value / count for name, value in zip(names, sums, strict=True)}

    def _bar(self, name: str, total: int, done: int = 0) -> tqdm:
        quiet = not self.fabric.is_global_zero
        every = 0.1 if sys.stderr.isatty() else 5  # seconds; a log file needs no picture of each moment
        return tqdm(desc=name, total=total, initial=done, unit="batch", leave=False, mininterval=every, disable=quiet)

    def _debug_mode(self) -> bool:
        """Whether the debug file exists; anomaly detection follows it."""
        on = os.path.exists(self.cfg.debug_file)
        if on != torch.is_anomaly_enabled():
            torch.autograd.set_detect_anomaly(on)
            self.say(f"debug mode {'on' if on else 'off'} ({self.cfg.debug_file})")
        return on

    def _debug(self, batch: dict[str, Any], output: dict[str, torch.Tensor]) -> None:
        """After the backward pass: a debugger on a terminal, elsewhere a line of shapes and ranges in debug.jsonl."""
        if not self.fabric.is_global_zero:
            return
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            dump(self.folder / "debug.jsonl", self.progress.step + 1, self.task.model, batch, output)
            return
        model = self.task.model  # noqa: F841  for the person at the prompt
        breakpoint()  # `batch`, `output` and `model` are here; c goes on to the next step, q ends the training

    def _make_recorder(self, state: dict[str, Any] | None) -> Recorder:
        if not self.fabric.is_global_zero:
            return Recorder(None)
        sinks = []
        if self.cfg.use_visdom:
            from board.server import LiveBoard

            sinks = [LiveBoard(self.folder, self.cfg.env, self.cfg.vis_port)]
        if self.cfg.tensorboard:
            from board.tensorboard import TensorBoard

            sinks.append(TensorBoard(self.folder))
        recorder = Recorder(self.folder, sinks, resume_size=state["log_size"] if state else 0)
        recorder.config(self.cfg.as_dict())
        return recorder


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)  # above the progress bar, if there is one


def _meter(values: dict[str, float] | None = None) -> AverageValueMeter:
    meter = AverageValueMeter()
    vars(meter).update(values or {})
    return meter


def _meter_values(meter: AverageValueMeter) -> dict[str, float]:
    return {name: float(value) for name, value in vars(meter).items()}


def _means(meters: dict[str, AverageValueMeter]) -> dict[str, float]:
    return {name: float(meter.value()[0]) for name, meter in meters.items()}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """What differs between two configs, such as {"lr": "lr 0.002 -> 0.001"}."""
    return {k: f"{k} {old.get(k)} -> {v}" for k, v in new.items() if k != "resume" and old.get(k) != v}
