"""Weights from the Hugging Face Hub: what its cache holds, and fetching what it does not."""

import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from headstart.backbone.reading import sha256_of
from headstart.errors import WeightsError

_FILE = "model.safetensors"  # timm's repositories all have it
_CONNECT_S = 10.0


def cached(hub_id: str) -> Path | None:
    """The weights of repository `hub_id` in Hugging Face's own cache, if they are there."""
    import huggingface_hub  # 0.3 s, and only needed where a backbone was named

    found = huggingface_hub.try_to_load_from_cache(hub_id, _FILE)
    return Path(found) if isinstance(found, str) else None


def fetch(hub_id: str, ways_out: str) -> Path:
    """Download the weights of repository `hub_id` with a progress bar (into Hugging Face's cache) and check their hash.

    Args: ways_out: the hint where that fails.
    Raises: WeightsError: no connection, offline on purpose (`HF_HUB_OFFLINE`), no such file, or not the bytes announced.
    """
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"no weights at hand for {hub_id}, and HF_HUB_OFFLINE forbids downloading them", hint=ways_out)
    try:
        _try_connection(constants.ENDPOINT)
        path = Path(huggingface_hub.hf_hub_download(hub_id, _FILE, etag_timeout=_CONNECT_S))
    except Exception as error:  # the client raises its own errors, OSError, and those of whichever HTTP library it was built on
        reason = str(error).strip().splitlines()
        raise WeightsError(f"cannot download {hub_id}: {reason[0] if reason else type(error).__name__}", hint=ways_out) from error
    _check(path.resolve(), hub_id)
    return path


def _try_connection(endpoint: str) -> None:
    """Fail at once where nothing answers: the client itself tries for 23 s. Behind a proxy, only the client knows the way."""
    place = urllib.parse.urlsplit(endpoint)
    if place.hostname is None or place.scheme in urllib.request.getproxies():
        return
    port = place.port if place.port is not None else {"http": 80}.get(place.scheme, 443)
    try:
        socket.create_connection((place.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise ConnectionError(f"no connection to {place.hostname} ({error.strerror or error})") from error


def _check(blob: Path, hub_id: str) -> None:
    """The Hub announces a large file's sha256, and its cache keeps the file under that name."""
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256_of(blob) != blob.name:
        blob.unlink()
        raise WeightsError(f"the weights downloaded from {hub_id} are damaged: their sha256 is not {blob.name}", hint="try again")
