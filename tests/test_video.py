"""Videos are read and painted: frames, times, sound of real files; what is broken is said, never half-written."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from infer.painting import video
from infer.painting.animation import open_animation, to_palette
from infer.painting.video_reader import VideoInfo, open_reader, video_info
from tests.painting import in_new_process, invert, memory_peak
from utils.errors import UserError
from utils.images import laid_on

RATE = 25


def paint_video(source, out, paint, animation: bool = False, max_megapixels: float = 0, max_side: int = 0, **how):
    """From file to file."""
    with (open_animation if animation else open_reader)(source, max_megapixels, max_side) as reader:
        return video.paint_video(reader, out, paint, **how)


def make_video(
    path: Path,
    frames: list[np.ndarray],
    times: list[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    sound: str = "",
    pix_fmt: str = "yuv420p",
    pixel_shape: Fraction | None = None,
    **options: str,
) -> Path:
    """Writes pictures (H, W, 3) as a video in BT.709, with a second of a 440 Hz tone for each 25 frames."""
    with av.open(str(path), "w", options=options) as file:
        video = file.add_stream("libx264", rate=RATE, options={"crf": "4", "preset": "ultrafast"})
        context = video.codec_context
        context.height, context.width = frames[0].shape[:2]
        context.pix_fmt, context.time_base = pix_fmt, time_base
        if pixel_shape:
            context.sample_aspect_ratio = pixel_shape
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        sounds = [file.add_stream(name, rate=48_000, layout="stereo") for name in sound.split()]
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt, dst_colorspace="ITU709")
            frame.pts, frame.time_base = times[number] if times else number, time_base
            file.mux(video.encode(frame))
        for audio in sounds:
            add_tone(file, audio, len(frames) / RATE)
        file.mux(video.encode(None))
    return path


def add_tone(file: av.container.OutputContainer, audio: av.AudioStream, seconds: float) -> None:
    """440 Hz in stereo."""
    wave = np.sin(np.arange(round(seconds * 48_000)) * 440 * 2 * np.pi / 48_000) / 2
    tone = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo")
    tone.rate, tone.pts = 48_000, 0
    file.mux(audio.encode(tone))
    file.mux(audio.encode(None))


def greys(count: int = 20, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames whose grey says their number."""
    return [np.full((height, width, 3), 20 + 8 * number, np.uint8) for number in range(count)]


