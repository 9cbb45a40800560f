"""Data sets given as objects: tensors, torch data sets and loaders, Hugging Face data sets, and those that change."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

from smoothcert.data import load_data
from smoothcert.errors import CodeError, DataError, InputError

IMAGES = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
PAIR = TensorDataset(IMAGES, LABELS)


class Counted(Dataset):
    """Counts how often an item is read."""

    classes = ("cat", "dog", "eel", "fox")

    def __init__(self):
        self.read, self.targets = [], LABELS.tolist()

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.read.append(index)
        return IMAGES[index], self.targets[index]


class Jittered(Counted):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image * torch.rand(()), label


@pytest.mark.parametrize("given", [
    (IMAGES, LABELS), (IMAGES.numpy(), LABELS.tolist()), PAIR, DataLoader(PAIR, 4), DataLoader(PAIR, 2, shuffle=True),
    Subset(PAIR, range(6)), list(zip(IMAGES, LABELS, strict=True)),
    [{"image": image, "label": label} for image, label in zip(IMAGES, LABELS, strict=True)], lambda: PAIR,
], ids=["tensors", "arrays", "dataset", "loader", "shuffled", "subset", "pairs", "dicts", "function"])
def test_the_same_images_are_the_same_data_in_whatever_they_come(given):
    data, wanted = load_data(given), load_data((IMAGES, LABELS))
    assert data.fingerprint(range(6)) == wanted.fingerprint(range(6))
    assert data.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(data.batch([4, 1]), IMAGES[[4, 1]].numpy())


def test_image_data_stay_what_they_are():
    digits = load_data("digits")
    assert load_data(digits).fingerprint([0, 1]) == digits.fingerprint([0, 1])
    assert (load_data(digits).name, load_data(digits).split) == ("digits", "test")


def test_containers_have_the_name_of_what_they_hold():
    assert load_data(PAIR).name == load_data((IMAGES, LABELS)).name == "tensors"
    assert load_data(DataLoader(Subset(Counted(), [0, 1]))).name == "Counted"


def test_items_are_read_when_they_are_used():
    items = Counted()
    data = load_data(items)
    assert set(items.read) == {0, 3, 5}  # tried twice; the labels are listed
    assert data.class_names == ("cat", "dog", "eel", "fox")
    data.image(1)
    assert items.read[-1] == 1


def test_an_item_that_changes_is_refused():
    with pytest.raises(DataError, match="another image when it is read again"):
        load_data(Jittered())
    items = Counted()
    data = load_data(items)
    data.image(1)
    items.targets[1] = 2
    with pytest.raises(DataError, match="item 1 of Counted has the label 2"):
        data.image(1)


def test_pil_images_are_resized_like_files():
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    pairs = [(Image.fromarray(pixels), 0), (Image.fromarray(pixels[..., 0]), 1)]
    data = load_data(pairs)
    assert data.shape == (3, 6, 8)
    np.testing.assert_array_equal(data.image(0), pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert load_data(pairs, resize=4, crop=4).shape == (3, 4, 4)


class Broken(Counted):
    def __getitem__(self, index):
        raise OSError("no disk")


@pytest.mark.parametrize(("given", "error", "words"), [
    (3, InputError, "map-style torch Dataset"),
    ([], InputError, "hold no images"),
    (Broken(), CodeError, "item 0 of Broken cannot be read: OSError: no disk"),
    (TensorDataset(IMAGES * 2 - 1, LABELS), DataError, "put a normalisation into the model"),
    (TensorDataset(IMAGES.permute(0, 2, 3, 1), LABELS), InputError, "looks like"),
    (DataLoader(PAIR, sampler=SubsetRandomSampler([1])), InputError, "does not give each item once"),
    (DataLoader(PAIR, collate_fn=lambda items: items), InputError, "a function of its own"),
    ([{"pixels": 1}], InputError, "has the keys pixels"),
    ([(IMAGES[0], 0), (IMAGES[0, :, 1:], 1)], DataError, "item 1 of tensors is float32 of shape"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_data_set_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        load_data(given)


def test_a_hugging_face_data_set_keeps_its_class_names():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(np.full((4, 4, 3), shade, np.uint8)) for shade in (0, 50, 100)]
    given = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1]}, features=features)
    data = load_data(datasets.DatasetDict({"test": given}))
    assert (data.class_names, data.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
    assert data.image(1).max() == np.float32(50) / np.float32(255)
    turned = load_data(given.with_transform(lambda rows: rows))
    assert (turned.class_names, turned.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
