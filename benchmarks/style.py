"""The painter against the plain style network of pytorch/examples on this machine's CPU: speed and memory. Not a test.

The other side is benchmarks/reference_style.py, used as people use it: fp32, channels first, the whole picture at once.
How good the paintings are is not judged here: `python main.py test --task=style` does. Run it on a quiet machine:

    python benchmarks/style.py

Prints tables on stdout as they are done. Shapes: B photographs in a batch, S styles, C channels, H x W pixels.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from benchmarks.common import Worker, compare, exit_code, for_seconds, our_training, precisions, say, timed  # noqa: E402
from benchmarks.reference_style import ReferenceNet  # noqa: E402
from config import StylizeConfig, task_config  # noqa: E402
from data.photos import choose_split, list_pictures  # noqa: E402
from infer.painting.styles import load_painter  # noqa: E402
from infer.painting.tiles import Painter  # noqa: E402
from models.loss_networks import FeatureNetwork  # noqa: E402
from models.onnx import export_painter  # noqa: E402
from models.transformer_net import InstanceNorm, StyleNetworks, TransformerNet  # noqa: E402
from tasks import make_task  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.images import read_image, save_image, to_tensor  # noqa: E402

PHOTOGRAPHS = ("coffee", "chelsea", "astronaut", "rocket")  # of scikit-image: noise is no photograph
CHANNELS = (32, 64, 128)  # of the plain network
LARGE = 6000, 8000  # height, width: 48 megapixels
CROP, BATCH = 256, 4  # of the plain training: pixels, photographs


# ----------------------------------------------------------------------------------------------- pictures and networks


def photograph(number: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a photograph of scikit-image, at its own scale, mirrored until it is large enough."""
    try:
        import skimage.data
    except ImportError:
        raise UserError("the photographs are those of scikit-image: pip install scikit-image") from None
    rgb = getattr(skimage.data, PHOTOGRAPHS[number])()
    more = ((0, max(0, height - rgb.shape[0])), (0, max(0, width - rgb.shape[1])), (0, 0))
    return np.ascontiguousarray(np.pad(rgb, more, mode="symmetric")[:height, :width])


@torch.no_grad()
def random_network() -> StyleNetworks:
    """A network of the plain one's size with random parameters, whose paintings use the range 0..1."""
    torch.manual_seed(0)
    painter = StyleNetworks({"random": {"channels": CHANNELS}})
    model = painter["random"]
    for layer in model.modules():
        if isinstance(layer, InstanceNorm):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.5, 0.5)
    picture = model(to_tensor(photograph(0, 256, 256)))["image"]  # (1, 3, 256, 256)
    std, centre = torch.std_mean(picture, (0, 2, 3))  # (3)
    last = model.deconv3.conv2d
    last.weight.mul_((0.25 / std).view(-1, 1, 1, 1))
    last.bias.sub_(centre).mul_(0.25 / std).add_(0.5)
    return painter


def first_network(file: Path) -> TransformerNet:
    """Of the first style in a file of ours."""
    model = StyleNetworks.load(file)
    return model[model.styles[0]]


def painter(file: Path, precision: str, tile: int = -1) -> Painter:
    """Of the first style of a network of ours, with stylize's own memory_limit."""
    return Painter(first_network(file), precision, StylizeConfig.memory_limit, tile)


# ---------------------------------------------------------------------------------------------------------- 1. painting


