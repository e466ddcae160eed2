"""Video to latents and back: what every codec of the model offers.

All codecs share one latent grid: 16 channels, an eighth of the height and width, the first frame alone and
then one latent frame per four frames. Latents are normalised: about zero mean, about unit variance.

Axis letters: b sample, n image, c channel, t pixel frame, f latent frame, h and w rows and columns (pixels
with t, latents with f).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch

from memento_model.checkpoints.names import vae_from_native
from memento_model.checkpoints.tensor_files import TensorSet, fingerprint, open_tensors
from memento_model.checkpoints.tensor_formats import read_json
from memento_model.config import FrameGrid
from memento_model.errors import CheckpointError

STRIDE = (4, 8, 8)
NUM_CHANNELS = 16


class GreyLatents(NamedTuple):
    """Latents of mid-grey, the condition where nothing is given; constants of a codec and a shot size.

    Attributes:
        video_cfhw: of a grey shot. Its latent frames may differ from each other, so it is kept as a block.
        frame_cfhw: of one grey image, f = 1.
    """

    video_cfhw: torch.Tensor
    frame_cfhw: torch.Tensor


class Codec(Protocol):
    """Encodes video into the latents that the transformer works on, and decodes them.

    Implementations derive from this class. A codec works where it was put by `to` and returns fp32 there.

    Attributes:
        name: of the method, e.g. for records and cache keys.
        revision: changes whenever the latents change: a fingerprint of weights or tables.
    """

    name: str
    revision: str

    def encode(self, video_bcthw: torch.Tensor) -> torch.Tensor:
        """Latents_bcfhw of videos in [-1, 1] with 4n+1 frames, height and width multiples of 8."""
        ...

    def decode(self, latents_bcfhw: torch.Tensor) -> torch.Tensor:
        """Videos_bcthw in [-1, 1] of latents; 1 + 4 (f - 1) frames."""
        ...

    def to(self, device: torch.device | str) -> Codec:
        """Move to a device, in place; returns itself."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the codec works."""
        ...

    def encode_images(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Latents_nchw of images in [-1, 1], each encoded alone: no frame sees another."""
        if images_nchw.ndim != 4:
            raise ValueError(f"images have the axes (n, c, h, w), not {tuple(images_nchw.shape)}")
        if not len(images_nchw):
            height, width = (
                size // stride for size, stride in zip(images_nchw.shape[2:], STRIDE[1:], strict=True)
            )
            return torch.zeros(0, NUM_CHANNELS, height, width, device=self.device)
        return torch.cat([self.encode(image[None, :, None])[:, :, 0] for image in images_nchw])

    def grey(self, grid: FrameGrid) -> GreyLatents:
        """Latents of mid-grey for shots of this size; computed once per size."""
        kept: dict[FrameGrid, GreyLatents] = self.__dict__.setdefault("_grey", {})
        if grid not in kept:
            size = (grid.height, grid.width)
            video = self.encode(torch.zeros(1, 3, grid.num_frames, *size))[0]
            frame = self.encode(torch.zeros(1, 3, 1, *size))[0]
            kept[grid] = GreyLatents(video.cpu(), frame.cpu())
        made = kept[grid]
        return GreyLatents(made.video_cfhw.to(self.device), made.frame_cfhw.to(self.device))


def check_video(video_bcthw: torch.Tensor) -> None:
    """Refuse what no codec can encode.

    Raises:
        ValueError: says which axis is wrong.
    """
    shape = tuple(video_bcthw.shape)
    if video_bcthw.ndim != 5 or shape[1] != 3:
        raise ValueError(f"a video has the axes (b, 3, t, h, w), not {shape}")
    if not video_bcthw.is_floating_point():
        raise ValueError(f"a video holds numbers in [-1, 1], not {video_bcthw.dtype}; use x / 127.5 - 1")
    if shape[2] % STRIDE[0] != 1:
        raise ValueError(f"a video has 4n+1 frames, not {shape[2]}")
    if shape[3] % STRIDE[1] or shape[4] % STRIDE[2] or not shape[3] * shape[4]:
        raise ValueError(f"height and width are multiples of 8, not {shape[3]}x{shape[4]}")


def check_latents(latents_bcfhw: torch.Tensor) -> None:
    """Refuse what no codec can decode.

    Raises:
        ValueError: with the shape that came.
    """
    if latents_bcfhw.ndim != 5 or latents_bcfhw.shape[1] != NUM_CHANNELS or not latents_bcfhw.shape[2]:
        raise ValueError(f"latents have the axes (b, {NUM_CHANNELS}, f, h, w), not {latents_bcfhw.shape}")


class WanCodec(Codec):
    """Wan2.1's video autoencoder (also Wan2.2-A14B's); the posterior mean, never a sample.

    Args:
        autoencoder: diffusers' `AutoencoderKLWan`, with weights.
        revision: fingerprint of the weights.
        tiled: encode and decode in overlapping tiles of 256 pixels, for small GPUs; differs slightly.
        sliced: one sample of a batch at a time.
    """

    name = "wan"

    def __init__(self, autoencoder: Any, *, revision: str, tiled: bool = False, sliced: bool = True) -> None:
        self.revision = revision
        self._vae = autoencoder.eval().requires_grad_(False)
        if tiled:
            self._vae.enable_tiling()
            self.revision += "-tiled"
        if sliced:
            self._vae.enable_slicing()
        self._mean, self._std = (
            torch.tensor(numbers, dtype=torch.float32).view(1, -1, 1, 1, 1)
            for numbers in (autoencoder.config.latents_mean, autoencoder.config.latents_std)
        )

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        tiled: bool = False,
        sliced: bool = True,
    ) -> Self:
        """Read weights from wherever they come from.

        Args:
            path: `Wan2.1_VAE.pth` or the same as safetensors, a native Wan folder that holds it, a diffusers
                `vae` folder, or a diffusers model folder that holds one.
            device: where to work.
            dtype: fp32, or bf16 for half the memory.
            tiled: see the class.
            sliced: see the class.

        Raises:
            CheckpointError: not there, or not these weights.
        """
        tensors, settings = _autoencoder_files(path)
        vae = _built(tensors, settings, dtype)
        return cls(vae, revision=_revision(tensors, dtype), tiled=tiled, sliced=sliced).to(device)

    @staticmethod
    def revision_of(path: Path, dtype: torch.dtype = torch.float32) -> str:
        """The revision that `load` would give these weights, without building the codec.

        Raises:
            CheckpointError: not there, or not these weights.
        """
        return _revision(_autoencoder_files(path)[0], dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._vae.device

    def to(self, device: torch.device | str) -> Self:
        """Move the weights."""
        self._vae.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    @torch.no_grad()
    def encode(self, video_bcthw: torch.Tensor) -> torch.Tensor:
        """Latents_bcfhw, fp32; see `Codec.encode`."""
        check_video(video_bcthw)
        posterior = self._vae.encode(video_bcthw.to(self.device, self._vae.dtype)).latent_dist
        return (posterior.mode().float() - self._mean) / self._std

    @torch.no_grad()
    def decode(self, latents_bcfhw: torch.Tensor) -> torch.Tensor:
        """Videos_bcthw clamped to [-1, 1], fp32; see `Codec.decode`."""
        check_latents(latents_bcfhw)
        latents = latents_bcfhw.to(self.device, torch.float32) * self._std + self._mean
        return self._vae.decode(latents.to(self._vae.dtype)).sample.float().clamp(-1, 1)


def _revision(tensors: TensorSet, dtype: torch.dtype) -> str:
    plain = dtype == torch.float32
    return fingerprint(tensors.files) + ("" if plain else f"-{str(dtype).removeprefix('torch.')}")


def _autoencoder_files(path: Path) -> tuple[TensorSet, dict[str, object]]:
    """Tensors by diffusers' names, and settings for the constructor."""
    inner = [path / "vae", path / "Wan2.1_VAE.pth", path / "Wan2.1_VAE.safetensors"]
    path = next((place for place in inner if place.exists()), path)
    tensors = open_tensors(path)
    if "encoder.conv1.weight" in tensors:
        tensors = tensors.renamed(vae_from_native)
    if not {"encoder.conv_in.weight", "post_quant_conv.weight"} <= tensors.keys():
        raise CheckpointError(f"{path}: not the weights of Wan2.1's video autoencoder")
    settings: dict[str, object] = {
        "base_dim": tensors["encoder.conv_in.weight"].shape[0],
        "z_dim": tensors["post_quant_conv.weight"].shape[0],
    }
    if path.is_dir() and (path / "config.json").is_file():
        settings = {
            name: v for name, v in read_json(path / "config.json").items() if not name.startswith("_")
        }
    return tensors, settings


def _built(tensors: TensorSet, settings: dict[str, object], dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan.from_config(settings)
    if vae.config.z_dim != NUM_CHANNELS:
        raise CheckpointError(
            f"{tensors.source}: latents of {vae.config.z_dim} channels; the model needs Wan2.1's with "
            f"{NUM_CHANNELS} (Wan2.2-TI2V-5B's autoencoder is another one)"
        )
    tensors.fill(vae, dtype=lambda _: dtype)
    return vae
