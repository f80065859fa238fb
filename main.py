"""The command line, and nothing else: `python main.py COMMAND [--option=value …]`. Imports torch when it is needed."""

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while all this is imported; later see `_run`

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TextIO

import config
from data.verse import STDIN, Poem, given_poems, one_poem
from options import TRUTH, Config, Options, find_inputs, is_missing, known_name, parse, shipped
from utils.errors import UserError, did_you_mean
from utils.text import short

Option = str | bool  # as written; True where an option has no value: --json
CLASSIFIER = config.ClassifyConfig.load
NETWORK_ONLY = ("style", "strength", "load", "tile", "memory_limit")  # options of stylize
OPTIMIZE_ONLY = "style_image style_size steps loss_network vgg content_weight style_weight tv_weight".split()


class Incomplete(Exception):
    """Some of what was asked for could not be done, and each is named already: exit code 1."""


def train(*args: str, **options: Option) -> None:
    """train a network; after each epoch: validation, a checkpoint, examples"""
    _no_arguments("train", args)
    cfg = _task_options("train", options)
    from trainer import train as run

    run(cfg)


def val(*args: str, **options: Option) -> None:
    """judge a model file on the validation split: --load=FILE"""
    _judge("val", args, options)


def test(*args: str, **options: Option) -> None:
    """judge a model file on the test split: --load=FILE; dogcat: write Kaggle's CSV, too"""
    _judge("test", args, options)


def _judge(command: str, args: tuple[str, ...], options: dict[str, Option]) -> None:
    _no_arguments(command, args)
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
        figures = task.evaluate(cfg.split or command)
    if cfg.json:
        print(json.dumps(figures, ensure_ascii=False))
    else:
        width = max(map(len, figures))
        for name, value in figures.items():
            print(f"{name:{width}} {short(value, 4)}" if isinstance(value, float) else f"{name:{width}} {value}")


def generate(*args: str, **options: Option) -> None:
    """write poems with the shipped poet, or the one that --load names"""
    _no_arguments("generate", args)
    cfg = _options(config.GenerateConfig, options)
    path = _model_file(cfg.load)
    poem = one_poem(cfg.poem, "--poem=") if cfg.poem else ""
    import secrets

    from data.poetry import Vocabulary
    from infer.verse.compose import compose, locked, split_words
    from infer.verse.load import load_poet
    from infer.verse.prosody import RhymeTable
    from infer.verse.prosody import check as judge
    from utils.hardware import pick_device

    model = load_poet(path, pick_device(cfg.use_gpu))
    table = RhymeTable.of(model.metadata)
    if cfg.explain and not table:
        raise UserError(f"--explain: {path} has no rhyme table")
    keywords = split_words(cfg.keywords)
    for name in ("prompt", "title", "author", "acrostic", "keywords"):
        given = "".join(keywords) if name == "keywords" else getattr(cfg, name)
        folded, unknown = Vocabulary(model.vocab).fold(given)
        for old, new in sorted({(a, b) for a, b in zip(given, folded, strict=True) if a != b}):
            _say(f"--{name}: {old} is read as {new}")
        if unknown:
            _say(f"--{name}: the poet does not know {unknown} and reads over it")
    seed = cfg.seed if cfg.seed >= 0 else secrets.randbelow(2**31)
    names = "n form prompt title author acrostic regular pattern rhyme candidates guidance max_chars"
    poems = compose(
        model,
        seed=seed,
        keywords=keywords,
        lines=locked(poem, cfg.lock),
        **{name: getattr(cfg, name) for name in f"{names} temperature top_k top_p".split()},
    )
    poems.sort(key=lambda poem: -poem.rating)
    if cfg.json:
        for poem in poems:
            print(json.dumps(poem.as_dict(), ensure_ascii=False))
        return
    for remark in dict.fromkeys(remark for poem in poems for remark in poem.remarks):
        _say(remark)
    if cfg.explain:
        for poem in poems:
            head = f"《{poem.title}》\n" if poem.title else ""
            marked = judge(poem.lines, table) if poem.pattern else "\n".join(poem.lines)
            print(f"{head}{marked}\nscore {poem.score:.2f}, rating {poem.rating:.2f}, --seed={poem.seed}\n")
    else:
        print("\n\n".join(map(str, poems)))
    ratings = f"best first, rated {' '.join(f'{poem.rating:.2f}' for poem in poems)}; " if 1 < len(poems) <= 16 else ""
    _say(f"({ratings}--seed={seed} writes this again)")


