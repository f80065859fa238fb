"""The command line: `python main.py COMMAND [--option=value …]`. Each command reads its options, calls, and prints.

cli.py has what all of them need, config.py their options, shihua.py most of what they do. What imports torch is
imported when it is needed.
"""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while all this is imported; later see cli.run

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cli
import config
import shihua
from cli import Incomplete, Option, no_arguments, parse, say, write
from data.verse import given_poems
from options import find_inputs, shipped
from options import parse as parse_options
from utils.errors import UserError
from utils.text import short

NETWORK_ONLY = ("style", "strength", "load", "tile", "memory_limit")  # options of stylize
OPTIMIZE_ONLY = "style_image style_size steps loss_network vgg content_weight style_weight tv_weight".split()


def train(*args: str, **options: Option) -> None:
    """train a network; after each epoch: validation, a checkpoint, examples"""
    no_arguments("train", args)
    cfg = _task_options("train", options)
    from trainer import train as run

    run(cfg)


def val(*args: str, **options: Option) -> None:
    """evaluate a model file on the validation split: --load=FILE"""
    _evaluate("val", args, options)


def test(*args: str, **options: Option) -> None:
    """evaluate a model file on the test split: --load=FILE; dogcat: write Kaggle's CSV, too"""
    _evaluate("test", args, options)


def _evaluate(command: str, args: tuple[str, ...], options: dict[str, Option]) -> None:
    no_arguments(command, args)
    cfg = _task_options(command, options)
    if not cfg.load:
        raise UserError(
            f"{command} needs a model file: --load=checkpoints/{cfg.task}.safetensors, or a run's best.safetensors"
        )
    from tasks import make_task
    from utils.hardware import check_workers, pick_device

    check_workers(cfg.num_workers)
    task = make_task(cfg)
    task.to(pick_device(cfg.use_gpu))
    with TemporaryDirectory() if cfg.fast_dev_run else nullcontext() as folder:
        if folder and hasattr(cfg, "out"):
            task.cfg = dataclasses.replace(task.cfg, out=folder)
        metrics = task.evaluate(cfg.split or command)
    _print_facts(metrics, cfg.json)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Names and values, one a line, or as JSON."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}} {short(value, 4) if isinstance(value, float) else value}")


def find_lr(*args: str, **options: Option) -> None:
    """the learning rate at which the loss of a task falls fastest: a short training with a rising one"""
    no_arguments("find_lr", args)
    steps = parse_options(config.FindLrConfig, _taken(options, "steps")).steps
    cfg = _task_options("find_lr", options)
    from prepare import find_lr as search
    from training.lr_finder import chart

    found = search(cfg, steps)
    if cfg.json:
        print(json.dumps(found))
    else:
        print(f"{'lr':>9} {'loss':>8}\n{chart(found['lr'], found['loss'])}")
        print(f"the loss falls fastest at --lr={found['suggestion']:.1e}")


def generate(*args: str, **options: Option) -> None:
    """write poems with the shipped poet, or the one that --load names"""
    cfg = parse("generate", options, args)
    poet = shihua.Poet(cfg.load, cfg.use_gpu)
    if cfg.explain:
        _ = poet.table  # without one there is nothing to explain
    poems = poet.write(settings=cfg)
    if cfg.json:
        for poem in poems:
            print(json.dumps(poem.as_dict(), ensure_ascii=False))
        return
    for remark in dict.fromkeys(remark for poem in poems for remark in poem.remarks):
        say(remark)
    if cfg.explain:
        for poem in poems:
            head = f"《{poem.title}》\n" if poem.title else ""
            score = f"score {poem.score:.2f}, rating {poem.rating:.2f}, --seed={poem.seed}"
            print(f"{head}{poem.check or chr(10).join(poem.lines)}\n{score}\n")
    else:
        print("\n\n".join(map(str, poems)))
    ratings = f"best first, rated {' '.join(f'{poem.rating:.2f}' for poem in poems)}; " if 1 < len(poems) <= 16 else ""
    say(f"({ratings}--seed={min(poem.seed for poem in poems)} writes this again)")


def check(*args: str, **options: Option) -> None:
    """POEM|FILE|-  mark the tones of verse, and what breaks the rules of the regulated forms"""
    cfg = parse("check", options)
    if len(args) != 1 or not args[0]:
        raise UserError("check needs one poem, or file of poems: python main.py check 白日依山尽，黄河入海流。…")
    poet = shihua.Poet(cfg.load)
    checks = [poet.check(poem) for poem in given_poems(args[0])]
    if cfg.json:
        print("\n".join(json.dumps(found.as_dict(), ensure_ascii=False) for found in checks))
    else:
        print("\n\n".join(map(str, checks)))


