"""Reading videos: what is in a file, and its frames and sound, in their order and with their times.

Painting and writing videos is infer/painting/video.py's business.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from infer.painting.animation import Frame
from utils.errors import UserError

CUT_SHORT = 0.5  # seconds that may be missing at the end without a word: durations in headers are rounded


@dataclass(frozen=True)
class VideoInfo:
    """Of the first picture stream: width and height in pixels, as shown; frames a second on average; length in s."""

    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    codec: str  # FFmpeg's name, such as h264
    sound: bool


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """(an open video, its picture stream). Raises UserError if there is no such file, or it is none or is broken."""
    bad = f"{path} is neither a picture nor a video that can be read, or is broken"
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            # A playlist could name other files, or addresses: no protocol is allowed but the file that is open already.
            source = av.open(file, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(bad) from error
        with source:
            video = source.streams.best("video")
            if video is None or not video.codec_context or video.disposition & av.stream.Disposition.attached_pic:
                raise UserError(f"{path} has no video in it that can be read (a picture of an album does not count)")
            try:
                yield source, video
            except av.FFmpegError as error:
                raise UserError(f"{bad}: {error.strerror}") from error


def video_info(path: str | Path) -> VideoInfo:
    """The facts about a video file; frames are counted one by one where the file does not say how many there are.

    Raises UserError if it cannot be read.
    """
    with open_video(path) as (source, video):
        first = next(source.decode(video), None)
        if first is None:
            raise UserError(f"{path}: not one frame of the video could be read")
        turned = first.rotation % 180 != 0
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        fps = float(video.average_rate or video.guessed_rate or 25)
        frames = video.frames or _packets(path)
        length = video.duration * video.time_base if video.duration else (source.duration or 0) / av.time_base
        sound = bool(source.streams.audio)
        return VideoInfo(width, height, frames, fps, float(length) or frames / fps, video.codec.name, sound)


def _packets(path: str | Path) -> int:
    """Frames in the file: each is a packet."""
    with open_video(path) as (source, video):
        return sum(packet.size > 0 for packet in source.demux(video))


@contextmanager
def open_reader(path: str | Path, max_megapixels: float, max_side: int) -> Iterator["Reader"]:
    with open_video(path) as (source, video):
        yield Reader(source, video, path, max_side, max_megapixels)


class Reader:
    """The frames and the sound packets of a video, in the order of the file, times counted from its start."""

    def __init__(
        self,
        source: av.container.InputContainer,
        video: av.VideoStream,
        path: str | Path,
        max_side: int,
        max_megapixels: float,
    ):
        width, height = video.codec_context.width, video.codec_context.height
        if max_megapixels and width * height > max_megapixels * 1e6:
            raise UserError(
                f"{path} has {width} x {height} pixels, {width * height / 1e6:.1f} megapixels, "
                f"more than max_megapixels={max_megapixels:g}: raise that"
            )
        video.thread_type = "AUTO"
        self.source, self.path, self.video = source, path, video
        self.sounds = [s for s in source.streams.audio if s.codec_context is not None]
        factor = min(1, max_side / max(width, height)) if max_side else 1
        self.stored_size = tuple(max(1, round(side * factor)) for side in (width, height))  # before it is turned
        self.reduced = factor < 1
        self.start = Fraction(max(0, source.start_time or 0), av.time_base)  # seconds; some recorders begin anywhere
        self.frames, self.broken, self.end = 0, False, 0.0
        self.plays, self.time_base, self.uneven = 0, video.time_base, video.average_rate != video.base_rate
        self.rate = video.average_rate or video.guessed_rate or Fraction(25)  # frames in a second, on average
        self.pixel_shape = video.sample_aspect_ratio  # width to height of a pixel as it is stored, if that is known
        known = [float(s.duration * s.time_base) for s in (video, *self.sounds) if s.duration]
        self.duration = max(known, default=(source.duration or 0) / av.time_base)  # seconds, as the file says, or 0
        self.expected_frames = video.frames or round(self.duration * self.rate)

    def __iter__(self) -> Iterator[Frame | av.Packet]:
        """Frames, and packets of the sound streams."""
        last = None
        for item in self._read():
            stream = self.video if isinstance(item, av.VideoFrame) else item.stream
            offset = round(self.start / stream.time_base)
            if isinstance(item, av.VideoFrame):
                step = max(1, item.duration or round(1 / (self.rate * stream.time_base)))
                # An AVI has no times; what the demuxer makes up is wrong where frames are stored out of order.
                counted = item.pts is None or self.source.format.name == "avi"
                pts = (0 if last is None else last + step) if counted else item.pts - offset
                last = pts if last is None else max(pts, last + 1)  # encoders want rising times, come what may
                self.frames += 1
                self.broken |= item.is_corrupt
                self.end = max(self.end, float((last + step) * stream.time_base))
                yield Frame(self._pixels(item), last, step)
            else:
                item.pts, item.dts = item.pts - offset, item.dts - offset
                self.end = max(self.end, float((item.pts + (item.duration or 0)) * stream.time_base))
                yield item

    def _read(self) -> Iterator["av.VideoFrame | av.Packet"]:
        packets = self.source.demux([self.video, *self.sounds])
        try:
            for packet in packets:
                if packet.stream is self.video:
                    yield from self._decode(packet)
                elif packet.pts is not None and packet.dts is not None:
                    yield packet
        except (av.FFmpegError, OSError):
            self.broken = True
            yield from self._decode(None)  # the frames that the decoder still has

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self.video.codec_context.decode(packet)
        except av.FFmpegError:
            self.broken = True
            return []

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        """Upright (H, W, 3) uint8; a frame of another size than the first one is brought to that."""
        width, height = self.stored_size
        filter = "AREA" if self.reduced else "BILINEAR"
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=filter)
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        return _upright(rgb, np.frombuffer(bytes(matrix), np.int32)) if matrix is not None else rgb

    @property
    def damaged(self) -> bool:
        """Whether something could not be read, or is missing at the end."""
        return self.broken or self.end <= self.duration - CUT_SHORT


def _upright(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(H, W, 3) as stored -> as shown, by the 3 x 3 display matrix (a, b, u, c, d, v, x, y, w) of MP4.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), but for a shift: quarter turns and mirrors.
    """
    a, b, c, d = np.sign(matrix[[0, 1, 3, 4]])
    if abs(b) == 1 and abs(c) == 1 and not (a or d):
        return rgb.swapaxes(0, 1)[::b, ::c]
    return rgb[::d, ::a] if a and d and not (b or c) else rgb