def check(*args: str, **options: Option) -> None:
    """POEM|FILE|-  mark the tones of verse, and what breaks the rules of the regulated forms"""
    cfg = _options(config.CheckConfig, options)
    if len(args) != 1 or not args[0]:
        raise UserError("check needs one poem, or file of poems: python main.py check 白日依山尽，黄河入海流。…")
    path = _model_file(cfg.load)
    poems = given_poems(args[0], "")
    from infer.verse.load import load_poet
    from infer.verse.prosody import RhymeTable
    from infer.verse.prosody import check as judge

    table = RhymeTable.of(load_poet(path).metadata)
    if not table:
        raise UserError(f"--load={path} has no rhyme table: give a poet that was trained with one")
    found = [judge(poem, table) for poem in poems]
    if cfg.json:
        print("\n".join(json.dumps(poem.as_dict(), ensure_ascii=False) for poem in found))
    else:
        print("\n\n".join(map(str, found)))


def stylize(*args: str, **options: Option) -> None:
    """PATH …  paint pictures, folders of pictures, animations, videos"""
    cfg = _options(config.StylizeConfig, options)
    if not all(args) or not args:  # an empty path would be the current folder
        raise UserError("stylize needs something to paint: python main.py stylize photo.jpg")
    _check_inputs(cfg, args)
    from utils.hardware import rank_and_world

    rank, world = rank_and_world()
    paint, label, how = _optimizer(cfg) if cfg.method == "optimize" else _painter(cfg)

    from infer.painting.files import paint_files, plan

    jobs, remarks = plan(args, cfg.out, label, cfg.inputs())
    jobs = jobs[rank::world]
    for remark in (how, *remarks) if rank == 0 else ():
        _say(remark)
    names = ("keep_color", "mask", "max_side", "max_megapixels", "batch", "quality")
    bad = 0
    for result in paint_files(jobs, paint, **{name: getattr(cfg, name) for name in names}):
        bad += bool(result.error)
        for remark in filter(None, (result.error and f"error: {result.error}", result.note)):
            _write(remark, sys.stderr)
        if cfg.json:
            _write(json.dumps(result.as_dict(), ensure_ascii=False))
        elif not result.error:
            _write(str(result.out))
        sys.stdout.flush()
    if bad and len(jobs) > 1:
        _say(f"{bad} of {len(jobs)} could not be painted")
    if bad and world == 1:  # an exit code of one process makes torchrun end the others
        raise Incomplete


def _check_inputs(cfg: config.StylizeConfig, paths: tuple[str, ...]) -> None:
    """Names what is not there: now, since loading torch and measuring bf16 take their time."""
    if cfg.method == "network":
        _model_file(cfg.load)
    _check_paths("stylize", paths, "a picture, a folder of pictures, or a video")
    from utils.files import refuse_overwriting

    refuse_overwriting([cfg.out] if cfg.out else [], [*paths, *cfg.inputs()])


def _painter(cfg: config.StylizeConfig) -> tuple[Callable, str, str]:
    """(what paints, the style's name in names of files, a line about both): a network."""
    for name in cfg.changed():
        if name in OPTIMIZE_ONLY:
            raise UserError(f"--{name} is for --method=optimize; a network has its styles: --style=NAME")
    path = _model_file(cfg.load)
    from infer.painting.files import choose_styles, load_network, style_label
    from infer.painting.tiles import Painter, painting_precision
    from utils.hardware import pick_device

    model = load_network(path, pick_device(cfg.use_gpu))
    shares = choose_styles(cfg.style, model.styles)
    style = model.mixture(shares, cfg.strength)
    precision, why = painting_precision(cfg.precision, model, style)
    painter = Painter(model, style, precision, cfg.memory_limit, cfg.tile)
    text = " + ".join(f"{name} {share / sum(shares.values()):.0%}" for name, share in shares.items())
    return painter.paint, style_label(shares), f"{text}, strength {cfg.strength:g}; precision {precision} ({why})"


