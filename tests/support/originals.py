"""MNIST and CIFAR-10 in the formats of their authors, as bytes."""

import struct

import numpy as np


def idx(values) -> bytes:
    array = np.asarray(values, dtype=np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def python2_pickle(images: np.ndarray, labels: list[int], kind: bytes = b"u1") -> bytes:
    """Return what Python 2 wrote with protocol 2, where text is bytes: the form of the published batches."""
    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    rows = images.reshape(len(images), -1)
    array = (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
             + b"(K\x01" + number(len(rows)) + number(rows.shape[1]) + b"\x86cnumpy\ndtype\n" + text(kind)
             + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN" + number(-1) + number(-1) + b"K\x00tb\x89"
             + text(rows.tobytes()) + b"tb")
    return (b"\x80\x02}(" + text(b"batch_label") + text(b"testing batch 1 of 1") + text(b"labels") + b"]("
            + b"".join(map(number, labels)) + b"e" + text(b"data") + array + b"u.")


def binary(images: np.ndarray, labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))
