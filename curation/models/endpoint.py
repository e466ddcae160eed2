"""Where an OpenAI-compatible server is and how it is asked; only settings, nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from curation.engine.stage import StopRun

KEY_VARIABLE = "MEMENTO_API_KEY"


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where an OpenAI-compatible server is and how it is asked.

    Attributes:
        url: address of the API; `/v1` is added if there is no path. The default is `vllm serve`'s own.
        model: name of the model there; if null, the server must have exactly one.
        api_key_variable: name of the environment variable that holds the key; if null, MEMENTO_API_KEY if
            that is set, else OPENAI_API_KEY for OpenAI's own address, else no key is sent.
        max_in_flight: requests that may be at the server at the same time; halved when it says "too many".
        timeout_s: seconds for one try.
        connect_timeout_s: seconds for reaching the server at all.
        max_retries: further tries after rate limits, server errors, timeouts and broken connections.
        backoff_s: seconds before the second try, doubled for each further one (a quarter of it by chance);
            a longer Retry-After of the server counts instead.
        max_backoff_s: the longest of these waits.
        give_up_s: seconds from the first try after which a request is given up.
        stop_after: that many requests in a row without any answer stop the run.
        temperature: of the sampling; 0 is greedy; null leaves it to the server.
        seed: of the sampling; null sends none.
        media: `images` sends a video as time-stamped frames, which any server for pictures takes; `video`
            as one video, which halves the prompt and needs vLLM with `--trust-request-mm-kwargs`.
        picture_format: `jpeg` or `png` (lossless, several times larger); frames of a `video` are JPEG.
        jpeg_quality: 1 to 100.
    """

    url: str = "http://localhost:8000/v1"
    model: str | None = None
    api_key_variable: str | None = None
    max_in_flight: int = 32
    timeout_s: float = 300.0
    connect_timeout_s: float = 10.0
    max_retries: int = 6
    backoff_s: float = 0.5
    max_backoff_s: float = 30.0
    give_up_s: float = 900.0
    stop_after: int = 5
    temperature: float | None = 0.0
    seed: int | None = 0
    media: Literal["images", "video"] = "images"
    picture_format: Literal["jpeg", "png"] = "jpeg"
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {self.url!r} must look like http://host:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("url must hold no key or password; name an environment variable that does")
        for name in ("max_in_flight", "stop_after", "jpeg_quality"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("timeout_s", "connect_timeout_s", "max_backoff_s", "give_up_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0 seconds")
        if self.max_retries < 0 or self.backoff_s < 0:
            raise ValueError("max_retries and backoff_s must not be negative")
        if self.jpeg_quality > 100:
            raise ValueError("jpeg_quality must be at most 100")
        if self.media not in ("images", "video") or self.picture_format not in ("jpeg", "png"):
            raise ValueError("media must be images or video, picture_format jpeg or png")

    @property
    def base_url(self) -> str:
        """The address that paths such as /models are added to."""
        bare = self.url.rstrip("/").removesuffix("/chat/completions")
        return bare if urlsplit(bare).path else f"{bare}/v1"

    @property
    def key_variable(self) -> str | None:
        """Name of the environment variable whose key is sent, if any is."""
        if self.api_key_variable is not None or os.environ.get(KEY_VARIABLE):
            return self.api_key_variable or KEY_VARIABLE
        host = urlsplit(self.url).hostname or ""
        return "OPENAI_API_KEY" if host == "openai.com" or host.endswith(".openai.com") else None

    def key(self) -> str | None:
        """The key from the environment, if one is to be sent.

        Raises:
            StopRun: the variable is not set.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise StopRun(f"{self.url}: put the key into the environment variable {self.key_variable}")
        return key

    def sampling(self) -> dict[str, object]:
        """What changes answers: part of every cache key."""
        pictures = (
            "png" if self.picture_format == "png" and self.media == "images" else f"jpeg {self.jpeg_quality}"
        )
        return {"temperature": self.temperature, "seed": self.seed, "media": self.media, "pictures": pictures}