def _optimizer(cfg: config.StylizeConfig) -> tuple[Callable, str, str]:
    """The same for --method=optimize, which needs no trained network but a picture of the style."""
    for name in cfg.changed():
        if name in NETWORK_ONLY:
            raise UserError(f"--{name} is for --method=network")
    if not cfg.style_image:
        raise UserError("--method=optimize needs the picture of a style: --style_image=FILE")
    import numpy as np

    from infer.painting.files import optimizing, read_style, style_label
    from models.perceptual import PerceptualLoss
    from models.vgg import choose_network
    from utils.hardware import choose_precision, pick_device

    device = pick_device(cfg.use_gpu)
    style = read_style(cfg.style_image, cfg.style_size)
    network, file, reason = choose_network(cfg.loss_network, cfg.vgg, str(Path(__file__).parent / CLASSIFIER))
    loss = PerceptualLoss(network, [style], file).to(device)

    def attempt(precision: str) -> None:
        optimizing(loss, steps=1, precision=precision)(np.zeros((1, 64, 64, 3), np.uint8))

    precision, why = choose_precision(cfg.precision, device == "cuda", attempt)
    names = ("steps", "content_weight", "style_weight", "tv_weight")
    paint = optimizing(loss, precision=precision, **{name: getattr(cfg, name) for name in names})
    name = Path(cfg.style_image).stem
    return (
        paint,
        style_label([name]),
        f"{name}, {cfg.steps} steps; judged by {network} ({reason}); precision {precision} ({why})",
    )


def postcard(*args: str, **options: Option) -> None:
    """PHOTO  paint a photograph and write a poem on it, in vertical script with a seal"""
    cfg = _options(config.PostcardConfig, options)
    if not args or not args[0]:
        raise UserError("postcard needs a photograph: python main.py postcard photo.jpg")
    _no_arguments("postcard", args[1:])
    _check_paths("postcard", args, "a photograph")
    if not cfg.poem:
        _model_file(cfg.poet, "poet")
    if cfg.style != "none" and cfg.strength > 0:
        _model_file(cfg.load)
    poem = one_poem(cfg.poem, "--poem=") if cfg.poem else ""
    from infer.postcard.fonts import choose_face
    from infer.postcard.layout import check_words, destination, on_paper, read_poem, save_postcard
    from infer.postcard.layout import postcard as set_poem

    out = destination(args[0], cfg.out, cfg.inputs())
    given = read_poem(poem, "--poem") if poem else Poem([])
    title, signature, seed = cfg.title or given.title, cfg.signature or given.author, None
    check_words(title, signature, cfg.seal)
    lines = given.lines
    if not lines:
        lines, seed = _written(cfg)
    face, remarks = choose_face("".join(lines) + title + signature + cfg.seal, cfg.font)
    for remark in remarks:
        _say(remark)
    from utils.images import read_image

    picture = read_image(args[0], cfg.max_megapixels, cfg.max_side)
    if picture.note:
        _say(picture.note)
    if cfg.style != "none" and cfg.strength > 0:
        picture = _painted(cfg, picture)
    card = set_poem(on_paper(picture), lines, face, title, signature, cfg.seal, cfg.place)
    save_postcard(out, card.rgb, cfg.quality)
    _say("\n".join(([f"《{title}》"] if title else []) + lines))
    if seed is not None:
        _say(f"(--seed={seed} writes this again)")
    if cfg.json:
        height, width = card.rgb.shape[:2]
        place = "paper" if card.on_paper else "picture"
        facts = {"path": args[0], "out": str(out), "title": title, "lines": lines, "seed": seed, "font": face.name}
        facts |= {"place": place, "contrast": round(card.contrast, 2), "width": width, "height": height}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print(out)


