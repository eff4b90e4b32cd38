"""Images: the digits of scikit-learn, the sets of torchvision, and folders of files."""

from __future__ import annotations

__all__ = [
    "IMAGES",
    "IMAGE_SETS",
    "has_own_split",
    "read_digits",
    "read_folders",
    "read_stack",
    "read_torchvision",
]

import inspect
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dataset import Dataset, Split, channels_first, checked, resized

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")

# torchvision's sets for detection, flow, stereo, captions and video are not rows of images.
IMAGE_SETS = (
    *("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS", "SEMEION", "Omniglot"),
    *("CIFAR10", "CIFAR100", "SVHN", "STL10", "CelebA", "LFWPeople", "EuroSAT", "PCAM"),
    *("Caltech101", "Caltech256", "CLEVRClassification", "Country211", "DTD", "FER2013"),
    *("FGVCAircraft", "Flowers102", "Food101", "GTSRB", "ImageNet", "Imagenette"),
    *("OxfordIIITPet", "Places365", "RenderedSST2", "StanfordCars", "SUN397"),
)
_SPLIT_NAMES = {
    "CLEVRClassification": ("train", "val"),
    "FGVCAircraft": ("trainval", "test"),
    "ImageNet": ("train", "val"),
    "Imagenette": ("train", "val"),
    "OxfordIIITPet": ("trainval", "test"),
    "Places365": ("train-standard", "val"),
}
_ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
}
# White of 16 bits, and the part of it that cameras of 12 bits reach.
_DEEP, _DARK = 65_535, 4096 / 65_535
_EXTRA_ARGUMENTS = {"EMNIST": {"split": "balanced"}, "CelebA": {"target_type": "identity"}}


