"""The command line: `python main.py COMMAND [--option=value …]`. Each command reads its options, calls, and prints.

cli.py has what all of them need, config.py their options, shihua.py most of what they do. torch is imported last.
"""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while all this is imported; later see cli.run

import json
from collections.abc import Callable
from pathlib import Path

import cli
import config
import shihua
from cli import Option, check_paths, no_arguments, parse, print_facts, print_results, progress_bar, say, task_options
from data.verse import given_poems
from infer.painting.names import both_names
from infer.verse.check_ci import join_sections
from utils.errors import UserError, did_you_mean
from utils.files import refuse_overwriting
from utils.text import parse_named_numbers

NETWORK_ONLY = ("style", "strength", "load", "tile", "memory_limit")  # options of stylize
OPTIMIZE_ONLY = "style_image style_size steps loss_network vgg content_weight style_weight tv_weight".split()


def train(*args: str, **options: Option) -> None:
    """train a network; after each epoch: validation, a checkpoint, examples"""
    cfg = task_options("train", options, args)
    from trainer import train as run

    run(cfg)


def val(*args: str, **options: Option) -> None:
    """evaluate a model file on the validation split: --load=FILE"""
    _evaluate("val", args, options)


def test(*args: str, **options: Option) -> None:
    """evaluate a model file on the test split: --load=FILE; dogcat: write Kaggle's CSV, too"""
    _evaluate("test", args, options)


def _evaluate(command: str, args: tuple[str, ...], options: dict[str, Option]) -> None:
    cfg = task_options(command, options, args)
    if not cfg.load:
        example = f"--load=checkpoints/{cfg.task}.safetensors, or a run's best.safetensors"
        raise UserError(f"{command} needs a model file: {example}")
    from prepare import evaluate

    print_facts(evaluate(cfg, cfg.split or command), cfg.json)


def find_lr(*args: str, **options: Option) -> None:
    """the learning rate at which the loss of a task falls fastest: a short training with a rising one"""
    steps = cli.take(config.FindLrConfig, options).steps
    cfg = task_options("find_lr", options, args)
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
    write = poet.write if cfg.n <= cli.FEW else poet.write_each
    cli.print_poems(write(settings=cfg), cfg)


def check(*args: str, **options: Option) -> None:
    """POEM|FILE|-  mark the tones of verse, and what breaks the rules of its form, pair or tune"""
    cfg = parse("check", options)
    if len(args) != 1 or not args[0]:
        raise UserError("check needs one poem, or file of poems: python main.py check 白日依山尽，黄河入海流。…")
    poet = shihua.Poet(cfg.load)
    checks = [poet.check(poem, cfg.rhymes) for poem in join_sections(given_poems(args[0]))]
    if cfg.json:
        print("\n".join(json.dumps(found.as_dict(), ensure_ascii=False) for found in checks))
    else:
        print("\n\n".join(map(str, checks)))


def stylize(*args: str, **options: Option) -> None:
    """PATH …  paint pictures, folders of pictures, animations, videos"""
    cfg = parse("stylize", options)
    if cfg.style == "list":
        styles = shihua.Painter(cfg.load).styles
        print("\n".join(map(both_names, styles)))
        return
    painter = _painter(cfg)
    check_paths("stylize", args, "a picture, a folder of pictures, or a video")
    print_results(painter.paint_files(args, cfg), cfg.json, "painted")


def _painter(cfg: config.StylizeConfig) -> shihua.Painter | shihua.Optimizer:
    """What paints by --method. Raises UserError for options of the other one."""
    for name in cfg.changed():
        if name in OPTIMIZE_ONLY and cfg.method == "network":
            raise UserError(f"--{name} is for --method=optimize; a network has its styles: --style=NAME")
        if name in NETWORK_ONLY and cfg.method == "optimize":
            raise UserError(f"--{name} is for --method=network")
    if cfg.method == "network":
        return shihua.Painter(cfg.load, cfg.use_gpu)
    if not cfg.style_image:
        raise UserError("--method=optimize needs the picture of a style: --style_image=FILE")
    return shihua.Optimizer(cfg.style_image, cfg.use_gpu)


def postcard(*args: str, **options: Option) -> None:
    """PHOTO  paint a photograph and write a poem on it, in vertical script with a seal"""
    cfg = parse("postcard", options, args[1:])
    check_paths("postcard", args, "a photograph")
    with progress_bar("painting") as progress:
        card = shihua.postcard(args[0], settings=cfg, progress=progress)
    out = card.save(quality=cfg.quality)
    say("\n".join(([f"《{card.title}》"] if card.title else []) + card.lines))
    if card.seed is not None:
        say(f"(--seed={card.seed} writes this again)")
    print(json.dumps({"path": args[0], "out": str(out), **card.as_dict()}, ensure_ascii=False) if cfg.json else out)