def _written(cfg: config.PostcardConfig) -> tuple[list[str], int]:
    """(verses, seed) of a poem by the poet, for a postcard."""
    path = _model_file(cfg.poet, "poet")
    import secrets

    from infer.postcard.layout import read_poem
    from infer.verse.compose import compose, split_words
    from infer.verse.load import load_poet
    from utils.hardware import pick_device

    model = load_poet(path, pick_device(cfg.use_gpu))
    seed = cfg.seed if cfg.seed >= 0 else secrets.randbelow(2**31)
    poem = compose(model, form=cfg.form, title=cfg.title, keywords=split_words(cfg.keywords), seed=seed)[0]
    return read_poem("\n".join(poem.lines)).lines, seed


def _painted(cfg: config.PostcardConfig, picture):
    """The photograph of a postcard, painted by a network."""
    names = ("style", "strength", "load", "use_gpu")
    paint, _, how = _painter(config.StylizeConfig(**{name: getattr(cfg, name) for name in names}))
    from tqdm import tqdm

    from infer.painting.files import stylized

    _say(how)
    form = "painting: {percentage:3.0f}%|{bar}|"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=None) as bar:
        painting = stylized(picture.rgb[None], paint, progress=lambda share: bar.update(share - bar.n))[0]
    return dataclasses.replace(picture, rgb=painting)


def classify(*args: str, **options: Option) -> None:
    """PATH …  say what pictures show: dog or cat, with its probability, or neither"""
    cfg = _options(config.ClassifyConfig, options)
    if not all(args) or not args:
        raise UserError("classify needs pictures: python main.py classify photo.jpg")
    if cfg.out and not cfg.explain:
        raise UserError(f"--out={cfg.out} is the folder for --explain; for a table give --csv=FILE")
    path = _model_file(cfg.load)
    _check_paths("classify", args, "a picture, or a folder of pictures")
    import csv
    import io

    import torch
    from tqdm import tqdm

    from infer.photo.classify import Settings, find_pictures, logits_of, open_model
    from infer.photo.classify import classify as answers
    from utils.files import atomic_write, refuse_overwriting
    from utils.hardware import check_workers, choose_precision, pick_device, rank_and_world

    check_workers(cfg.num_workers)
    rank, world = rank_and_world()
    csv_path = cfg.csv
    if world > 1:
        _refuse_inside(cfg, args)
        csv_path = cfg.csv and Path(cfg.csv).with_suffix(f".{rank}{Path(cfg.csv).suffix}")  # one for each process
    refuse_overwriting(filter(None, [csv_path]), [*args, *cfg.inputs()], "csv")
    sources = find_pictures(args)
    device = pick_device(cfg.use_gpu)
    model = open_model(path, device)
    blank = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=device)
    precision, _ = choose_precision(cfg.precision, device == "cuda", lambda name: logits_of(model, blank, name))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", *model.classes])
    if csv_path:  # now, too: a place that cannot be written should be known before the work
        atomic_write(csv_path, table.getvalue())
    same = {name: getattr(cfg, name) for name in ("threshold", "max_megapixels", "explain", "out")}
    settings = Settings(views=cfg.tta, precision=precision, workers=cfg.num_workers, **same)
    bad = 0
    share = range(rank, len(sources), world)
    bar = tqdm(total=len(share), unit="picture", leave=False, disable=None if len(sources) > 1 else True)
    for answer in answers(model, sources, settings, share):
        bar.update()
        if answer.error:
            bad += 1
            _write(f"error: {answer.error}", sys.stderr)
        else:
            chances = answer.probabilities
            if answer.note:
                _write(answer.note, sys.stderr)
            writer.writerow([answer.path, answer.label, *(f"{p:.6f}" for p in chances.values())])
        if cfg.json:
            _write(json.dumps(answer.as_dict(), ensure_ascii=False))
        elif not answer.error:
            best = max(chances, key=chances.get)
            text = answer.label if answer.label == best else f"{answer.label} (rather {best})"
            where = answer.explanation and f"  {answer.explanation}"
            _write(f"{answer.path}: {text} {min(chances[best], 0.999):.1%}{where}")
        sys.stdout.flush()
    bar.close()
    if csv_path:
        atomic_write(csv_path, table.getvalue())
    if bad and len(sources) > 1:
        _say(f"{bad} of {len(share)} could not be read")
    if bad and world == 1:
        raise Incomplete


