"""The Prefect server that `make serve` runs: who may use it, its work pool, its services, and runs that nobody ends."""
