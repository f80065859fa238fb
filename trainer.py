"""The one training loop. It knows no task; a task gives it batches and a loss (tasks/base.py).

Read it from top to bottom: set up, epoch, step, validate, compare, finish. What it leans on is in training/.
"""

import dataclasses
import math
import shlex
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from config import DefaultConfig
from prepare import Setup, make_schedule, monitored, prepare, public_config
from training import diagnostics
from training.devices import largest
from training.loader import Loader, progress_bar
from training.metrics import Metrics, as_line
from training.optimizers import add_l1_gradient, clip_gradients, drop_unused_gradients
from training.parameters import freeze, train_mode
from training.session import Session
from training.state import BEST, STATE, read_state
from utils.errors import UserError
from utils.info import git_revision
from utils.seed import preserve_rng, seed_everything
from utils.text import say, short


def train(cfg: DefaultConfig) -> dict[str, float]:
    """Trains the task of `cfg`, or goes on with the run that cfg.resume names. Returns the best validation metrics.

    Leaves in the run's folder: log.jsonl, last.pt (all that is needed to go on), best.safetensors (the model alone).
    Raises UserError for whatever the user can mend.
    """
    with ExitStack() as resources:
        if cfg.fast_dev_run:
            if cfg.resume:
                raise UserError("a run of its own: leave resume out; load=FILE starts from a model", fast_dev_run=None)
            folder = resources.enter_context(TemporaryDirectory())
            cfg = dataclasses.replace(cfg, max_epoch=1, save_path=folder, run="fast_dev_run")
        saved = read_state(Path(cfg.resume) / STATE) if cfg.resume else None
        if saved and saved["progress"]["epoch"] >= cfg.max_epoch:
            say(f"{cfg.resume} has done its {saved['progress']['epoch']} epochs; to go on, give a larger max_epoch")
            return saved["progress"]["best"]
        run = Run(prepare(cfg, saved, resources))
        run.restore(saved)
        del saved  # a second copy of the weights
        return run.train()


