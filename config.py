"""Every option of every command: type, default, meaning. No torch here: help must answer at once.

`parse` makes a checked copy from what the command line gave; there is no global config. The sentence of an option is
its help: `python main.py help` prints them all.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UserError, did_you_mean, nearest

Config = TypeVar("Config", bound="Options")


def option(
    default: Any,
    meaning: str,
    choices: tuple[str, ...] = (),
    minimum: float = 0,
    maximum: float = 2**31 - 1,
    writes: str = "",
    reads: str = "",
    words: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help, the words it may be, or the smallest and the largest number.

    `writes` is the suffix of the file that the option names for writing, or "files" if that is a folder, or may have
    several suffixes; empty: what it names is read. `reads` is what to give, if that is a file or folder that must be
    there, unless the value is one of `words`.
    """
    limits = {"choices": choices, "minimum": minimum, "maximum": maximum}
    files = {"writes": writes, "reads": reads, "words": words}
    return dataclasses.field(default=default, metadata={"help": meaning, **limits, **files})


MODEL = "a model file; python main.py train makes one"
OPTIMIZERS = ("adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("plateau", "step", "multistep", "cosine", "one_cycle", "constant")
SCHEDULE_HELP = "plateau: times lr_decay if an epoch brings nothing"


@dataclass(frozen=True)
class Options:
    """Base of all option sets."""

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults; a shipped file is the same from any folder."""
        values = {f: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            f.name: value
            for f, value in values.items()
            if value != f.default and not (f.default in SHIPPED and value == str(ROOT / f.default))
        }

    def inputs(self) -> list[str]:
        """What may name files to read: all texts but those that name files to write."""
        fields = (f for f in dataclasses.fields(self) if f.type is str and not f.metadata["writes"])
        return [text for f in fields if (text := getattr(self, f.name))]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """The config in force: what was changed first, then the rest."""
        changed = self.changed()
        rest = {k: v for k, v in self.as_dict().items() if k not in changed}
        first = "".join(f"  {k} = {v!r}\n" for k, v in changed.items())
        return f"{first}  " + ", ".join(f"{k}={v!r}" for k, v in rest.items())


@dataclass(frozen=True)
class DefaultConfig(Options):
    """Options of train, val and test for every task."""

    task: str = option("poet", "what is learnt: poet, style or dogcat; without it, what --load holds")
    # data
    data_root: str = option(
        "",
        "file or folder of the data; empty: the sample embedded in dataset/",
        reads="a file or folder of data, or leave it out for the embedded sample",
    )
    batch_size: int = option(32, "samples in a batch (of all devices together)", minimum=1)
    num_workers: int = option(0, "processes that read data; 0: the training process itself")
    # training
    max_epoch: int = option(20, "epochs to train")
    lr: float = option(2e-3, "learning rate")
    optimizer: str = option("adamw", "how the weights are changed", OPTIMIZERS)
    momentum: float = option(0.9, "of sgd and rmsprop", maximum=1)
    lr_schedule: str = option("plateau", SCHEDULE_HELP, SCHEDULES)
    lr_epochs: str = option("10", "step: every so many epochs the rate decays; multistep: after these, as in 10,15")
    lr_decay: float = option(0.5, "factor of the plateau, step and multistep schedules")
    warmup: int = option(20, "steps in which the learning rate rises from zero")
    weight_decay: float = option(0.01, "AdamW's weight decay; not of biases and normalisations")
    lr_scale: str = option("", "factors of the learning rate by parameter names, such as features.*:0.1")
    freeze: str = option("", "parameters that do not learn, by name: features.*; several with commas")
    unfreeze_epoch: int = option(0, "epochs after which what is frozen learns, too; 0: never")
    ema: float = option(0.0, "judge and keep a moving average of the weights, such as 0.998; 0: the weights", maximum=1)
    monitor: str = option("", "validation figure that decides which weights are best; empty: the task's own")
    patience: int = option(0, "epochs without improvement after which training ends; 0: it goes on to the last")
    grad_clip: float = option(1.0, "largest norm of the gradient; 0: no clipping")
    clip_value: float = option(0.0, "largest entry of the gradient; 0: no clipping")
    l1: float = option(0.0, "weight of the sum of all weights' absolute values in the loss")
    accumulate: int = option(1, "batches whose gradients are added up before a step", minimum=1)
    checkpoint_layers: str = option("", "layers that are computed again in the backward pass, by name: saves memory")
    seed: int = option(0, "of everything random")
    # machine
    use_gpu: bool = option(True, "train on the GPU if there is one")
    devices: str = option("1", "how many GPUs (or CPU processes) to train with, or which GPUs: 0,2")
    num_nodes: int = option(1, "machines to train with (start the same command on each with torchrun)", minimum=1)
    precision: str = option("auto", "auto: bf16 if that is faster here, else fp32", ("auto", "fp32", "bf16", "fp16"))
    compile: bool = option(False, "compile the network first (torch.compile): minutes at the start, faster steps")
    sync_bn: bool = option(False, "GPUs: BatchNorm's statistics over the batch of all devices")
    deterministic: bool = option(False, "the same bits each time on a GPU, too; slower")
    # finding what is wrong
    fast_dev_run: bool = option(False, "one batch of everything, in a folder that is removed: does it run?")
    overfit_batches: int = option(0, "train on these few batches of the first epoch only: can it learn them?")
    profile: int = option(0, "measure so many steps by torch.profiler: profile.txt and trace.json in the run's folder")
    # files
    save_path: str = option("checkpoints", "folder in which a run makes its own folder", writes="files")
    run: str = option("", "name of the run's folder; empty: task and time", writes="files")
    load: str = option("", "model file to start from (val and test: to judge)", reads=MODEL)
    resume: str = option("", "run folder to go on with; without a value: the latest unfinished one", writes="files")
    save_every: float = option(60.0, "seconds between two saves of last.pt")
    # watching
    env: str = option("", "visdom environment; empty: the run's name")
    use_visdom: bool = option(True, "send figures to a visdom server if one answers")
    vis_port: int = option(8097, "port of the visdom server on this machine", minimum=1, maximum=65535)
    tensorboard: bool = option(False, "write all figures for TensorBoard, too, in the run's folder")
    debug_file: str = option("tmp/debug", "while this file exists a training run is in debug mode")
    samples: int = option(2, "examples (poems, pictures) shown after each epoch")
    # judging
    split: str = option("", "val, test: the split to judge; empty: the command's own", ("", "train", "val", "test"))
    json: bool = option(False, "val, test: print the figures as one JSON object on stdout")


@dataclass(frozen=True)
class PoetConfig(DefaultConfig):
    """Options of train, val and test with --task=poet."""

    batch_size: int = option(8, "rows of characters in a batch (of all devices together)", minimum=1)
    lr: float = option(5e-3, "learning rate")
    backbone: str = option("lstm", "the network between embedding and output", ("lstm", "transformer"))
    embed: int = option(192, "width of the character embedding, and of a Transformer", minimum=1)
    hidden: int = option(384, "width of the LSTM, or of a Transformer's feed-forward layers", minimum=1)
    layers: int = option(2, "layers of the LSTM or the Transformer", minimum=1)
    attention: int = option(192, "width of the attention that looks back, after the LSTM; 0: none")
    dropout: float = option(0.2, "dropout at the inputs and outputs of the layers", maximum=1)
    init: str = option(
        "", "poet's file whose weights to start from where they fit; sizes, characters may differ", reads=MODEL
    )
    rhymes: str = option(
        "",
        "JSON file with tones and rhyme groups of characters; empty: the shipped poet's",
        reads="a JSON file with tones and rhyme groups",
    )
    min_count: int = option(
        2, "rarer characters become the unknown sign (in corpora of 100,000 characters up)", minimum=1
    )
    row_length: int = option(
        128, "characters in a row of a training batch; rows are filled with whole poems", minimum=8
    )


@dataclass(frozen=True)
class StyleConfig(DefaultConfig):
    """Options of train, val and test with --task=style."""

    style_image: str = option(
        "",
        "picture of the style, or a folder of them (one style each); empty: the samples",
        reads="a picture, or a folder of pictures",
    )
    loss_network: str = option(
        "auto",
        "what judges the paintings; auto: vgg16 if at hand, else the classifier",
        ("auto", "vgg16", "vgg19", "squeezenet", "classifier"),
    )
    vgg: str = option(
        "", "file with the weights of the loss network; empty: torchvision's download", reads="a file of weights"
    )
    image_size: int = option(128, "side of the crops of photographs to train on, in pixels", minimum=32)
    style_size: int = option(
        0, "longer side of the style pictures, in pixels: larger, finer strokes; 0: 1.45 times --image_size"
    )
    styles: str = option("", "styles to train or to judge, such as ink,oil; the others stay as they are; empty: all")
    grade: str = option("", "dull scans: stretch the brightness, multiply the colours, as in ink:1,mountains:1.7")
    batch_size: int = option(1, "photographs in a batch (of all devices together)", minimum=1)
    styles_per_photo: int = option(4, "styles that a photograph of a batch is painted in", minimum=1)
    epoch_batches: int = option(0, "batches after which an epoch ends; 0: when all photographs have been seen")
    val_photos: int = option(8, "photographs to validate with after each epoch", minimum=1)
    width: float = option(0.5, "width of the network; 1: the 32, 64, 128 channels of Johnson et al.", minimum=0.1)
    blocks: int = option(5, "residual blocks of the network", minimum=1)
    own_blocks: int = option(0, "of these, the last ones that each style has for itself; 0: all share everything")
    identity: bool = option(True, "learn to paint the photograph as it is, too: needed for a strength below 1")
    identity_epochs: int = option(8, "epochs at the start that learn the identity only; the styles then start from it")
    content_weight: float = option(1.0, "weight of the content loss")
    style_weight: str = option("4", "weight of the style loss; of single styles, too, as in 4,ink:1.5")
    tv_weight: float = option(1.0, "weight of the total variation: larger, smoother")
    identity_weight: float = option(30.0, "weight of the identity's squared error")
    temporal_weight: float = option(0.0, "weight of the difference between paintings of a shifted, noisy photograph")
    lpips: str = option(
        "", "val, test: file with LPIPS's linear weights for SqueezeNet; empty: no LPIPS", reads="a file of weights"
    )
    squeezenet: str = option(
        "",
        "val, test: file with SqueezeNet's weights, for LPIPS; empty: torchvision's download",
        reads="a file of weights",
    )
    optimize_steps: int = option(0, "val, test: compare with optimising each painting for so many steps; 0: do not")
    lr: float = option(2e-3, "learning rate")
    lr_schedule: str = option("cosine", SCHEDULE_HELP, SCHEDULES)
    weight_decay: float = option(0.0, "AdamW's weight decay")
    max_epoch: int = option(30, "epochs to train")


@dataclass(frozen=True)
class DogCatConfig(DefaultConfig):
    """Options of train, val and test with --task=dogcat."""

    backbone: str = option(
        "mobilenet_v2",
        "the network; lenet: the one to read first",
        ("mobilenet_v2", "squeezenet1_1", "resnet34", "lenet"),
    )
    pretrained: str = option(
        "auto",
        "weights to start from: a file, imagenet (a download), none; auto: the shipped classifier's, if of this kind",
        reads="a file of weights, or imagenet or none",
        words=("auto", "imagenet", "none"),
    )
    image_size: int = option(160, "side of the crops in pixels", minimum=32)
    dropout: float = option(0.2, "dropout before the last layer, where the network has one", maximum=1)
    label_smoothing: float = option(0.0, "share of the target that all classes have alike", maximum=1)
    mixup: float = option(0.0, "alpha of mixup: pairs of pictures are mixed; 0: no mixup")
    jitter: float = option(0.2, "how much brightness, contrast and saturation of training pictures vary", maximum=1)
    shuffle_blocks: int = option(0, "cut training pictures into N x N blocks and shuffle them a little; 0: do not")
    views: int = option(
        1, "with all but the last layer frozen: crops of each picture whose features are computed once", minimum=1
    )
    others: str = option(
        "",
        "folder of pictures of none of the classes: the network learns to be unsure about them",
        reads="a folder of pictures",
    )
    cache: str = option(
        "", "folder that keeps the decoded, reduced pictures; empty: they are decoded each time", writes="files"
    )
    labels: str = option(
        "",
        "test: CSV file id,label with the classes of pictures whose names do not hold them",
        reads="a CSV file id,label",
    )
    tta: int = option(6, "val, test: crops and mirror images of a picture that are judged: 1, 2, 4, 6", minimum=1)
    out: str = option("", "val, test: folder of the report; empty: tmp/dogcat_val, tmp/dogcat_test", writes="files")
    batch_size: int = option(16, "pictures in a batch (of all devices together)", minimum=1)
    warmup: int = option(10, "steps in which the learning rate rises from zero")
    lr: float = option(5e-4, "learning rate")
    lr_schedule: str = option("cosine", SCHEDULE_HELP, SCHEDULES)
    ema: float = option(
        0.99, "judge and keep a moving average of the weights, such as 0.998; 0: the weights", maximum=1
    )
    max_epoch: int = option(6, "epochs to train")


@dataclass(frozen=True)
class GenerateConfig(Options):
    """Options of generate."""

    form: str = option(
        "auto",
        "form of the poem; auto: 七绝 if the poet knows it",
        ("auto", "五绝", "七绝", "五律", "七律", "free"),
    )
    prompt: str = option("", "how the poem begins")
    title: str = option("", "title to write to")
    author: str = option("", "poet to write like")
    acrostic: str = option("", "藏头诗: the verses begin with these characters")
    keywords: str = option("", "words that the poem is about, such as 春江,月")
    poem: str = option("", "a poem of which only the verses of --lock are kept, the others written anew")
    lock: str = option("", "the verses of --poem to keep, such as 1,3")
    regular: bool = option(True, "keep tones and rhyme of regulated verse, in its four forms")
    pattern: str = option(
        "auto",
        "tone pattern; auto: what fits",
        ("auto", "平起首句入韵", "平起首句不入韵", "仄起首句入韵", "仄起首句不入韵"),
    )
    rhyme: str = option("", "平水韵 group of the rhymes, such as 先; empty: what fits")
    n: int = option(1, "poems, written in one batch", minimum=1)
    candidates: int = option(16, "versions of each poem, of which the best is shown", minimum=1, maximum=256)
    temperature: float = option(1.0, "lower: safer, higher: bolder; 0: always the likeliest")
    top_k: int = option(0, "only the k likeliest characters; 0: all")
    top_p: float = option(
        0.93, "only the likeliest characters that hold this share of the probability; 1: all", maximum=1
    )
    guidance: float = option(1.5, "how much title and keywords pull; 0: as the network has learnt", maximum=10)
    max_chars: int = option(200, "length at which a free poem is cut", minimum=1, maximum=10_000)
    seed: int = option(-1, "same seed, same poem; -1: a new one each time", minimum=-1)
    explain: bool = option(False, "print tones, pattern and rhyme with each poem")
    json: bool = option(False, "one JSON object a line: form, title, lines, score, rating, pattern, rhyme, remarks")
    load: str = option(
        "checkpoints/poet.safetensors", "the poet's file; pytorch-book's with tang.npz beside it, too", reads=MODEL
    )
    use_gpu: bool = option(False, "write on the GPU if there is one")


@dataclass(frozen=True)
class StylizeConfig(Options):
    """Options of stylize."""

    style: str = option("", "a style of the network, or a mixture as in wave:0.6,starry:0.4; empty: the first one")
    strength: float = option(1.0, "0: the photograph, 1: the style, up to 1.5: more than it", maximum=1.5)
    keep_color: bool = option(False, "paint brightness only: the colours stay the photograph's")
    max_side: int = option(0, "reduce larger pictures and videos to this longer side, in pixels; 0: as they are")
    mask: str = option(
        "",
        "grey picture: what is white in it is painted, what is black or transparent stays as it is",
        reads="a picture",
    )
    out: str = option(
        "", "file to write, of several inputs the folder; empty: NAME_STYLE beside the input", writes="files"
    )
    quality: int = option(95, "of JPEG and WebP, 1 to 100", minimum=1, maximum=100)
    max_megapixels: float = option(100.0, "larger pictures are refused before they are decoded", minimum=1e-6)
    batch: int = option(4, "pictures of equal size (frames of a video) to paint at a time", minimum=1)
    json: bool = option(False, "one JSON object a line: path, out, ok, error, note, width, height, seconds")
    load: str = option(
        "checkpoints/style.safetensors", "its file, or weights of pytorch/examples or pytorch-book", reads=MODEL
    )
    precision: str = option("auto", "auto: bf16 if that is faster here, else fp32", choices=("auto", "fp32", "bf16"))
    use_gpu: bool = option(False, "paint on the GPU if there is one")
    memory_limit: int = option(1000, "MB that the layers of a picture may take; more go to a temporary file", minimum=1)
    tile: int = option(-1, "side of the tiles in pixels; 0: never tile; -1: as --memory_limit allows", minimum=-1)
    method: str = option(
        "network", "optimize: without a network, some minutes a picture (Gatys et al.)", choices=("network", "optimize")
    )
    style_image: str = option("", "optimize: the picture of the style", reads="a picture")
    style_size: int = option(512, "optimize: longer side of the style picture, in pixels", minimum=32)
    steps: int = option(300, "optimize: steps", minimum=1)
    loss_network: str = option(
        "auto",
        "optimize: what judges; auto: vgg16 if at hand, else the classifier",
        ("auto", "vgg16", "vgg19", "squeezenet", "classifier"),
    )
    vgg: str = option(
        "", "optimize: file with the loss network's weights; empty: torchvision's download", reads="a file of weights"
    )
    content_weight: float = option(StyleConfig.content_weight, "optimize: weight of the content loss")
    style_weight: float = option(4.0, "optimize: weight of the style loss")
    tv_weight: float = option(StyleConfig.tv_weight, "optimize: weight of the total variation: larger, smoother")


@dataclass(frozen=True)
class PostcardConfig(Options):
    """Options of postcard."""

    poem: str = option("", "the poem, or a text file with it; empty: the poet writes one")
    title: str = option("", "its title, in a column of its own; the poet writes to it")
    keywords: str = option("", "words for the poet to write about, with commas")
    form: str = option("auto", "form of the poem that is written", ("auto", "五绝", "七绝", "五律", "七律"))
    seed: int = option(-1, "same seed, same poem; -1: a new one each time", minimum=-1)
    signature: str = option("", "small column after the poem: a name, a date")
    seal: str = option("诗画", "one to four characters on the red seal; empty: no seal")
    font: str = option(
        "", "font file; empty: a Kai or Song font of the system, else the one that comes along", reads="a font file"
    )
    place: str = option(
        "auto",
        "picture: the poem stands on it; paper: beside it, on paper; auto: on it where it can be read there",
        ("auto", "picture", "paper"),
    )
    style: str = option("great_wave", "a style of the painter, or a mixture; none: the photograph as it is")
    strength: float = option(1.0, "0: the photograph, 1: the style, up to 1.5: more than it", maximum=1.5)
    max_side: int = option(0, "reduce a larger photograph to this longer side, in pixels; 0: as it is")
    max_megapixels: float = option(100.0, "a larger photograph is refused before it is decoded", minimum=1e-6)
    out: str = option("", "file to write: .jpg, .png, .pdf; empty: NAME_postcard beside the photograph", writes="files")
    quality: int = option(95, "of JPEG, WebP and PDF, 1 to 100", minimum=1, maximum=100)
    json: bool = option(False, "one JSON object: path, out, title, lines, seed, font, place, contrast, width, height")
    load: str = option("checkpoints/style.safetensors", "the painter's file", reads=MODEL)
    poet: str = option("checkpoints/poet.safetensors", "the poet's file", reads=MODEL)
    use_gpu: bool = option(False, "on the GPU if there is one")


@dataclass(frozen=True)
class ClassifyConfig(Options):
    """Options of classify."""

    csv: str = option(
        "", "file for a table: path, label, a probability for each class; torchrun: one a process", writes=".csv"
    )
    json: bool = option(False, "one JSON object a line: path, label, a probability for each class; or path, error")
    explain: bool = option(False, "paint over each picture what the answer rests on (Grad-CAM): NAME_explained.png")
    out: str = option("", "explain: folder to write to; empty: beside the pictures", writes="files")
    threshold: float = option(
        -1.0, "probability below which the answer is neither; -1: as calibrated in training; 0: never", (), -1, 1
    )
    tta: int = option(2, "crops and mirror images of a picture that are judged: 1, 2, 4, 6", minimum=1)
    max_megapixels: float = option(100.0, "larger pictures are refused before they are decoded", minimum=1e-6)
    num_workers: int = option(0, "processes that read pictures; 0: this one")
    load: str = option("checkpoints/dogcat.safetensors", "the classifier's file", reads=MODEL)
    precision: str = option("fp32", "bf16: sooner on some CPUs, a little less exact", choices=("auto", "fp32", "bf16"))
    use_gpu: bool = option(False, "on the GPU if there is one")


@dataclass(frozen=True)
class SummaryConfig(Options):
    """Options of summary, besides those of train."""

    graph: str = option("", "summary: file for a picture of the network's graph, graph.svg", writes=".svg")


@dataclass(frozen=True)
class CheckConfig(Options):
    """Options of check."""

    json: bool = option(False, "one JSON object a line: form, verses, tones, wants, pattern, rhyme, faults, remarks")
    load: str = option(GenerateConfig.load, "the poet's file, which has the rhyme table", reads=MODEL)


@dataclass(frozen=True)
class FindLrConfig(Options):
    """Options of find_lr, besides those of train."""

    steps: int = option(100, "find_lr: steps, in which the learning rate rises from 1e-6 to 1", minimum=10)


@dataclass(frozen=True)
class ExportConfig(Options):
    """Options of export."""

    load: str = option(
        "checkpoints/style.safetensors", "style network, or weights of pytorch/examples or pytorch-book", reads=MODEL
    )
    out: str = option("", "file to write, NAME.onnx; empty: the model file's name, in this folder", writes=".onnx")


@dataclass(frozen=True)
class AverageConfig(Options):
    """Options of average."""

    shares: str = option("", "how much each file counts, such as 0.3,0.7; empty: all alike")
    half: bool = option(False, "write float16: half the size")
    out: str = option("", "file to write", writes=".safetensors")


@dataclass(frozen=True)
class VisdomConfig(Options):
    """Options of visdom."""

    port: int = option(8097, "port on this machine", minimum=1, maximum=65535)


@dataclass(frozen=True)
class DemoConfig(Options):
    """Options of demo."""

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: whoever reaches this machine may use the page")
    port: int = option(7860, "port to listen at", minimum=1, maximum=65535)
    save_path: str = option("checkpoints", "folder whose runs can be watched")
    poet: str = option(GenerateConfig.load, "the poet's file", reads=MODEL)
    style: str = option(StylizeConfig.load, "the painter's file", reads=MODEL)
    classifier: str = option(ClassifyConfig.load, "the classifier's file", reads=MODEL)
    max_side: int = option(2048, "larger pictures are reduced to this longer side, in pixels", minimum=64)
    max_megapixels: float = option(50.0, "larger pictures are refused before they are decoded", minimum=1e-6)
    max_file_size: float = option(25.0, "MB of the largest file that is accepted", minimum=1e-3)


@dataclass(frozen=True)
class RunsConfig(Options):
    """Options of runs."""

    save_path: str = option(DefaultConfig.save_path, "folder with the folders of runs")
    json: bool = option(False, "one JSON object a line: run, task, state, epochs, seconds, best, config")


@dataclass(frozen=True)
class InfoConfig(Options):
    """Options of info."""

    json: bool = option(False, "one JSON object")


@dataclass(frozen=True)
class DownloadConfig(Options):
    """Options of download."""

    to: str = option("", "folder to put it in; empty: dataset/NAME", writes="files")


TASKS: dict[str, type[DefaultConfig]] = {"poet": PoetConfig, "style": StyleConfig, "dogcat": DogCatConfig}
TASK_OF = {"Poet": "poet", "TransformerNet": "style"}  # class of a network -> its task; the rest are classifiers


SHIPPED = (GenerateConfig.load, StylizeConfig.load, ClassifyConfig.load)
ROOT = Path(__file__).parent
# What other projects call an option: what it is called here, the first that a command has.
OTHER_NAMES = {
    "epochs epoch num_epochs n_epochs max_epochs num_train_epochs": "max_epoch",
    "learning_rate lr_rate base_lr init_lr initial_lr lrate": "lr",
    "bs batchsize batch train_batch_size per_device_train_batch_size": "batch_size batch",
    "model": "backbone load",
    "weights ckpt checkpoint ckpt_path checkpoint_path model_path model_file load_model_path": "load",
    "arch architecture network net": "backbone",
    "gpu gpus cuda device gpu_id": "use_gpu",
    "num_gpus ngpus n_gpu world_size nproc_per_node": "devices",
    "nodes nnodes": "num_nodes",
    "workers worker num_worker n_workers dataloader_num_workers": "num_workers",
    "wd decay": "weight_decay",
    "optim opt": "optimizer",
    "scheduler lr_scheduler sched": "lr_schedule",
    "gamma lr_gamma": "lr_decay",
    "warmup_steps warmup_iters": "warmup",
    "clip clip_grad gradient_clip_val max_grad_norm": "grad_clip",
    "grad_accum gradient_accumulation_steps accum": "accumulate",
    "early_stopping": "patience",
    "amp fp16 bf16 half mixed_precision dtype": "precision",
    "random_seed manual_seed": "seed",
    "data dataset data_dir datadir data_path dataroot train_dir train_data_root": "data_root",
    "output output_dir output_path output_image outdir out_dir outfile dest": "out to save_path",
    "log_dir logdir save_dir checkpoint_dir ckpt_dir model_dir": "save_path",
    "name run_name exp exp_name experiment": "run",
    "restore resume_from continue": "resume",
    "input_size img_size imsize imgsz crop_size": "image_size max_side",
    "size resolution": "image_size max_side",
    "style_img style_path": "style_image style",
    "hidden_dim hidden_size rnn_size": "hidden",
    "num_layers n_layers": "layers",
    "embedding_dim embed_dim emb_size": "embed",
    "start_words start": "prompt",
    "topic theme words": "keywords",
    "num count num_samples n_samples": "n",
    "temp": "temperature",
}
PICTURES = "content content_image input input_image image img photo picture source".split()


# Options of tasks that not every command of tasks (train, find_lr, val, test, summary) has a use for.
ONLY_FOR = {
    name: tuple(commands.split())
    for commands, names in {
        "train": "max_epoch lr lr_schedule lr_epochs lr_decay warmup unfreeze_epoch ema monitor patience clip_value l1"
        " accumulate checkpoint_layers devices num_nodes compile sync_bn deterministic overfit_batches"
        " profile save_path run resume save_every env use_visdom vis_port tensorboard debug_file samples",
        "train val test": "fast_dev_run",
        "train find_lr": "precision batch_size optimizer momentum weight_decay lr_scale freeze grad_clip seed"
        " styles_per_photo epoch_batches identity_epochs identity_weight temporal_weight"
        " label_smoothing mixup jitter shuffle_blocks views others cache",
        "train find_lr summary": "init rhymes backbone dropout min_count row_length width identity pretrained",
        "val test": "split lpips squeezenet optimize_steps tta out",
        "val test find_lr": "json",
    }.items()
    for name in names.split()
}


def is_for(name: str, command: str) -> bool:
    """Whether a command of tasks has a use for an option."""
    return command in ONLY_FOR.get(name, (command,))


def task_config(
    overrides: Mapping[str, Any], command: str = "", stored: Mapping[str, Any] | None = None
) -> DefaultConfig:
    """The checked config of the task that `--task` names (poet without it).

    `stored` are the options of a run, which `overrides` changes. Raises UserError as `parse` does, and for options that
    are another task's, or that `command` has no use for.
    """
    values = {**(stored or {}), **overrides}
    name = values.get("task", DefaultConfig.task)
    if name not in TASKS:
        raise UserError(f"--task={name}: choose one of {', '.join(TASKS)}{did_you_mean(str(name), TASKS)}")
    for given in overrides:
        tasks = [task for task, cls in TASKS.items() if given in option_names(cls)]
        if tasks and name not in tasks:
            raise UserError(f"--{given} is an option of --task={' and '.join(tasks)}, not of --task={name}")
    cfg = parse(TASKS[name], values)
    for given in overrides if command else ():
        given = given if hasattr(cfg, given) else given.removeprefix("no").lstrip("_")  # --nocompile
        if not is_for(given, command):
            raise UserError(f"--{given} is for {' and '.join(ONLY_FOR[given])}; {command} has no use for it")
    return cfg


def option_names(cls: type[Options]) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}


def known_name(name: str, options: Iterable[str]) -> str:
    """The option that was meant by `name`: as another project calls it, or the nearest; empty if none is near."""
    name, options = name.lower().replace("-", "_"), list(options)
    ours = next((ours.split() for theirs, ours in OTHER_NAMES.items() if name in theirs.split()), [])
    return next((option_ for option_ in ours if option_ in options), "") or nearest(name, options)


def find_inputs(cfg: Config, given: Iterable[str]) -> Config:
    """`cfg` with the shipped files found from any folder.

    Raises UserError for an option of `given` that names what is not there, in an instant: before anything is loaded.
    """
    found = {}
    for f in dataclasses.fields(cfg):
        path = getattr(cfg, f.name)
        if f.metadata["reads"] and path and path not in f.metadata["words"] and is_missing(path):
            if not is_missing(place := shipped(path)):
                found[f.name] = place
            elif f.name in given:
                raise UserError(f"--{f.name}={path} does not exist: give {f.metadata['reads']}")
    return dataclasses.replace(cfg, **found)


def shipped(path: str) -> str:
    """`path`, or where it is in the project: `checkpoints/poet.safetensors` is found from any folder."""
    return str(ROOT / path) if path in SHIPPED and is_missing(path) else path


def is_missing(path: str) -> bool:
    """Whether there is no such file; other faults of a path are an OSError, which says what is wrong."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def parse(cls: type[Config], overrides: Mapping[str, Any]) -> Config:
    """A `cls` with `overrides`, each coerced to its field's type. Raises UserError naming the option and what fits.

    An option written without a value is True here; `--nojson` and `--no-json` are False for `json`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for name, value in overrides.items():
        switch = name.removeprefix("no").lstrip("_")
        if name not in fields and value is True and switch in fields and fields[switch].type is bool:
            name, value = switch, False
        if name not in fields:
            meant = known_name(name, fields)
            hint = f"; did you mean --{meant}?" if meant else "; python main.py help lists the options"
            if name in PICTURES and "max_megapixels" in fields:
                hint = "; name the picture without an option: photo.jpg"
            raise UserError(f"unknown option --{name}{hint}")
        values[name] = _coerce(name, value, fields[name])
    return cls(**values)


def _coerce(name: str, value: Any, field: dataclasses.Field) -> Any:
    kind, limits = field.type, field.metadata
    example = f"such as --{name}={field.default}" if field.default != "" else f"--{name}=TEXT"
    if isinstance(value, bool) and kind is not bool:
        raise UserError(f"--{name} needs a value: {_EXPECTED[kind]}, {example}")
    try:
        result = _CONVERT[kind](value)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise UserError(f"--{name}={value}: expected {_EXPECTED[kind]}, {example}") from None
    if kind is str and (limits["reads"] or limits["writes"]):
        result = os.path.expanduser(result)  # the shell does not, after --name=
    if limits["choices"] and result not in limits["choices"]:
        choices = [c for c in limits["choices"] if c]
        raise UserError(f"--{name}={result}: choose one of {', '.join(choices)}{did_you_mean(result, choices)}")
    if limits["writes"].startswith(".") and result and not result.lower().endswith(limits["writes"]):
        raise UserError(f"--{name}={result}: the file's name must end in {limits['writes']}")
    if kind in (int, float):
        if not result >= limits["minimum"]:  # not: NaN is never at least anything
            raise UserError(f"--{name}={value}: must be at least {limits['minimum']}, {example}")
        if result > limits["maximum"]:
            raise UserError(f"--{name}={value}: must be at most {limits['maximum']}, {example}")
    return result


TRUTH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _to_bool(value: Any) -> bool:
    return TRUTH[str(value).lower()]


def _to_int(value: Any) -> int:
    number = _to_float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _to_float(value: Any) -> float:
    if "_" in str(value):  # Python would read 12_34 as 1234
        raise ValueError
    return float(value)


def _to_str(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


_CONVERT = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
