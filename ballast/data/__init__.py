"""Texts and their labels before a model sees them: duplicates, splits, descriptors, perturbations."""
