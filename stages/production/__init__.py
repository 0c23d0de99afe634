"""The steps of production, outside the graph of dvc.yaml."""
