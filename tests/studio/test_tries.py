"""Photos that are tried in the studio, whatever their shape."""

import io
from pathlib import Path

from PIL import Image

from colour_model import colour_model
from headstart.studio.tries import SHOWN_PX, Tries, picture


def test_a_photo_longer_than_a_jpeg_can_be_is_shown_with_its_heat_map(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (70_000, 2), "red").save(file, "PNG")
    tries = Tries()
    tried = tries.ask(colour_model(tmp_path / "model"), file.getvalue())
    assert tried.answer.label == "red"
    shown, heat = (Image.open(io.BytesIO(one)) for one in (picture(tried.content, SHOWN_PX), tries.heat_map(tried)))
    assert shown.size == heat.size == (3840, 1)
