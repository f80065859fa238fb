"""What a command line needs, whatever its commands: options spelled out, hints, one-line errors, Ctrl-C, any locale."""

import dataclasses
import json
import logging
import os
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import config
from data.verse import STDIN
from options import TRUTH, Options, find_inputs, is_for, is_missing, known_name, option_names, shipped
from options import parse as parse_options
from utils.errors import UserError, did_you_mean
from utils.files import class_and_task
from utils.text import say, short, write

Option = str | bool  # as written; True where an option has no value: --json
FEW = 16  # poems that are shown when all are written, the best first
SECONDS_TO_END = 5.0  # after Ctrl-C, to remove temporary files
NO_VALUE = "<no value>"
DASHES = str.maketrans(dict.fromkeys("—–−－―‐‑", "-") | {"＝": "="})  # that editors and input methods make of - and =
COPIED = re.compile("[-—–−－―‐‑]*[A-Za-z][A-Za-z_-]*＝|[—–−－―‐‑]+-*[A-Za-z]")  # an option with such signs
# Class of a network -> its task; the rest are classifiers. TransformerNet: older files.
TASK_OF = {"Poet": "poet", "StyleNetworks": "style", "TransformerNet": "style"}
FLAG = re.compile("--|-[A-Za-z]")  # what Fire takes for an option
# The options that words stand for which people write without a name.
WITHOUT_DASHES = {"generate": "title", "stylize": "style", "visdom": "port", "demo": "port", "download": "to"}


class Incomplete(Exception):
    """Some of what was asked for could not be done, and each is named already: exit code 1."""


class Remarks(logging.Handler):
    """Writes what the project remarks (shihua.py) to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Names and values, one a line, or as JSON."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}} {short(value, 4) if isinstance(value, float) else value}")


def print_results(results: Iterable[Any], as_json: bool, done: str) -> None:
    """A line for each file, on stderr where it could not be done. Raises Incomplete if there are such."""
    count, bad = 0, 0
    for result in results:
        count, bad = count + 1, bad + bool(result.error)
        for remark in filter(None, (result.error and f"error: {result.error}", result.note)):
            say(remark)
        if as_json:
            write(json.dumps(result.as_dict(), ensure_ascii=False))
        elif not result.error:
            write(str(result))
    if bad and count > 1:
        say(f"{bad} of {count} could not be {done}")
    from utils.hardware import rank_and_world

    if bad and rank_and_world()[1] == 1:  # an exit code of one process makes torchrun end the others
        raise Incomplete


def print_poems(poems: Iterable[Any], cfg: config.GenerateConfig) -> None:
    """Prints poems (Compositions) as they come; on stderr the remarks on them, each once, and the seed."""
    from tqdm import tqdm

    said: set[str] = set()
    written = []
    for poem in tqdm(poems, "writing", cfg.n, leave=False, unit="poem", disable=None if cfg.n > FEW else True):
        for remark in poem.remarks:
            if not (cfg.json or remark in said):
                say(remark)
                said.add(remark)
        write("\n" * bool(written and not cfg.json) + _poem_text(poem, cfg))
        written.append((poem.seed, poem.rating))
    best = f"best first, rated {' '.join(f'{rating:.2f}' for _, rating in written)}; " if 1 < cfg.n <= FEW else ""
    if not cfg.json:
        say(f"({best}--seed={min(written)[0]} writes this again)")


def _poem_text(poem: Any, cfg: config.GenerateConfig) -> str:
    if cfg.json:
        return json.dumps(poem.as_dict() | ({"pinyin": poem.pinyin} if cfg.pinyin else {}), ensure_ascii=False)
    text, lines = str(poem), "\n".join(poem.lines)
    if cfg.explain:
        head = text.split("\n")[0] + "\n" if text[0] == "《" else ""
        return f"{head}{poem.check or lines}\nscore {poem.score:.2f}, rating {poem.rating:.2f}, --seed={poem.seed}"
    if cfg.pinyin:
        readings = dict(zip(poem.lines, poem.pinyin, strict=True))
        text = "\n".join(f"{line}\n{readings[line]}" if line in readings else line for line in text.split("\n"))
    return text


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, if that is a terminal: the callback that moves it to a fraction of the work."""
    from tqdm import tqdm

    form = text + ": {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=None) as bar:
        yield lambda fraction: bar.update(fraction - bar.n)


def options_of(command: str) -> dict[str, type]:
    """{name: type} of the options of a command."""
    return {f.name: f.type for cls in config.OPTIONS[command] for f in dataclasses.fields(cls)}


def parse(command: str, options: dict[str, Option], unexpected: tuple[str, ...] = ()) -> Any:
    """The checked options of a command, its files found. Raises UserError for words that should not be there."""
    no_arguments(command, unexpected)
    return find_inputs(parse_options(config.OPTIONS[command][0], options), options)


