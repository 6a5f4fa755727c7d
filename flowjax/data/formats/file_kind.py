"""The kind of a file, by its first bytes, for error messages."""

import pathlib

_HEAD = 64  # bytes
_KINDS = (
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"%!PS", "an EPS or PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"\0\5\26\7", "a resource file of macOS (._NAME)"),
    (b"version https://git-lfs", "a Git LFS pointer, whose file was not fetched (git lfs pull)"),
    (b"\x80", "a pickle of Python objects"),
)


def kind_of(head: bytes) -> str:
    """A file's kind in a few words, from its first bytes: "a PNG image", "text that begins with 'cat'", "empty"."""
    if not head:
        return "empty"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP image"
    lines = head[:_HEAD].decode("utf-8", "replace").splitlines()
    if lines and lines[0].isprintable() and "\ufffd" not in lines[0]:
        return f"text that begins with {lines[0][:24]!r}"
    return "of an unknown format"


def kind_of_file(path: pathlib.Path) -> str:
    """`kind_of` the beginning of a file.

    Raises:
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return kind_of(file.read(_HEAD))
