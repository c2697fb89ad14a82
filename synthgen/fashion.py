"""What a Fashion-MNIST image is (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]  # shape (N, 28, 28), 0 to 255
Labels = npt.NDArray[np.uint8]  # shape (N,), 0 to 9

IMAGE_SIDE = 28  # pixels
PIXELS = IMAGE_SIDE * IMAGE_SIDE
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NUM_CLASSES = len(CLASS_NAMES)
UNLABELLED = 255  # stands for "no label" wherever a label byte is digested


def class_folder(label: int) -> str:
    """The folder of a class in an image tree, such as ``0_t-shirt-top``: sorted order is label order."""
    name = CLASS_NAMES[label].lower().replace("/", "-").replace(" ", "-")
    return f"{label}_{name}"
