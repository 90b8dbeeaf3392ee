"""What the first bytes of a file show: its format, and the duration that the header states.

Headers are written before the audio, so an interrupted download still states the whole duration.
"""

import io
from typing import BinaryIO

HEAD = 1 << 16  # bytes that contain the header of an audio file
# Of a file that was written to a pipe: 0, or the largest number, or what its own header leaves of
# that: a browser's microphone, of which Gradio sends a WAV a piece, states 0xFFFFFFD3.
LARGEST_SIZES, LONGEST_HEADER = (0x7FFFFFFF, 0xFFFFFFFF), 4096
# For formats made of chunks: where the first one begins, bytes of its name and its size, byte
# order, whether the size includes them, multiples to which chunks are padded, name of the audio.
CHUNKS = {
    b"RIFF": (12, 4, 4, "little", False, 2, b"data"),
    b"FORM": (12, 4, 4, "big", False, 2, b"SSND"),
    b"caff": (8, 4, 8, "big", False, 1, b"data"),
    b"riff": (40, 16, 8, "little", True, 8, b"data"),  # Sony's W64
}
# What people have instead of audio, and audio, by its first bytes.
INSTEAD = {
    b"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull` where it came from",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"#extm3u": "a playlist: name the file that it leads to",
    b"ffconcat": "a playlist: name the file that it leads to",
    b"pk\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"%pdf": "a PDF, not sound",
}
KINDS = {
    b"riff": "WAV or AVI",
    b"flac": "FLAC",
    b"oggs": "Ogg",
    b"id3": "MP3 or AAC with ID3 tags",
    b"\xff\xfb": "MP3",
    b"\xff\xf1": "AAC",
    b"#!amr": "AMR",
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"\x30\x26\xb2\x75": "WMA",
    b"form": "AIFF",
    b"caff": "CAF",
}


def read_head(file: BinaryIO) -> bytes:
    """Return the first bytes of a file, after its ID3v2 tag if it has one."""
    file.seek(0)
    head = file.read(HEAD)
    if head[:3] == b"ID3" and len(head) > 10:
        # Four bytes of seven bits each; a cover picture may have megabytes.
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + size)
        head = file.read(HEAD)
    return head


def _named(head: bytes, kinds: dict[bytes, str]) -> str:
    low = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    return next((kind for mark, kind in kinds.items() if low.startswith(mark)), "")


def what_instead(head: bytes) -> str:
    """Return what a file is if it is not audio, and what to do; "" if it may be audio."""
    if not head.strip(b"\0"):
        return "nothing but zeros: copy it again" if head else "an empty file: copy it again"
    return _named(head, INSTEAD)


def kind_of(head: bytes) -> str:
    """Return the format of a file, in words, by its first bytes."""
    if head[4:8] == b"ftyp":
        return "MP4 or M4A"
    is_text = head[:200].isascii() and b"\0" not in head[:200]
    return _named(head, KINDS) or ("text" if is_text else "a format")


def promises_length(head: bytes) -> bool:
    """Return whether the duration that a decoder gets from a header was stored there.

    Without a Xing, Info or VBRI tag, the duration of an MP3 is guessed from its first frame: 25 s
    with a variable bit rate became 36 s (libsndfile 1.2.2).
    """
    is_mp3 = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4, 0xE6)
    return not is_mp3 or any(tag in head[:4096] for tag in (b"Xing", b"Info", b"VBRI"))


def has_constant_rate(file: BinaryIO, samples: int) -> bool:
    """Return whether an MP3 without a tag has about as many frames as a guess of its length says.

    The guess is made from the first frame's bit rate. If later ones have a lower one, it is too
    short, and libsndfile reads no further: 6 of 21 s.

    Args:
        file: of an MP3.
        samples: the guess.
    """
    place = file.tell()  # from which a decoder goes on
    first = read_head(file)[:3]
    padded = first[:2] + bytes([first[2] ^ 0x02])
    is_short = first[1] & 0x0E == 0x02  # layer III of MPEG 2
    file.seek(0)
    data = file.read()
    file.seek(place)
    return data.count(first) + data.count(padded) > 0.9 * samples / (576 if is_short else 1152)


def missing_share(file: BinaryIO) -> float:
    """Return the share of its audio that a file lacks, by its own header; 0 if unknown.

    For a truncated WAV, libsndfile silently reports only the duration that is left.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b"OggS"):
        return _missing_of_ogg(file, size)
    if head.startswith(b".snd"):
        begins, promised = (int.from_bytes(head[i : i + 4], "big") for i in (4, 8))
        return _missing(begins, promised, size)
    if head[:4] not in CHUNKS:
        return 0.0
    at, name_bytes, size_bytes, order, counts_itself, multiple, sound = CHUNKS[head[:4]]
    while at + name_bytes + size_bytes <= len(head):
        begins = at + name_bytes + size_bytes
        length = int.from_bytes(head[at + name_bytes : begins], order)
        length -= (name_bytes + size_bytes) if counts_itself else 0
        if head[at : at + len(sound)] == sound:
            return _missing(begins, length, size)
        at = begins + length + -length % multiple
        if length < 0:
            break
    return 0.0


def _missing(begins: int, promised: int, size: int) -> float:
    is_unknown = any(0 <= largest - promised <= LONGEST_HEADER for largest in LARGEST_SIZES)
    if is_unknown or not 0 < promised < 1 << 62:
        return 0.0
    return max(0.0, 1 - (size - begins) / promised)


def _missing_of_ogg(file: BinaryIO, size: int) -> float:
    """Return 1 if the last page of an Ogg file is incomplete: how much is missing is unknown."""
    file.seek(max(0, size - HEAD - 282))  # the largest size of a page
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return 0.0
    page = tail[at:]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(segments) == page[26]
    return 0.0 if whole and len(page) >= 27 + page[26] + sum(segments) else 1.0
