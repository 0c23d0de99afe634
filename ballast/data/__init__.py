"""Preparation of texts and labels: duplicates, splits, descriptors, perturbations."""
