"""The names of the datasets, apart from all that is slow to import."""

DATASETS = ("mnist", "cifar10", "svhn")
