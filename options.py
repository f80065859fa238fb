"""How options work: a field with its help, converting what the command line gave, finding files, "did you mean …?".

The options themselves stand in config.py. No torch here: help must answer at once.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError, did_you_mean, nearest

Config = TypeVar("Config", bound="Options")
ROOT = Path(__file__).parent
LOSS_NETWORK = "checkpoints/loss_network.safetensors"
POET, PAINTER, CLASSIFIER = SHIPPED = tuple(f"checkpoints/{name}.safetensors" for name in ("poet", "style", "dogcat"))


def option(
    default: Any,
    meaning: str,
    choices: tuple[str, ...] = (),
    minimum: float = 0,
    maximum: float = 2**31 - 1,
    writes: str = "",
    reads: str = "",
    words: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help, its choices, or the smallest and the largest number.

    `writes`: suffix of the file that is written; "files": a folder, or one of several suffixes. `reads`: what to give
    where a file or folder must exist, unless its value is one of `words`.
    """
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    files = {"writes": writes, "reads": reads, "words": words}
    return dataclasses.field(default=default, metadata={"help": meaning, **limits, **files})


@dataclass(frozen=True)
class Options:
    """Base of all sets of options."""

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults; a shipped file is the same from any folder."""
        values = {f: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            f.name: value
            for f, value in values.items()
            if value != f.default and not (f.default in SHIPPED and value == str(ROOT / f.default))
        }

    def inputs(self) -> list[str]:
        """What may name files to read: all texts but those that name files to write."""
        fields = (f for f in dataclasses.fields(self) if f.type is str and not f.metadata["writes"])
        return [text for f in fields if (text := getattr(self, f.name))]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """The options that differ from their defaults."""
        return ", ".join(f"{name}={value}" for name, value in self.changed().items()) or "defaults"


def option_names(cls: type[Options]) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}


def parse(cls: type[Config], overrides: Mapping[str, Any]) -> Config:
    """A `cls` with `overrides`, each converted to its field's type. Raises UserError that says what would be right.

    An option written without a value is True here; `--nojson` and `--no-json` are False for `json`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for name, value in overrides.items():
        switch = name.removeprefix("no").lstrip("_")
        if name not in fields and value is True and switch in fields and fields[switch].type is bool:
            name, value = switch, False
        if name not in fields:
            meant = known_name(name, fields)
            hint = f"; did you mean --{meant}?" if meant else "; python main.py help lists the options"
            if name in PICTURES and "max_megapixels" in fields:
                hint = "; name the picture without an option: photo.jpg"
            raise UserError(f"unknown option --{name}{hint}")
        values[name] = _convert(name, value, fields[name])
    return cls(**values)


def merge(cls: type[Config], given: Config | None, more: Mapping[str, Any]) -> Config:
    """The checked settings of a call in Python: `given`, or the defaults, and single ones. Raises UserError."""
    names = option_names(cls)
    for name in more:
        if name not in names:
            raise UserError(f"there is no such setting{did_you_mean(name, names)}", **{name: None})
    return parse(cls, {**(given.as_dict() if given else {}), **more}) if more or not given else given


def _convert(name: str, value: Any, field: dataclasses.Field) -> Any:
    kind, limits = field.type, field.metadata
    example = f"such as {name}={field.default}" if field.default != "" else f"{name}=TEXT"
    if isinstance(value, bool) and kind is not bool:
        raise UserError(f"needs a value: {_EXPECTED[kind]}, {example}", **{name: None})
    try:
        result = _CONVERT[kind](value)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(f"expected {_EXPECTED[kind]}, {example}", **{name: value}) from None
    if kind is str and (limits["reads"] or limits["writes"]):
        result = os.path.expanduser(result)  # the shell does not, after --name=
    if limits["choices"] and result not in limits["choices"]:
        choices = [c for c in limits["choices"] if c]
        raise UserError(f"choose one of {', '.join(choices)}{did_you_mean(result, choices)}", **{name: result})
    if limits["writes"].startswith(".") and result and not result.lower().endswith(limits["writes"]):
        raise UserError(f"the file's name must end in {limits['writes']}", **{name: result})
    if kind in (int, float):
        if not result >= limits["minimum"]:  # not: NaN is never at least anything
            raise UserError(f"must be at least {limits['minimum']}, {example}", **{name: value})
        if result > limits["maximum"]:
            raise UserError(f"must be at most {limits['maximum']}, {example}", **{name: value})
    return result


TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _to_int(value: Any) -> int:
    number = _to_float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _to_float(value: Any) -> float:
    if "_" in str(value):  # Python would read 12_34 as 1234
        raise ValueError
    return float(value)


