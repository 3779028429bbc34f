"""Weights that others publish, downloaded once into a folder that all processes of a machine share.

A file appears complete or not at all, and its bytes are compared with what the publisher says of them: torchvision in
the file's name, Hugging Face in the answer about it. A file that a person has put there is used as it is found.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from ..errors import WeightsError, WeightsUnavailableError, suggest
from .digest import sha256_of

_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
_SHA256_DIGITS = 64


def torchvision_url(name: str) -> str:
    """Return the address of torchvision's weights `name`, of a model or of weights; raise WeightsError if unknown."""
    import torchvision.models as zoo

    try:
        weights = zoo.get_weight(name) if "." in name else zoo.get_model_weights(name).DEFAULT
    except (AttributeError, KeyError, ValueError):
        known = zoo.list_models()
        hint = suggest(name, [*known, *(str(each) for model in known for each in zoo.get_model_weights(model))])
        raise WeightsError(f"torchvision publishes no weights {name!r}{hint}") from None
    return str(weights.url)


def torchvision_file(name: str, folder: Path) -> Path:
    """Return the file of torchvision's weights `name` in `folder`, downloaded if it is not there.

    Raises WeightsError if there are no such weights, and WeightsUnavailableError if they cannot be downloaded or the
    file has not the digits of its name.
    """
    from torch.hub import HASH_REGEX, download_url_to_file

    url = torchvision_url(name)
    path = folder / Path(urlparse(url).path).name
    digits = HASH_REGEX.search(path.name)

    def download(target: Path) -> None:
        download_url_to_file(url, str(target), None if digits is None else digits[1], progress=False)

    _keep(path, download, f"torchvision:{name}", url)
    if digits is not None and not sha256_of(path).startswith(digits[1]):
        raise WeightsUnavailableError(f"the file {path} is not the one that torchvision publishes: delete it")
    return path


def hub_file(repo: str, file: PurePosixPath | None, folder: Path) -> Path:
    """Return the file of a repository of Hugging Face in `folder`, downloaded if it is not there.

    Without `file` it is the first of ``model.safetensors`` and ``pytorch_model.bin`` that the repository has. Raises
    WeightsError if there is no such repository or file, and WeightsUnavailableError if it cannot be downloaded.
    """
    names = [str(file)] if file is not None else list(_HUB_NAMES)
    paths = [folder / repo / name for name in names]
    for path in paths:
        if path.is_file():
            return path
    for name, path in zip(names, paths, strict=True):
        try:
            _keep(path, partial(_download_from_hub, repo, name), f"hf:{repo}", f"https://huggingface.co/{repo}")
        except _NoSuchFileError:
            continue
        return path
    raise WeightsError(f"the repository {repo} of Hugging Face has no file {' or '.join(names)}: name one of its files")


class _NoSuchFileError(WeightsError):
    """The repository has no file of that name."""


def _download_from_hub(repo: str, name: str, target: Path) -> None:
    try:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError:
        raise OSError("huggingface_hub is not installed: pip install 'video-hpo[hub]'") from None
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".hub-") as folder:
        try:
            found = Path(hf_hub_download(repo, name, local_dir=folder))
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(f"Hugging Face has no repository {repo} that can be read from here") from error
        except errors.RemoteEntryNotFoundError as error:
            raise _NoSuchFileError(f"the repository {repo} has no file {name}") from error
        etag = get_hf_file_metadata(hf_hub_url(repo, name)).etag or ""
        # Of large files, the tag is the SHA-256.
        if len(etag) == _SHA256_DIGITS and sha256_of(found) != etag:
            raise OSError(f"the downloaded {name} is not the file that the repository names")
        found.replace(target)


def _keep(path: Path, download: Callable[[Path], None], source: str, address: str) -> None:
    """Have one process download `path`, unless it is there; others wait for that process."""
    if path.is_file():  # complete, as it gets its name last; the folder may be one that cannot be written
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            return
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            download(unfinished)
            unfinished.replace(path)
        except WeightsError:
            raise
        except Exception as error:  # without a network, each library raises errors of its own
            raise _unavailable(source, path, address, error) from error
        finally:
            unfinished.unlink(missing_ok=True)


def _unavailable(source: str, path: Path, address: str, error: Exception) -> WeightsUnavailableError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return WeightsUnavailableError(
        f"{source} cannot be downloaded here ({reason}): put the file {path.name} of {address} into {path.parent}"
    )
