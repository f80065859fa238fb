"""main.py as a user meets it: real processes, their exit codes, and what is on stdout and on stderr."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import config
import main
from data.verse import FORMS, verses
from data.vocabulary import SPECIALS
from models.lenet import LeNet
from models.poet import Poet
from options import find_inputs, parse
from utils.files import class_and_task

MAIN = Path(main.__file__)
ALL_OPTIONS = {cls for sets in config.OPTIONS.values() for cls in sets}


def run(*words: str, **options) -> subprocess.CompletedProcess:
    """`python main.py WORDS`, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "", **options.pop("env", {})}
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "encoding": "utf-8"} | options
    return subprocess.run([sys.executable, str(MAIN), *words], env=environment, timeout=300, **options)


def called(capsys, *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command in this process: the same main(), without the second for torch."""
    code = main.main(list(words))
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def poet_file(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = Poet(SPECIALS + list("春江花月夜山水云风門，。"), embed=8, hidden=8, layers=1)
    path = tmp_path_factory.mktemp("model") / "poet.safetensors"
    model.save(path, forms=list(FORMS))
    return str(path)


# ---------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", [(), ("help",), ("-h",)])
def test_help_lists_every_command_and_every_option(capsys, words):
    code, out, err = called(capsys, *words)
    assert code == 0 and err == ""
    for command in main.COMMANDS:
        assert f"\n  {command} " in out
    for cls in ALL_OPTIONS - {config.DefaultConfig}:
        for field in dataclasses.fields(cls):
            shown = f"--{field.name}" + (f"={field.default}" if field.default != "" else "")
            assert f"  {shown} " in out and field.metadata["help"] in out
            assert all(choice in out for choice in field.metadata["choices"])
            assert max(map(len, out.splitlines())) <= 150


@pytest.mark.parametrize("words", [("help", "train"), ("train", "--help"), ("train", "--lr=3", "-h")])
def test_help_of_a_command_has_its_options_and_no_others(capsys, words):
    code, out, _ = called(capsys, *words)
    assert code == 0 and out.startswith("python main.py train: train a network")
    assert "--max_epoch=20" in out and "--hidden=256" in out and "--temperature" not in out
    assert "--batch_size=2" in out  # the task's own default
    for command in main.COMMANDS:
        assert called(capsys, "help", command)[1].startswith(f"python main.py {command}: ")


def test_help_needs_no_torch_and_little_time():
    result = run("help", capture_output=True, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0 and "usage: python main.py COMMAND" in result.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "config" in imported and not imported & {"torch", "numpy", "visdom", "lightning_fabric", "tqdm"}


def test_chinese_arguments_in_an_ascii_locale(tmp_path):
    """From another folder; names of files, texts, what is printed."""
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "春.png")
    (tmp_path / "诗.txt").write_text("白日依山尽，黄河入海流。", encoding="utf-8")
    ascii_ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    result = run("postcard", "春.png", "--poem=诗.txt", "--style=none", "--seal=", env=ascii_, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout == "春_postcard.png\n" and "黄河入海流" in result.stderr
    assert (tmp_path / "春_postcard.png").exists()


WITHOUT_POSIX = """
import json, os, signal, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog"):
    sys.modules[name] = None
import main  # and what else Windows lacks, but for os.uname, which the libraries need on this system
for module, names in ((os, "sysconf sysconf_names setsid getuid geteuid getpgid killpg statvfs nice"), (signal,
                      "SIGCHLD SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGKILL SIGALRM pthread_sigmask")):
    for name in names.split():
        hasattr(module, name) and delattr(module, name)
sys.exit(json.dumps([main.main(words) for words in json.loads(sys.argv[1])]))
"""


def test_what_works_without_the_modules_of_posix(tmp_path):
    """All but the training; in one process."""
    Image.new("RGB", (64, 48), "gray").save(tmp_path / "photo.png")
    commands = [
        ["generate", "--form=五绝", "--candidates=1", "--seed=1"],
        ["stylize", str(tmp_path / "photo.png")],
        ["train", "--max_epoch=1", f"--save_path={tmp_path / 'runs'}", "--use_visdom=false"],
    ]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX, json.dumps(commands)], cwd=MAIN.parent, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}, timeout=240,
    )  # fmt: skip
    assert result.stderr.endswith("[0, 0, 2]\n") and "Traceback" not in result.stderr, result.stderr
    assert "on Windows, use WSL" in result.stderr and "。" in result.stdout and "photo_" in result.stdout


# --------------------------------------------------------------------------------------------------------- slips

SLIPS = [  # what was typed, and what the one line on stderr must hold
    ("trian", ["unknown command 'trian'", "did you mean train?"]),
    ("--lr=1e-3 train", ["unknown command '--lr=1e-3'", "train"]),
    ("help train val", ["help: unexpected 'val'"]),
    ("train extra", ["train: unexpected 'extra'", "--name=value"]),
    ("train - extra", ["unexpected '-'"]),
    ("train -- --trace", ["unexpected '--'"]),
    ("train --max-epch 3", ["unknown option --max_epch", "did you mean --max_epoch?"]),
    ("train --lr", ["--lr: needs a value"]),
    ("train --resume --save_path=missing", ["no run to go on with"]),
    ("val", ["val needs a model file: --load="]),
    ("val --lr=5", ["--lr is for train; val has no use for it"]),
    ("summary --seed=3", ["--seed is for train and find_lr; summary"]),
    ("val --task=style --width=1", ["--width is for train and find_lr and summary; val"]),
    ("train --task=dogcat --tta=2", ["--tta is for val and test; train"]),
    ("generate --form=五绝 --acrostic=春江花月夜", ["--acrostic=春江花月夜"]),
    ("generate --form=五绝句", ["--form=五绝句: choose auto,", "did you mean 五绝 "]),
    ("generate --rhyme=先 --form=free", ["--rhyme=先: needs", "五绝 七绝 五律 七律"]),
    ("generate --pattern=平起", ["--pattern=平起: choose one of auto, 平起首句入韵"]),
    ("generate --poem=床前明月光，疑是地上霜。 --lock=3", ["--lock=3: expected numbers of verses from 1 to 2"]),
    ("check", ["check needs one poem"]),
    ("check spring", ["no Chinese verse in 'spring'"]),
    ("stylize", ["stylize needs a picture", "photo.jpg"]),
    ("stylize a.jpg --stlye=b", ["unknown option --stlye", "did you mean --style?"]),
    ("visdom a b", ["visdom: unexpected 'b'"]),
    ("download nothing", ["nothing", "poetry"]),
]


@pytest.mark.parametrize("typed, words", SLIPS, ids=[typed for typed, _ in SLIPS])
def test_a_slip_is_one_line_on_stderr_and_exit_code_2(capsys, monkeypatch, tmp_path, typed, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, *typed.split(" "))
    assert code == 2 and out == ""
    line = err.replace("\r", "\n").strip().splitlines()[-1]  # a progress bar may have been there
    assert line.startswith("error: ") and err.count("error: ") == 1 and "Traceback" not in err
    assert all(word in line for word in words), line
    assert list(tmp_path.iterdir()) == []


HINTS = {  # how other projects write it, and what is right here
    "train --epochs=3": "--max_epoch", "train --lr_rate=1": "--lr", "train --learning-rate=1": "--lr",
    "train --bs=1": "--batch_size", "train --gpu=0": "--use_gpu", "train --device=cuda": "--use_gpu",
    "train --workers=2": "--num_workers", "train --wd=0": "--weight_decay", "train --model=x": "--backbone",
    "train --task=dogcat --arch=x": "--backbone", "train --task=style --checkpoint=x": "--load",
    "train --output=x": "--save_path", "train --dataset=x": "--data_root", "train --Epochs=3": "--max_epoch",
    "generate --checkpoint=x": "--load", "generate --model=x": "--load", "generate --temp=1": "--temperature",
    "generate --start_words=x": "--prompt", "stylize a.jpg --output=b": "--out", "stylize a.jpg --cuda": "--use_gpu",
    "download poetry --output=x": "--to", "average a b --output=x": "--out", "visdom --prot=3": "--port",
    "train poet": "--task=poet", "train json": "--json", "train lr=1": "--lr=1", "train epochs=3": "--max_epoch=3",
    "train —lr=1e-3": "--lr=1e-3", "train –lr=1": "--lr=1", "train －－lr＝1": "--lr=1", "train --lr＝1": "--lr=1",
    "generate 春江": "--title=春江", "stylize main.py great_wave": "--style=great_wave", "demo 8000": "--port=8000",
    "stylize main.py style=sea": "--style=sea", "val model.pth": "--load=model.pth",
}  # fmt: skip


@pytest.mark.parametrize("typed", HINTS)
def test_what_other_projects_write_gets_the_right_option_as_hint(capsys, monkeypatch, typed):
    monkeypatch.chdir(MAIN.parent)
    code, _, err = called(capsys, *typed.split())
    assert code == 2 and err.count("\n") == 1 and f"did you mean {HINTS[typed]}?" in err


def test_options_of_another_task_and_pictures_are_no_slips_of_spelling(capsys):
    said = called(capsys, "train", "--style_image=x")[2]
    assert "--style_image is an option of --task=style, not of --task=poet" in said
    for command in ("stylize", "classify", "postcard"):
        assert "name the picture without an option: photo.jpg" in called(capsys, command, "--content=a.jpg")[2]


def test_a_value_may_look_like_an_option(capsys):
    code, _, err = called(capsys, "generate", "--prompt", "lr=1", "--load=missing")
    assert code == 2 and "--load=missing does not exist" in err


# -------------------------------------------------------------------------------------- options as they are written


@pytest.mark.parametrize(
    "typed, expected",
    [
        ("--use_gpu=false", {"use_gpu": False}),
        ("--nouse_gpu", {"use_gpu": False}),
        ("--use_gpu", {}),
        ("--lr=1e-3", {"lr": 1e-3}),
        ("--env=12_34", {"env": "12_34"}),
        ("--env=a=b", {"env": "a=b"}),
        ("--max_epoch=3 --max_epoch=4", {"max_epoch": 4}),
        ("--compile --seed 3", {"compile": True, "seed": 3}),
        ("--compile TRUE --use_gpu No", {"compile": True, "use_gpu": False}),
    ],
)
def test_train_gets_what_was_written(monkeypatch, typed, expected):
    import trainer

    given = []
    monkeypatch.setattr(trainer, "train", given.append)
    assert main.main(["train", *typed.split()]) == 0
    assert [cfg.changed() for cfg in given] == [expected]


def test_resume_without_a_value_reaches_the_trainer(monkeypatch):
    import trainer
    import training.state

    given = []
    monkeypatch.setattr(
        training.state, "resumed_options", lambda options, save_path: given.append(dict(options)) or {"resume": "x"}
    )
    monkeypatch.setattr(trainer, "train", given.append)
    assert main.main(["train", "--resume", "--lr=1"]) == 0
    assert given == [{"resume": True, "lr": "1"}, config.PoetConfig(lr=1.0, resume="x")]


# ------------------------------------------------------------------------------------------------------- commands


def generate(capsys, file: str, *words: str) -> tuple[str, str]:
    """(stdout, stderr) of the command, which works."""
    code, out, err = called(capsys, "generate", f"--load={file}", *words)
    assert code == 0, err
    return out, err


def generated(capsys, file: str, *words: str) -> list[dict]:
    return [json.loads(line) for line in generate(capsys, file, "--json", *words)[0].splitlines()]


def test_generate_json_is_one_object_a_line_and_nothing_else_on_stdout(capsys, poet_file):
    poems = generated(capsys, poet_file, "--n", "3", "--title=春龘", "--form=五绝")
    assert len(poems) == 3
    for poem in poems:
        assert list(poem) == "form title lines score rating seed pattern rhyme remarks sections".split()
        assert poem["form"] == "五绝" and poem["title"] == "春龘" and poem["score"] < 0
        assert [len(v) for v in verses("".join(poem["lines"]))] == [5] * 4
    assert len(generate(capsys, poet_file, "-n", "2", "--json")[0].splitlines()) == 2  # wherever it stands


def test_generate_for_people(capsys, poet_file):
    words = ("--title=春江", "--n=2", "--form=五绝")
    out, err = generate(capsys, poet_file, *words)
    assert out.count("《春江》\n") == 2 and out.count("。\n") == 4 and "\n\n" in out
    assert err.count("no rhyme table") == 1 and "(best first, rated " in err
    seed = err.split("--seed=")[1].split()[0]
    assert generate(capsys, poet_file, *words, f"--seed={seed}") == (out, err)
    assert "rhyme table" not in generate(capsys, poet_file, *words, "--noregular")[1]


def test_the_best_poem_comes_first_and_its_seed_writes_it_alone(capsys, poet_file):
    poems = generated(capsys, poet_file, "--n=16", "--seed=1", "--form=五绝")
    ratings = [poem["rating"] for poem in poems]
    assert ratings == sorted(ratings, reverse=True) and ratings[0] > ratings[-1]
    assert {poem["seed"] for poem in poems} == set(range(1, 17))
    for poem in poems[:3]:
        assert generated(capsys, poet_file, f"--seed={poem['seed']}", "--form=五绝")[0]["lines"] == poem["lines"]
    assert generated(capsys, poet_file, "--n=5") != generated(capsys, poet_file, "--n=5")


def test_the_two_poems_of_a_long_acrostic_stay_together(capsys, poet_file):
    poems = generated(capsys, poet_file, "--n=6", "--seed=1", "--acrostic=门风云山水门风云山")
    assert [len(verses("".join(poem["lines"]))) for poem in poems] == [8, 4] * 6
    seeds = [poem["seed"] for poem in poems]
    assert seeds[::2] == seeds[1::2] and sorted(seeds[::2]) == list(range(1, 7))
    pairs = [a["rating"] + b["rating"] for a, b in zip(poems[::2], poems[1::2], strict=True)]
    assert pairs == sorted(pairs, reverse=True)


def test_many_poems_are_printed_as_they_are_written(capsys, poet_file, monkeypatch):
    poems, few = (generated(capsys, poet_file, f"--n={n}", "--seed=1", "--form=五绝") for n in (17, 16))
    assert [poem["seed"] for poem in poems] == list(range(1, 18))
    assert poems[:16] == sorted(few, key=lambda poem: poem["seed"])
    written = []
    monkeypatch.setattr(main.cli, "write", lambda text, *_: written.append(text) if len(written) < 3 else sys.exit(9))
    with pytest.raises(SystemExit):
        main.main(["generate", f"--load={poet_file}", "--n=400", "--noregular", "--form=五绝"])
    assert len(written) == 3


def test_traditional_characters_and_pinyin(capsys, poet_file):
    words = ("--seed=1", "--form=五绝", "--prompt=门风云", "--title=春")
    [poem] = generated(capsys, poet_file, *words, "--script=traditional", "--pinyin")
    assert poem["lines"][0].startswith("門風雲") and poem["title"] == "春"
    assert poem["pinyin"][0].startswith("mén fēng yún") and poem["pinyin"][1][-1] == "."
    out = generate(capsys, poet_file, *words, "--pinyin")[0].splitlines()
    assert out[1].startswith("门风云") and out[2].startswith("mén fēng yún") and len(out) == 5


@pytest.fixture(scope="module")
def versed_file(tmp_path_factory) -> str:
    """A poet of random weights with a rhyme table: 40 characters of level tone, all rhyming, and 40 of oblique."""
    torch.manual_seed(0)
    level, oblique = ("".join(chr(start + i) for i in range(40)) for start in (0x4E00, 0x6000))
    model = Poet([*SPECIALS, *level, *oblique, "，", "。"], embed=8, hidden=8, layers=1)
    path = tmp_path_factory.mktemp("model") / "versed.safetensors"
    table = {"rhymes": {"一先": level, "一董": oblique}, "rhyme_tones": {"一先": "平", "一董": "上"}}
    model.save(path, forms=list(FORMS), **table)
    return str(path)


def test_what_generate_writes_check_finds_regular(capsys, versed_file, monkeypatch, tmp_path):
    options = ("--n=3", "--form=五律", "--rhyme=先", "--pattern=平起首句入韵", "--candidates=2", "--seed=1")
    code, out, err = called(capsys, "generate", f"--load={versed_file}", "--title=春", *options)
    assert code == 0 and out.count("《春》") == 3
    file = tmp_path / "poems.txt"
    file.write_text(out, encoding="utf-8")
    with open(file, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        piped = called(capsys, "check", "-", f"--load={versed_file}")
    assert piped == called(capsys, "check", str(file), f"--load={versed_file}")
    assert piped[0] == 0 and piped[1].count("五律 平起首句入韵, rhyme 一先: regular\n") == 3 and piped[2] == ""
    code, out, _ = called(capsys, "check", str(file), f"--load={versed_file}", "--json")
    assert code == 0 and [json.loads(line)["regular"] for line in out.splitlines()] == [True] * 3


def test_a_poet_without_a_rhyme_table_cannot_check(capsys, poet_file):
    for words in (["check", "春江花月夜，"], ["generate", "--explain"]):
        code, _, err = called(capsys, *words, f"--load={poet_file}")
        assert code == 2 and "has no rhyme table" in err


def test_generate_explains(capsys, versed_file):
    words = ("--seed=2", "--explain", "--candidates=2", "--form=五绝", "--title=春")
    lines = generate(capsys, versed_file, *words)[0].splitlines()
    assert lines[0] == "《春》" and lines[1].endswith("rhyme 一先: regular")
    assert set(lines[3]) <= set("平仄　") and lines[6].startswith("score -")


def test_texts_are_read_as_they_are_written(capsys, poet_file):
    """Keywords are words between commas, a prompt is not; what the poet cannot read is remarked."""
    plain, words = (generated(capsys, poet_file, "--seed=3", *w) for w in ((), ("--keywords=春，江 月",)))
    assert plain != words and words == generated(capsys, poet_file, "--seed=3", "--keywords=春,江,月")
    assert generated(capsys, poet_file, "--prompt=春,江", "--form=五绝")[0]["lines"][0].startswith("春江")
    assert "".join(generated(capsys, poet_file, "--prompt=12_34", "--form=free")[0]["lines"]).startswith("12_34")
    out, err = generate(capsys, poet_file, "--prompt=门龘風", "--form=五绝")
    assert out.startswith("门龘風")
    assert "prompt: 门 is read as 門" in err and "prompt: 風 is read as 风" in err and "does not know 龘" in err
    code, out, err = called(capsys, "generate", f"--load={poet_file}", "--keywords=龘,xyz", "--title=龘", "--form=五绝")
    assert code == 0 and err.count("龘 is not known and was left out\n") == 1 and "xyz is not known" in err


def test_shipped_files_are_found_from_another_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("options.ROOT", tmp_path / "project")
    shipped = config.GenerateConfig.load
    there = tmp_path / "project" / shipped
    there.parent.mkdir(parents=True)
    there.touch()

    def found(cls, **options) -> str:
        return find_inputs(parse(cls, options), options).load

    assert found(config.GenerateConfig) == found(config.PoetConfig, load=shipped) == str(there)
    assert found(config.StylizeConfig) == config.StylizeConfig.load  # it is not there either
    (tmp_path / shipped).parent.mkdir()
    (tmp_path / shipped).touch()
    assert found(config.GenerateConfig) == shipped


def test_the_class_in_a_file_is_read_without_torch(poet_file, tmp_path):
    assert class_and_task(poet_file) == ("Poet", "")
    for name, content in {"a": b"", "b": b"\xff" * 99, "c": b"\x02" + b"\0" * 7 + b"[]", "d": b"{}"}.items():
        (tmp_path / name).write_bytes(content)
        assert class_and_task(str(tmp_path / name)) == ("", "")
    assert class_and_task(str(tmp_path)) == class_and_task("nowhere") == ("", "")


MISSING = [  # commands that read a file which is not there
    "train --data_root=MISSING", "train --load=MISSING", "train --init=MISSING", "train --resume=MISSING",
    "train --rhymes=MISSING", "train --task=style --style_image=MISSING", "train --task=style --vgg=MISSING",
    "train --task=dogcat --others=MISSING", "train --task=dogcat --pretrained=MISSING",
    "val --load=MISSING", "test --load=MISSING", "val --load=checkpoints/poet.safetensors --data_root=MISSING",
    "find_lr --data_root=MISSING", "summary --load=MISSING", "generate --load=MISSING", "generate --poem=MISSING.txt",
    "check MISSING.txt", "check 春江 --load=MISSING", "stylize MISSING", "stylize main.py --load=MISSING",
    "stylize main.py --mask=MISSING", "stylize main.py --method=optimize --style_image=MISSING",
    "postcard MISSING", "postcard main.py --font=MISSING", "postcard main.py --poet=MISSING",
    "postcard main.py --load=MISSING", "postcard main.py --poem=MISSING.txt", "classify MISSING",
    "classify main.py --load=MISSING", "export --load=MISSING", "average MISSING MISSING --out=a.safetensors",
    "train --resume=~/MISSING",
    "train --resume=MISSING --save_path=~", "demo --poet=MISSING",
    "demo --style=MISSING", "demo --classifier=MISSING", "train --load=~/MISSING",
]  # fmt: skip


def test_a_missing_file_is_told_before_torch_is_imported():
    """All commands in one process, which has no torch at the end."""
    script = (
        "import json, sys, main\n"
        "codes = [main.main(typed.split()) for typed in json.loads(sys.argv[1])]\n"
        "assert set(codes) == {2}, codes\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(MISSING)], cwd=MAIN.parent, capture_output=True, text=True,
        env={**os.environ, "HOME": "/home/nobody", "PYTHONUTF8": "1"}, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(MISSING)
    for typed, line in zip(MISSING, lines, strict=True):
        assert line.startswith("error: ") and re.search(r"MISSING\S* does not exist", line), (typed, line)
    assert "/home/nobody/MISSING" in lines[-1]


def test_options_that_name_files_know_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/li bai")
    for cls in ALL_OPTIONS:
        for field in dataclasses.fields(cls):
            if field.metadata["reads"] or field.metadata["writes"]:
                suffix = field.metadata["writes"] if field.metadata["writes"].startswith(".") else ""
                cfg = parse(cls, {field.name: f"~/x{suffix}"})
                assert getattr(cfg, field.name) == f"/home/li bai/x{suffix}", field.name
    assert parse(config.GenerateConfig, {"prompt": "~/x"}).prompt == "~/x"


# ---------------------------------------------------------------------------------------------- pipes and signals


def test_a_reader_that_goes_away_is_no_error(poet_file):
    words = ["generate", f"--load={poet_file}", "--n=2000", "--json", "--form=五绝", "--candidates=1"]
    process = subprocess.Popen(
        [sys.executable, str(MAIN), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert json.loads(process.stdout.readline())["form"] == "五绝"
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(300) == 0


def test_help_without_anybody_who_reads():
    """Into a pipe whose other end is closed, and with closed streams."""
    read, write = os.pipe()
    os.close(read)
    result = run("help", "visdom", capture_output=False, stdout=write, stderr=subprocess.PIPE)  # fits into the buffer
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
    for closing in (">&-", "<&- >&-"):
        command = ["sh", "-c", f'"$0" "$1" help {closing}', sys.executable, str(MAIN)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, ""), closing


FAILURES = {  # what torch says, or what else happens: the exit code and the line
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"): (2, "error: out of memory (CUDA out of memory. T"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"): (2, "error: out of memory ([enforce"),
    RuntimeError("pad2d_backward_cuda does not have a deterministic implementation, but you set"): (
        2, "error: --deterministic: pad2d_backward_cuda cannot be on this device; leave it out\n",
    ),
    KeyboardInterrupt(): (130, ""),
}  # fmt: skip


@pytest.mark.parametrize("error", FAILURES, ids=str)
def test_what_happens_is_told_in_a_line(monkeypatch, capsys, error):
    def fails(*args: str, **options) -> None:
        raise error

    monkeypatch.setitem(main.COMMANDS, "train", fails)
    code, out, err = called(capsys, "train")
    expected, line = FAILURES[error]
    assert (code, out, err.count("\n")) == (expected, "", int(bool(line))) and err.startswith(line)


def test_a_fault_of_ours_is_seen_whole(monkeypatch, capsys):
    def fails(*args: str, **options) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(main.COMMANDS, "train", fails)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        called(capsys, "train")


# ---------------------------------------------------------------------------------- nothing that is read is overwritten


# (command, words, what names its inputs, its output, the words for it). Each input is a file that is made here.
WRITERS = [
    ("stylize", [], "PATH load mask", "out.png", ["--out={out}"]),
    ("stylize", ["--method=optimize"], "PATH style_image vgg", "out.png", ["--out={out}"]),
    ("postcard", [], "PATH poem font load poet", "out.pdf", ["--out={out}"]),
    ("postcard", [], "PATH poem font load poet", "photo_postcard.png", []),
    ("classify", [], "PATH load", "out.csv", ["--csv={out}"]),
    ("export", [], "load", "out.onnx", ["--out={out}"]),
    ("average", ["{load}"], "PATH", "out.safetensors", ["--out={out}"]),
    ("summary", [], "load data_root init rhymes", "out.svg", ["--graph={out}"]),
    ("summary", ["--task=style"], "style_image vgg", "out.svg", ["--graph={out}"]),
    ("summary", ["--task=dogcat"], "pretrained labels", "out.svg", ["--graph={out}"]),
    ("train", [], "load init", "run/best.safetensors", ["--save_path={folder}", "--run=run"]),
    ("train", ["--task=dogcat"], "pretrained others", "run/best.safetensors", ["--save_path={folder}", "--run=run"]),
    ("test", ["--task=dogcat", "--load={classifier}"], "labels", "out/submission.csv", ["--out={folder}/out"]),
    ("val", ["--task=dogcat", "--load={classifier}"], "labels", "out/predictions.csv", ["--out={folder}/out"]),
]


@pytest.fixture
def inputs(tmp_path, poet_file) -> dict[str, str]:
    """{what names it: a file for it}."""
    for name in "font vgg init rhymes lpips squeezenet pretrained others labels data_root".split():
        (tmp_path / name).write_text("any")
    for name in ("load", "poet"):
        shutil.copy(poet_file, tmp_path / name)
    (tmp_path / "poem.txt").write_text("白日依山尽，黄河入海流。", encoding="utf-8")
    LeNet(["cat", "dog"]).save(tmp_path / "classifier")
    Image.new("RGB", (32, 24), "red").save(tmp_path / "photo.png")
    photos = dict.fromkeys(("PATH", "mask", "style_image"), str(tmp_path / "photo.png"))
    return {path.stem: str(path) for path in tmp_path.iterdir()} | photos


TRIED = [(row, name) for row in WRITERS for name in row[2].split()]


@pytest.mark.parametrize("row, name", TRIED, ids=[f"{row[0]}-{name}-{row[3]}" for row, name in TRIED])
def test_no_input_is_overwritten_under_whatever_name(capsys, tmp_path, inputs, row, name):
    command, words, names, output, told = row
    link = os.symlink if TRIED.index((row, name)) % 2 else os.link
    out = tmp_path / output
    out.parent.mkdir(exist_ok=True)
    link(inputs[name], out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    path = [inputs["PATH"]] if "PATH" in names else []
    options = [f"--{option}={inputs[option]}" for option in {name, *names.split()[:2]} - {"PATH"}]
    places = {"out": f"{out.parent}/x/../{out.name}", "folder": tmp_path, **inputs}
    code, stdout, err = called(capsys, command, *path, *options, *(word.format(**places) for word in (*words, *told)))
    assert (code, stdout, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ") and " would overwrite " in err and inputs[name] in err
    assert re.search(r"which is an input: give another \w+=…", err)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "words, end",
    [
        (["classify", "a.jpg", "--csv=b.jpg"], ".csv"),
        (["summary", "--graph=b.png"], ".svg"),
        (["export", "--out=b.safetensors"], ".onnx"),
        (["average", "a", "b", "--out=b.pt"], ".safetensors"),
    ],
)
def test_a_file_of_another_kind_is_not_written(capsys, words, end):
    code, _, err = called(capsys, *words)
    name = words[-1]
    assert (code, err) == (2, f"error: {name}: the file's name must end in {end}\n")