def _refuse_inside(cfg: config.ClassifyConfig, paths: tuple[str, ...]) -> None:
    """Raises UserError if explanations would go where another process may take them for pictures to judge."""
    from utils.files import is_inside

    if cfg.explain and (not cfg.out or any(is_inside(cfg.out, path) for path in paths)):
        raise UserError("--explain in several processes needs an --out=FOLDER that is not inside of the input")


def find_lr(*args: str, **options: Option) -> None:
    """the learning rate at which the loss of a task falls fastest: a short training with a rising one"""
    _no_arguments("find_lr", args)
    own = {name: options.pop(name) for name in ("steps",) if name in options}
    cfg = _task_options("find_lr", options)
    steps = parse(config.FindLrConfig, own).steps
    from training.lr_finder import chart
    from training.lr_finder import find_lr as search

    found = search(cfg, steps)
    if cfg.json:
        print(json.dumps(found))
    else:
        print(f"{'lr':>9} {'loss':>8}\n{chart(found['lr'], found['loss'])}")
        print(f"the loss falls fastest at --lr={found['suggestion']:.1e}")


def export(*args: str, **options: Option) -> None:
    """write a style network as ONNX, for other programs (takes some 20 seconds)"""
    _no_arguments("export", args)
    cfg = _options(config.ExportConfig, options)
    path = _model_file(cfg.load)
    out = Path(cfg.out or f"{Path(path).stem}.onnx")
    from utils.files import refuse_overwriting

    refuse_overwriting([out], [path])
    from infer.painting.files import load_network
    from models.onnx import export_onnx

    export_onnx(load_network(path), out)
    print(out)


def average(*args: str, **options: Option) -> None:
    """FILE FILE …  the mean of the weights of model files of the same network, as a new file"""
    cfg = _options(config.AverageConfig, options)
    if len(args) < 2:
        raise UserError("average needs two model files: python main.py average a.safetensors b.safetensors --out=…")
    _check_paths("average", args, config.MODEL)
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
    cfg = _options(config.VisdomConfig, options)
    _no_arguments("visdom", args[1:])
    from utils.visualize import show

    show(Path(args[0]) if args else None, cfg.port)


def demo(*args: str, **options: Option) -> None:
    """poems, paintings, postcards, dogs and cats, and training, on a page in the browser"""
    _no_arguments("demo", args)
    cfg = _options(config.DemoConfig, options)
    from demo.server import serve

    serve(cfg)


def download(*args: str, **options: Option) -> None:
    """[NAME]  get real data; without a name: what there is; visdom: the files of its page, by npm"""
    cfg = _options(config.DownloadConfig, options)
    _no_arguments("download", args[1:])
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
    _no_arguments("summary", args)
    own = {name: options.pop(name) for name in ("graph",) if name in options}
    graph = parse(config.SummaryConfig, own).graph
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
        _say(f"the graph: {graph}")


def runs(*args: str, **options: Option) -> None:
    """[RUN …]  the runs so far, or those named, side by side: figures, and the settings in which they differ"""
    cfg = _options(config.RunsConfig, options)
    from board.runs import read_runs, table

    found = read_runs(cfg.save_path)
    if unknown := set(args) - {run["run"] for run in found}:
        raise UserError(f"no run {min(unknown)} in {cfg.save_path}; there are {', '.join(run['run'] for run in found)}")
    found = [run for run in found if not args or run["run"] in args]
    print("\n".join(json.dumps(run, ensure_ascii=False) for run in found) if cfg.json else table(found))


def info(*args: str, **options: Option) -> None:
    """versions, processor, GPUs and precision here: what a report of a bug needs"""
    _no_arguments("info", args)
    cfg = _options(config.InfoConfig, options)
    from utils.info import info as facts

    found = facts()
    if cfg.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print("\n".join(f"{name:17} {value}" for name, value in found.items()))