def read_digits() -> Dataset:
    """Read scikit-learn's 8x8 digits, as numbers in [0, 1]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.from_numpy(digits.images / 16).float()  # (row, 8, 8)
    return Dataset("digits", x, digits.target, None, "scikit-learn's load_digits, 0..16 over 16")


def read_torchvision(kind: Any, root: Path, split: Split, image_size: int | None) -> Dataset:
    """Read a set of torchvision, downloaded if need be; a split of None is all of its rows."""
    name, parameters = kind.__name__, _parameters(kind)
    arguments: dict[str, Any] = {"root": root, **_EXTRA_ARGUMENTS.get(name, {})}
    first = split == "train"
    if split and "train" in parameters:
        arguments["train"] = first
    elif split and "background" in parameters:
        arguments["background"] = first
    elif split:
        arguments["split"] = _SPLIT_NAMES.get(name, ("train", "test"))[0 if first else 1]
    downloads = {"download"} & parameters
    try:
        try:
            images = kind(**arguments, **dict.fromkeys(downloads, False))
        except Exception:  # torchvision's sets raise different errors where files are absent
            if not downloads:
                raise
            images = kind(**arguments, download=True)
    except Exception as error:
        raise OSError(
            f"{name.lower()} is not complete under root={str(root)!r} and could not be downloaded; "
            f"put the files there by hand, as torchvision.datasets.{name} lays them out, or name "
            f"their folder with root= or PPL_VAE_DATA. The reason: {error}"
        ) from error

    labels: Any = None
    if isinstance(getattr(images, "data", None), np.ndarray | Tensor):
        labels = getattr(images, "targets", getattr(images, "labels", None))
        x = channels_first(torch.as_tensor(images.data))
        x = x.mT.contiguous() if name == "EMNIST" else x.contiguous()  # EMNIST's files are sideways
    else:
        labels = []
        x = _stack(_pairs(images, labels), len(images), image_size)
    codes = np.asarray(labels)
    if name == "QMNIST":
        codes = codes[:, 0]  # the class; the other columns say who wrote it
    if name == "Omniglot" and split == "test":
        codes = codes + 964  # other characters than the 964 of the background set
    source = f"torchvision.datasets.{name}, {split or 'all'} rows, under {root}"
    classes = codes if codes.dtype.kind in "iu" else None
    return resized(Dataset(name.lower(), x, classes, None, source), image_size)


def has_own_split(kind: type) -> bool:
    """Whether a set of torchvision comes in a train and a test part."""
    return bool(_parameters(kind) & {"train", "split", "background"})


def _parameters(kind: type) -> set[str]:
    # Over all bases, because EMNIST and QMNIST take MNIST's arguments as **kwargs.
    return {name for base in kind.__mro__ for name in inspect.signature(base).parameters}


def read_folders(folder: Path, image_size: int | None) -> dict[Split, Dataset]:
    """Read the images of a folder; its subfolders train/ and test/ or val/, if any, are splits.

    Where there are test/ and val/, the images of val/ are added to those of train/, of which a fit
    holds some out itself.

    Raises
    ------
    ValueError
        If there is one of them without the other, such folders lie deeper, or images have two
        shapes.
    """
    folders = sorted(child for child in folder.iterdir() if child.is_dir())
    found: dict[str, list[Path]] = {}
    for child in folders:
        if (role := _role(child)) is not None:
            found.setdefault(role, []).append(child)
    if not found:
        _refuse_deeper_splits(folder)
        return {None: read_folder(folder, image_size)}
    given = [child for several in found.values() for child in several]
    others = [child.name for child in folders if child not in given and child.name[0] not in "._"]
    several = any(len(each) > 1 for each in found.values())
    if "train" not in found or len(found) < 2 or others or several:
        raise ValueError(
            f"the folder {folder} holds {', '.join(c.name for c in given)}, which look "
            f"like splits, {'beside ' + ', '.join(others) if others else 'but no other split'}; "
            "give train and test, or the folder of one of them"
        )
    held = found.pop("val", [])
    if held and "test" in found:
        found["train"] += held
    elif held:
        found["test"] = held
    parts: dict[Split, Dataset] = {
        "train": _joined([read_folder(child, image_size) for child in found["train"]], folder),
        "test": _joined([read_folder(child, image_size) for child in found["test"]], folder),
    }
    shapes = {tuple(part.x.shape[1:]) for part in parts.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"the folder {folder} has images of {' and '.join(map(str, shapes))} in its splits; "
            "pass image_size= to make them equal"
        )
    return parts


def _role(folder: Path) -> str | None:
    """Which split a folder is by its name: train, test, val or none."""
    name = re.sub(r"[_ -]?(set|data|images|imgs)$", "", folder.name.lower())
    return _ROLES.get(name)


def _refuse_deeper_splits(folder: Path) -> None:
    """Refuse a folder in which train/ and test/ lie deeper, as they would be mixed."""
    deeper: dict[str, Path] = {}
    for child in sorted(path for path in folder.rglob("*") if path.is_dir()):
        if (role := _role(child)) is not None and child.parent != folder:
            deeper.setdefault(role, child)
    if "train" in deeper and len(deeper) > 1:
        one, other = (str(path.relative_to(folder)) for path in list(deeper.values())[:2])
        raise ValueError(
            f"the folder {folder} holds {one} and {other}, which look like splits; give the folder "
            "that they lie in, or one of them"
        )


def _joined(parts: list[Dataset], folder: Path) -> Dataset:
    """The rows of several folders as one part of a data set, named after ``folder``."""
    shapes = {tuple(part.x.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"the folder {folder} has images of {' and '.join(map(str, shapes))} in its splits; "
            "pass image_size= to make them equal"
        )
    labels = [part.labels for part in parts]
    return Dataset(
        folder.resolve().name,
        torch.cat([part.x for part in parts]),
        None if any(each is None for each in labels) else np.concatenate(labels),  # type: ignore[arg-type]
        None,
        "; ".join(part.source for part in parts),
    )


def read_stack(path: Path, image_size: int | None) -> Dataset:
    """Read every frame of an image file, such as a TIFF of many pages or an animated GIF."""
    frames = _frames(path)
    x = _stack(_open_images([path]), frames, image_size)
    return checked(
        Dataset(path.stem, x, None, None, f"{frames} frame{'s'[: frames > 1]} in {path}")
    )


def read_folder(folder: Path, image_size: int | None) -> Dataset:
    """Read every image in a folder, of stacks every frame; subfolders, if any, are the labels."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise ValueError(f"the folder {folder} holds no images; accepted are {', '.join(IMAGES)}")
    classes = [path.relative_to(folder).parts[0] for path in files if path.parent != folder]
    if 0 < len(classes) < len(files):
        raise ValueError(
            f"the folder {folder} holds images both directly and in subfolders ({classes[0]}); "
            "move all into subfolders, whose names are the labels, or none"
        )
    frames = [_frames(path) for path in files]
    x = _stack(_open_images(files), sum(frames), image_size)
    labels = np.array(classes).repeat(frames) if classes else None
    source = f"{len(files)} images in {folder}"
    if sum(frames) > len(files):
        source = f"{sum(frames)} frames of {source}"
    return checked(Dataset(folder.resolve().name, x, labels, None, source))