class Run:
    """One training run: what changes, and the loop over it."""

    def __init__(self, setup: Setup):
        self.cfg, self.task, self.fabric, self.folder = setup.cfg, setup.task, setup.fabric, setup.folder
        self.state, self.recorder, self.say = setup.state, setup.recorder, setup.say
        self.progress, self.average = self.state.progress, self.state.average
        cfg, task, fabric = self.cfg, self.task, self.fabric
        self.limit = 1 if cfg.fast_dev_run else None  # batches in an epoch, of training and of validation; None: all
        self.monitor = monitored(cfg, task)
        self.schedule = self.saved_schedule = make_schedule(cfg.as_dict())
        self.metrics = Metrics(fabric, self.progress.meters)
        self.step_weight = 0.0  # of the batches since the last step
        self.loader = Loader(fabric, task, cfg.num_workers, self.report_skipped)
        self.session = Session(fabric, self.folder, self.say)
        self.debug = diagnostics.DebugMode(cfg.debug_file, self.folder, self.say)
        self.profiler = diagnostics.StepProfiler(self.folder, 0 if fabric.global_rank else cfg.profile, self.say)
        self.saved_at = time.monotonic()
        self.set_up()

    def set_up(self) -> None:
        """Freezes what is to be frozen now, and puts model and optimizer on the devices."""
        cfg = self.cfg
        self.frozen = bool(cfg.freeze) and not 0 < cfg.unfreeze_epoch <= self.progress.epoch
        freeze(self.task.model, cfg.freeze if self.frozen else "")
        # task.model is the network itself, self.model what a step calls: compiled, averaging over processes
        model = torch.compile(self.task.model) if cfg.compile else self.task.model
        self.model, self.optimizer = self.fabric.setup(model, self.state.optimizer)

    def train(self) -> dict[str, float]:
        """Trains to the last epoch. Returns the best validation metrics."""
        progress, best_file = self.progress, self.folder / BEST
        with self.session.running(self.save, self.close):
            if progress.step == 0:
                self.save()
            while progress.epoch < self.cfg.max_epoch and not self.out_of_patience():
                self.train_epoch()
                with self.average.applied() if self.average else nullcontext():
                    metrics = self.validate()
                    self.update_best(metrics)
                    self.show_examples()
                self.finish_epoch(metrics)
            self.recorder.final(progress.step, progress.epoch, {**progress.best, "best_epoch": progress.best_epoch})
            if self.fabric.is_global_zero and best_file.exists():
                self.task.finish(best_file, self.limit)
        self.report_end(best_file)
        return progress.best

    def report_end(self, best_file: Path) -> None:
        """Says what was best, and how to use it."""
        progress = self.progress
        if not progress.best:
            self.say(f"{self.monitor} was not a number in any epoch: there is no model file")
            return
        best = f"best {self.monitor} {short(progress.best[self.monitor], 4)} in epoch {progress.best_epoch + 1}"
        if self.cfg.fast_dev_run:  # whose folder is gone at once
            self.say(f"{best}; fast_dev_run: all of it ran, nothing is kept")
        else:
            self.say(f"{best}: {best_file}")
            self.say(f"to use it: python main.py {self.task.command} --load={shlex.quote(str(best_file))}")

    def out_of_patience(self) -> bool:
        """Whether cfg.patience epochs have brought no improvement."""
        waited = self.progress.epochs_without_improvement()
        if not self.cfg.patience or waited < self.cfg.patience:
            return False
        self.say(f"no better {self.monitor} for {waited} epochs (patience={self.cfg.patience})")
        return True

    def train_epoch(self) -> None:
        """Trains from progress.batch to the end of the epoch."""
        progress, cfg, task = self.progress, self.cfg, self.task
        if self.frozen and 0 < cfg.unfreeze_epoch <= progress.epoch:
            self.set_up()
            self.say(f"unfreeze_epoch={cfg.unfreeze_epoch}: all parameters are trained from now on")
        batches = self.batches = self.train_batches()
        steps = math.ceil(len(batches) / cfg.accumulate)
        self.report_jump(steps)
        train_mode(self.model)
        title = f"epoch {progress.epoch + 1}/{cfg.max_epoch}"
        with progress_bar(self.fabric, title, len(batches), progress.batch) as bar:
            mark = time.perf_counter()
            for batch, weight in self.loader.batches(task.train_set, batches, progress.batch, cfg.accumulate):
                data_time = time.perf_counter() - mark
                number, lr = progress.step + 1, self.schedule.rate(progress, steps)
                metrics, stepped = self.step(batch, weight, lr)
                spent = time.perf_counter() - mark
                progress.seconds += spent
                times = {"data_time": data_time, "model_time": spent - data_time}
                self.recorder.batch(number, progress.epoch, **metrics, lr=lr, **times)
                bar.set_postfix_str(as_line(self.metrics.means()), refresh=False)
                bar.update()
                if stepped:
                    self.profiler.step()
                    self.session.stop_if_asked()
                    if time.monotonic() - self.saved_at >= cfg.save_every:
                        self.save()
                mark = time.perf_counter()

    def train_batches(self) -> list[list[int]]:
        """The batches of this epoch; with cfg.overfit_batches the first ones of the first epoch, again and again."""
        progress = self.progress
        self.session.resumable = self.fabric.world_size == 1  # one process need not wait for the end of a step to stop
        with self.average.sync_resets() if self.average else nullcontext(), self.fabric.autocast():
            batches = self.task.train_batches(0 if self.cfg.overfit_batches else progress.epoch)
        self.session.resumable = False
        batches = batches[: self.cfg.overfit_batches or self.limit]
        if progress.batch and len(batches) != progress.batches:
            advice = f"go on with the data and options of before (max_epoch={progress.epoch + 1}), and change them then"
            raise UserError(f"this epoch had {progress.batches} batches and has {len(batches)} now: {advice}")
        progress.batches = len(batches)
        return batches

    def step(self, batch: dict[str, Any], weight: float, lr: float) -> tuple[dict[str, float], bool]:
        """Forward and backward pass of a batch, and the optimizer's step at the last of cfg.accumulate batches.

        Returns the metrics, and whether there was a step.
        """
        progress, task = self.progress, self.task
        debugging = self.debug.is_on()
        progress.batch += 1
        ends_step = progress.batch % self.cfg.accumulate == 0 or progress.batch == progress.batches
        with self.fabric.no_backward_sync(self.model, enabled=not ends_step):
            with self.fabric.autocast():
                output = task.step(self.model, batch)
            self.check_finite(output["objective"], batch)
            self.fabric.backward(output["objective"] * weight)
        self.step_weight += weight
        metrics = self.metrics.update(output, weight)
        diagnostics.track_best_worst_batch(progress.extremes, metrics.get("loss"), progress.batch - 1)
        if debugging and self.fabric.is_global_zero:
            self.debug.look(progress.step + 1, task.model, batch, output)
        return metrics | (self.update(lr, batch) if ends_step else {}), ends_step

    def update(self, lr: float, batch: dict[str, Any]) -> dict[str, float]:
        """Clips the gradient and takes one step; returns the gradient's norm before clipping."""
        cfg, progress, model = self.cfg, self.progress, self.task.model
        if not largest(self.fabric, self.step_weight):  # nothing in these batches could be read
            self.optimizer.zero_grad()
            return {}
        self.step_weight = 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if self.fabric.world_size > 1 and self.task.in_parts:
            drop_unused_gradients(model)
        precision = self.fabric.strategy.precision
        precision.unscale_gradients(self.state.optimizer)  # fp16 only
        if cfg.l1:
            add_l1_gradient(model, cfg.l1)
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not precision.state_dict():  # fp16's scaler leaves a step out whose gradients overflow
            self.check_finite(norm, batch, gradient=True)  # clipping would spread what is not finite to all of them
        clip_gradients(list(model.parameters()), cfg.clip_value, cfg.grad_clip, norm)
        progress.step += 1
        if progress.step % 100 == 1:
            self.recorder.gradients(progress.step, progress.epoch, diagnostics.gradient_range(model))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(progress.step)
        return {"grad_norm": norm.item()}

    def check_finite(self, value: torch.Tensor, batch: dict[str, Any], gradient: bool = False) -> None:
        """Ends the run, and names the first bad tensor, if a loss or norm is not finite in any of the processes."""
        fabric, task = self.fabric, self.task
        culprit = int(largest(fabric, -1 if torch.isfinite(value) else fabric.global_rank))
        if culprit < 0:
            return
        with fabric.autocast():
            name = diagnostics.first_bad_tensor(task.model, batch, lambda: task.step(task.model, batch), gradient)
            name = fabric.broadcast(name, culprit)
        if not fabric.is_global_zero:
            raise SystemExit(0)
        advice = f"Try a smaller lr, grad_clip=1 or precision=fp32; the last good state is {self.folder / STATE}"
        where = f"step {self.progress.step + 1}"
        raise UserError(f"{where}: the loss is not finite; the first bad tensor is {name}. {advice}")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The metrics on the validation set."""
        self.model.eval()
        metrics = Metrics(self.fabric)
        with self.fabric.autocast():
            dataset, batches = self.task.val_batches()
            batches = batches[: self.limit]
            with progress_bar(self.fabric, "val", len(batches)) as bar:
                for batch, weight in self.loader.batches(dataset, batches):
                    metrics.update(self.task.step(self.model, batch), weight, keep_samples=True)
                    bar.update()
                    self.session.stop_if_asked()
        if not metrics.means():
            raise UserError("none of the validation samples can be read; the log names them")
        with preserve_rng():
            return self.task.summarise(metrics.means()) | self.task.compute_metrics(metrics.samples())

    def update_best(self, metrics: dict[str, float]) -> None:
        """Saves the model if it is better than the best so far; else lets the plateau schedule decay."""
        progress, monitor = self.progress, self.monitor
        sign = -1 if self.task.monitors[monitor] == "max" else 1
        if sign * metrics[monitor] < sign * progress.best.get(monitor, sign * math.inf):
            progress.best, progress.best_epoch = metrics, progress.epoch
            if self.fabric.is_global_zero:
                self.task.model.save(
                    self.folder / BEST, **self.task.model_metadata(), config=public_config(self.cfg, self.task),
                    revision=git_revision(), epoch=progress.epoch + 1, step=progress.step,
                    seconds=round(progress.seconds), **{monitor: metrics[monitor]},
                )  # fmt: skip
        elif self.cfg.lr_schedule == "plateau":
            progress.lr_factor *= self.cfg.lr_decay

    def show_examples(self) -> None:
        """Examples of what the model can do now, and the best and the worst batch of the epoch."""
        if not self.fabric.is_global_zero:
            return
        where = self.recorder, self.progress.step, self.progress.epoch
        with preserve_rng():
            self.task.show(*where)
            for name, (loss, number) in self.progress.extremes.items() if self.cfg.samples else ():
                samples = [self.task.train_set[i] for i in self.batches[int(number)]]  # the same again
                self.task.show_batch(*where, f"{name} batch", self.task.collate(samples), loss)

    def finish_epoch(self, metrics: dict[str, float]) -> None:
        """Records the epoch, moves on to the next and saves."""
        progress, recorder = self.progress, self.recorder
        trained = self.task.summarise(self.metrics.means())
        recorder.epoch(progress.step, progress.epoch, "train", **trained)
        recorder.epoch(progress.step, progress.epoch, "val", **metrics, lr_factor=progress.lr_factor)
        metrics_text = f"{as_line(trained)} | val {as_line(metrics)}"
        self.say(f"epoch {progress.epoch + 1}/{self.cfg.max_epoch}  {metrics_text}  ({progress.seconds:.0f} s)")
        if self.fabric.is_global_zero:
            for name, parameter in self.task.model.named_parameters():
                recorder.histogram(progress.step, progress.epoch, name, parameter.detach().float().cpu().numpy())
        self.loader.report_skipped()
        self.metrics.clear()
        progress.extremes.clear()
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self.save()

    def save(self) -> None:
        self.saved_at = time.monotonic()
        if self.fabric.is_global_zero:
            self.progress.meters = self.metrics.state_dict()
            self.state.save(self.folder / STATE, self.cfg.as_dict(), self.recorder.size)

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Goes on from what `save` wrote; None: from the beginning."""
        if saved:
            self.state.restore(saved, self.folder)
            self.saved_schedule = make_schedule(saved["config"])
        if rank := self.fabric.global_rank:  # each process has its own dropout; the first one's is exact after a resume
            seed_everything(self.cfg.seed + rank + 1000 * self.progress.step, self.cfg.deterministic)

    def close(self) -> None:
        self.profiler.close()
        self.recorder.close()
        self.debug.close()

    def report_jump(self, steps: int) -> None:
        """Says, once, what changed options make of the next step's learning rate; `steps`: of an epoch."""
        old, new = (schedule.rate(self.progress, steps) for schedule in (self.saved_schedule, self.schedule))
        self.saved_schedule = self.schedule
        if not math.isclose(old, new, rel_tol=0.01):
            self.say(f"the learning rate of the next step was to be {old:.2e} and is {new:.2e} by the changed options")

    def report_skipped(self, line: str) -> None:
        self.say(f"left out: {line}")
        self.recorder.text(self.progress.step, self.progress.epoch, "left out", line)
