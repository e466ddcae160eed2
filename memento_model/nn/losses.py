"""The training objective: velocity of the shot and of the reconstruction slots.

Axes: b batch, c channels, f latent frames, h and w latent rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from memento_model.config import Layout


@dataclass(frozen=True, kw_only=True)
class VelocityLoss:
    """Mean squared errors of the predicted velocity, fp32 scalars.

    Attributes:
        total: the weighted sum to minimise.
        target: of the shot.
        identity: of the reconstruction slots; None where there are none.
        memory: of the memory frames; None where there are none.
    """

    total: Tensor
    target: Tensor
    identity: Tensor | None
    memory: Tensor | None


def velocity_loss(
    prediction_bcfhw: Tensor,
    latents_bcfhw: Tensor,
    noise_bcfhw: Tensor,
    layout: Layout,
    *,
    identity_weight: float = 0.5,
    memory_weight: float = 0.0,
) -> VelocityLoss:
    """Compare a prediction with noise - clean latent, part by part.

    Args:
        prediction_bcfhw: of the transformer, [identity, memory, target] on the frame axis.
        latents_bcfhw: clean, in the same order.
        noise_bcfhw: what was mixed in.
        layout: frames of each part.
        identity_weight: lambda of the paper (0.5); the reference script uses 1.
        memory_weight: 0 leaves memory out of the sum; it is measured all the same.

    Returns:
        MSE(target) + identity_weight * MSE(identity) + memory_weight * MSE(memory), and the parts.

    Raises:
        ValueError: shapes that differ from each other or from the layout.
    """
    shape = prediction_bcfhw.shape
    if latents_bcfhw.shape != shape or noise_bcfhw.shape != shape or shape[2] != layout.num_frames:
        raise ValueError(
            f"prediction {list(shape)}, latents {list(latents_bcfhw.shape)} and noise "
            f"{list(noise_bcfhw.shape)} must agree and have {layout.num_frames} frames"
        )
    # The memory term, where it is asked for, is about the prediction: no gradient reaches the picks through
    # the answer.
    error = (prediction_bcfhw.float() - (noise_bcfhw.float() - latents_bcfhw.detach().float())).square()
    target = error[:, :, layout.target].mean()
    identity = error[:, :, layout.identity].mean() if layout.identity_frames else None
    memory = error[:, :, layout.memory].mean() if layout.memory_frames else None
    total = target
    if identity is not None:
        total = total + identity_weight * identity
    if memory is not None and memory_weight:
        total = total + memory_weight * memory
    return VelocityLoss(
        total=total, target=target.detach(), identity=_detached(identity), memory=_detached(memory)
    )


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()
