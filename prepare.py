"""From a config to all that a training needs: folder, devices, task, lock, optimizer, state, recorder."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Optimizer

from config import DefaultConfig
from tasks import make_task
from tasks.base import Task
from training import lr_finder
from training.devices import Devices, check_batch, find_devices, make_fabric, try_step
from training.loader import Loader
from training.metrics import NOT_METRICS
from training.optimizers import Schedule, make_optimizer
from training.parameters import MovingAverage, checkpoint_layers, freeze, parameter_groups
from training.recorder import Recorder, Sink
from training.state import Progress, RunState, check_changes, lock, run_folder
from utils.errors import UserError, did_you_mean
from utils.hardware import check_workers, pick_device
from utils.seed import seed_everything
from utils.text import say


@dataclass
class Setup:
    """What the loop is handed. `cfg` has nothing left open; `say` prints in the first process only."""

    cfg: DefaultConfig
    task: Task
    fabric: Fabric
    folder: Path
    state: RunState
    recorder: Recorder
    say: Callable[[str], None]


def prepare(cfg: DefaultConfig, saved: dict[str, Any] | None, resources: ExitStack) -> Setup:
    """All that the loop needs, for a new run or one that was `saved`; `resources` keeps the lock of its folder."""
    folder = Path(cfg.resume) if cfg.resume else new_folder(cfg)
    devices = find_devices(cfg.use_gpu, cfg.devices, cfg.num_nodes, cfg.num_workers, cfg.sync_bn)
    # Another number of threads adds up in another order. (With other devices, the bits are others anyway.)
    alike = saved and all(saved["config"][name] == getattr(cfg, name) for name in ("devices", "num_nodes", "use_gpu"))
    threads = saved["threads"] if alike else torch.get_num_threads()
    torch.set_num_threads(threads)
    cfg, task, chosen = build(cfg, devices, saved["arguments"] if saved and started_from_weights(cfg) else None)
    fabric, machine = make_fabric(devices, cfg.precision)
    report = say if fabric.is_global_zero else lambda text: None
    report(f"{cfg.task}: {cfg}\n{machine}; {chosen}")
    if saved and (changes := check_changes(saved["config"], cfg.as_dict(), saved["progress"]["batch"] > 0)):
        report(f"changed since the run was saved: {', '.join(changes)}")
    if torch.get_num_threads() != threads:
        report(f"torch has {torch.get_num_threads()} threads here, not {threads} as before: rounding will differ")
    report(f"{task}\nrun: {folder}{board_address(cfg, folder)}")
    if fabric.is_global_zero:
        resources.enter_context(lock(folder))
        _ = cfg.resume or new_folder(cfg)  # again: another training may have ended here since
    if fabric.world_size > 1:
        fabric.launch()
        folder = Path(fabric.broadcast(str(folder)))
        if alike:
            torch.set_num_threads(threads)  # launch has set a number of its own
    task.to(fabric.device)
    if cfg.sync_bn:
        task.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(task.model)
    average = MovingAverage(task.model, cfg.ema) if cfg.ema else None
    progress = Progress(**saved["progress"]) if saved else Progress()
    state = RunState(task.model, task_optimizer(cfg, task), average, fabric.strategy.precision, progress)
    recorder = Recorder(None)
    if fabric.is_global_zero:
        recorder = Recorder(folder, listeners(cfg, folder), resume_size=saved["log_size"] if saved else 0)
        recorder.config(cfg.as_dict(), monitor=monitored(cfg, task), command=task.command)
    return Setup(cfg, task, fabric, folder, state, recorder, report)


def build(
    cfg: DefaultConfig, devices: Devices, arguments: dict[str, Any] | None = None, validate: bool = True
) -> tuple[DefaultConfig, Task, str]:
    """(cfg with nothing left open, its task on its device, a few words about what was chosen).

    `arguments` are those of the network of a run that goes on; `validate`: whether there must be validation data.
    Raises UserError for patterns, a metric, a precision or a batch that cannot be.
    """
    seed_everything(cfg.seed, cfg.deterministic)
    task = make_task(cfg, arguments)
    cfg = task.cfg  # with what was left to the task
    if validate:
        task.val_batches()
    freeze(task.model, cfg.freeze)
    parameter_groups(task.model, cfg.weight_decay, cfg.lr_scale)
    checkpoint_layers(task.model, cfg.checkpoint_layers)
    make_schedule(cfg.as_dict())
    monitor = monitored(cfg, task)
    precision, why, trial = try_step(task, cfg.precision, devices)
    if trial.metrics and type(task).compute_metrics is Task.compute_metrics:
        metrics = task.summarise({name: 1.0 for name in trial.metrics if name not in NOT_METRICS})
        if monitor not in metrics:
            raise UserError(f"the task is to monitor {monitor}, but gives {', '.join(metrics)}")
    check_batch(task, cfg.batch_size, devices, precision, trial)
    # The task does not depend on it: it computes in what is around it. A resumed run must not choose anew.
    return dataclasses.replace(cfg, precision=precision), task, f"precision {precision} ({why})"


def started_from_weights(cfg: DefaultConfig) -> bool:
    """Whether the first weights were those of a file. It may be gone by now: a run has its weights in its own state."""
    words = ("", "auto", "imagenet", "none")  # that cfg.pretrained may be instead
    return any(getattr(cfg, option, "") not in words for option in ("load", "init", "pretrained"))


def monitored(cfg: DefaultConfig, task: Task) -> str:
    """The metric that decides which weights are best."""
    if cfg.monitor and cfg.monitor not in task.monitors:
        hint = did_you_mean(cfg.monitor, task.monitors)
        raise UserError(f"choose one of {', '.join(task.monitors)}{hint}", monitor=cfg.monitor)
    return cfg.monitor or next(iter(task.monitors))


def make_schedule(options: dict[str, Any]) -> Schedule:
    """The learning rate schedule of a config, as a dict: also of one that was saved."""
    return Schedule(*(options[name] for name in ("lr_schedule", "lr", "lr_epochs", "lr_decay", "warmup", "max_epoch")))


def task_optimizer(cfg: DefaultConfig, task: Task) -> Optimizer:
    """The optimizer of all parameters of a built task; frozen ones have no gradient."""
    groups = parameter_groups(task.model, cfg.weight_decay, cfg.lr_scale)
    return make_optimizer(cfg.optimizer, groups, cfg.lr, cfg.momentum, fused=cfg.precision != "fp16")


def public_config(cfg: DefaultConfig, task: Task) -> dict[str, Any]:
    """The config without what is only about this machine: a model file may be given to others."""
    private = ("save_path", "run", "resume", "env", "debug_file", *task.paths)
    return {name: value for name, value in cfg.as_dict().items() if name not in private}


def new_folder(cfg: DefaultConfig) -> Path:
    name = cfg.run or f"{cfg.task}_{time.strftime('%m%d_%H%M%S')}"
    return run_folder(cfg.save_path, name, cfg.inputs())


def listeners(cfg: DefaultConfig, folder: Path) -> list[Sink]:
    """Who watches the log of a run."""
    sinks: list[Sink] = []
    if cfg.use_visdom:
        from board.server import LiveBoard

        sinks.append(LiveBoard(folder, cfg.env, cfg.vis_port))
    if cfg.tensorboard:
        from board.tensorboard import TensorBoard

        sinks.append(TensorBoard(folder))
    return sinks


def board_address(cfg: DefaultConfig, folder: Path) -> str:
    """A line that says how to watch the run, if it is to be watched."""
    if not cfg.use_visdom or cfg.fast_dev_run:
        return ""
    from board.server import env_address

    port = "" if cfg.vis_port == DefaultConfig.vis_port else f" --port={cfg.vis_port}"
    return f"\nboard: {env_address(cfg.env or folder.name, cfg.vis_port)}, if python main.py visdom{port} runs"


def find_lr(cfg: DefaultConfig, steps: int = 100) -> dict[str, Any]:
    """The learning rate range test of the task of `cfg`, see training/lr_finder.py; raises UserError as `train`."""
    devices = find_devices(cfg.use_gpu, cfg.devices, cfg.num_nodes, cfg.num_workers)
    cfg, task, chosen = build(cfg, devices, validate=False)
    fabric, machine = make_fabric(devices, cfg.precision)
    say(f"{task}\n{machine}; {chosen}")
    loader = Loader(fabric, task, cfg.num_workers, lambda line: say(f"left out: {line}"))

    def batches() -> Iterator[dict[str, Any]]:
        for epoch in itertools.count():
            with fabric.autocast():
                indices = task.train_batches(epoch)
            yield from (batch for batch, weight in loader.batches(task.train_set, indices) if weight)

    optimizer = task_optimizer(cfg, task)
    return lr_finder.find_lr(fabric, task, optimizer, batches(), steps, cfg.grad_clip)


def evaluate(cfg: DefaultConfig, split: str) -> dict[str, Any]:
    """The metrics of a model file on a split; with `fast_dev_run` of a single batch, files in a temporary folder."""
    check_workers(cfg.num_workers)
    task = make_task(cfg)
    task.to(pick_device(cfg.use_gpu))
    with TemporaryDirectory() if cfg.fast_dev_run else nullcontext() as folder:
        if folder and hasattr(cfg, "out"):
            task.cfg = dataclasses.replace(task.cfg, out=folder)
        return task.evaluate(split)


def summary(cfg: DefaultConfig, graph: str = "") -> str:
    """The layers of a task's network as a table; `graph`: the picture to draw its graph into."""
    import torchinfo

    task = make_task(cfg)
    columns = ("input_size", "output_size", "num_params", "mult_adds")
    table = str(torchinfo.summary(task.model, input_data=task.example(), col_names=columns, verbose=0))
    if graph:
        from board.graph import draw_graph

        draw_graph(graph, task.model, task.example())
    return table