def stylize(*args: str, **options: Option) -> None:
    """PATH …  paint pictures, folders of pictures, animations, videos"""
    cfg = parse("stylize", options)
    if cfg.style == "list":
        from infer.painting.names import CHINESE

        styles = shihua.Painter(cfg.load).styles
        print("\n".join("  ".join((name, *CHINESE.get(name, ())[:1])) for name in styles))
        return
    if not all(args) or not args:  # an empty path would be the current folder
        raise UserError("stylize needs something to paint: python main.py stylize photo.jpg")
    painter = _painter(cfg)
    cli.check_paths("stylize", args, "a picture, a folder of pictures, or a video")
    _print_results(painter.paint_files(args, cfg), cfg.json, "painted")


def _painter(cfg: config.StylizeConfig) -> shihua.Painter | shihua.Optimizer:
    """What paints by --method. Raises UserError for options of the other one."""
    changed = cfg.changed()
    if cfg.method == "network":
        for name in filter(changed.__contains__, OPTIMIZE_ONLY):
            raise UserError(f"--{name} is for --method=optimize; a network has its styles: --style=NAME")
        return shihua.Painter(cfg.load, cfg.use_gpu)
    for name in filter(changed.__contains__, NETWORK_ONLY):
        raise UserError(f"--{name} is for --method=network")
    if not cfg.style_image:
        raise UserError("--method=optimize needs the picture of a style: --style_image=FILE")
    return shihua.Optimizer(cfg.style_image, cfg.use_gpu)


def postcard(*args: str, **options: Option) -> None:
    """PHOTO  paint a photograph and write a poem on it, in vertical script with a seal"""
    cfg = parse("postcard", options)
    if not args or not args[0]:
        raise UserError("postcard needs a photograph: python main.py postcard photo.jpg")
    no_arguments("postcard", args[1:])
    cli.check_paths("postcard", args, "a photograph")
    with _bar("painting") as progress:
        card = shihua.postcard(args[0], settings=cfg, progress=progress)
    out = card.save(quality=cfg.quality)
    say("\n".join(([f"《{card.title}》"] if card.title else []) + card.lines))
    if card.seed is not None:
        say(f"(--seed={card.seed} writes this again)")
    print(json.dumps({"path": args[0], "out": str(out), **card.as_dict()}, ensure_ascii=False) if cfg.json else out)


def classify(*args: str, **options: Option) -> None:
    """PATH …  say what pictures show: dog or cat, with its probability, or neither"""
    cfg = parse("classify", options)
    if not all(args) or not args:
        raise UserError("classify needs pictures: python main.py classify photo.jpg")
    if cfg.out and not cfg.explain:
        raise UserError(f"--out={cfg.out} is the folder for --explain; for a table give --csv=FILE")
    classifier = shihua.Classifier(cfg.load, cfg.use_gpu)
    cli.check_paths("classify", args, "a picture, or a folder of pictures")
    with _bar("classifying") as progress:
        _print_results(classifier.classify_files(args, cfg, progress), cfg.json, "read")


def _print_results(results: Iterable[Any], as_json: bool, done: str) -> None:
    """A line for each file, on stderr where it could not be done. Raises Incomplete if there are such."""
    count, bad = 0, 0
    for result in results:
        count, bad = count + 1, bad + bool(result.error)
        for remark in filter(None, (result.error and f"error: {result.error}", result.note)):
            write(remark, sys.stderr)
        if as_json:
            write(json.dumps(result.as_dict(), ensure_ascii=False))
        elif not result.error:
            write(str(result))
    if bad and count > 1:
        say(f"{bad} of {count} could not be {done}")
    from utils.hardware import rank_and_world

    if bad and rank_and_world()[1] == 1:  # an exit code of one process makes torchrun end the others
        raise Incomplete


def export(*args: str, **options: Option) -> None:
    """write the network of a style as ONNX, for other programs (takes some 20 seconds)"""
    cfg = parse("export", options, args)
    out = Path(cfg.out or f"{Path(cfg.load).stem}.onnx")
    shihua.Painter(cfg.load).export(out, cfg.style)
    print(out)


def average(*args: str, **options: Option) -> None:
    """FILE FILE …  the mean of the weights of model files of the same network, as a new file"""
    cfg = parse("average", options)
    if len(args) < 2:
        raise UserError("average needs two model files: python main.py average a.safetensors b.safetensors --out=…")
    cli.check_paths("average", args, config.MODEL)
    shares = cfg.shares.split(",") if cfg.shares else ["1"] * len(args)
    try:
        numbers = [float(share) for share in shares]
    except ValueError:
        numbers = []
    if len(numbers) != len(args) or min(numbers) < 0 or not sum(numbers) > 0:
        raise UserError(f"--shares={cfg.shares}: expected a number for each of the {len(args)} files, as in 0.3,0.7")
    if not cfg.out:
        raise UserError("average: name the file to write, as in --out=mean.safetensors")
    from utils.files import refuse_overwriting

    refuse_overwriting([cfg.out], args)
    import torch

    import models  # noqa: F401  the networks that files may hold
    from models.basemodule import average as mean

    names = [f"{number:g} x {Path(path).name}" for number, path in zip(numbers, args, strict=True)]
    mean(args, numbers).save(cfg.out, dtype=torch.float16 if cfg.half else None, average=" + ".join(names))
    print(cfg.out)


