"""Recovery after a killed command: locks of dead processes, a truncated dvc.lock, half-copied files."""
