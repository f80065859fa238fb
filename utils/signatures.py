"""What a file is by its first bytes, where Pillow does not know it: a video, or what people take for a picture."""

import re

HEAD = 4096  # bytes of a file that `recognize` wants
VIDEO = "is a video, not a picture"
EXPORT = "which cannot be read: save it as JPEG or PNG"
RAW = "is a camera's raw file, which cannot be read: export it as JPEG or TIFF from the camera's program"
RAW_SUFFIXES = frozenset(".3fr .arw .cr2 .cr3 .dng .iiq .nef .nrw .orf .pef .raf .rw2 .srw".split())
PICTURE_BRANDS = b"heic heix heim heis hevc hevx mif1 mif2 msf1 miaf avif avis".split()  # of ISO's container

# In this order: the first that matches is it. `.` is any byte.
SIGNATURES = tuple(
    (re.compile(pattern, re.DOTALL), what)
    for pattern, what in (
        (rb"....ftypcrx |II\*\0....CR|FUJIFILMCCD-RAW|II(RO|RS|U\0)|MMOR", RAW),
        (rb"....(ftyp(?!" + b"|".join(PICTURE_BRANDS) + rb")|moov|mdat|wide)", VIDEO),  # MP4, QuickTime
        (rb"\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01|OggS", VIDEO),  # Matroska and WebM, AVI, Flash, Ogg
        (rb"\0\0\x01[\xba\xb3]|\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47", VIDEO),  # MPEG: PS, TS, M2TS
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", VIDEO),  # Windows Media
        (rb"\xff\x0a|\0\0\0\x0cJXL ", f"is JPEG XL, {EXPORT}"),
        (rb"8BPS", f"is a Photoshop file, {EXPORT}"),
        (rb"gimp xcf", f"is a GIMP file, {EXPORT}"),
        (rb"%PDF", f"is a PDF, {EXPORT}"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", f"is PostScript, {EXPORT}"),
        (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html)", "is a web page, not a picture: download the picture itself"),
        (rb"version https://git-lfs", "is only a pointer of Git LFS: fetch the picture itself by git lfs pull"),
        (rb"(\xef\xbb\xbf)?\s*<(.*<)?svg\b", f"is a drawing (SVG), {EXPORT}"),
    )
)


def recognize(head: bytes) -> str:
    """What to say of a file that begins with these bytes, as in "is JPEG XL, …"; empty if they are not known."""
    return next((what for pattern, what in SIGNATURES if pattern.match(head)), "")
