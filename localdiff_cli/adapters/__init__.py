"""Pre-trained conditional diffusion models of other libraries as translators: MONAI, diffusers, and latent models of either."""
