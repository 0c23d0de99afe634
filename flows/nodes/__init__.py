"""Trainings on other machines: a Ray cluster or a Prefect work pool, with DVC's remote between the machines."""
