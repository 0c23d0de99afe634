"""The model card of the selected model."""
