"""Every option of every command, once: type, default and help. options.py makes checked copies; nothing is global."""

from dataclasses import dataclass
from typing import Any

from infer.verse.settings import NAMED, PATTERNS, PoemSettings
from options import CLASSIFIER, PAINTER, POET, Options, option, parse_task
from utils import files

OPTIMIZERS = ("adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("plateau", "step", "multistep", "cosine", "one_cycle", "constant")
FORM_HELP = f"form of the poem: {', '.join(NAMED)}, or a tune of 词; auto: 七绝 if the poet knows it"
LOSS_HELP = "loss network; auto: vgg16 if at hand, else the classifier"
LOSS_NETWORKS = ("auto", "vgg16", "vgg19", "squeezenet", "classifier")
BACKBONES = ("efficientnet_lite0", "mobilenet_v2", "squeezenet1_1", "resnet34", "lenet")
INITIAL = {"reads": "a file of weights, or none", "words": ("auto", "imagenet", "none")}
MODEL, WEIGHTS = "a model file; python main.py train makes one", "a file of weights"

# Options that several commands share.
POEM_SEED = option(-1, "same seed, same poem; -1: a new one each time", minimum=-1)
STROKE = option("medium", "strokes: fine, medium, large, or how many times as large as medium; 0: 8-12 pixels")
KEEP_COLOR = option(False, "keep the photograph's colours and its overall brightness")
STRENGTH = option(1.0, "0: the photograph, 1: the painting, up to 1.5: painted again", maximum=1.5)
MAX_MEGAPIXELS = option(100.0, "larger pictures are refused before they are decoded", minimum=1e-6)
QUALITY = option(files.QUALITY, "quality of JPEG and other lossy files, 1 to 100", minimum=1, maximum=100)
VIEWS = "crops and mirror images of each picture that are averaged: 1, 2, 6"


@dataclass(frozen=True)
class DefaultConfig(Options):
    """Options of train, val and test for every task."""

    task: str = option("poet", "what to learn: poet, style or dogcat; default: the task of the model file in --load")
    # data
    data_root: str = option("", "file or folder of data; empty: the embedded sample", reads="a file or folder of data")
    batch_size: int = option(32, "batch size (of all devices together)", minimum=1)
    num_workers: int = option(0, "processes that load data; 0: the training process itself")
    # training
    max_epoch: int = option(20, "number of epochs")
    lr: float = option(2e-3, "learning rate")
    optimizer: str = option("adamw", "optimizer", OPTIMIZERS)
    momentum: float = option(0.9, "momentum of sgd and rmsprop", maximum=1)
    lr_schedule: str = option("plateau", "learning rate schedule", SCHEDULES)
    lr_epochs: str = option("10", "step: decay every so many epochs; multistep: after these epochs, such as 10,15")
    lr_decay: float = option(0.5, "decay factor; plateau: applied after an epoch without improvement")
    warmup: int = option(20, "warm-up steps, in which the learning rate rises from zero")
    weight_decay: float = option(0.01, "weight decay; not applied to biases and normalisations")
    lr_scale: str = option("", "learning rate factors by parameter name, such as features.*:0.1")
    freeze: str = option("", "parameters to freeze, by name, such as features.*; several with commas")
    unfreeze_epoch: int = option(0, "epochs after which frozen parameters are trained too; 0: never")
    ema: float = option(0.0, "exponential moving average of the weights, such as 0.998; 0: off", maximum=1)
    monitor: str = option("", "validation metric that decides which weights are best; empty: the task's own")
    patience: int = option(0, "early stopping: epochs without improvement; 0: train to the last epoch")
    grad_clip: float = option(1.0, "maximum norm of the gradient; 0: no clipping")
    clip_value: float = option(0.0, "maximum absolute value of each gradient entry; 0: no clipping")
    l1: float = option(0.0, "weight of the L1 penalty")
    accumulate: int = option(1, "gradient accumulation: batches for each step", minimum=1)
    checkpoint_layers: str = option("", "layers to recompute in the backward pass, by name: saves memory")
    seed: int = option(0, "random seed")
    # machine
    use_gpu: bool = option(True, "use the GPU if there is one")
    devices: str = option("1", "number of GPUs (or CPU processes) to train with, or which GPUs: 0,2")
    num_nodes: int = option(1, "machines to train with (start the same command on each with torchrun)", minimum=1)
    precision: str = option("auto", "auto: bf16 if it is faster here, else fp32", ("auto", "fp32", "bf16", "fp16"))
    compile: bool = option(False, "compile the network with torch.compile: slow to start, faster steps")
    sync_bn: bool = option(False, "GPUs: synchronise BatchNorm's statistics over all devices")
    deterministic: bool = option(False, "bit-identical results on a GPU, too; slower")
    # debugging
    fast_dev_run: bool = option(False, "run one batch of everything in a temporary folder, as a test")
    overfit_batches: int = option(0, "train on the same few batches only: can the network learn them? 0: off")
    profile: int = option(0, "profile so many steps: profile.txt and trace.json in the run's folder")
    # files
    save_path: str = option("checkpoints", "folder that holds the folders of runs", writes="files")
    run: str = option("", "name of the run's folder; empty: task and time", writes="files")
    load: str = option("", "model file to start from, or to evaluate", reads=MODEL)
    resume: str = option("", "folder of a run to resume; without a value: the latest unfinished one", writes="files")
    save_every: float = option(60.0, "seconds between two saves of last.pt")
    # watching
    env: str = option("", "visdom environment; empty: the run's name")
    use_visdom: bool = option(True, "send metrics to a visdom server if one is running")
    vis_port: int = option(8097, "port of the visdom server on this machine", minimum=1, maximum=65535)
    tensorboard: bool = option(False, "also write TensorBoard event files in the run's folder")
    debug_file: str = option("tmp/debug", "while this file exists, training is in debug mode")
    samples: int = option(2, "examples (poems, pictures) to show after each epoch")
    # evaluation
    split: str = option("", "val, test: split to evaluate; empty: the command's own", ("", "train", "val", "test"))
    json: bool = option(False, "val, test: print the metrics as one JSON object on stdout")


@dataclass(frozen=True)
class PoetConfig(DefaultConfig):
    """Options of train, val and test with --task=poet."""

    batch_size: int = option(2, "sequences in a batch (of all devices together)", minimum=1)
    max_epoch: int = option(3, "number of epochs")
    lr: float = option(5e-3, "learning rate")
    backbone: str = option("lstm", "network between embedding and output", ("lstm", "transformer"))
    embed: int = option(192, "size of the character embedding, and width of a Transformer", minimum=1)
    hidden: int = option(256, "hidden size of the LSTM, or of a Transformer's feed-forward layers", minimum=1)
    layers: int = option(1, "layers of the LSTM or Transformer", minimum=1)
    attention: int = option(128, "size of the attention after the LSTM; 0: none")
    dropout: float = option(0.2, "dropout at the inputs and outputs of the layers", maximum=1)
    init: str = option("", "poet's file to take weights from; sizes may grow, characters may differ", reads=MODEL)
    rhymes: str = option("", "JSON file of tones and rhymes; empty: the poet's", reads="a JSON file of tones, rhymes")
    min_count: int = option(2, "rarer characters become the unknown token (in corpora of 100,000 and more)", minimum=1)
    row_length: int = option(128, "characters in a training sequence, which is filled with whole poems", minimum=8)


@dataclass(frozen=True)
class StyleConfig(DefaultConfig):
    """Options of train, val and test with --task=style."""

    style_image: str = option("", "picture or folder; empty: samples, or --load's own", reads="a picture or a folder")
    pretrained: str = option("auto", "painter that --style_image joins; none; auto: the shipped one", **INITIAL)
    loss_network: str = option("auto", LOSS_HELP, LOSS_NETWORKS)
    vgg: str = option("", "weights of the loss network; empty: torchvision's download", reads=WEIGHTS)
    image_size: int = option(256, "side of the training crops in pixels", minimum=32)
    style_size: int = option(512, "longer side of the style pictures in pixels; larger: larger strokes", minimum=32)
    styles: str = option("", "styles to train or evaluate, such as ink,oil; the others stay; empty: new ones, or all")
    grade: str = option("", "for dull scans: stretch the brightness, multiply the colours: ink:1,mountains:1.7")
    batch_size: int = option(1, "photographs in a batch (of all devices together)", minimum=1)
    styles_per_photo: int = option(4, "styles in which each photograph of a batch is painted", minimum=1)
    epoch_batches: int = option(0, "batches in an epoch; 0: all photographs")
    val_photos: int = option(8, "photographs to validate with after each epoch", minimum=1)
    width: float = option(0.5, "width of a network; 1: the 32, 64, 128 channels of Johnson et al.", minimum=0.1)
    blocks: int = option(4, "residual blocks", minimum=1)
    content_weight: float = option(1.0, "weight of the content loss")
    style_weight: str = option("8", "weight of the style loss, also of single styles: 8,ink:2.5")
    calm_share: str = option("0.6", "share of calm places in the style loss, also of single styles: 0.6,ink:0")
    tv_weight: float = option(1.0, "weight of the total variation loss: larger, smoother")
    temporal_weight: float = option(0.0, "weight of the difference between paintings of a shifted, noisy photograph")
    lpips: str = option("", "val, test: LPIPS's linear weights for SqueezeNet; empty: no LPIPS", reads=WEIGHTS)
    squeezenet: str = option("", "val, test: SqueezeNet for LPIPS; empty: torchvision's download", reads=WEIGHTS)
    optimize_steps: int = option(0, "val, test: compare with optimising each painting for so many steps; 0: off")
    lr_schedule: str = option("cosine", "learning rate schedule", SCHEDULES)
    weight_decay: float = option(0.0, "weight decay")
    max_epoch: int = option(12, "number of epochs")


@dataclass(frozen=True)
class DogCatConfig(DefaultConfig):
    """Options of train, val and test with --task=dogcat."""

    backbone: str = option("efficientnet_lite0", "network; lenet: the one to read first", BACKBONES)
    pretrained: str = option("auto", "initial weights: a file, imagenet, none; auto: the classifier's", **INITIAL)
    freeze: str = option("auto", "parameters to freeze, by name; auto: all but the shipped network's last layer")
    image_size: int = option(160, "side of the crops in pixels", minimum=32)
    dropout: float = option(0.2, "dropout before the last layer, where the network has one", maximum=1)
    label_smoothing: float = option(0.0, "label smoothing", maximum=1)
    mixup: float = option(0.0, "alpha of mixup; 0: no mixup")
    jitter: float = option(0.2, "colour jitter: how much brightness, contrast and saturation vary", maximum=1)
    shuffle_blocks: int = option(0, "cut training pictures into N x N blocks and shuffle them a little; 0: off")
    views: int = option(1, "if only the last layer is trained: crops of each picture, computed once", minimum=1)
    distill: float = option(0.0, "weight of staying with what the shipped classifier knows besides its own classes")
    others: str = option("", "folder of pictures of other subjects: learn to reject them", reads="a folder of pictures")
    cache: str = option("", "folder that caches the decoded, reduced pictures; empty: no cache", writes="files")
    labels: str = option("", "test: CSV file with the classes of pictures", reads="a CSV file id,label")
    tta: int = option(6, f"val, test: {VIEWS}", minimum=1)
    out: str = option("", "val, test: folder of the report; empty: tmp/dogcat_val, tmp/dogcat_test", writes="files")
    batch_size: int = option(16, "pictures in a batch (of all devices together)", minimum=1)
    warmup: int = option(10, "warm-up steps, in which the learning rate rises from zero")
    lr: float = option(3e-3, "learning rate; 5e-4 where all layers learn")
    lr_schedule: str = option("cosine", "learning rate schedule", SCHEDULES)
    ema: float = option(0.99, "exponential moving average of the weights, such as 0.998; 0: off", maximum=1)
    max_epoch: int = option(20, "number of epochs")


@dataclass(frozen=True)
class GenerateConfig(Options):
    """Options of generate."""

    form: str = option(PoemSettings.form, FORM_HELP)
    prompt: str = option("", "first characters of the poem; of 对联 the first line")
    title: str = option("", "title to write to")
    author: str = option("", "poet to imitate")
    acrostic: str = option("", "藏头诗: the verses begin with these characters, two poems for more than eight")
    keywords: str = option("", "words that the poem is about, such as 春江,月 or coffee")
    picture: str = option("", "photograph to write about: title and keywords from what it shows", reads="a picture")
    avoid: str = option("", "characters that the poems must not have, such as 愁泪")
    poem: str = option("", "poem to rewrite: only the verses of --lock are kept")
    lock: str = option("", "verses of --poem to keep, such as 1,3")
    regular: bool = option(PoemSettings.regular, "keep to the tones and rhymes of the four regulated forms")
    pattern: str = option(PoemSettings.pattern, "tone pattern; auto: what fits", PATTERNS)
    rhyme: str = option("", "平水韵 group of the rhymes, such as 先; empty: what fits")
    n: int = option(1, "poems to write, in one batch", minimum=1)
    candidates: int = option(PoemSettings.candidates, "versions of a poem; the best is shown", minimum=1, maximum=256)
    temperature: float = option(PoemSettings.temperature, "sampling temperature; 0: always the likeliest character")
    top_k: int = option(PoemSettings.top_k, "sample from the k likeliest characters; 0: all")
    top_p: float = option(PoemSettings.top_p, "nucleus sampling: the likeliest of this total probability", maximum=1)
    guidance: float = option(PoemSettings.guidance, "classifier-free guidance by title, keywords; 0: none", maximum=10)
    max_chars: int = option(PoemSettings.max_chars, "maximum length of a free poem", minimum=1, maximum=10_000)
    seed: int = POEM_SEED
    script: str = option("simplified", "characters of the poems", ("simplified", "traditional"))
    pinyin: bool = option(False, "print how each line is read today")
    explain: bool = option(False, "print tones, pattern and rhyme with each poem")
    json: bool = option(False, "one JSON object a line: form, title, lines, score, rating, pattern, rhyme, remarks")
    load: str = option(POET, "the poet's file, or pytorch-book's with tang.npz beside it", reads=MODEL)
    use_gpu: bool = option(False, "use the GPU if there is one")


@dataclass(frozen=True)
class StylizeConfig(Options):
    """Options of stylize."""

    style: str = option("", "style, or a mixture as in wave:0.6,starry:0.4; list: which there are; empty: the first")
    strength: float = STRENGTH
    stroke: str = STROKE
    keep_color: bool = KEEP_COLOR
    max_side: int = option(0, "reduce larger pictures and videos to this longer side, in pixels; 0: never")
    mask: str = option("", "grey picture: white is painted, black or transparent stays as it is", reads="a picture")
    out: str = option("", "file to write; of several the folder; empty: NAME_STYLE beside the input", writes="files")
    quality: int = QUALITY
    max_megapixels: float = MAX_MEGAPIXELS
    batch: int = option(4, "pictures of equal size (or frames of a video) to paint at a time", minimum=1)
    json: bool = option(False, "one JSON object a line: path, out, ok, error, note, width, height, seconds")
    load: str = option(PAINTER, "the painter's file, or weights of pytorch/examples or pytorch-book", reads=MODEL)
    precision: str = option("auto", "auto: bf16 if it is faster here, else fp32", ("auto", "fp32", "bf16"))
    use_gpu: bool = option(False, "use the GPU if there is one")
    memory_limit: int = option(1000, "MB of memory for the layers of a picture; more go to a temporary file", minimum=1)
    tile: int = option(-1, "side of the tiles in pixels; 0: no tiling; -1: as --memory_limit allows", minimum=-1)
    method: str = option("network", "optimize: no network, minutes a picture (Gatys et al.)", ("network", "optimize"))
    style_image: str = option("", "optimize: the style picture", reads="a picture")
    style_size: int = option(512, "optimize: longer side of the style picture in pixels", minimum=32)
    steps: int = option(300, "optimize: number of steps", minimum=1)
    loss_network: str = option("auto", f"optimize: {LOSS_HELP}", LOSS_NETWORKS)
    vgg: str = option("", "optimize: weights of the loss network; empty: torchvision's download", reads=WEIGHTS)
    content_weight: float = option(StyleConfig.content_weight, "optimize: weight of the content loss")
    style_weight: float = option(8.0, "optimize: weight of the style loss")
    tv_weight: float = option(StyleConfig.tv_weight, "optimize: weight of the total variation loss: larger, smoother")


@dataclass(frozen=True)
class PostcardConfig(Options):
    """Options of postcard."""

    poem: str = option("", "the poem, or a text file with it; empty: the poet writes one")
    title: str = option("", "title, in a column of its own; the poet writes to it")
    keywords: str = option("", "words for the poet to write about, with commas")
    form: str = option("auto", FORM_HELP)
    seed: int = POEM_SEED
    signature: str = option("", "small column after the poem: a name, a date")
    seal: str = option("诗画", "one to four characters on the red seal; empty: no seal")
    font: str = option("", "font file; empty: a Kai or Song font of the system, else ours", reads="a font file")
    place: str = option("auto", "where the poem stands; auto: on the picture if legible", ("auto", "picture", "paper"))
    style: str = option("great_wave", "style of the painter, or a mixture; none: the photograph as it is")
    strength: float = STRENGTH
    stroke: str = STROKE
    keep_color: bool = KEEP_COLOR
    max_side: int = option(0, "reduce a larger photograph to this longer side, in pixels; 0: never")
    max_megapixels: float = MAX_MEGAPIXELS
    out: str = option("", "file to write: .jpg, .png, .pdf; empty: NAME_postcard beside the photograph", writes="files")
    quality: int = QUALITY
    json: bool = option(False, "one JSON object: path, out, title, lines, seed, font, place, contrast, width, height")
    load: str = option(PAINTER, "the painter's file", reads=MODEL)
    poet: str = option(POET, "the poet's file", reads=MODEL)
    use_gpu: bool = option(False, "use the GPU if there is one")


@dataclass(frozen=True)
class ClassifyConfig(Options):
    """Options of classify."""

    csv: str = option("", "CSV file to write: path, label, probabilities; torchrun: one a process", writes=".csv")
    json: bool = option(False, "one JSON object a line: path, label, a probability for each class; or path, error")
    explain: bool = option(False, "show which pixels the answer is based on (Grad-CAM): NAME_explained.png")
    out: str = option("", "explain: folder to write to; empty: beside the pictures", writes="files")
    threshold: float = option(-1.0, "below this probability: neither; -1: as calibrated; 0: never", (), -1, 1)
    tta: int = option(0, f"{VIEWS}; 0: 1, and 6 where that leaves a doubt")
    max_megapixels: float = MAX_MEGAPIXELS
    num_workers: int = option(0, "processes that load pictures; 0: this one")
    load: str = option(CLASSIFIER, "the classifier's file", reads=MODEL)
    precision: str = option("fp32", "bf16: faster on some CPUs, a little less exact", ("auto", "fp32", "bf16"))
    use_gpu: bool = option(False, "use the GPU if there is one")


@dataclass(frozen=True)
class DescribeConfig(Options):
    """Options of describe."""

    json: bool = option(False, "one JSON object a line: path, seen, colors, poem (title, words, avoid); or path, error")
    max_megapixels: float = MAX_MEGAPIXELS
    load: str = option(CLASSIFIER, "the classifier's file", reads=MODEL)
    use_gpu: bool = option(False, "use the GPU if there is one")


@dataclass(frozen=True)
class SummaryConfig(Options):
    """Options of summary, besides those of train."""

    graph: str = option("", "summary: file for a picture of the network's graph, graph.svg", writes=".svg")


@dataclass(frozen=True)
class CheckConfig(Options):
    """Options of check."""

    rhymes: str = option("old", "old: 平水韵, of 词 词林正韵; new: 中华新韵, as is read today", ("old", "new"))
    json: bool = option(False, "one JSON object a line: form, verses, tones, wants, pattern, rhyme, style, faults …")
    load: str = option(POET, "the poet's file, which has the rhyme table", reads=MODEL)


@dataclass(frozen=True)
class FindLrConfig(Options):
    """Options of find_lr, besides those of train."""

    steps: int = option(100, "find_lr: steps over which the learning rate rises from 1e-6 to 1", minimum=10)


@dataclass(frozen=True)
class ExportConfig(Options):
    """Options of export."""

    load: str = option(PAINTER, "painter, or weights of pytorch/examples or pytorch-book; or classifier", reads=MODEL)
    style: str = option("", "the style to export; empty: the first one")
    out: str = option("", "file to write, NAME.onnx; empty: the model file's name, in this folder", writes=".onnx")


@dataclass(frozen=True)
class AverageConfig(Options):
    """Options of average."""

    shares: str = option("", "weight of each file in the mean, such as 0.3,0.7; empty: equal")
    half: bool = option(False, "write float16: half the size")
    out: str = option("", "file to write", writes=".safetensors")


@dataclass(frozen=True)
class VisdomConfig(Options):
    """Options of visdom."""

    port: int = option(8097, "port on this machine", minimum=1, maximum=65535)


@dataclass(frozen=True)
class DemoConfig(Options):
    """Options of demo."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: everyone who can reach this machine")
    port: int = option(7860, "port to listen on", minimum=1, maximum=65535)
    save_path: str = option("checkpoints", "folder of the runs to watch")
    poet: str = option(POET, "the poet's file", reads=MODEL)
    style: str = option(PAINTER, "the painter's file", reads=MODEL)
    classifier: str = option(CLASSIFIER, "the classifier's file", reads=MODEL)
    max_side: int = option(2048, "larger pictures are reduced to this longer side, in pixels", minimum=64)
    max_megapixels: float = option(50.0, "larger pictures are refused before they are decoded", minimum=1e-6)
    max_file_size: float = option(25.0, "maximum size of an uploaded file in MB", minimum=1e-3)


@dataclass(frozen=True)
class RunsConfig(Options):
    """Options of runs."""

    save_path: str = option(DefaultConfig.save_path, "folder that holds the folders of runs")
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
OF_TASKS = (DefaultConfig, *TASKS.values())
# The options of each command, in the order of its help.
OPTIONS: dict[str, tuple[type[Options], ...]] = {
    **dict.fromkeys(("train", "val", "test"), OF_TASKS),
    "find_lr": (FindLrConfig, *OF_TASKS),
    "generate": (GenerateConfig,),
    "check": (CheckConfig,),
    "stylize": (StylizeConfig,),
    "postcard": (PostcardConfig,),
    "classify": (ClassifyConfig,),
    "describe": (DescribeConfig,),
    "export": (ExportConfig,),
    "average": (AverageConfig,),
    "visdom": (VisdomConfig,),
    "demo": (DemoConfig,),
    "download": (DownloadConfig,),
    "summary": (SummaryConfig, *OF_TASKS),
    "runs": (RunsConfig,),
    "info": (InfoConfig,),
    "help": (),
}


def task_config(overrides: dict[str, Any], command: str = "", stored: dict[str, Any] | None = None) -> DefaultConfig:
    """The checked config of the task that `--task` names (poet without it); `stored` are the options of a resumed run.

    Raises UserError as `parse` does, and for options of another task, or that `command` has no use for.
    """
    return parse_task(DefaultConfig, TASKS, {**(stored or {}), **overrides}, overrides, command)
