import torch

from teachers.emoji_64.vae import LATENT_CHANNELS, build_vae, standardise_latents


def test_standardised_latents_reconstruct_the_same_pictures() -> None:
    torch.manual_seed(0)
    vae = build_vae().eval()
    pictures = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        mean_C, deviation_C = before.mean.mean(dim=(0, 2, 3)), before.mean.std(dim=(0, 2, 3))
        decoded = vae.decode(before.mean).sample
        standardise_latents(vae, mean_C, deviation_C)
        after = vae.encode(pictures).latent_dist
        decoded_after = vae.decode(after.mean).sample
    torch.testing.assert_close(
        after.mean.mean(dim=(0, 2, 3)), torch.zeros(LATENT_CHANNELS), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(after.mean.std(dim=(0, 2, 3)), torch.ones(LATENT_CHANNELS))
    torch.testing.assert_close(after.std * deviation_C[:, None, None], before.std)
    torch.testing.assert_close(decoded_after, decoded, atol=1e-4, rtol=0)
    assert vae.config.scaling_factor == 1.0