def task_options(command: str, options: dict[str, Option], unexpected: tuple[str, ...]) -> config.DefaultConfig:
    """The checked options of a command of tasks. Without --task, the model file or the resumed run says of which."""
    no_arguments(command, unexpected)
    stored = {}
    if command == "train" and "resume" in options:
        from training.state import resumed_options

        stored = resumed_options(options, options.get("save_path", config.DefaultConfig.save_path))
        options = {**options, "resume": stored["resume"]}
    elif "task" not in options and isinstance(options.get("load"), str):
        if task := task_of(shipped(os.path.expanduser(options["load"]))):
            options = {**options, "task": task}
    return find_inputs(config.task_config(options, command, stored), options)


def task_of(path: str) -> str:
    """The task that a model file is of; empty for another file."""
    network, task = class_and_task(path)
    return network and (task or TASK_OF.get(network, "dogcat"))


def take(cls: type[Options], options: dict[str, Option]) -> Any:
    """Takes the options that only this command has from those of its task."""
    return parse_options(cls, {name: options.pop(name) for name in option_names(cls) & options.keys()})


def check_command(name: str) -> None:
    if name not in config.OPTIONS:
        hint = did_you_mean(name, config.OPTIONS) or f"; the commands are {', '.join(config.OPTIONS)}"
        raise UserError(f"unknown command {name!r}{hint}")


def check_paths(command: str, paths: tuple[str, ...], wanted: str) -> None:
    """Raises UserError without a path, or for one that does not exist: now, since loading torch takes its time."""
    if not paths or not all(paths):  # an empty one would be the current folder
        raise UserError(f"{command} needs {wanted}: python main.py {command} photo.jpg")
    for path in filter(is_missing, paths):
        raise UserError(f"{path} does not exist: give {wanted}{_hint(command, path)}")


def no_arguments(command: str, args: tuple[str, ...]) -> None:
    if args:
        hint = _hint(command, args[0])
        raise UserError(f"{command}: unexpected {args[0]!r}; options are written --name=value{hint}")


def _hint(command: str, word: str) -> str:
    """`; did you mean --task=poet?` for a word that stands where none should, as in `train poet`, `train lr=1e-3`."""
    options = options_of(command)
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


def spell_out(argv: list[str]) -> list[str]:
    """`argv` with `--name` as `--name=<no value>`: Fire makes it name="True" otherwise, and pe="False" of `--nope`.

    A switch takes the next word for its value only if it is one, as in `--json false`, but not in `--json photo.jpg`.
    """
    words = []
    options = options_of(argv[0])
    switches = {name for name, kind in options.items() if kind is bool}
    value = False  # of the option before
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word == "-" and argv[0] == "check":
            word = STDIN
        if word in ("-", "--"):  # signs of Fire's own, which would end the arguments without a word
            dash = "; a file whose name begins with a dash: ./-NAME" if word == "--" else ""
            raise UserError(f"unexpected {word!r}; options are written --name=value{dash}")
        if not value and (COPIED.match(word) or re.match("[A-Za-z_]+=.", word)) and not os.path.exists(word):
            no_arguments(argv[0], (word,))
        name = word.lstrip("-").replace("-", "_")
        if FLAG.match(word) and name.partition("=")[0] not in options and os.path.exists(word):
            raise UserError(f"write ./{word}, so that it is not taken for an option")
        switch = name in switches or name.removeprefix("no").lstrip("_") in switches
        takes_none = switch and following.lower() not in TRUTH
        lonely = FLAG.match(word) and "=" not in word and (FLAG.match(following) or takes_none)
        words.append(f"{word}={NO_VALUE}" if lonely else word)
        value = FLAG.match(word) and "=" not in word and not lonely
    return words


def help_text(commands: dict[str, Callable], listed: dict[str, Callable], command: str = "") -> str:
    """All commands and options, or those of one command; `listed` gives the names that an option may have."""
    if command:
        check_command(command)
        head, option_sets = f"python main.py {command}: {commands[command].__doc__}", config.OPTIONS[command]
    else:
        listing = "\n".join(f"  {name:10} {f.__doc__}" for name, f in commands.items())
        head = f"usage: python main.py COMMAND [--option=value …]\n\n{listing}"
        option_sets = dict.fromkeys(cls for sets in config.OPTIONS.values() for cls in sets)
    return "\n\n".join([head, *(options_text(cls, listed, command) for cls in option_sets)])