def help(*args: str, **options: Option) -> None:  # noqa: A001  the command's name
    """[COMMAND]  this text, or every option of a command"""
    _no_arguments("help", (*args[1:], *(f"--{name}" for name in options)))
    if args:
        _check_command(args[0])
        print(f"python main.py {args[0]}: {COMMANDS[args[0]].__doc__}")
        option_sets = OPTIONS[args[0]]
    else:
        commands = "\n".join(f"  {name:10} {f.__doc__}" for name, f in COMMANDS.items())
        print(f"usage: python main.py COMMAND [--option=value …]\n\n{commands}")
        option_sets = dict.fromkeys(cls for sets in OPTIONS.values() for cls in sets)
    for cls in option_sets:
        print(f"\n{_options_text(cls, args[0] if args else '')}")


# A new command is a function above, its name here, and its options (classes of config.py) in OPTIONS, for help.
COMMANDS = {
    f.__name__: f
    for f in (
        train,
        val,
        test,
        find_lr,
        generate,
        check,
        stylize,
        postcard,
        classify,
        export,
        average,
        visdom,
        demo,
        download,
        summary,
        runs,
        info,
        help,
    )
}
OPTIONS = {
    **dict.fromkeys(("train", "val", "test"), (config.DefaultConfig, *config.TASKS.values())),
    "summary": (config.SummaryConfig, config.DefaultConfig, *config.TASKS.values()),
    "find_lr": (config.FindLrConfig, config.DefaultConfig, *config.TASKS.values()),
    "generate": (config.GenerateConfig,),
    "check": (config.CheckConfig,),
    "stylize": (config.StylizeConfig,),
    "postcard": (config.PostcardConfig,),
    "classify": (config.ClassifyConfig,),
    "export": (config.ExportConfig,),
    "average": (config.AverageConfig,),
    "visdom": (config.VisdomConfig,),
    "demo": (config.DemoConfig,),
    "download": (config.DownloadConfig,),
    "runs": (config.RunsConfig,),
    "info": (config.InfoConfig,),
    "help": (),
}


def _options_text(cls: type[Options], command: str) -> str:
    """The options that `cls` adds to its base, or gives another default; of a command those that it has a use for."""
    all_of_them = not command or not issubclass(cls, config.DefaultConfig)
    inherited = {(f.name, f.default) for f in dataclasses.fields(cls.__mro__[1])}
    lines = [cls.__doc__]
    for f in dataclasses.fields(cls):
        if (f.name, f.default) not in inherited and (all_of_them or config.is_for(f.name, command)):
            default = "" if f.default == "" else f"={f.default}"
            choices = ", ".join(filter(None, f.metadata["choices"]))
            lines.append(f"  {'--' + f.name + default:24} {f.metadata['help']}{choices and f' ({choices})'}")
    return "\n".join(lines)


def _check_command(name: str) -> None:
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"; the commands are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}{hint}")


def _options(cls: type[Config], options: dict[str, Option]) -> Config:
    """The checked options of a command, its files found."""
    return find_inputs(parse(cls, options), options)


def _task_options(command: str, options: dict[str, Option]) -> config.DefaultConfig:
    """The same of a command of tasks. Without --task, the model file says of which it is, or the resumed run."""
    stored = {}
    if command == "train" and "resume" in options:
        from training.state import resumed_options

        stored = resumed_options(options)
        options = {**options, "resume": stored["resume"]}
    elif "task" not in options and isinstance(options.get("load"), str):
        from utils.files import class_in

        if found := class_in(shipped(os.path.expanduser(options["load"]))):
            options = {**options, "task": config.TASK_OF.get(found, "dogcat")}
    return find_inputs(config.task_config(options, command, stored), options)


def _model_file(path: str, option: str = "load") -> str:
    """The path of a model file that is needed now. Raises UserError if there is none."""
    if is_missing(path):
        raise UserError(f"--{option}={path} does not exist: give {config.MODEL}")
    return path


def _check_paths(command: str, paths: tuple[str, ...], wanted: str) -> None:
    """Raises UserError for a path that does not exist: now, since loading torch takes its time."""
    for path in filter(is_missing, paths):
        raise UserError(f"{path} does not exist: give {wanted}{_option_hint(command, path)}")