def patches(height: int = 48, width: int = 64) -> np.ndarray:
    """Red and green over blue and yellow."""
    colors = np.array([[(220, 30, 30), (30, 200, 40)], [(40, 40, 210), (210, 200, 30)]], np.uint8)
    return colors.repeat(height // 2, 0).repeat(width // 2, 1)


def read(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """(frames as they are shown, their times in seconds)."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], [float(f.pts * f.time_base) for f in frames]


def sound_of(path: Path) -> tuple[str, list[bytes], float]:
    """(codec, packets, seconds at which the sound begins)."""
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
        start = float(packets[0].pts * packets[0].time_base)
        return file.streams.audio[0].codec_context.name, [bytes(p) for p in packets], start


def same(rgb: np.ndarray) -> np.ndarray:
    return rgb


# --------------------------------------------------------------------------------------- frames, times and sound


@pytest.mark.parametrize("batch", [1, 3])
def test_every_frame_is_painted_once_at_its_time_with_the_same_sound(tmp_path, batch):
    source, out = make_video(tmp_path / "a.mp4", greys(), sound="aac"), tmp_path / "b.mp4"
    told = []
    written = paint_video(source, out, invert, batch=batch, progress=lambda *counts: told.append(counts))
    assert (written.width, written.height, written.frames, written.note) == (64, 48, 20, "")
    assert told == [(min(n, 20), 20) for n in range(batch, 20 + batch, batch)]
    frames, times = read(out)
    assert times == pytest.approx([n / RATE for n in range(20)])
    assert [round(float(f.mean())) for f in frames] == pytest.approx([255 - 20 - 8 * n for n in range(20)], abs=2)
    assert sound_of(out) == sound_of(source)
    assert not list(tmp_path.glob(".*"))


def test_uneven_times_are_kept(tmp_path):
    times = [0, 33, 70, 100, 250, 300, 333, 1000, 1001]
    source = make_video(tmp_path / "a.mp4", greys(9), times, Fraction(1, 1000), sound="aac")
    for name in ("b.mp4", "b.mov"):
        paint_video(source, tmp_path / name, same)
        assert read(tmp_path / name)[1] == pytest.approx([t / 1000 for t in times])


@pytest.mark.parametrize("out", ["b.mp4", "b.mkv", "b.webm"])
def test_the_last_frame_is_shown_as_long(tmp_path, out):
    """A show of slides: at 0, 1 and 3 s, to the end at 8 s."""
    times = [0, 1000, 3000]
    first = make_video(tmp_path / "first.mkv", greys(3), times, Fraction(1, 1000))
    with av.open(str(first)) as source, av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet, duration in zip(source.demux(video=0), [1000, 2000, 5000], strict=False):
            packet.stream, packet.duration = stream, duration
            file.mux(packet)
    for path in (tmp_path / "a.mp4", tmp_path / out):
        if path.name == out:
            paint_video(tmp_path / "a.mp4", path, same)
        assert read(path)[1] == pytest.approx([0, 1, 3], abs=0.002)
        with av.open(str(path)) as file:
            assert file.duration / av.time_base == pytest.approx(8, abs=0.05), path


@pytest.mark.parametrize(
    "name, sound, out, copied",
    [
        ("a.mov", "pcm_s16le", "b.mp4", True),
        ("a.mkv", "flac", "b.mp4", True),
        ("a.mkv", "flac", "b.mov", False),
        ("a.mkv", "libopus", "b.webm", True),
        ("a.mp4", "aac", "b.webm", False),
        ("a.mkv", "pcm_s24le", "b.mp4", False),  # without the layout of the channels, which MP4 must have
    ],
)
def test_sound_is_copied_where_the_container_can_hold_it_else_encoded_anew(tmp_path, name, sound, out, copied):
    source = make_video(tmp_path / name, greys(), sound=sound)
    paint_video(source, tmp_path / out, same)
    (before, packets, start), (after, written, new_start) = sound_of(source), sound_of(tmp_path / out)
    assert len(read(tmp_path / out)[0]) == 20 and new_start == pytest.approx(start, abs=0.03)
    if copied:
        assert b"".join(written) == b"".join(packets) and after == before
        return
    assert after == ("opus" if out == "b.webm" else "aac")
    with av.open(str(tmp_path / out)) as file:
        decoded = [frame for frame in file.decode(audio=0)]
    wave = np.concatenate([frame.to_ndarray()[0] for frame in decoded])
    assert 20 / RATE <= len(wave) / decoded[0].rate < 20 / RATE + 0.06
    assert np.abs(np.fft.rfft(wave)).argmax() * decoded[0].rate / len(wave) == pytest.approx(440, abs=3)


def test_a_transport_stream_that_begins_later_begins_at_zero(tmp_path):
    source = make_video(tmp_path / "a.ts", greys(), [100 + n for n in range(20)], sound="aac")
    paint_video(source, tmp_path / "b.mp4", same)
    (frames, times), (_, before) = read(tmp_path / "b.mp4"), read(source)
    assert before[0] > 3.9 and times[0] < 0.1 + 4  # the sound of this file begins at 0
    assert np.diff(times) == pytest.approx(np.diff(before), abs=1e-4) and len(frames) == 20
    source = make_video(tmp_path / "c.ts", greys(), [100 + n for n in range(20)])
    paint_video(source, tmp_path / "d.mp4", same)
    assert read(tmp_path / "d.mp4")[1] == pytest.approx([n / RATE for n in range(20)], abs=1e-4)


def test_a_silent_video_and_one_with_two_sounds(tmp_path):
    for sounds in ("", "aac aac"):
        paint_video(make_video(tmp_path / "a.mkv", greys(), sound=sounds), tmp_path / "b.mkv", same)
        with av.open(str(tmp_path / "b.mkv")) as file:
            assert (len(file.streams.video), len(file.streams.audio)) == (1, len(sounds.split()))


# ------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("out", ["b.mp4", "b.webm"])
def test_colors_come_back(tmp_path, out):
    source = make_video(tmp_path / "a.mp4", [patches()] * 3, pix_fmt="yuv444p")
    seen = []
    paint_video(source, tmp_path / out, lambda rgb: seen.append(rgb.copy()) or rgb)
    for y, x in ((10, 10), (10, 50), (40, 10), (40, 50)):
        assert np.abs(seen[0][0, y, x].astype(int) - patches()[y, x]).max() <= 3
        assert np.abs(read(tmp_path / out)[0][0][y, x].astype(int) - patches()[y, x]).max() <= 6
    with av.open(str(tmp_path / out)) as file:
        assert next(file.decode(video=0)).colorspace == 1


MATRICES = {  # a, b, c, d of the display matrix, and what the viewer sees
    "quarter": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # the telephone held upright
    "half": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "three quarters": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "mirror": ((-1, 0, 0, 1), np.fliplr),
    "nothing": ((1, 0, 0, 1), lambda p: p),
}


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into an .mp4 (ISO 14496-12, tkhd of version 0)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("matrix, seen", MATRICES.values(), ids=MATRICES)
def test_a_turned_video_is_upright(tmp_path, matrix, seen):
    source = turned(make_video(tmp_path / "a.mp4", [patches()] * 3), matrix)
    expected = seen(patches())
    given = []
    written = paint_video(source, tmp_path / "b.mp4", lambda rgb: given.append(rgb.copy()) or rgb)
    info = video_info(source)
    assert (written.height, written.width) == (info.height, info.width) == expected.shape[:2] == given[0].shape[1:3]
    assert np.abs(given[0][0].astype(int) - expected).mean() < 6  # the colours run a little at the edges of the patches
    assert np.abs(read(tmp_path / "b.mp4")[0][0].astype(int) - expected).mean() < 6


def test_odd_sides_get_a_pixel_more_and_lose_none(tmp_path):
    frames = [np.full((17, 33, 3), 100, np.uint8) for _ in range(3)]
    frames[0][-1], frames[0][:, -1] = 250, 250
    source = make_video(tmp_path / "a.mkv", frames, pix_fmt="yuv444p")
    written = paint_video(source, tmp_path / "b.mp4", same)
    assert (written.width, written.height) == (34, 18)
    first = read(tmp_path / "b.mp4")[0][0].astype(int)
    assert first.shape == (18, 34, 3)
    assert np.abs(first[16:].mean() - 250) < 12 and np.abs(first[:, 32:].mean() - 250) < 12
    assert np.abs(first[:14, :30].mean() - 100) < 5


def test_max_side_reduces_and_never_enlarges_and_max_megapixels_refuses(tmp_path):
    source = make_video(tmp_path / "a.mp4", [patches()] * 2)
    for side, size in ((32, (32, 24)), (1000, (64, 48)), (0, (64, 48))):
        written = paint_video(source, tmp_path / "b.mp4", same, max_side=side, max_megapixels=0.0031)
        assert (written.width, written.height) == size == read(tmp_path / "b.mp4")[0][0].shape[1::-1]
    with pytest.raises(UserError, match=r"64 x 48 pixels.*max_megapixels=0.003"):
        paint_video(source, tmp_path / "b.mp4", same, max_megapixels=0.003)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    source = make_video(tmp_path / "a.mp4", [patches()], pixel_shape=Fraction(16, 15))
    paint_video(source, tmp_path / "b.mp4", same)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert file.streams.video[0].sample_aspect_ratio == Fraction(16, 15)


# -------------------------------------------------------------------------------------------------- what is broken


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_of_a_video_that_is_cut_short_the_rest_is_painted_and_said_so(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    source = make_video(tmp_path / name, list(noise), sound="aac", **options)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 6 // 10])
    written = paint_video(source, tmp_path / "b.mp4", same)
    assert 15 < written.frames < 50 and len(read(tmp_path / "b.mp4")[0]) == written.frames
    if name != "a.ts":  # nothing in a transport stream says how long it should be
        assert written.note.startswith(f"{source} is damaged or cut short") and str(written.frames) in written.note


def test_what_is_no_video_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    whole = make_video(tmp_path / "whole.mp4", greys()).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])  # the index of an MP4 is at its end
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n")
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as file:
        add_tone(file, file.add_stream("aac", rate=48_000, layout="stereo"), 1)
    unreadable = dict.fromkeys(("empty.mp4", "text.mp4", "headless.mp4", "list.m3u8"), "neither a picture nor a video")
    for name, words in {**unreadable, "sound.m4a": "no video in it", "missing.mp4": "cannot read .*No such"}.items():
        for use in (lambda path: paint_video(path, tmp_path / "out" / "b.mp4", same), video_info):
            with pytest.raises(UserError, match=words) as error:
                use(tmp_path / name)
            assert name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_facts_are_those_that_were_written(tmp_path):
    for name, sound in (("a.mp4", "aac"), ("a.mkv", "aac"), ("a.avi", "")):
        info = video_info(make_video(tmp_path / name, greys(15), sound=sound))
        assert info.seconds == pytest.approx(15 / RATE, abs=0.05)
        assert info == VideoInfo(64, 48, 15, RATE, info.seconds, "h264", bool(sound))


@pytest.mark.parametrize("fault", [KeyboardInterrupt, UserError("out of memory")])
def test_if_the_painting_ends_early_the_old_file_stays(tmp_path, fault):
    source, out = make_video(tmp_path / "a.mp4", greys(), sound="aac"), tmp_path / "b.mp4"
    out.write_bytes(b"old")
    calls = []

    def paint(rgb: np.ndarray) -> np.ndarray:
        calls.append(len(rgb))
        if len(calls) == 9:
            raise fault
        return rgb

    with pytest.raises(type(fault) if isinstance(fault, Exception) else fault):
        paint_video(source, out, paint)
    assert out.read_bytes() == b"old" and not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------------------------------------------------- memory


def peaks(folder: Path, *names: str) -> list[float]:
    """MB of memory after each of the videos has been painted."""
    return [(paint_video(folder / name, folder / "b.mp4", same), memory_peak())[1] for name in names]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_memory_does_not_grow_with_the_length(tmp_path):
    """300 frames more are 69 MB of pixels. What encoder and allocator keep is at its most after some 600 frames."""
    for name, count in (("short.mp4", 650), ("long.mp4", 950)):
        make_video(tmp_path / name, [np.full((240, 320, 3), 90, np.uint8)] * count, sound="aac")
    shorter, longer = in_new_process(peaks, tmp_path, "short.mp4", "long.mp4")
    assert longer - shorter < 35


# --------------------------------------------------------------------------------------------------------- animations


DURATIONS = [100, 50, 200, 30, 770]  # ms


def animated(path: Path, transparent: bool = True, **options: object) -> list[np.ndarray]:
    """Writes an animation with Pillow; the frames (H, W, 4) as they are shown, of odd sides."""
    frames = []
    y, x = np.mgrid[:31, :45]
    for number in range(5):
        alpha = np.where((x // 8 + number) % 3 == 0, 0, 255) if transparent else np.full_like(x, 255)
        frames.append(np.stack([x // 9 * 50, y // 8 * 60, np.full_like(x, number * 50), alpha], -1).astype(np.uint8))
    first, *others = (Image.fromarray(frame if transparent else frame[..., :3]) for frame in frames)
    how = {".gif": {"disposal": 2 * transparent}, ".webp": {"lossless": True, "exact": True}}
    options = {"duration": DURATIONS, "loop": 0, **how.get(path.suffix, {}), **options}
    first.save(path, save_all=True, append_images=others, **options)
    return frames


def shown(path: Path) -> tuple[list[np.ndarray], list[float], int | None]:
    """(frames (H, W, 4), their durations in ms, Pillow's loop) of an animation."""
    with Image.open(path) as image:
        frames = [
            (np.asarray(f.convert("RGBA")).astype(int), f.info["duration"]) for f in ImageSequence.Iterator(image)
        ]
        return [rgba for rgba, _ in frames], [duration for _, duration in frames], image.info.get("loop")


@pytest.mark.parametrize("source", ["a.gif", "a.webp", "a.png"])
@pytest.mark.parametrize("out, tolerance", [("b.gif", 0), ("b.webp", 6), ("b.png", 0), ("b.apng", 0)])
def test_an_animation_keeps_its_times_its_transparency_and_its_loop(tmp_path, source, out, tolerance):
    frames = animated(tmp_path / source, loop=2 if source.endswith("gif") else 3)
    written = paint_video(tmp_path / source, tmp_path / out, invert, batch=2, animation=True)
    assert (written.width, written.height, written.frames, written.note) == (45, 31, 5, "")
    after, durations, loop = shown(tmp_path / out)
    assert durations == DURATIONS and loop == (2 if out.endswith("gif") else 3)  # a GIF counts repetitions
    for before, painting in zip(frames, after, strict=True):
        assert (painting[..., 3] == before[..., 3]).all()
        seen = before[..., 3] > 0
        assert np.abs(painting[seen][:, :3] - (255 - before[seen][:, :3].astype(int))).mean() <= tolerance
    assert not list(tmp_path.glob(".*"))


def test_an_animation_that_is_shown_once_or_for_ever_stays_so(tmp_path):
    animated(tmp_path / "once.gif", False, loop=None, duration=[0, 10, 20, 30, 0])
    animated(tmp_path / "ever.png", False, loop=0)
    for source, loops in (("once.gif", (None, 1, 1)), ("ever.png", (0, 0, 0))):
        for suffix, loop in zip(("gif", "webp", "png"), loops, strict=True):
            paint_video(tmp_path / source, tmp_path / f"b.{suffix}", same, animation=True)
            _, durations, found = shown(tmp_path / f"b.{suffix}")
            assert found == loop
            # What no browser shows so briefly gets the time that they give it.
            assert durations == ([100, 100, 20, 30, 100] if source == "once.gif" else DURATIONS)


def test_frames_of_a_gif_are_painted_as_they_are_shown(tmp_path):
    """Which store only what changes, and leave or clear what was there before."""
    canvas = Image.new("P", (40, 30), 0)
    canvas.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    patch = canvas.copy()
    patch.paste(1, (5, 5, 15, 15))
    last = patch.copy()
    last.paste(2, (20, 10, 30, 20))
    canvas.save(tmp_path / "a.gif", save_all=True, append_images=[patch, last], duration=100, loop=0)
    assert b"\x05\x00\x05\x00" in (tmp_path / "a.gif").read_bytes()  # the place of a part
    given = []
    paint_video(tmp_path / "a.gif", tmp_path / "b.gif", lambda rgb: given.extend(rgb.copy()) or rgb, animation=True)
    for image, rgb in zip((canvas, patch, last), given, strict=True):
        assert (rgb == np.asarray(image.convert("RGB"))).all()


def test_an_animation_becomes_a_video_on_white(tmp_path):
    frames = animated(tmp_path / "a.gif")
    written = paint_video(tmp_path / "a.gif", tmp_path / "b.mp4", invert, animation=True)
    assert (written.width, written.height, written.note) == (46, 32, "")
    after, times = read(tmp_path / "b.mp4")
    assert times == pytest.approx([0, 0.1, 0.15, 0.35, 0.38])
    for before, painting in zip(frames, after, strict=True):
        expected = laid_on(255 - before[..., :3], before[..., 3], "white")
        assert np.abs(painting[:31, :45].astype(int) - expected).mean() < 12  # the colours of pixels are halved
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert float(file.streams.video[0].duration * file.streams.video[0].time_base) == pytest.approx(1.15)


@pytest.mark.parametrize("out", ["b.gif", "b.webp", "b.png"])
def test_a_video_becomes_an_animation_without_its_sound_and_says_so(tmp_path, out):
    source = make_video(tmp_path / "a.mp4", greys(6), sound="aac")
    written = paint_video(source, tmp_path / out, invert)
    assert written.note == f"{tmp_path / out} has no sound: it cannot hold any"
    after, durations, loop = shown(tmp_path / out)
    assert durations == [40] * 6 and loop == 0
    for before, painting in zip(read(source)[0], after, strict=True):
        assert np.abs(painting[..., :3] - (255 - before.astype(int))).max() <= 4


def test_an_animation_has_50_frames_a_second_at_most(tmp_path):
    source = make_video(tmp_path / "a.mkv", greys(12), times=list(range(0, 120, 10)), time_base=Fraction(1, 1000))
    given = []
    written = paint_video(source, tmp_path / "b.gif", lambda rgb: given.extend(rgb) or rgb)
    assert len(given) == 6 and written.note.endswith("b.gif shows 50 frames a second at most: 6 of 12 are left out")
    assert shown(tmp_path / "b.gif")[1][:5] == [20] * 5


def test_of_an_animation_that_is_cut_short_the_rest_is_painted_and_said_so(tmp_path):
    for name in ("a.gif", "a.png"):
        rng = np.random.default_rng(0)
        first, *others = (Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)) for _ in range(8))
        first.save(tmp_path / name, save_all=True, append_images=others, duration=100)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        written = paint_video(tmp_path / name, tmp_path / "b.webp", invert, animation=True)
        assert 2 <= written.frames <= 6
        assert written.note.startswith(f"{tmp_path / name} is damaged or cut short: painted are the {written.frames} ")


@pytest.mark.parametrize("colors, alpha", [(1, False), (300, False), (300, True)])
def test_the_palette_of_a_gif_frame(colors, alpha):
    rgb = np.random.default_rng(0).integers(0, 256, (colors, 3), np.uint8)[np.arange(900) % colors].reshape(30, 30, 3)
    opacity = np.where(np.arange(900) < 450, 127, 128).astype(np.uint8).reshape(30, 30) if alpha else None
    numbers, palette = to_palette(rgb, opacity)
    found = palette[numbers]
    assert (found[..., 0] == (255 if opacity is None else np.where(opacity < 128, 0, 255))).all()
    seen = found[..., 0] > 0
    assert np.abs(found[seen][:, 1:].astype(int) - rgb[seen]).mean() < (1 if colors == 1 else 20)
