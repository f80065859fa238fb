"""Videos and animations: read, painted frame by frame in constant memory, and written with the same time stamps.

It knows no network: what paints is a function. One picture stream and all sound streams are kept, subtitles are not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from infer.painting.animation import Animation, Frame, set_last_duration, to_palette
from infer.painting.steady import Steady
from infer.painting.video_reader import Reader, open_video
from utils.errors import UserError
from utils.files import atomic_save
from utils.images import laid_on

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .m2v .vob .ts .mts .m2ts .wmv .asf .flv .ogv .3gp .3g2 .mxf".split()
)
FORMATS = {  # by suffix: FFmpeg's names of the container and of the encoder
    ".mp4": ("mp4", "libx264"),
    ".m4v": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
    ".gif": ("gif", "gif"),
    ".webp": ("webp", "libwebp_anim"),
    ".png": ("apng", "apng"),
    ".apng": ("apng", "apng"),
}
QUALITY = {
    "libx264": {"crf": "18", "preset": "fast"},
    "libvpx-vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "gif": {"gifflags": "-offsetting-transdiff"},  # each frame whole: what a painting saves by less is not worth it
}
# Of animations: how FFmpeg wants their pixels, and the units of time that they can hold, in seconds.
PIXELS = {"gif": "pal8", "libwebp_anim": "bgra", "apng": "rgba"}
TIME_BASES = {"gif": Fraction(1, 100), "libwebp_anim": Fraction(1, 1000), "apng": Fraction(1, 1000)}
ANIMATIONS = frozenset(suffix for suffix, (_, encoder) in FORMATS.items() if encoder in TIME_BASES)
MOST_PLAYS = 65_535  # times that an animation can say it is shown
SHORTEST = Fraction(1, 50)  # seconds that a frame of an animation is shown: browsers slow down what is faster
SOUND = {"libx264": "aac", "libvpx-vp9": "libopus"}  # for sound that the container cannot hold as it is
SOUND_RATE = 48_000  # of such sound, in Hz: all encoders know it
TRIED = 20  # packets of a sound that are written to see whether the container can hold it
BT709 = 1  # FFmpeg's number of it, as color space, primaries and transfer
LIMITED_RANGE = 1
BATCH_PIXELS = 1 << 21  # more pixels together are painted no faster, but need more memory


@dataclass
class Written:
    """What became of a video; `note` says what could not be read of it."""

    width: int
    height: int
    frames: int
    note: str = ""


def video_format(path: str | Path) -> tuple[str, str]:
    """(container, encoder) that `paint_video` will write, by the suffix. Raises UserError for an unknown one."""
    suffix = Path(path).suffix
    if suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{path}: cannot write a video or an animation as {suffix or '(none)'}; use {known}")
    return FORMATS[suffix.lower()]


def paint_video(
    reader: Reader | Animation,
    out: str | Path,
    paint: Callable[[np.ndarray], np.ndarray],
    batch: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
    quality: int = 95,
) -> Written:
    """Paints a video or an animation to `out`, whole or not at all. Strokes stay in their places (steady.py).

    Frames keep their times, also where their distances vary, and are upright. Sound is copied as it is where the
    container of `out` can hold it. A side of an odd number of pixels gets one more in a video: H.264 halves the
    colours' size. Animations keep their transparency and how often they are shown; in a video they are on white. Of
    what is faster than 50 frames a second, an animation gets as many as it can show.

    Args:
        reader: of `open_reader` or `open_animation`.
        paint: (N, H, W, 3) uint8 -> the same, painted.
        batch: frames to paint at a time; less if they are large.
        progress: is told the frames that are done and of how many, 0 if that is not known.
        quality: of WebP, 1 to 100.

    Raises UserError if `out` cannot be written. Of a video that is broken somewhere, what can be read is painted.
    """
    container, encoder = video_format(out)
    writer = None

    def write(temporary: str) -> None:
        nonlocal writer
        try:
            options = _container_options(container, reader.plays)
            with av.open(temporary, "w", format=container, options=options) as output:
                writer = _Writer(output, encoder, reader, quality)
                writer.write(paint, batch, progress)
        except av.FFmpegError as error:
            raise UserError(f"cannot write {out}: {error.strerror}; the file before is unchanged") from error
        if container in ("apng", "webp"):
            set_last_duration(temporary, round(1000 * writer.last_duration))

    atomic_save(out, write)
    notes = []
    if reader.damaged:
        lost = f"{reader.path} is damaged or cut short"
        notes.append(f"{lost}: painted are the {reader.frames} frames that could be read")
    if encoder in TIME_BASES and reader.sounds:
        notes.append(f"{out} has no sound: it cannot hold any")
    if writer.left_out:
        notes.append(f"{out} shows 50 frames a second at most: {writer.left_out} of {reader.frames} are left out")
    return Written(*writer.size, reader.frames, "; ".join(notes))


def _container_options(container: str, plays: int) -> dict[str, str]:
    """FFmpeg's options; `plays`: how often an animation is shown, 0: for ever."""
    if container in ("mp4", "mov"):  # what players need first is put first: the data is moved once more at the end
        return {"movflags": "+faststart"}
    if container == "gif":  # repetitions; -1: none
        return {"loop": str(min(plays - 1, MOST_PLAYS) or -1) if plays else "0"}
    plays = min(plays, MOST_PLAYS)
    return {"apng": {"plays": str(plays)}, "webp": {"loop": str(plays)}}.get(container, {})


