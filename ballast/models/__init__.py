"""Trained models and how they are kept in folders."""
