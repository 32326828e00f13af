"""The names and shapes of the datasets, apart from all that is slow to import."""

DATASETS = ("mnist", "cifar10", "svhn")
# (channels, height, width), as every loader of these datasets returns them.
IMAGE_SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "svhn": (3, 32, 32)}
CLASSES = 10
