import numpy as np
from PIL import Image

from synthgen.model.pictures import contact_sheet, save_contact_sheet


def test_images_stand_row_by_row_with_a_gap():
    images = np.stack([np.full((28, 28), 10 * i, np.uint8) for i in range(5)])
    sheet = np.asarray(contact_sheet(images, columns=3, zoom=1))
    assert sheet.shape == (2 * 29 + 1, 3 * 29 + 1)
    for i in range(5):
        top, left = i // 3 * 29 + 1, i % 3 * 29 + 1
        assert (sheet[top : top + 28, left : left + 28] == 10 * i).all()
    assert (sheet[0] == 255).all()
    assert (sheet[30:, 59:] == 255).all()  # the sixth place is empty


def test_a_sheet_is_saved_as_png(tmp_path):
    save_contact_sheet(tmp_path / "sheet.png", np.zeros((4, 28, 28), np.uint8), columns=2)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (118, 118)
