"""The names and shapes of the datasets, apart from all that is slow to import."""

DATASETS = ("mnist", "cifar10", "svhn")
# (channels, height, width), as every loader of these datasets returns them.
IMAGE_SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}
CLASSES = 10
# What a label stands for, where it is not the digit itself.
CLASS_NAMES = {
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )
}  # fmt: skip