def options_text(cls: type[Options], listed: dict[str, Callable], command: str) -> str:
    """The options that `cls` adds to its base, or gives another default; of a command those that it has a use for."""
    of_tasks = command and issubclass(cls, config.DefaultConfig)
    inherited = {(f.name, f.default) for f in dataclasses.fields(cls.__mro__[1])}
    lines = [cls.__doc__]
    for f in dataclasses.fields(cls):
        if (f.name, f.default) not in inherited and (not of_tasks or is_for(f.name, command)):
            default = "" if f.default == "" else f"={f.default}"
            choices = ", ".join(filter(None, f.metadata["choices"]))
            lines.append(f"  {'--' + f.name + default:24} {f.metadata['help']}{choices and f' ({choices})'}")
            names = [name.replace(" ", "\u00a0") for name in listed.get(f.name, list)()]
            wrapped = textwrap.wrap("   ".join(names), 70)  # both names of a style in one line
            lines += [" " * 27 + line.replace("\u00a0", " ") for line in wrapped]
    return "\n".join(lines)


def run_command(commands: dict[str, Callable], argv: list[str]) -> int:
    """Runs one command; returns the exit code. Mistakes of the user are one line on stderr and exit code 2."""
    log = logging.getLogger("shihua")
    log.handlers = [Remarks()]
    log.setLevel(logging.INFO)
    try:
        if not argv or {"--help", "-h"} & set(argv):
            argv = ["help", *[word for word in argv if not word.startswith("-")][:1]]
        check_command(argv[0])
        import fire

        # Fire would guess types (12_34 becomes 1234, 春,江 a tuple): it hands over the words, config.py converts them.
        as_written = fire.decorators.SetParseFn(lambda word: True if word == NO_VALUE else word)
        fire.Fire({name: as_written(f) for name, f in commands.items()}, command=spell_out(argv), name="main.py")
        print(end="", flush=True)  # so that a closed pipe shows here
    except UserError as error:
        say(f"error: {'--' if error.argument else ''}{error}")
        return 2
    except Incomplete:
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # python main.py generate --n=100 | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (MemoryError, RuntimeError, ConnectionResetError) as error:
        if not (line := _machine_error(error)):
            raise
        say(f"error: {line}")
        return 2
    except OSError as error:  # a path that cannot be read, a name that is too long
        say(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        return 2
    finally:
        log.handlers = []  # who calls this from Python hears no more
    return 0


def _machine_error(error: Exception) -> str:
    """What the machine, not the program, could not do, in a line; empty: it is a bug."""
    # A worker was killed by somebody, or by the system for want of memory; it is connected by a socket.
    if isinstance(error, ConnectionResetError) or str(error).startswith("DataLoader worker (pid"):
        return (
            "a process that reads data was killed; is there too little memory? try a smaller --num_workers"
            " (a training goes on from its last save by --resume)"
        )
    if "does not have a deterministic implementation" in str(error):
        return f"--deterministic: {str(error).split(' does ')[0]} cannot be on this device; leave it out"
    from utils.hardware import OUT_OF_MEMORY

    if not isinstance(error, MemoryError) and not re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE):
        return ""
    return f"out of memory ({str(error).splitlines()[0][:100]}); try a smaller network, --batch_size or --n"


def run(main: Callable[[], int]) -> int:
    """main(), ended by Ctrl-C wherever that comes, with exit code 130 and without a traceback.

    While a module is imported it ends at once: an exception could be swallowed there. Elsewhere a KeyboardInterrupt
    lets temporary files be removed. (A training has a handler of its own, see training/session.py.)
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


def speak_chinese() -> None:
    """Makes stdout and stderr write Chinese, whatever the locale says.

    Where the locale cannot (LC_ALL=C, Latin-1) this process is started again in Python's UTF-8 mode. A Chinese locale
    stays, unless an argument is Chinese in UTF-8 only.
    """
    encoding, raw = sys.getfilesystemencoding(), Path("/proc/self/cmdline")
    if encoding.lower() != "utf-8" and raw.exists():  # as on no macOS and Windows
        words = raw.read_bytes().split(b"\0")[1:-1]  # sys.argv is decoded by now, and that loses some
        if not _writes_chinese(encoding) or any(map(_is_chinese_utf8, words)):
            os.environ["PYTHONUTF8"] = "1"  # for the processes that this one starts
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *words])
    for stream in filter(None, (sys.stdout, sys.stderr)):
        # A Chinese locale that is not UTF-8 has a terminal to match.
        local = sys.platform != "win32" and _writes_chinese(stream.encoding)
        stream.reconfigure(encoding=stream.encoding if local else "utf-8", errors="replace")


def _is_chinese_utf8(word: bytes) -> bool:
    try:
        return any(c > "\u2e80" for c in word.decode())
    except UnicodeDecodeError:
        return False


def _writes_chinese(encoding: str) -> bool:
    return bool("春".encode(encoding, "ignore"))