def _pairs(images: Any, labels: list[Any]) -> Iterator[tuple[str, Any]]:
    for row in range(len(images)):
        image, target = images[row]
        labels.append(target.item() if isinstance(target, Tensor) else target)
        yield f"image {row}", image


def _open_images(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Every frame of every file, upright, by a name for messages."""
    from PIL import ImageOps, ImageSequence

    for path in files:
        with _opened(path) as image:
            several = getattr(image, "n_frames", 1) > 1
            for number, frame in enumerate(ImageSequence.Iterator(image)):
                name = f"frame {number} of {path}" if several else str(path)
                yield name, ImageOps.exif_transpose(frame)


def _frames(path: Path) -> int:
    with _opened(path) as image:
        return getattr(image, "n_frames", 1)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large ({error}); make it smaller, or remove it") from error
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a readable image ({error}); remove it") from error


def _stack(images: Iterable[tuple[str, Any]], size: int, image_size: int | None) -> Tensor:
    """Stack PIL images: (row, H, W) if all are gray, else (row, 3, H, W); alpha is dropped.

    Bytes, unless some have 16 bits: then all are in [0, 1]. Real numbers stay what they are.
    """
    x, first, scaled = torch.empty(0), "", True
    for row, (name, image) in enumerate(images):
        pixels = _pixels(name, image, image_size)
        if row == 0:
            x, first = torch.empty((size, *pixels.shape), dtype=pixels.dtype), name
            scaled = image.mode != "F"
        if x.shape[-2:] != pixels.shape[-2:]:
            raise ValueError(
                f"images differ in size: {first} is {tuple(x.shape[-2:])} and {name} is "
                f"{tuple(pixels.shape[-2:])}, height by width; pass image_size= to make them equal"
            )
        if scaled != (image.mode != "F"):
            one, other = (name, first) if scaled else (first, name)
            raise ValueError(
                f"{one} holds real numbers, and {other} intensities from black to white; keep them "
                "in folders of their own"
            )
        if pixels.ndim == x.ndim:
            x = x[:, None].repeat(1, 3, 1, 1)
        if x.dtype != pixels.dtype:
            x, pixels = _in_unit(x), _in_unit(pixels)
        x[row] = pixels
    if scaled and x.dtype != torch.uint8 and len(x) and 0 < x.max() < _DARK:
        warnings.warn(
            f"{first} and the others have pixels of 16 bits of at most {x.max() * _DEEP:.0f}, so "
            f"that intensities are within 0 and {x.max():.2g}, far from white: likelihood='normal' "
            "(--likelihood normal) takes them as numbers in a unit of their own",
            UserWarning,
            stacklevel=6,
        )
    return x


def _in_unit(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _pixels(name: str, image: Any, image_size: int | None) -> Tensor:
    """One image, (H, W) or (3, H, W): bytes, 16 bits scaled to [0, 1], or real numbers.

    Raises
    ------
    ValueError
        If its pixels are whole numbers of 32 bits, whose white is not known.
    """
    from PIL import Image
    from torchvision.transforms import functional

    deep = image.mode.startswith("I;16")
    if image.mode.startswith("I") and not deep:
        raise ValueError(
            f"{name} has pixels of 32 bits (mode {image.mode}), of which it is not said what white "
            "is; save it with 8 or 16 bits, or as floating-point numbers"
        )
    gray = deep or image.mode in ("1", "L", "LA", "F")
    if deep:
        image = Image.fromarray(np.array(image).astype(np.float32) / _DEEP)
    elif image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns about transparency on the direct way
    if image.mode != "F":
        image = image.convert("L" if gray else "RGB")
    if image_size is not None:
        image = functional.center_crop(functional.resize(image, image_size), image_size)
    pixels = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return pixels if gray else pixels.permute(2, 0, 1)