class _Writer:
    """The streams of the new file."""

    def __init__(
        self, output: av.container.OutputContainer, encoder: str, reader: Reader | Animation, quality: int = 95
    ):
        self.output, self.encoder, self.reader, self.quality = output, encoder, reader, quality
        self.time_base = TIME_BASES.get(encoder, reader.time_base)
        self.is_animation = encoder in TIME_BASES
        self.stream: Any = None
        self.sounds: dict[int, tuple[Any, bool]] = {}  # by number in the source: the new stream, whether it is copied
        self.steady = Steady()
        self.done = self.left_out = 0
        self.size = (0, 0)
        self.last_start, self.last_duration = -SHORTEST, SHORTEST  # seconds

    def write(self, paint: Callable[[np.ndarray], np.ndarray], batch: int, progress: Callable) -> None:
        frames: list[Frame] = []
        early = []  # sound before the first frame; what streams there are must be known before anything is written

        def paint_frames() -> None:
            for frame, painting in zip(frames, paint(np.stack([f.rgb for f in frames])), strict=True):
                self._video(frame, self.steady(frame.rgb, painting))
            self.done += len(frames)
            frames.clear()
            progress(self.done, self.reader.expected_frames)

        for item in self.reader:
            if isinstance(item, Frame):
                if not self._is_due(item):
                    continue
                if self.stream is None:
                    self._open_streams(item)
                    for packet in early:
                        self._sound(packet)
                frames.append(item)
                if len(frames) == batch or (len(frames) + 1) * item.rgb[..., 0].size > BATCH_PIXELS:
                    paint_frames()
            elif self.is_animation:
                continue
            elif self.stream is None:
                early.append(item)
            else:
                self._sound(item)
        if frames:
            paint_frames()
        if self.stream is None:
            raise UserError(f"{self.reader.path}: not one frame of the video could be read")
        self.output.mux(self.stream.encode(None))
        for stream, copied in self.sounds.values():
            if not copied:
                self.output.mux(stream.encode(None))

    def _is_due(self, frame: Frame) -> bool:
        """Whether a frame is far enough from the one before."""
        start = frame.pts * self.reader.time_base
        if self.is_animation and start - self.last_start < SHORTEST:
            self.left_out += 1
            return False
        self.last_start, self.last_duration = start, frame.duration * self.reader.time_base
        return True

    def _open_streams(self, first: Frame) -> None:
        height, width = first.rgb.shape[:2]
        options = dict(QUALITY.get(self.encoder, {}))
        if self.reader.uneven and self.encoder == "libx264":
            # An MP4 ends with the frame that was encoded last: with B-frames that need not be the last one. They are
            # left out only where the times are uneven, since files are a half larger without them.
            options["bf"] = "0"
        if self.encoder == "libwebp_anim":
            options["quality"] = str(self.quality)
        self.stream = self.output.add_stream(self.encoder, rate=self.reader.rate, options=options)
        context = self.stream.codec_context
        context.time_base = self.time_base
        # Else each frame would get the mean of all durations, the last one too.
        context.flags |= av.codec.context.Flags.frame_duration
        if self.is_animation:
            self.size = context.width, context.height = width, height
            context.pix_fmt = PIXELS[self.encoder]
            return
        self.size = context.width, context.height = width + width % 2, height + height % 2
        context.pix_fmt = "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        if shape := self.reader.pixel_shape:
            turned = (width > height) != (self.reader.stored_size[0] > self.reader.stored_size[1])
            context.sample_aspect_ratio = 1 / shape if turned else shape
        for sound in self.reader.sounds:
            copied = _can_hold(self.output.format.name, self.reader.path, sound.index)
            if copied:
                stream = self.output.add_stream_from_template(sound)
            else:
                layout = "mono" if sound.codec_context.channels == 1 else "stereo"
                stream = self.output.add_stream(SOUND[self.encoder], rate=SOUND_RATE, layout=layout)
            self.sounds[sound.index] = stream, copied

    def _video(self, frame: Frame, painting: np.ndarray) -> None:
        picture = self._animated(frame, painting) if self.is_animation else self._opaque(frame, painting)
        factor = self.reader.time_base / self.time_base
        picture.pts, picture.duration = round(frame.pts * factor), round(frame.duration * factor)
        picture.time_base = self.time_base
        self.output.mux(self.stream.encode(picture))

    def _animated(self, frame: Frame, painting: np.ndarray) -> av.VideoFrame:
        format = PIXELS[self.encoder]
        if format == "pal8":
            return av.VideoFrame.from_ndarray(to_palette(painting, frame.alpha), format=format)
        alpha = np.full(painting.shape[:2], 255, np.uint8) if frame.alpha is None else frame.alpha
        colors = painting[..., ::-1] if format == "bgra" else painting
        return av.VideoFrame.from_ndarray(np.dstack((colors, alpha)), format=format)

    def _opaque(self, frame: Frame, painting: np.ndarray) -> av.VideoFrame:
        """In YCbCr, with even sides; what is transparent is white."""
        height, width = painting.shape[:2]
        if frame.alpha is not None:
            painting = laid_on(painting, frame.alpha, "white")
        if height % 2 or width % 2:
            painting = np.pad(painting, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(painting), format="rgb24")
        return picture.reformat(format="yuv420p", dst_colorspace="ITU709")

    def _sound(self, packet: av.Packet) -> None:
        stream, copied = self.sounds[packet.stream.index]
        if copied:
            packet.stream = stream
            self.output.mux(packet)
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            self.reader.broken = True
            return
        for frame in frames:
            self.output.mux(stream.encode(frame))


def _can_hold(container: str, path: str | Path, number: int) -> bool:
    """Whether a container of this format can hold stream `number` of the video as it is.

    Tried out: FFmpeg's tables allow more than it can write, and it says so at the end, after all the painting.
    """
    try:
        with open_video(path) as (source, _), av.open(BytesIO(), "w", format=container) as trial:
            stream = trial.add_stream_from_template(source.streams[number])
            packets = (packet for packet in source.demux(source.streams[number]) if packet.dts is not None)
            for packet in islice(packets, TRIED):
                packet.stream = stream
                trial.mux(packet)
        return True
    except (UserError, ValueError):  # what open_video makes of any error of FFmpeg
        return False