def _to_str(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


_CONVERT = {bool: lambda value: TRUTH[str(value).lower()], int: _to_int, float: _to_float, str: _to_str}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def find_inputs(cfg: Config, given: Iterable[str]) -> Config:
    """`cfg` with the shipped files found from any folder. Raises UserError for a file of `given` that is missing."""
    found = {}
    for f in dataclasses.fields(cfg):
        path = getattr(cfg, f.name)
        if f.metadata["reads"] and path and path not in f.metadata["words"] and is_missing(path):
            if not is_missing(place := shipped(path)):
                found[f.name] = place
            elif f.name in given:
                raise UserError(f"--{f.name}={path} does not exist: give {f.metadata['reads']}")
    return dataclasses.replace(cfg, **found)


def shipped(path: str) -> str:
    """`path`, or where it is in the project: `checkpoints/poet.safetensors` is found from any folder."""
    return str(ROOT / path) if path in SHIPPED and is_missing(path) else path


def is_missing(path: str) -> bool:
    """Whether there is no such file; other faults of a path are an OSError, which says what is wrong."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


# Options of tasks that not every command of tasks (train, find_lr, val, test, summary) has a use for.
ONLY_FOR = {
    name: tuple(commands.split())
    for commands, names in {
        "train": "max_epoch lr lr_schedule lr_epochs lr_decay warmup unfreeze_epoch ema monitor patience clip_value l1"
        " accumulate checkpoint_layers devices num_nodes compile sync_bn deterministic overfit_batches"
        " profile save_path run resume save_every env use_visdom vis_port tensorboard debug_file samples",
        "train val test": "fast_dev_run",
        "train find_lr": "precision batch_size optimizer momentum weight_decay lr_scale freeze grad_clip seed"
        " styles_per_photo epoch_batches temporal_weight"
        " label_smoothing mixup jitter shuffle_blocks views distill others cache",
        "train find_lr summary": "init rhymes backbone dropout min_count row_length width pretrained",
        "val test": "split lpips squeezenet optimize_steps tta out",
        "val test find_lr": "json",
    }.items()
    for name in names.split()
}


def is_for(name: str, command: str) -> bool:
    """Whether a command of tasks has a use for an option."""
    return command in ONLY_FOR.get(name, (command,))


def parse_task(
    default: type[Config], tasks: dict[str, type[Config]], values: dict[str, Any], given: Iterable[str], command: str
) -> Config:
    """The checked options of the task that values["task"] names; `given` are the names that the user has written.

    Raises UserError as `parse` does, and for names of another task, or that `command` has no use for.
    """
    name = parse(default, {"task": values.get("task", default.task)}).task
    if name not in tasks:
        raise UserError(f"choose one of {', '.join(tasks)}{did_you_mean(name, tasks)}", task=name)
    for option_ in given:
        owners = [task for task, cls in tasks.items() if option_ in option_names(cls)]
        if owners and name not in owners:
            raise UserError(f"--{option_} is an option of --task={' and '.join(owners)}, not of --task={name}")
    cfg = parse(tasks[name], values)
    for option_ in given if command else ():
        option_ = option_ if hasattr(cfg, option_) else option_.removeprefix("no").lstrip("_")  # --nocompile
        if not is_for(option_, command):
            raise UserError(f"--{option_} is for {' and '.join(ONLY_FOR[option_])}; {command} has no use for it")
    return cfg


def known_name(name: str, options: Iterable[str]) -> str:
    """The option that was meant by `name`: as another project calls it, or the nearest; empty if none is near."""
    name, options = name.lower().replace("-", "_"), list(options)
    ours = next((ours.split() for theirs, ours in OTHER_NAMES.items() if name in theirs.split()), [])
    return next((option_ for option_ in ours if option_ in options), "") or nearest(name, options)


# What other projects call an option -> its name here: the first that a command has.
OTHER_NAMES = {
    "epochs epoch num_epochs n_epochs max_epochs num_train_epochs": "max_epoch",
    "learning_rate lr_rate base_lr init_lr initial_lr lrate": "lr",
    "bs batchsize batch train_batch_size per_device_train_batch_size": "batch_size batch",
    "model": "backbone load",
    "weights ckpt checkpoint ckpt_path checkpoint_path model_path model_file load_model_path": "load",
    "arch architecture network net": "backbone",
    "gpu gpus cuda device gpu_id": "use_gpu",
    "num_gpus ngpus n_gpu world_size nproc_per_node": "devices",
    "nodes nnodes": "num_nodes",
    "workers worker num_worker n_workers dataloader_num_workers": "num_workers",
    "wd decay": "weight_decay",
    "optim opt": "optimizer",
    "scheduler lr_scheduler sched": "lr_schedule",
    "gamma lr_gamma": "lr_decay",
    "warmup_steps warmup_iters": "warmup",
    "clip clip_grad gradient_clip_val max_grad_norm": "grad_clip",
    "grad_accum gradient_accumulation_steps accum": "accumulate",
    "early_stopping": "patience",
    "amp fp16 bf16 half mixed_precision dtype": "precision",
    "random_seed manual_seed": "seed",
    "data dataset data_dir datadir data_path dataroot train_dir train_data_root": "data_root",
    "output output_dir output_path output_image outdir out_dir outfile dest": "out to save_path",
    "log_dir logdir save_dir checkpoint_dir ckpt_dir model_dir": "save_path",
    "name run_name exp exp_name experiment": "run",
    "restore resume_from continue": "resume",
    "input_size img_size imsize imgsz crop_size": "image_size max_side",
    "size resolution": "image_size max_side",
    "style_img style_path": "style_image style",
    "hidden_dim hidden_size rnn_size": "hidden",
    "num_layers n_layers": "layers",
    "embedding_dim embed_dim emb_size": "embed",
    "start_words start": "prompt",
    "topic theme words": "keywords",
    "num count num_samples n_samples": "n",
    "temp": "temperature",
}
PICTURES = "content content_image input input_image image img photo picture source".split()