def classify(*args: str, **options: Option) -> None:
    """PATH …  say what pictures show: dog or cat, with its probability, or neither"""
    cfg = parse("classify", options)
    if cfg.out and not cfg.explain:
        raise UserError(f"--out={cfg.out} is the folder for --explain; for a table give --csv=FILE")
    classifier = shihua.Classifier(cfg.load, cfg.use_gpu)
    check_paths("classify", args, "a picture, or a folder of pictures")
    with progress_bar("classifying") as progress:
        print_results(classifier.classify_files(args, cfg, progress), cfg.json, "read")


def describe(*args: str, **options: Option) -> None:
    """PATH …  say what photographs show: things, place, season, hour, weather, colours"""
    cfg = parse("describe", options)
    classifier = shihua.Classifier(cfg.load, cfg.use_gpu)
    check_paths("describe", args, "a photograph, or a folder of photographs")
    print_results(classifier.describe_files(args, cfg.max_megapixels), cfg.json, "read")


def export(*args: str, **options: Option) -> None:
    """write the network of a style, or a classifier, as ONNX, for other programs (takes some 20 seconds)"""
    cfg = parse("export", options, args)
    out = Path(cfg.out or f"{Path(cfg.load).stem}.onnx")
    if cli.task_of(cfg.load) == "dogcat" and not cfg.style:
        shihua.Classifier(cfg.load).export(out)
    else:
        shihua.Painter(cfg.load).export(out, cfg.style)
    print(out)


def average(*args: str, **options: Option) -> None:
    """FILE FILE …  the mean of the weights of model files of the same network, as a new file"""
    cfg = parse("average", options)
    if len(args) < 2:
        raise UserError("average needs two model files: python main.py average a.safetensors b.safetensors --out=…")
    check_paths("average", args, config.MODEL)
    weights = [weight for _, weight in parse_named_numbers(cfg.shares, "shares", "0.3,0.7", plain=True)]
    if not cfg.out:
        raise UserError("average: name the file to write, as in --out=mean.safetensors")
    refuse_overwriting([cfg.out], args)
    import torch

    import models  # noqa: F401  the networks that files may hold
    from models.basemodule import average as mean

    mean(args, weights).save(cfg.out, dtype=torch.float16 if cfg.half else None)
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
    else:
        print(fetch_frontend() if args[0] == "visdom" else download(args[0], cfg.to))


def summary(*args: str, **options: Option) -> None:
    """the layers of a task's network, or of the model file that --load names"""
    graph = cli.take(config.SummaryConfig, options).graph
    cfg = task_options("summary", options, args)
    refuse_overwriting(filter(None, [graph]), cfg.inputs(), "graph")
    from prepare import summary

    print(summary(cfg, graph))
    if graph:
        say(f"the graph: {graph}")


def runs(*args: str, **options: Option) -> None:
    """[RUN …]  the runs so far, or those named, side by side: metrics, and the options in which they differ"""
    cfg = parse("runs", options)
    from board.runs import read_runs, table

    found = read_runs(cfg.save_path)
    names = [run["run"] for run in found]
    if unknown := sorted(set(args) - set(names)):
        hint = did_you_mean(unknown[0], names) or f"; there are {', '.join(names)}"
        raise UserError(f"no run {unknown[0]} in {cfg.save_path}{hint}")
    found = [run for run in found if not args or run["run"] in args]
    print("\n".join(json.dumps(run, ensure_ascii=False) for run in found) if cfg.json else table(found))


def info(*args: str, **options: Option) -> None:
    """versions, processor, GPUs and precision here: what a report of a bug needs"""
    cfg = parse("info", options, args)
    from utils.info import info as facts

    print_facts(facts(), cfg.json)


def help(*args: str, **options: Option) -> None:  # noqa: A001  the command's name
    """[COMMAND]  this text, or every option of a command"""
    no_arguments("help", (*args[1:], *(f"--{name}" for name in options)))
    print(cli.help_text(COMMANDS, {"form": shihua.tune_names, "style": shihua.style_names}, *args))


# A new command is a function above, and its options (classes of config.py) in config.OPTIONS.
COMMANDS: dict[str, Callable] = {name: globals()[name] for name in config.OPTIONS}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    return cli.run_command(COMMANDS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    cli.speak_chinese()
    sys.exit(cli.run(main))
