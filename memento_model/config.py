"""Shapes and named choices of the model: everything that decides what a set of weights computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of one expert. The defaults are Wan2.2-I2V-A14B with Memento's queries and LoRA.

    Attributes:
        in_channels: 36 = 16 noisy + 4 mask + 16 condition (I2V, Memento); 16 for T2V.
        out_channels: latent channels.
        patch_size: (frames, rows, columns) of a token.
        width: of the residual stream.
        num_heads: attention heads; `width / num_heads` channels each.
        num_layers: transformer blocks.
        ffn_width: hidden width of the feed-forward part.
        freq_dim: length of the sinusoidal time embedding.
        text_dim: width of the text encoder's rows.
        text_len: rows the text is padded to with zeros, unmasked.
        eps: of all norms.
        num_local_queries, num_global_queries: rows of `queries` and `queries_global`.
        selected_local, selected_global: whole frames picked by each group.
        keyframe_temperature: of the straight-through softmax.
        lora_rank, lora_alpha: of the rank-stabilised LoRA (scale alpha / sqrt(rank)); rank 0 means none.
    """

    in_channels: int = 36
    out_channels: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    width: int = 5120
    num_heads: int = 40
    num_layers: int = 40
    ffn_width: int = 13824
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    eps: float = 1e-6
    num_local_queries: int = 10
    num_global_queries: int = 2
    selected_local: int = 6
    selected_global: int = 2
    keyframe_temperature: float = 0.1
    lora_rank: int = 128
    lora_alpha: int = 128

    def __post_init__(self) -> None:
        """Refuse shapes that no transformer has."""
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(f"width {self.width} does not split into {self.num_heads} heads of even size")
        if self.in_channels not in (self.out_channels, 2 * self.out_channels + 4):
            raise ValueError(
                f"in_channels is {self.out_channels} (T2V) or {2 * self.out_channels + 4} (I2V), "
                f"not {self.in_channels}"
            )

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.width // self.num_heads

    @property
    def has_condition(self) -> bool:
        """Whether mask and condition channels are part of the input (I2V form)."""
        return self.in_channels != self.out_channels

    @property
    def rope_split(self) -> tuple[int, int, int]:
        """Channels of a head that rotate with (time, row, column)."""
        return rope_split(self.head_dim)

    @property
    def bank_size(self) -> int:
        """Memory frames kept from shot to shot."""
        return self.selected_local + self.selected_global


def rope_split(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that rotate with (time, row, column); Wan's rule, e.g. 44 + 42 + 42 of 128."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Latent frames of a sequence, in the order in which they stand on the time axis.

    Attributes:
        identity_frames: reconstruction slots (0, 1 or several).
        memory_frames: frames remembered from earlier shots.
        target_frames: the shot itself.
    """

    identity_frames: int = 0
    memory_frames: int = 0
    target_frames: int

    def __post_init__(self) -> None:
        """Refuse counts that no sequence has."""
        if min(self.identity_frames, self.memory_frames) < 0 or self.target_frames < 1:
            raise ValueError(
                "a sequence needs at least one target frame and no negative counts, got "
                f"{self.identity_frames} identity, {self.memory_frames} memory, {self.target_frames} target"
            )

    @property
    def num_frames(self) -> int:
        """Latent frames of the whole sequence."""
        return self.identity_frames + self.memory_frames + self.target_frames

    @property
    def identity(self) -> slice:
        """The identity slots on the frame axis."""
        return slice(0, self.identity_frames)

    @property
    def memory(self) -> slice:
        """The memory frames on the frame axis."""
        return slice(self.identity_frames, self.identity_frames + self.memory_frames)

    @property
    def target(self) -> slice:
        """The shot on the frame axis."""
        return slice(self.identity_frames + self.memory_frames, self.num_frames)


Expert = Literal["high", "low"]
QueryGradient = Literal["picked", "all"]
"""High noise (early steps; diffusers' `transformer`) or low noise (`transformer_2`)."""


@dataclass(frozen=True, kw_only=True)
class Compat:
    """Choices on which the paper, the official code and its releases differ; defaults suit released weights.

    Attributes:
        lora_scale: `rs`: alpha / sqrt(rank), as released; `plain`: alpha / rank.
        no_identity_attention: what split attention does when no identity frame is there: `joint`, or `blend`
            (half of memory-alone attention, as the official training code does).
        clamp_memory_before_target: lower memory positions >= 0 to -1 in the transformer (not in the queries).
        memory_positions: `time`: true time; `storymem`: fixed offsets of `storymem_offset`.
        storymem_offset: distance between memory frames in StoryMem's scheme, latent frames.
        frame_sampling: how evenly spaced candidate frames are picked from a shot.
        tm2v_cfg_bonus: added to the guidance scale of shots that start with a cut; 1.5 as released, 0 as
            in the paper.
        drop_repeated_first_frame: leave out the first frame of a shot that continues the one before, as
            StoryMem does.
        queries: whether each expert keeps a memory pool of its own or both use the low-noise expert's.
        query_gradient: which candidates a loss teaches the queries about: `picked` ones alone (official
            trainer), or `all` (`keyframe_query.select`).
        timestep: `fp32`, or `bf16_legacy` (the official trainer rounds timesteps to bf16).
        residual: dtype of the residual stream.
    """

    lora_scale: Literal["rs", "plain"] = "rs"
    no_identity_attention: Literal["joint", "blend"] = "joint"
    clamp_memory_before_target: bool = True
    memory_positions: Literal["time", "storymem"] = "time"
    storymem_offset: int = 5
    frame_sampling: Literal["round", "floor"] = "round"
    tm2v_cfg_bonus: float = 1.5
    drop_repeated_first_frame: bool = False
    queries: Literal["per_expert", "low"] = "per_expert"
    query_gradient: QueryGradient = "picked"
    timestep: Literal["fp32", "bf16_legacy"] = "fp32"
    residual: Literal["fp32", "bf16"] = "fp32"


def debug_model() -> ModelConfig:
    """The same architecture, small enough to train on two CPU cores in minutes."""
    return ModelConfig(
        width=192, num_heads=3, num_layers=3, ffn_width=576, freq_dim=64, text_dim=64, text_len=32,
        lora_rank=8, lora_alpha=8,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Size of a shot in pixels and latents; the codec's stride is (4, 8, 8) and its first frame stands alone.

    Attributes:
        num_frames: pixel frames, 4n+1.
        height, width: pixels, multiples of 16 (codec stride times patch).
        fps: frames per second of a shot.
    """

    num_frames: int = 81
    height: int = 480
    width: int = 832
    fps: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes that the codec or the patching cannot take."""
        if self.num_frames < 1 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames must be 4n+1, not {self.num_frames}")
        if self.height % 16 or self.width % 16 or min(self.height, self.width) < 16:
            raise ValueError(f"height and width must be multiples of 16, not {self.height}x{self.width}")

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(channels, frames, height, width) of the shot's latent."""
        return 16, 1 + (self.num_frames - 1) // 4, self.height // 8, self.width // 8


@dataclass(frozen=True, kw_only=True)
class Debug:
    """The debug tier: model and picture size that belong together; what `make train` trains."""

    model: ModelConfig = field(default_factory=debug_model)
    grid: FrameGrid = field(default_factory=lambda: FrameGrid(num_frames=17, height=48, width=80))
