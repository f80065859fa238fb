"""Every command with every task, with a small network of its own and with the shipped one: it works, and says so.

The rows come from the lists in main.py and config.py: a new command or task fails here until it has its words.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import config
import main
from models.transformer_net import StyleNetworks
from options import is_for
from tests.training import write_corpus

CHECKPOINTS = Path(main.__file__).parent / "checkpoints"
# What a task is given, of which each command takes what it has a use for. DATA is the folder that `place` makes.
GIVEN = {
    "poet": "--data_root=DATA/corpus.jsonl --row_length=16",
    "style": "--data_root=DATA/photos --style_image=DATA/styles --loss_network=squeezenet --vgg=DATA/squeezenet.pth"
    " --image_size=32 --styles_per_photo=1",
    "dogcat": "--data_root=DATA/pets",
}
SMALL = {  # a network to begin with
    "poet": "--hidden=16 --embed=12 --layers=1 --row_length=64",
    "style": "--width=0.1",
    "dogcat": "--backbone=lenet --pretrained=none --image_size=32",
}
SHORT = "--max_epoch=1 --batch_size=4 --samples=1 --precision=fp32 --use_visdom=false --json"
# What the other commands are given. POET, STYLE, DOGCAT and MODEL are model files, OUT a file to write.
WORDS = {
    "generate": "--load=POET --title=春江 --seed=1 --candidates=2",
    "check": "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。 --load=POET",
    "stylize": "DATA/photos/0.png --load=STYLE --out=OUT.png",
    "postcard": "DATA/photos/0.png --load=STYLE --style= --poet=POET --form=五绝 --seed=1 --out=OUT.png",
    "classify": "DATA/photos/0.png DATA/pets/val/cat.9.png --load=DOGCAT --csv=OUT.csv",
    "describe": "DATA/photos/0.png",
    "average": "MODEL MODEL --out=OUT.safetensors",
    "download": "",
    "runs": "--save_path=DATA",
    "info": "",
    "help": "",
}
# What takes long: there the shipped network is exported by the command, and there the servers run.
ELSEWHERE = {  # command: the file, and what it is recognized by
    "export": ("test_export.py", '"main.py", "export"'),
    "demo": ("test_demo_api.py", '"main.py", "demo"'),
    "visdom": ("servers.py", '"visdom", f"--port'),
}
OF_A_TASK = [name for name, sets in config.OPTIONS.items() if config.DefaultConfig in sets]


def rows() -> list[tuple[str, str, str]]:
    """(command, task, own or shipped) of all that is tried; empty where a command has no such thing."""
    found = []
    for command in (name for name in main.COMMANDS if name not in ELSEWHERE):
        by_task = command in OF_A_TASK or command == "average"
        by_model = by_task or any(word in WORDS[command] for word in ("POET", "STYLE", "DOGCAT"))
        tasks, models = config.TASKS if by_task else [""], ["own"] if by_model else [""]
        if by_model and command not in ("find_lr", "average"):  # to which the network makes no difference
            models.append("shipped")
        found += [(command, task, model) for task in tasks for model in models]
    return found


def words_of(command: str, task: str, model: str, place: Path) -> list[str]:
    """The command line of a row."""
    if command in OF_A_TASK:
        network = SMALL[task] if model == "own" and command in ("train", "find_lr") else "--load=MODEL"
        words = f"--task={task} {GIVEN[task]} {network} {SHORT}".split()
        words = " ".join(word for word in words if is_for(word[2:].partition("=")[0], command))
        if command == "find_lr":
            words += f" --steps={100 if task == 'poet' else 20}"  # the smallest poet is slow to learn
    else:
        has_json = any(field.name == "json" for cls in config.OPTIONS[command] for field in dataclasses.fields(cls))
        words = WORDS[command] + (" --json" if has_json else "")
    files = {name: CHECKPOINTS if model == "shipped" else place / "own" for name in config.TASKS}
    files = {name.upper(): folder / f"{name}.safetensors" for name, folder in files.items()}
    for name, value in {**files, "MODEL": files.get(task.upper()), "DATA": place}.items():
        words = words.replace(name, str(value))
    return [command, *words.split()]


def write_pictures(folder: Path, names: list[str]) -> None:
    """64 x 48 pixels of blurred noise, red in a picture whose name begins with c, else blue."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 160, (6, 8, 3), np.uint8)
        noise[..., 0 if name.startswith("c") else 2] += 90
        Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data of all tasks; a run of each, and its network in own/TASK.safetensors."""
    place = tmp_path_factory.mktemp("place")
    write_corpus(place / "corpus.jsonl", 32)
    write_pictures(place / "photos", [str(i) for i in range(14)])
    write_pictures(place / "styles", StyleNetworks.load(CHECKPOINTS / "style.safetensors").styles)
    for split, numbers in (("train", range(8)), ("val", (8, 9))):
        write_pictures(place / "pets" / split, [f"{name}.{i}" for name in ("cat", "dog") for i in numbers])
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), place / "squeezenet.pth")
    (place / "own").mkdir()
    for task in config.TASKS:
        assert main.main([*words_of("train", task, "own", place), f"--save_path={place}", f"--run={task}"]) == 0
        (place / "own" / f"{task}.safetensors").symlink_to(place / task / "best.safetensors")
    return place


@pytest.mark.parametrize(("command", "task", "model"), rows())
def test_a_command_works(command, task, model, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("OUT", str(tmp_path / "made")) for word in words_of(command, task, model, place)]
    assert main.main(words) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert not any(line.startswith(("error", "warning", "Traceback")) for line in err.splitlines()), err
    if "--json" in words:
        assert [json.loads(line) for line in out.splitlines()]
    elif command != "train":  # which tells what it does on stderr
        assert out.strip()
    made = [tmp_path / word.partition("=")[2] for word in words if "made" in word]
    assert all(path.stat().st_size for path in made)


@pytest.mark.parametrize("file, words", ELSEWHERE.values())
def test_what_takes_long_is_tried_elsewhere(file, words):
    assert words in (Path(__file__).parent / file).read_text(encoding="utf-8")
