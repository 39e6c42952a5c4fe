"""The sheet shows the views that a run would train on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from noneg.commands.views import write_sheet
from noneg.errors import NonegError
from noneg.training.config import make_config
from noneg.views import draw_views

GAP, TITLE = 4, 16


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8))
    return path


def test_each_row_is_an_image_and_the_views_of_a_run(images: Path, tmp_path: Path) -> None:
    config = make_config(str(images), views="byol", seed=3, view_size=32)
    sentence = write_sheet(tmp_path / "sheet.png", config, images=2, epochs=2)
    assert sentence.startswith("2 images of the file")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    pixels = torch.from_numpy(np.load(images)[[0, 199]]).permute(0, 3, 1, 2).contiguous()
    columns = [pixels]
    for epoch in range(2):
        views = draw_views(
            pixels,
            torch.tensor([0, 199]),
            config.policy(32),
            size=32,
            seed=3,
            epoch=epoch,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
        )
        columns += [(255 * view).round().to(torch.uint8) for view in views]
    assert sheet.shape == (TITLE + GAP + 2 * 100, 5 * 100 + GAP, 3)
    for row in range(2):
        for number, column in enumerate(columns):
            top, left = TITLE + GAP + 100 * row, GAP + 100 * number
            shown = sheet[top : top + 96 : 3, left : left + 96 : 3]
            assert np.array_equal(shown, column[row].permute(1, 2, 0).numpy())


def test_images_of_one_or_many_channels_are_shown_in_gray(tmp_path: Path) -> None:
    for channels in (1, 5):
        pixels = np.random.default_rng(0).integers(0, 256, (80, 9, 9, channels), dtype=np.uint8)
        np.save(tmp_path / "images.npy", pixels)
        config = make_config(str(tmp_path / "images.npy"), size=16)
        write_sheet(tmp_path / "sheet.png", config, images=3, epochs=1)
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert (sheet[TITLE:].max(axis=2) == sheet[TITLE:].min(axis=2)).all()


def test_a_sheet_that_cannot_be_written_gives_one_sentence(images: Path, tmp_path: Path) -> None:
    config = make_config(str(images))
    with pytest.raises(NonegError, match="cannot be written"):
        write_sheet(tmp_path / "nowhere" / "sheet.png", config)
    with pytest.raises(NonegError, match="0 images"):
        write_sheet(tmp_path / "sheet.png", config, images=0)
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(3):
        (broken / f"{number}.png").write_text("not an image")
    with pytest.raises(NonegError, match="can be read"):
        write_sheet(tmp_path / "sheet.png", make_config(str(broken), size=32, channels=3))
