"""The colour images of the results, made from a font of two pictures and a list of four emoji."""

import io
import pathlib
import runpy
import subprocess
import sys

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.ttLib import TTFont, newTable
from fontTools.ttLib.tables.C_B_D_T_ import cbdt_bitmap_format_18
from PIL import Image

SCRIPT = pathlib.Path(__file__).parents[2] / "docs" / "emoji_images.py"
EMOJI_TEST = """# group: Smileys & Emotion
1F600 ; fully-qualified # face
263A FE0F ; fully-qualified # needs a picture that the font lacks
263A ; unqualified # the same
# group: Flags
1F1E8 1F1ED ; fully-qualified # a ligature
1F1E8 1F600 ; fully-qualified # two pictures side by side
"""


def _font() -> TTFont:
    """A font with a red, half transparent face of 8 x 4 pixels, and a blue flag, which is a ligature of two letters without pictures."""
    names = [".notdef", "face", "C", "H", "flag"]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x1F600: "face", 0x1F1E8: "C", 0x1F1ED: "H"})
    builder.addOpenTypeFeatures("feature liga { sub C H by flag; } liga;")
    substitutions = newTable("GSUB")  # as it is read from a file: what is built holds ligatures in another form
    substitutions.decompile(builder.font["GSUB"].compile(builder.font), builder.font)
    builder.font["GSUB"] = substitutions
    table = newTable("CBDT")
    table.strikeData = [{}]
    for name, colour in {"face": (255, 0, 0, 128), "flag": (0, 0, 255, 255)}.items():
        file = io.BytesIO()
        Image.new("RGBA", (8, 4), colour).save(file, "PNG")
        table.strikeData[0][name] = cbdt_bitmap_format_18(b"", builder.font)
        table.strikeData[0][name].imageData = file.getvalue()
    builder.font["CBDT"] = table
    return builder.font


def test_each_emoji_that_is_one_picture_becomes_an_image_on_white_in_the_folder_of_its_group(tmp_path: pathlib.Path) -> None:
    written = runpy.run_path(str(SCRIPT))["write"](_font(), EMOJI_TEST, tmp_path, side=8)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert found == ["flags/1f1e8_1f1ed.png", "smileys_and_emotion/1f600.png"]
    assert written == len(found)
    face = np.asarray(Image.open(tmp_path / "smileys_and_emotion" / "1f600.png"))
    assert face.shape == (8, 8, 3)
    assert face[0].tolist() == [[255, 255, 255]] * 8  # padded to a square, in white
    assert face[4].tolist() == [[255, 127, 127]] * 8  # half red, half of the white below


def test_a_missing_font_and_a_folder_that_is_there_end_in_one_line_with_the_remedy(tmp_path: pathlib.Path) -> None:
    def told(*words: str) -> str:
        done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        return line

    assert "apt-get install fonts-noto-color-emoji unicode-data" in told(str(tmp_path / "out"), f"--font={tmp_path / 'none.ttf'}")
    assert "is there already" in told(str(tmp_path), f"--font={SCRIPT}", f"--emoji-test={SCRIPT}")
