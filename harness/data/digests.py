"""What the content of each dataset must be: published digests, and the stand-ins' pinned ones.

Content is checked, never the container: MNIST by the gunzipped bytes, CIFAR-10 by a digest that
does not depend on the order of its records, SVHN by its files (the stand-in's by its arrays).
"""

import hashlib
from pathlib import Path

import numpy as np

from harness.data.formats import Images, Pixels

# Key: the unit that is checked (an IDX file, a set of CIFAR-10 records, a .mat file).
OFFICIAL: dict[str, dict[str, str]] = {
    "mnist": {  # md5 of the gunzipped file
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "cifar10": {  # records_digest
        "train": "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
        "test": "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
    },
    "svhn": {  # md5 of the file
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    },
}

# Of the stand-ins that `bnn data standin` writes; SVHN by images_digest.
STANDIN: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": "5db8794a35577ca417a8be2dceb8fc12",
        "train-labels-idx1-ubyte": "7d0512d74b432b3caf26e93200701157",
        "t10k-images-idx3-ubyte": "2bd55c28b4c1a7e3021525d9634e085b",
        "t10k-labels-idx1-ubyte": "4cad174947cc60ba30702a2fa61770e7",
    },
    "cifar10": {
        "train": "4934518f73aaf1194a3d751b1829cda156ba75278db4885f05393ae0ae543362",
        "test": "c782888b10a7ada4521863d3d84066b8720e58f73d4716de8b367e9ce2ef8220",
    },
    "svhn": {
        "train_32x32.mat": "7470f92768ce97a96b98592f3c180c1bdf6e7a1e8b584736ce9394696bd64108",
        "test_32x32.mat": "7fb878efea8ae5b3f4e1301cce4a2d34b4c315cb90d30a61ca33dbf420d87376",
        "extra_32x32.mat": "edf3aabc339d89adc5116e4fb63c93913a00677e304683c1b33b63423487a91c",
    },
}

# images_digest of the CIFAR-10 stand-in: unlike records_digest, it depends on the order.
CIFAR_STANDIN_ORDER = {
    "train": "c847af71ae7c80d914f6431c926d01daeaaff77bd90454f16905ada75de8808b",
    "test": "3354ce03b199625986371a1d10e4522e19a419aac6fb581db628a3d7ebb3fb9c",
}

SVHN_BYTES = {
    "train_32x32.mat": 182_040_794,
    "test_32x32.mat": 64_275_384,
    "extra_32x32.mat": 1_329_278_602,
}

CIFAR_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
# The first labels of the publisher's data_batch_1.bin and test_batch.bin.
CIFAR_FIRST_LABELS = {
    "train": (6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
    "test": (3, 8, 8, 0, 6, 6, 1, 6, 3, 1),
}


def records_digest(records: Pixels) -> str:
    """Return SHA-256 over the sorted SHA-256 digests of the rows of ``records`` (uint8 [n, 3073]).

    The same records in any order have the same digest.
    """
    whole = np.ascontiguousarray(records).data.cast("B")
    width = records.shape[1]
    rows = (whole[i : i + width] for i in range(0, len(whole), width))
    return hashlib.sha256(
        b"".join(sorted(hashlib.sha256(row).digest() for row in rows))
    ).hexdigest()


def images_digest(images: Images) -> str:
    """Return SHA-256 over the labels (one byte each), then the pixels in [n, c, h, w] order."""
    digest = hashlib.sha256(images.labels.astype(np.uint8).tobytes())
    digest.update(images.pixels.data)
    return digest.hexdigest()


def md5_file(path: Path) -> str:
    """Return the hexadecimal MD5 of a file's bytes, the digest that the publishers give."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_bytes(data: bytes) -> str:
    """Return the hexadecimal MD5 of ``data``."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def combined_digest(digests: dict[str, str]) -> str:
    """Return one SHA-256 over ``{unit: digest}``, whatever the order of the keys."""
    lines = "".join(f"{unit} {digest}\n" for unit, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
