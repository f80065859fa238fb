"""The painter's task in real trainings of a tiny network: losses, pictures, stopping and going on, mistakes.

What judges is a SqueezeNet of random weights; what it says is as good as any to compute with.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import data.photos
import main
from config import StyleConfig
from data.photos import choose_split, list_pictures
from models.perceptual import PerceptualLoss
from models.strokes import calm_places
from models.transformer_net import StyleNetworks
from options import PAINTER, ROOT, parse
from tasks import make_task, style
from tests.painting import vary
from tests.pictures import write_picture
from tests.servers import free_port
from tests.training import Process, arguments, assert_same_run, log_of, main_here, run, steps_done
from training.state import read_state
from utils.images import read_image, to_tensor, to_uint8

PHOTOS = 14  # of which 10 are for training


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "squeezenet.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.fixture
def folder(tmp_path, network):
    for number in range(PHOTOS):
        write_picture(tmp_path / "photos" / f"photo{number}.png", number)
    for number, name in enumerate(("ink", "oil")):
        write_picture(tmp_path / "styles" / f"{name}.png", 100 + number)
    (tmp_path / "squeezenet.pth").symlink_to(network)
    return tmp_path


def options(folder: Path, **more) -> dict:
    """Options of `train` for a run of 5 tiny steps an epoch."""
    files = {"data_root": folder / "photos", "style_image": folder / "styles", "vgg": folder / "squeezenet.pth"}
    small = {"image_size": 32, "width": 0.1, "batch_size": 2, "styles_per_photo": 2, "max_epoch": 2, "warmup": 2}
    place = {"save_path": folder, "debug_file": folder / "debug", "use_visdom": False, "use_gpu": False}
    other = {"loss_network": "squeezenet", "precision": "fp32", "lr": 0.01, "save_every": 0, "style_size": 46}
    return {"task": "style", **files, **small, **place, **other, **more}


def task_of(folder: Path, **more) -> style.StyleTask:
    torch.manual_seed(0)
    return make_task(parse(StyleConfig, options(folder, **more)))


def draw_alike(task: style.StyleTask, monkeypatch) -> None:
    """The loss compares the same pixels, along the same directions, of all pictures, each time."""
    forward = task.loss.forward
    monkeypatch.setattr(task.loss, "forward", lambda *given, seed: forward(*given, seed=0))


# ---------------------------------------------------------------------------------------------------------- a step


@torch.no_grad()
def test_the_figures_are_those_of_every_painting_by_itself(folder, monkeypatch):
    task = task_of(folder, temporal_weight=3, style_weight="4,ink:1.5", calm_share="0.6,ink:0.2")
    draw_alike(task, monkeypatch)
    vary(task.model).train()
    batch = task.collate([task.train_set[i] for i in range(3)])
    assert sorted(batch["style"][0].tolist()) == [0, 1]
    output = task.step(task.model, batch)
    one_by_one: dict[str, list[torch.Tensor]] = {"content": [], "style": [], "calm": [], "tv": []}
    excess, weights, shares = [], [], []
    for image, numbers in zip(batch["image"], batch["style"], strict=True):
        photo = image[None] / 255  # (1, 3, H, W)
        for number in numbers:
            output_of_one = task.model.networks[number](photo)
            painting = output_of_one["image"]
            excess.append(output_of_one["excess"].mean())
            weights.append((1.5, 4.0)[number])
            shares.append((0.2, 0.6)[number])
            calm = calm_places(photo)[None, None]
            losses = task.loss(painting, task.loss.content(photo), number[None], calm, seed=None)
            down, right = painting.diff(dim=2).square().mean(), painting.diff(dim=3).square().mean()
            for name, value in {**losses, "tv": down + right}.items():
                one_by_one[name].append(value.squeeze())
    expected = {name: torch.stack(values).mean() for name, values in one_by_one.items()}
    cfg = task.cfg
    each = zip(weights, shares, one_by_one["style"], one_by_one["calm"], strict=True)
    weighted = [weight * ((1 - share) * whole + share * calm) for weight, share, whole, calm in each]
    expected["loss"] = cfg.content_weight * expected["content"] + torch.stack(weighted).mean()
    of_motion = cfg.tv_weight * expected["tv"] + cfg.temporal_weight * output["temporal"]
    expected["objective"] = expected["loss"] + of_motion + style.EXCESS_WEIGHT * torch.stack(excess).mean()
    assert set(output) == {*expected, "temporal", "count"} and int(output["count"]) == 3
    for name, value in expected.items():
        torch.testing.assert_close(output[name], value, rtol=1e-4, atol=1e-6)


def test_the_objective_is_a_mean_over_photographs(folder, monkeypatch):
    """So parts of a batch, weighted by their photographs, have the gradient of the whole."""
    task = task_of(folder)
    draw_alike(task, monkeypatch)
    vary(task.model)
    samples = [task.train_set[i] for i in range(5)]
    gradients = []
    for parts in ([samples], [samples[:2], samples[2:]]):
        task.model.zero_grad()
        for part in parts:
            (task.step(task.model, task.collate(part))["objective"] * len(part) / 5).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in task.model.parameters() if p.grad is not None]))
    whole, parts = gradients
    assert (whole - parts).norm() < 1e-4 * whole.norm()


def test_an_epoch_has_its_own_crops_and_styles_as_many_as_asked_for(folder):
    task = task_of(folder, styles_per_photo=1, batch_size=3)
    epochs = []
    for epoch in (0, 1, 0):
        batches = task.train_batches(epoch)
        assert sorted(sum(batches, [])) == list(range(10)) and list(map(len, batches)) == [3, 3, 3, 1]
        epochs.append(task.collate([task.train_set[i] for i in range(10)]))
    for key in ("image", "style"):
        assert epochs[0][key].equal(epochs[2][key]) and not epochs[0][key].equal(epochs[1][key])
    assert sum(batches, []) != list(range(10))
    assert epochs[0]["style"].shape == (10, 1) and set(epochs[0]["style"].flatten().tolist()) == {0, 1}
    output = task.step(task.model, epochs[0])
    output["objective"].backward()
    assert not any(output[name].requires_grad for name in ("loss", "content", "style", "tv"))


class Negative:
    """A painter that looks at one pixel at a time: what moves in the photograph moves in the painting."""

    training = True

    def __init__(self):
        self.seen: list[torch.Tensor] = []

    def __call__(self, image, style):
        self.seen.append(image)
        return {"image": 1 - image, "excess": torch.zeros(len(image))}


@torch.no_grad()
def test_the_temporal_term_is_what_a_moved_and_noisy_photograph_changes(folder, monkeypatch):
    task = task_of(folder, temporal_weight=2, styles_per_photo=1)
    batch = task.collate([task.train_set[i] for i in range(2)])
    photo, corners = batch["image"] / 255, set()
    monkeypatch.setattr(style, "NOISE", 0)
    for seed in range(8):
        torch.manual_seed(seed)
        painter = Negative()
        assert float(task.step(painter, batch)["temporal"]) == 0
        moved = next(image for image in painter.seen if image.shape[2] == 28)
        places = [(y, x) for y in range(5) for x in range(5) if moved.equal(photo[:, :, y : y + 28, x : x + 28])]
        corners.update(places)
        assert len(places) == 1
        assert float(task.step(task.model, batch)["temporal"]) > 1e-6  # a network of strides does change
    assert len(corners) > 4
    for noise in (0.02, 0.08):
        monkeypatch.setattr(style, "NOISE", noise)
        assert float(task.step(Negative(), batch)["temporal"]) == pytest.approx(noise**2, rel=0.1)


# ------------------------------------------------------------------------------------------------------------ a run


def test_a_run_learns_and_leaves_pictures(folder):
    told = run(folder, **options(folder, run="a", max_epoch=6, samples=9))
    assert f"{PHOTOS} photographs from" in told and "2 styles: ink, oil; judged by squeezenet" in told
    log = log_of(folder / "a")
    curve = [r["loss"] for r in log if r["kind"] == "batch"]
    assert len(curve) == 30 and np.mean(curve[-5:]) < 0.7 * np.mean(curve[:5])
    shown = {
        name: [r for r in log if r["kind"] == "image" and r["name"] == name] for name in ("paintings", "worst batch")
    }
    assert [(r["epoch"], r["path"]) for r in shown["paintings"]] == [
        (i, f"pictures/epoch_{i + 1:04}.png") for i in range(6)
    ]
    assert [r["epoch"] for r in shown["worst batch"]] == list(range(6))
    best = StyleNetworks.load(folder / "a" / "best.safetensors")
    assert best.styles == ["ink", "oil"] and best.metadata["loss_network"] == "squeezenet"
    assert not {"data_root", "vgg", "style_image"} & set(best.metadata["config"])  # places on this machine
    # The sheet, cell by cell: the photograph, the styles; 4 pixels between them.
    model = StyleNetworks(**read_state(folder / "a" / "last.pt")["arguments"])
    model.load_state_dict(read_state(folder / "a" / "last.pt")["model"])
    model.eval()
    sheet = read_image(folder / "a" / "pictures" / "epoch_0006.png").rgb
    sources = choose_split(list_pictures(folder / "photos"), "val")
    assert sheet.shape == (len(sources) * 260 - 4, 3 * 260 - 4, 3)
    for row, source in enumerate(sources):
        with Image.open(source.path) as image:
            photo = to_tensor(np.array(image.resize((256, 256), Image.Resampling.BICUBIC, box=(4, 0, 44, 40))))
        with torch.no_grad():
            paintings = [network(photo)["image"] for network in model.networks]
        for column, picture in enumerate((photo, *paintings)):
            cell = sheet[row * 260 : row * 260 + 256, column * 260 : column * 260 + 256]
            assert np.abs(cell.astype(int) - to_uint8(picture)).max() <= 1


def test_killed_and_resumed_it_is_the_same_run(folder):
    """With its pictures."""
    more = {"styles_per_photo": 1, "temporal_weight": 1, "num_workers": 2, "epoch_batches": 3}
    run(folder, **options(folder, run="whole", **more))
    process = Process(arguments(**options(folder, run="killed", **more)), folder / "killed.out")
    process.wait_for(lambda: steps_done(folder / "killed") >= 4)
    process.kill()
    run(folder, **options(folder, resume=folder / "killed", **more))
    assert_same_run(folder / "whole", folder / "killed")
    whole, killed = (sorted((folder / name / "pictures").iterdir()) for name in ("whole", "killed"))
    names = [f"{name}_000{i}.png" for name in ("best_batch", "epoch", "worst_batch") for i in (1, 2)]
    assert [p.name for p in whole] == [p.name for p in killed] == names
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, killed, strict=True))


def _drawing_alike(argv: list[str], out: str, environment: dict[str, str]) -> None:
    """The program, whose loss compares the same pixels at each step: each process draws its own otherwise.

    Flat places of drawn pictures, and a dusk still more, have so little variance that rounding shows at once.
    """
    data.photos.in_other_light = lambda pixels, random: pixels
    forward = PerceptualLoss.forward
    PerceptualLoss.forward = lambda *given, seed: forward(*given, seed=0)
    main_here(argv, out, environment)


def test_two_processes_are_one(folder):
    more = {"batch_size": 4, "max_epoch": 2, "calm_share": "0"}
    alone = Process(arguments(**options(folder, run="one", **more)), folder / "alone", _drawing_alike)
    assert alone.wait() == 0, alone.out.read_text()
    argv = arguments(**options(folder, run="two", devices=2, **more))
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    ranks = [Process(argv, folder / f"rank{rank}", _drawing_alike, LOCAL_RANK=str(rank), **world) for rank in (0, 1)]
    assert [process.wait() for process in ranks] == [0, 0], [process.out.read_text() for process in ranks]
    assert ranks[0].out.read_text().count("run: ") == 1 and "run: " not in ranks[1].out.read_text()
    curves = [
        [[v for k, v in r.items() if k not in ("kind", "split")] for r in log_of(folder / name) if r["kind"] == "batch"]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == len(curves[1]) == 6
    for one, two in zip(*curves, strict=True):
        assert one == pytest.approx(two, rel={1: 1e-4, 2: 1e-4, 3: 1e-4, 4: 1e-3}.get(one[0], 0.05))  # rounding grows


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "more, line",
    [
        ({"style_image": "nowhere"}, "--style_image=nowhere does not exist"),
        ({"style_image": "squeezenet.pth"}, "squeezenet.pth is not a picture"),
        ({"data_root": "EMPTY"}, "--data_root=EMPTY: no pictures in it"),
        ({"data_root": "styles"}, "2 photographs are too few"),
        ({"vgg": "styles/ink.png"}, "styles/ink.png"),
        ({"loss_network": "vgg19"}, "squeezenet.pth does not hold vgg19"),
        ({"loss_network": "vgg"}, "--loss_network=vgg: choose one of auto, vgg16, vgg19, squeezenet, classifier"),
        ({"style_weight": "4,inc:1"}, "--style_weight=inc:1: the styles are ink, oil; did you mean ink?"),
        ({"styles": "ink,sea"}, "--styles=sea: this network has ink, oil"),
        ({"calm_share": "0.6,ink:2"}, "--calm_share=0.6,ink:2: must lie between 0 and 1"),
        ({"style_weight": "much"}, "--style_weight=much: expected a number, or NAME:NUMBER, such as"),
        ({"load": "two.safetensors", "width": 0.2}, "--width=0.2: two.safetensors has"),
        ({"load": "two.safetensors", "blocks": 3}, "--blocks=3: two.safetensors has"),
        ({"load": "two.safetensors", "style_image": "styles/oil.png"}, "two.safetensors paints ink too: give its"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(folder, capfd, more, line):
    (folder / "EMPTY").mkdir()
    if "load" in more:
        task_of(folder).model.save(folder / "two.safetensors")
    places = {k: folder / v for k, v in more.items() if k in ("style_image", "data_root", "vgg", "load")}
    assert main.main(arguments(**options(folder, run="a", **{**more, **places}))) == 2
    told = capfd.readouterr().err.replace(f"{folder}/", "")
    assert told.splitlines()[-1].startswith("error: ") and line in told.splitlines()[-1]
    assert told.count("error: ") == 1 and not (folder / "a").exists()


def test_a_model_file_brings_the_pictures_of_its_styles_along(folder, capfd, monkeypatch):
    """So it is judged, and trained further, without them; a picture that is given comes first."""
    task = task_of(folder)
    vary(task.model)
    stored = task.model_metadata()["style_pictures"]
    for name, picture in stored.items():
        small = read_image(io.BytesIO(base64.b85decode(picture))).rgb.astype(int)
        assert np.abs(small - read_image(folder / "styles" / f"{name}.png").rgb).mean() < 8
    task.model.save(folder / "two.safetensors", **task.model_metadata())
    given = {"load": folder / "two.safetensors", "data_root": folder / "photos", "loss_network": "squeezenet"}
    given |= {"vgg": folder / "squeezenet.pth", "image_size": 32, "val_photos": 1, "use_gpu": False, "json": True}
    given["styles"] = "ink,oil"  # else only those whose pictures are given
    (folder / "styles" / "ink.png").rename(folder / "ink.png")
    figures = []
    for more in ({}, {"style_image": folder / "styles"}, {"style_image": folder / "ink.png"}):
        assert main.main(arguments("val", **given, **more)) == 0  # the file says which task it is of
        figures.append(json.loads(capfd.readouterr().out))
    assert {"ink_covariance_1", "oil_covariance_1", "mean_covariance_1"} <= figures[0].keys()
    for name, other in (("ink", 1), ("oil", 2)):  # the same file's picture judges; the real one judges much alike
        assert figures[0][f"{name}_covariance_1"] == figures[other][f"{name}_covariance_1"]
        assert figures[0][f"{name}_covariance_1"] == pytest.approx(figures[3 - other][f"{name}_covariance_1"], rel=0.3)
    assert main.main(arguments("val", **given, style_size=600)) == 2  # more than the file's pictures have
    assert "two.safetensors holds its styles' pictures at 576 pixels" in capfd.readouterr().err
    again = task_of(folder, load=folder / "two.safetensors", style_image="")
    assert again.model_metadata()["style_pictures"] == stored
    monkeypatch.chdir(folder)  # and summary needs no pictures
    assert main.main(["summary", "--load=two.safetensors"]) == 0 and "ReflectConv" in capfd.readouterr().out


def test_styles_that_do_not_learn_stay_as_they_are_and_broken_photographs_are_named(folder):
    before = vary(task_of(folder).model)
    before.save(folder / "two.safetensors")
    train = [source.path for source in choose_split(list_pictures(folder / "photos"), "train")]
    train[0].write_bytes(train[1].read_bytes()[:300])
    train[3].write_bytes(b"")
    told = run(folder, **options(folder, run="a", load=folder / "two.safetensors", styles="oil", max_epoch=1))
    assert "1 styles: oil" in told
    for path in (train[0], train[3]):
        assert told.count(f"left out: {path.name}\n") == 1
    assert [r["kind"] for r in log_of(folder / "a")].count("batch") == 5
    after = StyleNetworks.load(folder / "a" / "best.safetensors")
    assert same(before, after, "ink") and not same(before, after, "oil")


def test_a_new_style_joins_those_of_the_file(folder):
    """It starts from the first one; the others travel along as they are, with their pictures; a resumed run goes on.

    It does not choose a loss network anew, though a download may be there by then.
    """
    task = task_of(folder)
    before = vary(task.model)
    before.save(folder / "two.safetensors", **task.model_metadata())
    more = {"load": folder / "two.safetensors", "style_image": write_picture(folder / "more" / "sea.png", 200)}
    assert same(task_of(folder, **more).model, before, "sea", "ink")
    told = run(folder, **options(folder, run="a", **more, vgg="", loss_network="auto", max_epoch=1))
    assert "1 styles: sea" in told
    chosen = read_state(folder / "a" / "last.pt")["config"]["loss_network"]
    assert chosen in ("classifier", "vgg16")  # what is at hand where this runs
    after = StyleNetworks.load(folder / "a" / "best.safetensors")
    assert after.styles == ["ink", "oil", "sea"] and list(after.metadata["style_pictures"]) == after.styles
    assert after.metadata["style_pictures"]["oil"] == task.model_metadata()["style_pictures"]["oil"]
    assert same(before, after, "ink") and same(before, after, "oil") and not same(after, after, "ink", "sea")
    told = run(folder, resume=folder / "a", max_epoch=2, use_visdom=False)
    again = StyleNetworks.load(folder / "a" / "best.safetensors")
    assert "1 styles: sea" in told and same(before, again, "ink") and same(before, again, "oil")
    assert f"judged by {chosen} (asked for)" in told and "loss_network" not in told.split("changed since")[1][:80]


def test_a_style_alone_joins_the_shipped_painter(folder):
    sea = write_picture(folder / "more" / "sea.png", 200)
    shipped = StyleNetworks.load(ROOT / PAINTER)
    given = {**options(folder, style_image=sea), "width": 0.5}
    joined = make_task(parse(StyleConfig, given))
    assert joined.model.styles == [*shipped.styles, "sea"] and joined.styles == ["sea"]
    assert same(joined.model, shipped, "sea", shipped.styles[0])
    assert make_task(parse(StyleConfig, {**given, "pretrained": "none"})).model.styles == ["sea"]
    assert task_of(folder, style_image=sea).model.styles == ["sea"]  # of another width
    again = write_picture(folder / "more" / f"{shipped.styles[1]}.png", 200)  # a picture of one's own of that name
    assert make_task(parse(StyleConfig, {**given, "style_image": again})).styles == [shipped.styles[1]]


def same(one: StyleNetworks, other: StyleNetworks, style: str, of_other: str = "") -> bool:
    pairs = zip(one[style].parameters(), other[of_other or style].parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_numbers_by_style():
    assert style.by_style("style_weight", "4", ["ink", "oil"]) == [4, 4]
    assert style.by_style("style_weight", "4,ink:1.5", ["ink", "oil"]) == [1.5, 4]
    assert style.by_style("grade", "oil:1.7", ["ink", "oil"]) == [0, 1.7]
    assert style.by_style("grade", "", ["ink"]) == [0]
