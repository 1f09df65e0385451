"""Beyond the paper: train a better classifier with the generator of a run and unlabelled target images."""