def _no_arguments(command: str, args: tuple[str, ...]) -> None:
    if args:
        hint = _option_hint(command, args[0])
        raise UserError(f"{command}: unexpected {args[0]!r}; options are written --name=value{hint}")


WITHOUT_DASHES = {  # the options that words stand for which people write without a name
    "generate": "title",
    "stylize": "style",
    "visdom": "port",
    "demo": "port",
    "download": "to",
}


def _option_hint(command: str, word: str) -> str:
    """`; did you mean --task=poet?` for a word that stands where none should, as in `train poet`, `train lr=1e-3`."""
    options = {f.name for cls in OPTIONS[command] for f in dataclasses.fields(cls)}
    name, equals, value = word.translate(DASHES).lstrip("-").partition("=")
    name = name if name in options else known_name(name, options)
    if name and (equals or name == word or word.translate(DASHES).startswith("-")):
        meant = f"--{name}{equals}{value}"
    elif word in config.TASKS and "task" in options:
        meant = f"--task={word}"
    elif "load" in options and word.endswith((".safetensors", ".pth", ".pt")):
        meant = f"--load={word}"
    elif (
        (name := WITHOUT_DASHES.get(command)) and word.isdigit() == (name == "port") and not re.search(r"[./\\]", word)
    ):
        meant = f"--{name}={word}"
    else:
        return ""
    return f"; did you mean {meant}?"


def _write(text: str, file: TextIO | None = None) -> None:
    """A line above the progress bar, if there is one; in one piece, for several processes may share the output."""
    from tqdm import tqdm

    tqdm.write(f"{text}\n", file=file or sys.stdout, end="")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


SECONDS_TO_END = 5.0  # after Ctrl-C, to remove temporary files
NO_VALUE = "<no value>"
DASHES = str.maketrans(dict.fromkeys("—–−－―‐‑", "-") | {"＝": "="})  # that editors and input methods make of - and =
COPIED = re.compile("[-—–−－―‐‑]*[A-Za-z][A-Za-z_-]*＝|[—–−－―‐‑]+-*[A-Za-z]")  # an option with such signs
FLAG = re.compile("--|-[A-Za-z]")  # what Fire takes for an option


def _spelled_out(argv: list[str]) -> list[str]:
    """`argv` with `--name` as `--name=<no value>`: Fire makes it name="True" otherwise, and pe="False" of `--nope`.

    A switch takes the next word for its value only if it is one, as in `--json false`, but not in `--json photo.jpg`.
    """
    words = []
    options = {f.name: f.type for cls in OPTIONS[argv[0]] for f in dataclasses.fields(cls)}
    switches = {name for name, kind in options.items() if kind is bool}
    value = False  # of the option before
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word == "-" and argv[0] == "check":
            word = STDIN
        if word in ("-", "--"):  # signs of Fire's own, which would end the arguments without a word
            dash = "; a file whose name begins with a dash: ./-NAME" if word == "--" else ""
            raise UserError(f"unexpected {word!r}; options are written --name=value{dash}")
        if not value and (COPIED.match(word) or re.match("[A-Za-z_]+=.", word)) and not os.path.exists(word):
            _no_arguments(argv[0], (word,))
        name = word.lstrip("-").replace("-", "_")
        if FLAG.match(word) and name.partition("=")[0] not in options and os.path.exists(word):
            raise UserError(f"write ./{word}, so that it is not taken for an option")
        switch = name in switches or name.removeprefix("no").lstrip("_") in switches
        takes_none = switch and following.lower() not in TRUTH
        lonely = FLAG.match(word) and "=" not in word and (FLAG.match(following) or takes_none)
        words.append(f"{word}={NO_VALUE}" if lonely else word)
        value = FLAG.match(word) and "=" not in word and not lonely
    return words


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code. Mistakes of the user are one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or {"--help", "-h"} & set(argv):
            argv = ["help", *[word for word in argv if not word.startswith("-")][:1]]
        _check_command(argv[0])
        import fire

        # Fire would guess types (12_34 becomes 1234, 春,江 a tuple): it hands over the words, config.py converts them.
        as_written = fire.decorators.SetParseFn(lambda word: True if word == NO_VALUE else word)
        commands = {name: as_written(f) for name, f in COMMANDS.items()}
        fire.Fire(commands, command=_spelled_out(argv), name="main.py")
        print(end="", flush=True)  # so that a closed pipe shows here
    except UserError as error:
        _say(f"error: {'--' if error.argument else ''}{error}")
        return 2
    except Incomplete:
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # python main.py generate --n=100 | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (MemoryError, RuntimeError, ConnectionResetError) as error:
        # A worker was killed by somebody, or by the system for want of memory; it is connected by a socket.
        if isinstance(error, ConnectionResetError) or str(error).startswith("DataLoader worker (pid"):
            _say(
                "error: a process that reads data was killed; is there too little memory? try a smaller --num_workers"
                " (a training goes on from its last save by --resume)"
            )
            return 2
        if "does not have a deterministic implementation" in str(error):
            _say(f"error: --deterministic: {str(error).split(' does ')[0]} cannot be on this device; leave it out")
            return 2
        from utils.hardware import OUT_OF_MEMORY

        if not isinstance(error, MemoryError) and not re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
            raise
        _say(f"error: out of memory ({str(error).splitlines()[0][:100]}); try a smaller network, --batch_size or --n")
        return 2
    except OSError as error:  # a path that cannot be read, a name that is too long
        _say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        return 2
    return 0


