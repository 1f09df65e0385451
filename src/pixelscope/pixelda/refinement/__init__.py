"""Past the paper: a trained run's generator and unlabelled target images train a better classifier."""
