"""The cosine codec: exact one way, recognisable the other, steady in time, of about unit variance."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from memento_model.codecs.dct import DctCodec, _basis
from memento_model.config import FrameGrid
from tests.support import shared

CODEC = DctCodec()


def natural_video(height=96, width=160, frames=9):
    """A photograph that drifts by a pixel per frame, in [-1, 1]: (1, 3, t, h, w)."""
    skimage = pytest.importorskip("skimage")
    from skimage.transform import resize

    photo = resize(skimage.data.astronaut(), (height + 16, width + 16), anti_aliasing=True)
    cuts = [photo[k : k + height, k : k + width] for k in range(frames)]
    return torch.from_numpy(np.stack(cuts)).float().permute(3, 0, 1, 2)[None] * 2 - 1


def psnr(a, b):
    return -10 * torch.log10(((a - b) ** 2).mean() / 4).item()


@pytest.mark.parametrize("frames", [1, 4])
def test_the_basis_is_orthonormal(frames):
    rows = _basis(frames)[0].flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(16), atol=1e-6)


def test_latents_survive_decoding_exactly():
    latents = torch.randn(2, 16, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(CODEC.encode(CODEC.inverse(latents)), latents, atol=1e-5)


@pytest.mark.parametrize(("frames", "latent_frames"), [(1, 1), (5, 2), (81, 21)])
def test_the_latent_grid_is_wans(frames, latent_frames):
    latents = CODEC.encode(torch.zeros(1, 3, frames, 48, 80))
    assert latents.shape == (1, 16, latent_frames, 6, 10)
    assert CODEC.decode(latents).shape == (1, 3, frames, 48, 80)
    assert latents.shape[1:] == FrameGrid(num_frames=frames, height=48, width=80).latent_shape


def test_a_photograph_stays_recognisable():
    video = natural_video()
    decoded = CODEC.decode(CODEC.encode(video))
    assert decoded.abs().max() <= 1
    assert psnr(decoded[:, :, :1], video[:, :, :1]) > 24.5
    assert psnr(decoded, video) > 20.5
    still = video[:, :, :1].expand(-1, -1, 9, -1, -1)
    blurred = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(video[:, :, 0], 8), scale_factor=8, mode="bilinear"
    )
    assert psnr(CODEC.decode(CODEC.encode(still)), still) > psnr(blurred, video[:, :, 0]) + 6


def test_latents_have_about_unit_variance_and_no_dead_channel():
    latents = CODEC.encode(natural_video())  # a photograph of more contrast than most films
    spread = latents.std(dim=(0, 2, 3, 4))
    assert 0.5 < spread.square().mean().sqrt() < 2
    assert spread.min() > 0.5
    assert spread.max() < 3.5


def test_what_stands_still_has_equal_latents_in_shared_channels():
    still = natural_video(frames=1).expand(-1, -1, 9, -1, -1)
    latents = CODEC.encode(still)
    assert torch.allclose(latents[:, :11, 1:], latents[:, :11, :1].expand(-1, -1, 2, -1, -1), atol=1e-4)
    assert latents[:, 11:, 1:].abs().max() < 1e-4  # nothing changes over time


def test_motion_shows():
    moving = CODEC.encode(natural_video())[:, 11:, 1:]
    assert moving.abs().mean() > 0.1
    decoded = CODEC.decode(CODEC.encode(natural_video()))
    steps = (decoded[:, :, 1:] - decoded[:, :, :-1]).abs().mean(dim=(0, 1, 3, 4))
    assert steps.min() > 0  # also inside a group of four frames


def test_no_frame_of_an_image_batch_sees_another():
    images = natural_video(frames=3)[0].transpose(0, 1)
    together = CODEC.encode_images(images)
    assert together.shape == (3, 16, 12, 20)
    for image, latent in zip(images, together, strict=True):
        assert torch.equal(CODEC.encode(image[None, :, None])[0, :, 0], latent)
    assert CODEC.encode_images(images[:0]).shape == (0, 16, 12, 20)


def test_grey_is_zero_and_kept():
    grid = FrameGrid(num_frames=9, height=32, width=48)
    grey = CODEC.grey(grid)
    assert grey.video_cfhw.shape == grid.latent_shape
    assert grey.frame_cfhw.shape == (16, 1, 4, 6)
    assert not grey.video_cfhw.any()
    assert CODEC.grey(grid).video_cfhw.data_ptr() == grey.video_cfhw.data_ptr()


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ((1, 3, 4, 16, 16), torch.float32, "4n\\+1 frames, not 4"),
        ((1, 3, 5, 16, 12), torch.float32, "multiples of 8, not 16x12"),
        ((1, 3, 5, 0, 16), torch.float32, "multiples of 8"),
        ((3, 5, 16, 16), torch.float32, "axes"),
        ((1, 4, 5, 16, 16), torch.float32, "axes"),
        ((1, 3, 5, 16, 16), torch.uint8, "127.5"),
    ],
)
def test_odd_videos_are_refused(shape, dtype, says):
    with pytest.raises(ValueError, match=says):
        CODEC.encode(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("shape", [(1, 15, 2, 4, 4), (16, 2, 4, 4), (1, 16, 0, 4, 4)])
def test_odd_latents_are_refused(shape):
    with pytest.raises(ValueError, match="latents have the axes"):
        CODEC.decode(torch.zeros(shape))


def test_real_footage_in_full_size():
    import av

    frames = []
    with av.open(str(shared("stories/memento_robinson/01_01.mp4"))) as film:
        for frame in film.decode(video=0):
            frames.append(frame.reformat(width=832, height=480, format="rgb24").to_ndarray())
            if len(frames) == 17:
                break
    video = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None] / 127.5 - 1
    decoded = CODEC.decode(CODEC.encode(video))
    assert psnr(decoded[:, :, :1], video[:, :, :1]) > 36
    assert psnr(decoded, video) > 29
