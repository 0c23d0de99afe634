"""The Prefect server of `make serve`: authentication, work pool, services, and automations for zombie runs."""
