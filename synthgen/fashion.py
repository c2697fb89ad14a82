"""What a Fashion-MNIST image is (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

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
