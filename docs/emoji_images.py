"""Makes the colour images of docs/results.md: emoji of a font, 32 x 32 x 3, in a folder for each of Unicode's groups.

    apt-get install fonts-noto-color-emoji unicode-data        # Debian; the images under the SIL Open Font License 1.1
    python docs/emoji_images.py emoji                          # 3,600 images, some seconds
    python -m experiments.oracle_sweep --config.data.path=emoji

Each fully qualified emoji of emoji-test.txt that is one picture of the font is written as GROUP/CODE_POINTS.png: the picture on white,
padded to a square, resized by Pillow's Lanczos filter. Skin tones, genders and flags of one shape are near-duplicates of each other.
"""

import argparse
import io
import pathlib
import sys
from collections.abc import Iterator

from fontTools.ttLib import TTFont
from PIL import Image

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
VARIATION_SELECTOR = 0xFE0F
"""Asks for the coloured form of a character; the font has no picture for it."""


def sequences(text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Group and code points of every fully qualified emoji of an emoji-test.txt, in its order."""
    group = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").lower().replace(" & ", "_and_").replace(" ", "_")
        codes, _, rest = line.partition(";")
        if rest.split("#")[0].strip() == "fully-qualified":
            yield group, tuple(int(code, 16) for code in codes.split())


def glyph_of(font: TTFont, codes: tuple[int, ...]) -> str | None:
    """The glyph that shows a sequence of code points: its own, or the ligature of theirs. None: it takes several glyphs."""
    characters = font["cmap"].getBestCmap()
    names = [characters.get(code) for code in codes if code != VARIATION_SELECTOR]
    if None in names:
        return None
    if len(names) == 1:
        return names[0]
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for ligature in getattr(table, "ligatures", {}).get(names[0], ()):
                if ligature.Component == names[1:]:
                    return str(ligature.LigGlyph)
    return None


def on_white(png: bytes, side: int) -> Image.Image:
    """A picture with transparency as a square RGB image on white."""
    picture = Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA")
    whole = max(picture.size)
    square = Image.new("RGBA", (whole, whole), "white")
    square.alpha_composite(picture, ((whole - picture.width) // 2, (whole - picture.height) // 2))
    return square.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def write(font: TTFont, text: str, out: pathlib.Path, side: int) -> int:
    """Write the images into folders of `out`; returns how many."""
    pictures = font["CBDT"].strikeData[0]
    written = 0
    for group, codes in sequences(text):
        glyph = glyph_of(font, codes)
        if glyph in pictures and hasattr(pictures[glyph], "imageData"):
            folder = out / group
            folder.mkdir(parents=True, exist_ok=True)
            on_white(pictures[glyph].imageData, side).save(folder / ("_".join(f"{code:04x}" for code in codes) + ".png"))
            written += 1
    return written


def main() -> int:
    """Write the folder; 1 where a file is missing or the folder is there."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("out", type=pathlib.Path, help="folder to make")
    flags.add_argument("--font", type=pathlib.Path, default=pathlib.Path(FONT), help="a font with coloured bitmaps (CBDT)")
    flags.add_argument("--emoji-test", type=pathlib.Path, default=pathlib.Path(EMOJI_TEST), help="Unicode's list of emoji and groups")
    flags.add_argument("--side", type=int, default=32, help="of the images, in pixels")
    given = flags.parse_args()
    missing = next((file for file in (given.font, given.emoji_test) if not file.is_file()), None)
    if missing is not None:
        print(f"emoji_images: {missing}: no such file; apt-get install fonts-noto-color-emoji unicode-data, or name yours", file=sys.stderr)
        return 1
    if given.out.exists():
        print(f"emoji_images: {given.out}: is there already; remove it, or name another folder", file=sys.stderr)
        return 1
    written = write(TTFont(given.font), given.emoji_test.read_text(encoding="utf-8"), given.out, given.side)
    print(f"{written:,} images {given.side} x {given.side} x 3 in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