def visdom(*args: str, **options: Option) -> None:
    """[RUN]  the training board in the browser; with a run's folder, its curves and poems"""
    cfg = parse("visdom", options, args[1:])
    from board.server import show

    show(Path(args[0]) if args else None, cfg.port)


def demo(*args: str, **options: Option) -> None:
    """poems, paintings, postcards, dogs and cats, and training, on a page in the browser"""
    cfg = parse("demo", options, args)
    from demo.server import serve

    serve(cfg)


def download(*args: str, **options: Option) -> None:
    """[NAME]  get real data; without a name: what there is; visdom: the files of its page, by npm"""
    cfg = parse("download", options, args[1:])
    from board.frontend import fetch_frontend
    from data.download import download, listing

    if not args:
        print(listing())
    elif args[0] == "visdom":
        print(fetch_frontend())
    else:
        print(download(args[0], cfg.to))


def summary(*args: str, **options: Option) -> None:
    """the layers of a task's network, or of the model file that --load names"""
    no_arguments("summary", args)
    graph = parse_options(config.SummaryConfig, _taken(options, "graph")).graph
    cfg = _task_options("summary", options)
    from utils.files import refuse_overwriting

    refuse_overwriting(filter(None, [graph]), cfg.inputs(), "graph")
    from tasks import make_task

    task = make_task(cfg)
    import torchinfo

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    print(torchinfo.summary(task.model, input_data=task.example(), col_names=columns, verbose=0))
    if graph:
        from board.graph import draw_graph

        draw_graph(graph, task.model, task.example())
        say(f"the graph: {graph}")


def runs(*args: str, **options: Option) -> None:
    """[RUN …]  the runs so far, or those named, side by side: metrics, and the options in which they differ"""
    cfg = parse("runs", options)
    from board.runs import read_runs, table

    found = read_runs(cfg.save_path)
    if unknown := set(args) - {run["run"] for run in found}:
        raise UserError(f"no run {min(unknown)} in {cfg.save_path}; there are {', '.join(run['run'] for run in found)}")
    found = [run for run in found if not args or run["run"] in args]
    print("\n".join(json.dumps(run, ensure_ascii=False) for run in found) if cfg.json else table(found))


def info(*args: str, **options: Option) -> None:
    """versions, processor, GPUs and precision here: what a report of a bug needs"""
    cfg = parse("info", options, args)
    from utils.info import info as facts

    _print_facts(facts(), cfg.json)


def help(*args: str, **options: Option) -> None:  # noqa: A001  the command's name
    """[COMMAND]  this text, or every option of a command"""
    no_arguments("help", (*args[1:], *(f"--{name}" for name in options)))
    if args:
        cli.check_command(args[0])
        print(f"python main.py {args[0]}: {COMMANDS[args[0]].__doc__}")
        option_sets = config.OPTIONS[args[0]]
    else:
        commands = "\n".join(f"  {name:10} {f.__doc__}" for name, f in COMMANDS.items())
        print(f"usage: python main.py COMMAND [--option=value …]\n\n{commands}")
        option_sets = dict.fromkeys(cls for sets in config.OPTIONS.values() for cls in sets)
    for cls in option_sets:
        print(f"\n{cli.options_text(cls, args[0] if args else '')}")


# A new command is a function above, and its options (classes of config.py) in config.OPTIONS.
COMMANDS: dict[str, Callable] = {name: globals()[name] for name in config.OPTIONS}


def _task_options(command: str, options: dict[str, Option]) -> config.DefaultConfig:
    """The checked options of a command of tasks.

    Without --task, the model file says of which it is, or the resumed run.
    """
    stored = {}
    if command == "train" and "resume" in options:
        from training.state import resumed_options

        stored = resumed_options(options, options.get("save_path", config.DefaultConfig.save_path))
        options = {**options, "resume": stored["resume"]}
    elif "task" not in options and isinstance(options.get("load"), str):
        from utils.files import class_and_task

        network, task = class_and_task(shipped(os.path.expanduser(options["load"])))
        if network:
            options = {**options, "task": task or config.TASK_OF.get(network, "dogcat")}
    return find_inputs(config.task_config(options, command, stored), options)


def _taken(options: dict[str, Option], name: str) -> dict[str, Option]:
    """Takes an option that only this command has from those of its task."""
    return {name: options.pop(name)} if name in options else {}


@contextmanager
def _bar(text: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, if that is a terminal: the callback that moves it to a share of the work."""
    from tqdm import tqdm

    form = text + ": {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=None) as bar:
        yield lambda share: bar.update(share - bar.n)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    return cli.run_command(COMMANDS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    cli.speak_chinese()
    sys.exit(cli.run(main))
