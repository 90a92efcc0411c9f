"""What a server can be told. The command line makes one of these; docs/guides/serving.md says how to choose."""

from dataclasses import dataclass

from headstart.data.opening import FILE_LIMIT_BYTES, PIXEL_LIMIT
from headstart.errors import ConfigError

LEAST_TOKEN = 16  # characters; fewer can be guessed over a network
TOKEN_HINT = 'export HEADSTART_TOKEN=$(python3 -c "import secrets; print(secrets.token_urlsafe(24))")'


@dataclass(frozen=True)
class Settings:
    """Limits and policies of one server. Times are in seconds."""

    token: str | None = None
    """what `Authorization: Bearer` must carry; None: nothing is asked for"""
    only_local: bool = True
    """without a token: answer only requests that name this machine itself, so that no web page can reach the server by a name of its own"""
    max_bytes: int = 32 * 2**20
    """of one request's body"""
    max_pixels: int = 64_000_000
    """width x height of one photo, checked on its header before anything is decoded"""
    max_photos: int = 16
    """photos in one request"""
    queue: int = 64
    """photos accepted and not answered yet; a request beyond it gets 429. With the model's rate it bounds how long anyone waits"""
    max_requests: int = 800
    """of any kind at the same time; one beyond gets 503"""
    wait_s: float = 0.005
    """how long a batch waits for photos that are being decoded; one that is alone never waits"""
    timeout_s: float = 30.0
    """for a request's body to arrive, and again for its answer"""

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < LEAST_TOKEN:
            raise ConfigError(f"expected a token of at least {LEAST_TOKEN} characters, found {len(self.token)}", hint=TOKEN_HINT)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise ConfigError("expected a token of ASCII letters, digits and signs without spaces: HTTP headers hold no others")
        limits = {
            "max_bytes": FILE_LIMIT_BYTES,
            "max_pixels": PIXEL_LIMIT,
            "max_photos": 10_000,
            "queue": 100_000,
            "max_requests": 100_000,
        }
        for name, most in limits.items():
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"expected {name} from 1 to {most}, found {getattr(self, name)}")
        if self.queue < self.max_photos:
            raise ConfigError(
                f"expected a queue of at least the {self.max_photos} photos that one request may hold, found {self.queue}",
                hint=f"--queue {self.max_photos}, or a lower --max-photos",
            )

    @property
    def max_held_bytes(self) -> int:
        """Of all bodies together, being read or waiting; beyond it a request gets 429."""
        return 8 * self.max_bytes