def _speak_utf8() -> None:
    """Starts this process again in Python's UTF-8 mode where the locale cannot write Chinese (LC_ALL=C, Latin-1).

    Arguments and names of files would else be half read. A Chinese locale stays, unless an argument is Chinese in UTF-8
    and not in it.
    """
    encoding, raw = sys.getfilesystemencoding(), Path("/proc/self/cmdline")
    if encoding.lower() == "utf-8" or not raw.exists():  # as on every macOS and Windows
        return
    words = raw.read_bytes().split(b"\0")[1:-1]  # sys.argv is decoded by now, and that loses some
    if not _writes_chinese(encoding) or any(map(_is_chinese_utf8, words)):
        os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *words])


def _is_chinese_utf8(word: bytes) -> bool:
    try:
        return any(c > "\u2e80" for c in word.decode())
    except UnicodeDecodeError:
        return False


def _writes_chinese(encoding: str) -> bool:
    try:
        return bool("春".encode(encoding))
    except UnicodeEncodeError:
        return False


def _run() -> int:
    """The program: main, ended by Ctrl-C wherever that comes, with exit code 130 and without a traceback.

    While a module is imported, it ends at once: there an exception could be swallowed, or printed. Elsewhere a
    KeyboardInterrupt lets temporary files be removed first; who swallows that does not live much longer. (A training
    has a handler of its own, see trainer.py.)
    """
    own, pressed = os.getpid(), threading.Event()

    def end(*_: object) -> None:
        os._exit(130)

    def on_ctrl_c(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, end)
        while frame:
            if os.getpid() != own or "importlib" in frame.f_code.co_filename:  # or a process that reads data
                end()
            frame = frame.f_back
        pressed.set()
        sys.excepthook = sys.unraisablehook = threading.excepthook = end
        deadline = threading.Timer(SECONDS_TO_END, end)
        deadline.daemon = True
        deadline.start()
        raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN  # as it is in the background of a shell
    try:
        if ours:
            signal.signal(signal.SIGINT, on_ctrl_c)
        code = main()
    except KeyboardInterrupt:
        code = 130
    if ours:
        signal.signal(signal.SIGINT, end)
    return 130 if pressed.is_set() else code


if __name__ == "__main__":
    _speak_utf8()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # Poems are Chinese, whatever the locale says; a Chinese locale that is not UTF-8 has a terminal to match.
        local = sys.platform != "win32" and _writes_chinese(stream.encoding)
        stream.reconfigure(encoding=stream.encoding if local else "utf-8", errors="replace")
    sys.exit(_run())
