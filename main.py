"""The command line, and nothing else: `python main.py COMMAND [--option=value …]`. Imports torch when it is needed."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import config
from utils.errors import UserError, did_you_mean


def train(*args: str, **options: str) -> None:
    """train a network; after each epoch: validation, a checkpoint, examples"""
    _no_arguments("train", args)
    if "resume" in options:
        from trainer import resumed_options

        options = resumed_options(options)
    cfg = config.task_config(options)
    from trainer import train as run

    run(cfg)


def val(*args: str, **options: str) -> None:
    """judge a model file on the validation split: --load=FILE"""
    _judge("val", args, options)


def test(*args: str, **options: str) -> None:
    """judge a model file on the test split: --load=FILE"""
    _judge("test", args, options)


def _judge(command: str, args: tuple[str, ...], options: dict[str, str]) -> None:
    _no_arguments(command, args)
    cfg = config.task_config(options)
    if not cfg.load:
        raise UserError(
            f"{command} needs a model file: --load=checkpoints/{cfg.task}.safetensors, or a run's best.safetensors"
        )
    from tasks import make_task

    figures = make_task(cfg).report(cfg.split or command)
    if cfg.json:
        print(json.dumps(figures, ensure_ascii=False))
    else:
        print("\n".join(f"{k:22} {v:.4f}" if isinstance(v, float) else f"{k:22} {v}" for k, v in figures.items()))


def generate(*args: str, **options: str) -> None:
    """write poems with the shipped poet, or the one that --load names"""
    _no_arguments("generate", args)
    cfg = config.parse(config.GenerateConfig, options)
    import secrets

    import torch

    from data.poetry import Vocabulary
    from infer.compose import compose
    from models.poet import Poet

    model = Poet.load(
        _existing_model(cfg.load, "generate"), "cuda" if cfg.use_gpu and torch.cuda.is_available() else "cpu"
    )
    for name in ("prompt", "title", "author", "acrostic"):
        given = getattr(cfg, name)
        folded, unknown = Vocabulary(model.vocab).fold(given)
        for old, new in sorted({(a, b) for a, b in zip(given, folded, strict=True) if a != b}):
            _say(f"--{name}: {old} is read as {new}")
        if unknown:
            _say(f"--{name}: the poet does not know {unknown} and reads over it")
    seed = cfg.seed if cfg.seed >= 0 else secrets.randbelow(2**31)
    names = ("n", "form", "prompt", "title", "author", "acrostic", "temperature", "top_k", "top_p", "max_chars")
    poems = compose(model, seed=seed, **{name: getattr(cfg, name) for name in names})
    if cfg.json:
        for poem in poems:
            print(json.dumps(poem.as_dict(), ensure_ascii=False))
    else:
        print("\n\n".join(map(str, poems)))
        _say(f"(--seed={seed} writes this again)")


def visdom(*args: str, **options: str) -> None:
    """[RUN]  the training board in the browser; with a run's folder, its curves and poems"""
    cfg = config.parse(config.VisdomConfig, options)
    _no_arguments("visdom", args[1:])
    from utils.visualize import show

    show(Path(args[0]) if args else None, cfg.port)


def download(*args: str, **options: str) -> None:
    """[NAME]  get real data; without a name: what there is"""
    cfg = config.parse(config.DownloadConfig, options)
    _no_arguments("download", args[1:])
    from data.download import download, listing

    if not args:
        print(listing())
    else:
        print(download(args[0], cfg.to))


def summary(*args: str, **options: str) -> None:
    """the layers of a task's network, or of the model file that --load names"""
    _no_arguments("summary", args)
    cfg = config.task_config(options)
    from tasks import make_task

    task = make_task(cfg)
    import torchinfo

    columns = ("input_size", "output_size", "num_params", "mult_adds")
    print(torchinfo.summary(task.model, input_data=task.example(), col_names=columns, verbose=0))


def help(*args: str, **options: str) -> None:  # noqa: A001  the command's name
    """[COMMAND]  this text, or every option of a command"""
    if args:
        _check_command(args[0])
    print(_help(args[0] if args else None))


COMMANDS = {f.__name__: f for f in (train, val, test, generate, visdom, download, summary, help)}
OPTIONS = {  # the option sets of each command, for help
    **{name: tuple(config.TASKS.values()) for name in ("train", "val", "test", "summary")},
    "generate": (config.GenerateConfig,),
    "visdom": (config.VisdomConfig,),
    "download": (config.DownloadConfig,),
    "help": (),
}


def _help(command: str | None) -> str:
    if command is None:
        commands = "\n".join(f"  {name:10} {f.__doc__}" for name, f in COMMANDS.items())
        text = f"usage: python main.py COMMAND [--option=value …]\n\n{commands}\n"
        return text + "".join(
            "\n" + _options_text(cls) for cls in dict.fromkeys(sum(OPTIONS.values(), (config.DefaultConfig,)))
        )
    sets = OPTIONS[command]
    if config.DefaultConfig in (base for cls in sets for base in cls.__mro__):
        sets = (config.DefaultConfig, *sets)
    text = f"python main.py {command}: {COMMANDS[command].__doc__}\n"
    return text + "".join("\n" + _options_text(cls) for cls in sets)


def _options_text(cls: type[config.Options]) -> str:
    base = cls.__mro__[1]
    inherited = {f.name for f in dataclasses.fields(base)} if base is not config.Options else set()
    lines = [cls.__doc__]
    for f in dataclasses.fields(cls):
        if f.name not in inherited:
            default = "" if f.default == "" else f"={f.default}"
            lines.append(f"  {'--' + f.name + default:32} {f.metadata['help']}")
    return "\n".join(lines) + "\n"


def _check_command(name: str) -> None:
    if name not in COMMANDS:
        raise UserError(
            f"unknown command {name}{did_you_mean(name, COMMANDS) or '; the commands are ' + ', '.join(COMMANDS)}"
        )


def _no_arguments(command: str, args: tuple[str, ...]) -> None:
    if args:
        raise UserError(f"{command}: unexpected {args[0]!r}; options are written --name=value")


def _existing_model(path: str, command: str) -> str:
    if not Path(path).exists() and path == config.GenerateConfig.load:  # started in another folder: the shipped file
        path = str(Path(__file__).parent / path)
    return path


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code. Mistakes of the user are one line on stderr and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if not argv or {"--help", "-h"} & set(argv):
            named = [a for a in argv if not a.startswith("-")]
            help(*named[:1])
            return 0
        _check_command(argv[0])
        import fire

        # Fire would guess types (12_34 becomes 1234, 春,江 a tuple): it hands over strings, config.py converts them.
        commands = {name: fire.decorators.SetParseFn(str)(f) for name, f in COMMANDS.items()}
        fire.Fire(commands, command=argv, name="main.py")
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `python main.py generate --n=100 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
