"""Whole files or none: atomic writing, and tensors on disk without pickle."""

from __future__ import annotations

__all__ = ["check_finite", "checksum", "load_tensors", "save_tensors", "written_whole"]

import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

_CHECKSUM = "checksum"
# What the format calls types of numbers.
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there if the block succeeds, else delete it.

    Raises
    ------
    OSError
        If the folder of ``path`` does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_whole(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    # The name keeps the suffix, by which some writers choose a format, and says whose file it is.
    temporary = path.with_name(f".{path.stem}.writing-{os.getpid()}{path.suffix}")
    _sweep(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what processes left that were killed while they wrote ``path``."""
    for left in path.parent.glob(f".{glob.escape(path.stem)}.writing-*"):
        process = left.name.removesuffix(path.suffix).rpartition("-")[2]
        if process.isdecimal() and not Path("/proc", process).exists() and Path("/proc").is_dir():
            left.unlink(missing_ok=True)


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors and text to one ``.safetensors`` file, whole or not at all.

    A hash of both goes with them, by which :func:`load_tensors` notices damage. Hashing and writing
    neither copy the tensors nor hold up other threads.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.safetensors")
    >>> save_tensors(path, {"half": torch.ones(2).half()}, {"of": "what"})
    >>> load_tensors(path)
    ({'half': tensor([1., 1.], dtype=torch.float16)}, {'of': 'what'})
    """
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    # Tensors lie at multiples of their own size, as readers that map the file want it.
    order = sorted(whole, key=lambda key: (-whole[key].element_size(), key))
    described: dict[str, object] = {
        "__metadata__": {**metadata, _CHECKSUM: checksum(whole, metadata)}
    }
    end = 0
    for key in order:
        start, end = end, end + whole[key].nbytes
        described[key] = {
            "dtype": _TYPES[whole[key].dtype],
            "shape": list(whole[key].shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for key in order:
            file.write(_bytes(whole[key]))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what :func:`save_tensors` wrote; nothing in the file is ever executed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a whole ``.safetensors`` file, or not what was written.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {str(path)!r}, where there is no file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(path)!r} is not a whole .safetensors file ({error}); "
            "it may be truncated, or written by something else: save it again with vae.save(path)"
        ) from error
    written = metadata.pop(_CHECKSUM, None)  # files of 0.1 have none
    if written is not None and written != checksum(tensors, metadata):
        raise ValueError(
            f"{str(path)!r} is not what was written: its checksum is another, so that the file was "
            "damaged or changed; restore it from a copy, or save it again with vae.save(path)"
        )
    return tensors, metadata


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse weights that are no numbers.

    Raises
    ------
    ValueError
        With the name of one that is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(
                f"{where} has weights that are not finite, in {name}: a fit that broke off, or a "
                "damaged file; fit again, with a tenth of the learning rate"
            )


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of contiguous tensors in memory, their names and types, and of text beside them."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(metadata):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor, which stays where it is."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
