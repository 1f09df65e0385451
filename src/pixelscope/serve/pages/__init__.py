"""The pages, one file each, those of models as in `SYSTEMS`."""
