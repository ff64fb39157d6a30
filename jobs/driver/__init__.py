"""The driver: it runs a job, from its settings to its summary."""
