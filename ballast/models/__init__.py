"""Trained models, and how they are saved in folders."""
