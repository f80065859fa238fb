"""Nobody gets in: files that would run code, archives that lead elsewhere, pictures that would fill the memory.

Downloads (sums, lengths, limits) are in test_download.py, texts for visdom in test_panels.py, its server in
test_board_server.py; the page of the demo is in test_demo.py.
"""

import ast
import io
import os
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from data.dogcat import DogCatDataset
from data.labels import list_samples
from data.views import Augmentation
from infer.photo.classify import Settings, classify, find_pictures
from models import BACKBONES
from tests.servers import ROOT
from tests.training import arguments, write_corpus

# --------------------------------------------------------------------------------------------------------- pickles


class Bomb:
    """Makes a folder where somebody unpickles it."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _torch(bomb: Bomb, path: Path) -> None:
    torch.save({"version": 3, "state_dict": {"a": torch.zeros(1)}, "x": bomb}, path)


def _old_torch(bomb: Bomb, path: Path) -> None:
    torch.save({"a": torch.zeros(1), "x": bomb}, path, _use_new_zipfile_serialization=False)


def _bare(bomb: Bomb, path: Path) -> None:
    path.write_bytes(pickle.dumps(bomb))


def _numpy(bomb: Bomb, path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, data=np.array([[0, 1]]), ix2word=np.array(bomb, dtype=object), x=np.array([bomb]))


@pytest.fixture
def marker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus.jsonl"))
    Image.new("RGB", (40, 30), "red").save("photo.png")
    for name, kind in (("cat", "red"), ("dog", "blue")):
        for number in range(10):
            path = Path("pictures", "train", f"{name}.{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 24), kind).save(path)
    return tmp_path / "executed"


@pytest.mark.parametrize("write", [_torch, _old_torch, _bare, _numpy], ids=["torch", "old torch", "pickle", "npz"])
def test_no_command_runs_what_is_in_a_file(marker, capfd, write):
    """The bomb stands in the place of every file that any command reads; each time it is one line."""
    Path("run").mkdir()
    for name in ("bomb.pt", "bomb.pth", "bomb.safetensors", "bomb.npz", "bomb.jsonl", "bomb.json", "run/last.pt"):
        write(Bomb(marker), Path(name))
    poet = {"data_root": "corpus.jsonl", "use_visdom": False, "use_gpu": False, "precision": "fp32", "save_path": "."}
    dogcat = {**poet, "task": "dogcat", "data_root": "pictures", "backbone": "squeezenet", "image_size": 32}
    style = {**poet, "task": "style", "data_root": "pictures", "style_image": "photo.png", "image_size": 32}
    tries = [
        ("generate", {"load": "bomb.pt"}),
        ("generate", {"load": "bomb.safetensors"}),
        ("stylize photo.png", {"load": "bomb.pth"}),
        ("stylize photo.png", {"method": "optimize", "style_image": "photo.png", "vgg": "bomb.pth"}),
        ("classify photo.png", {"load": "bomb.pth"}),
        ("export", {"load": "bomb.pth"}),
        ("train", {"resume": "run"}),
        ("train", {**poet, "load": "bomb.pt"}),
        ("train", {**poet, "init": "bomb.safetensors"}),
        ("train", {**poet, "data_root": "bomb.npz"}),
        ("train", {**poet, "data_root": "bomb.jsonl"}),
        ("train", {**poet, "data_root": "bomb.json"}),
        ("train", {**poet, "rhymes": "bomb.json"}),
        ("train", {**dogcat, "pretrained": "bomb.pth"}),
        ("train", {**dogcat, "load": "bomb.safetensors"}),
        ("train", {**style, "vgg": "bomb.pth", "loss_network": "squeezenet"}),
        ("test", {**poet, "load": "bomb.pt"}),
    ]
    for command, given in tries:
        first, *words = command.split()
        capfd.readouterr()
        code = main.main([first, *words, *arguments("", **given)[1:]])
        told = capfd.readouterr().err
        assert not marker.exists(), command
        assert code == 2 and told.count("error: ") == 1 and "Traceback" not in told, (command, given, told)
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == ["pictures", "run"]


def test_the_bombs_would_go_off(marker):
    """Where somebody is careless: the test above would notice."""
    for write in (_torch, _old_torch, _bare, _numpy):
        write(Bomb(marker), Path("bomb"))
        with open("bomb", "rb") as file:
            match write.__name__:
                case "_bare":
                    pickle.load(file)
                case "_numpy":
                    assert np.load(file, allow_pickle=True)["x"] is not None
                case _:
                    torch.load(file, weights_only=False)
        marker.rmdir()


FORBIDDEN = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "yaml"}  # modules
NEVER = {"eval", "exec", "os.system", "os.popen", "extractall", "unpack_archive", "load_state_dict_from_url"}


def _faults(source: str) -> list[str]:
    """What must not be in a program that opens files of strangers."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in FORBIDDEN]
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name in NEVER or name.split(".")[-1] in NEVER - {"eval", "exec"} or options.get("shell", "False") != "False":
            found.append(f"{node.lineno}: {name}")
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if name.endswith(("np.load", "read_array")) and options.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: {name} with allow_pickle")
    return found


def test_no_line_of_the_program_could_run_a_file():
    for bad in (
        "import pickle",
        "from pickle import loads",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "eval(x)",
    ):
        assert len(_faults(bad)) == 1
    assert not _faults("import pickletools\nmodel.eval()\nnp.load(p)\ntorch.load(p, weights_only=True)")
    folders = "benchmarks board data demo infer models tasks training utils".split()
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    assert len(files) > 140
    assert [f"{path.name}:{fault}" for path in files for fault in _faults(path.read_text(encoding="utf-8"))] == []


# -------------------------------------------------------------------------------------------- archives and pictures


def test_names_in_an_archive_lead_nowhere(tmp_path, monkeypatch):
    """A .tar is read where it is; members above it are left out, and what is made of the others lies in --out."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(buffer, "PNG")
    with tarfile.open("evil.tar", "w") as archive:
        for name in ("../../up.png", str(tmp_path / "absolute.png"), "a/../../../back.png"):
            info = tarfile.TarInfo(name)
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    torch.manual_seed(0)
    model = BACKBONES["lenet"](["cat", "dog"]).eval()
    model.metadata = {"image_size": 32}
    answers = list(classify(model, find_pictures(["evil.tar"]), Settings(2, "fp32", -1, explain=True, out="out")))
    assert len(answers) == 1 and not answers[0].error
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert made == {"deep/er/out/absolute_explained.png"}


def huge_png(path: Path, side: int = 60_000) -> None:
    """A few bytes that say they are 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def test_every_way_in_refuses_a_huge_picture_by_its_header(marker, capfd, monkeypatch):
    huge_png(Path("huge.png"))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded") if self.width > 1000 else None)
        for words in (["stylize", "huge.png"], ["classify", "huge.png"], ["postcard", "huge.png", "--poem=春眠不觉晓"]):
            capfd.readouterr()
            assert main.main([*words, "--use_gpu=false"]) in (1, 2)
            assert "huge.png has 60000 x 60000 pixels, 3600.0 megapixels, more than" in capfd.readouterr().err, words
    huge_png(Path("pictures", "train", "cat.0.png"))
    photos = DogCatDataset(list_samples(Path("pictures", "train")), ("cat", "dog"), 16, Augmentation())
    broken = [photos.fault(i) for i in range(len(photos)) if photos[i] is None]
    assert len(broken) == 1 and "60000 x 60000 pixels" in broken[0]