def in_torch(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The plain network, which takes and gives 0..255: (1, 3, H, W) float32 of 0..1 -> a painting of that kind."""
    model = first_network(file)
    rescaled = {"conv1.conv2d.weight": 1 / 255, "deconv3.conv2d.weight": 255, "deconv3.conv2d.bias": 255}
    plain = ReferenceNet(tuple(model.arguments["channels"]), model.arguments["blocks"])
    plain.load_state_dict({k: v * rescaled.get(k, 1) for k, v in model.state_dict().items()})

    @torch.no_grad()
    def run(x: np.ndarray) -> np.ndarray:
        return (plain(torch.from_numpy(x) * 255) / 255).numpy()

    return run


def in_onnxruntime(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The network as `export` writes it, in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(as_onnx(file), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0]


def in_openvino(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The same file in OpenVINO, in float32 as well."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    model = core.compile_model(core.read_model(as_onnx(file)), "CPU", options)
    return lambda x: model(x)[0]


def as_onnx(file: Path) -> bytes:
    """The network of the first style as ONNX."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "first.onnx"
        export_painter(first_network(file), path, "first")
        return path.read_bytes()


RUNTIMES = {"torch": in_torch, "onnxruntime": in_onnxruntime, "openvino": in_openvino}


def painting(file: Path, engine: str, tile: int, compared: bool = True) -> Callable[[Any], Any]:
    """Paints (H, W, 3) uint8 with a network in a file; `compared`: whether the painting is to be looked at.

    `engine` is the precision of our own, or one of RUNTIMES.
    """
    if engine in RUNTIMES:
        run = RUNTIMES[engine](file)

        def paint(rgb: np.ndarray) -> np.ndarray:
            y = run(rgb.transpose(0, 3, 1, 2).astype(np.float32) / 255)  # (1, 3, H, W)
            y = (255 * y + 0.5).clip(0, 255).astype(np.uint8)  # rounded, as ours is; the examples cut the fraction off
            return y.transpose(0, 2, 3, 1)[:, : rgb.shape[1], : rgb.shape[2]]
    else:
        paint = painter(file, engine, tile).paint

    def work(photo: np.ndarray) -> tuple[int, np.ndarray | None]:
        result = paint(photo[None])[0]
        return 1, result if compared else None

    return timed(work)


def measure_painting(cases: dict[str, tuple], side: int, rounds: int) -> None:
    """A table of {cells: arguments of `painting`}, compared with the first one."""
    photos = [photograph(number, side, side) for number in range(len(PHOTOGRAPHS))]
    ways = {name: (painting, *case) for name, case in cases.items()}
    compare(f"{side} x {side}", "ms", ways, rounds, lambda number: photos[number % len(photos)])


# --------------------------------------------------------------------------------------------------- 2. a large picture


def timed_stylize(file: Path, precision: str) -> Callable[[Path], tuple[float, float]]:
    """What paints a JPEG into another one beside it: (seconds in all, of them painting)."""
    paint = painter(file, precision).paint

    def answer(path: Path) -> tuple[float, float]:
        start = time.perf_counter()
        rgb = read_image(path).rgb[None]  # (1, H, W, 3)
        read = time.perf_counter()
        painting = paint(rgb)
        painted = time.perf_counter()
        save_image(path.with_stem("painting"), painting[0])
        return time.perf_counter() - start, painted - read

    return answer


def measure_large(file: Path, precision: str, folder: Path) -> None:
    """The shipped network on one large picture, from file to file."""
    height, width = LARGE
    say(f"painting {width} x {height} pixels")
    save_image(folder / "large.jpg", photograph(0, height, width))
    worker = Worker("the large picture", timed_stylize, file, precision)
    seconds, painting = worker.ask(folder / "large.jpg")
    worker.process.shutdown()
    print("\n| picture | precision | seconds | of them painting | s/megapixel | peak MB | before the picture |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(f"| {width} x {height} | {precision} | {seconds:.1f} | {painting:.1f} ", end="")
    print(f"| {seconds / (height * width / 1e6):.2f} | {worker.peak:,.0f} | {worker.before:,.0f} |", flush=True)


# --------------------------------------------------------------------------------------------------------- 4. training


def make_material(folder: Path) -> None:
    """Photographs of 640 x 480 pixels, four style pictures, and a VGG-16 of random numbers, as fast as any other."""
    from torchvision.models.vgg import cfgs, make_layers

    for number, name in enumerate(PHOTOGRAPHS):
        save_image(folder / "styles" / f"{name}.png", photograph(number, CROP, CROP))
        large = photograph(number, 780, 940)
        for i in range(0, 300, 30):
            save_image(folder / "photos" / f"{name}_{i}.jpg", large[i : i + 480, 300 - i : 940 - i])
    layers = make_layers(cfgs["D"], batch_norm=False)
    save_file({f"features.{k}": v for k, v in layers.state_dict().items()}, folder / "vgg16.safetensors")


def plain_training(photos: Path, style: Path, vgg: Path) -> Iterator[int]:
    """Takes one step of the examples' training for each number it yields: the photographs of the batch.

    Adam 1e-3; content at relu2_2, Gram matrices of four layers; photographs by torchvision's transforms.
    """
    from torchvision import transforms

    prepare = transforms.Compose(
        [transforms.Resize(CROP), transforms.CenterCrop(CROP), transforms.ToTensor(), lambda x: 255 * x]
    )
    judge = FeatureNetwork("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3"), str(vgg))
    judge.to(memory_format=torch.contiguous_format)

    def features(x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) of 0..255 -> the activations (B, C, H', W') of the four layers; channels first, unlike judge."""
        x, found = (x / 255 - judge.mean) / judge.std, []
        for index, layer in enumerate(judge.features):
            x = layer(x)
            found += [x] if index in judge.taps else []
        return found

    def gram(x: Tensor) -> Tensor:
        rows = x.flatten(2)  # (B, C, H*W)
        return rows.bmm(rows.mT) / rows[0].numel()  # (B, C, C)

    grams = [gram(x) for x in features(prepare(Image.open(style)).repeat(BATCH, 1, 1, 1))]
    sources = choose_split(list_pictures(photos), "train")
    model = ReferenceNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        for rows in torch.randperm(len(sources)).split(BATCH):
            photo = torch.stack([prepare(Image.open(sources[i].open()).convert("RGB")) for i in rows])  # (B, 3, H, W)
            optimizer.zero_grad()
            of_painting, of_photo = features(model(photo)), features(photo)
            loss = 1e5 * F.mse_loss(of_painting[1], of_photo[1])
            for x, target in zip(of_painting, grams, strict=True):
                loss = loss + 1e10 * F.mse_loss(gram(x), target[: len(x)])
            loss.backward()
            optimizer.step()
            yield len(rows)


def training(recipe: str, precision: str, photos: Path, folder: Path) -> Callable[[Any], Any]:
    """Trains for so many seconds, a step at least; `folder`: of make_material."""
    styles, vgg = folder / "styles", folder / "vgg16.safetensors"
    one = styles / f"{PHOTOGRAPHS[0]}.png"
    if recipe == "plain":
        steps = plain_training(photos, one, vgg)
    else:
        options = {"data_root": photos, "style_image": styles, "vgg": vgg, "image_size": CROP, "precision": precision}
        if recipe == "same network":
            options |= {"style_image": one, "batch_size": BATCH, "width": 1, "blocks": 5}
        task = make_task(task_config({"task": "style", **options}))
        each = min(task.cfg.styles_per_photo, len(task.styles))  # paintings of a photograph
        steps = (each * int(output["count"]) for output in our_training(task))
    return timed(lambda seconds: for_seconds(steps, seconds))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """All four parts; `folder` is for what the processes share."""
    networks = {"same": load_painter(args.weights) if args.weights else random_network()}
    networks["shipped"] = load_painter(args.load)
    if any(tuple(network["channels"]) != CHANNELS for network in networks["same"].arguments["styles"].values()):
        raise UserError(f"--weights={args.weights}: give a network of full width, {CHANNELS} channels")
    files = {name: folder / f"{name}.safetensors" for name in networks}
    for name, network in networks.items():
        network.save(files[name])
    make_material(folder)
    photos = Path(args.photos or folder / "photos")
    list_pictures(photos, "photos")  # a mistake should be told now
    kinds, rounds = precisions(end="; "), 5
    if args.quick:
        kinds, rounds = kinds[-1:], 1
    print(f"same: {args.weights or 'random numbers'}; shipped: {networks['shipped'].parameter_count():,} parameters")
    cases = {"plain | fp32": (files["same"], "torch", -1)}
    # The shipped network paints something else.
    cases |= {f"{name} | {p}": (file, p, -1, name == "same") for name, file in files.items() for p in kinds}
    for side in [256] if args.quick else args.sizes:
        measure_painting(cases, side, rounds)
    engines = {"shipped, ours | fp32": (files["shipped"], "fp32", -1)}
    engines |= {f"shipped, {name} | fp32": (files["shipped"], name, -1) for name in ("onnxruntime", "openvino")}
    for side in [256] if args.quick else [512, 1024, 2048]:
        measure_painting(engines, side, rounds)
    if not args.quick:
        measure_large(files["shipped"], kinds[-1], folder)
    side = 256 if args.quick else 1024
    tiled = {f"shipped, --tile={tile} | fp32": (files["shipped"], "fp32", tile) for tile in (0, side // 4, side // 2)}
    measure_painting(tiled, side, rounds)
    recipes = [("plain", "fp32"), *((recipe, p) for recipe in ("same network", "defaults") for p in kinds)]
    ways = {" | ".join(recipe): (training, *recipe, photos, folder) for recipe in recipes}
    seconds = 0 if args.quick else 10
    compare("training", "paintings/s", ways, rounds, lambda number: seconds if number else 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", default=str(ROOT / StylizeConfig.load), help="the shipped network")
    parser.add_argument("--weights", default="", help="a network of full width for both sides; without: random numbers")
    parser.add_argument("--sizes", type=sides, default=[256, 512, 1024, 2048], help="of pictures, such as 256,512")
    parser.add_argument("--photos", default="", help="folder or .tar to train with; without: parts of four photographs")
    parser.add_argument("--quick", action="store_true", help="a moment of each, to see that it runs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return exit_code(lambda: measure(args, Path(folder)))


def sides(text: str) -> list[int]:
    """The type of --sizes."""
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 64:
        raise ValueError
    return numbers


if __name__ == "__main__":
    sys.exit(main())
