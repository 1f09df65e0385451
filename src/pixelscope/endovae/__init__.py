"""EndoVAE: a variational autoencoder that learns what healthy endoscopy looks like (Diamantis et al. 2022)."""
