"""Trained models as files that other programs read: what they say of themselves, and how that is kept from being lost."""
