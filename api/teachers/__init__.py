"""The teachers that a job may name."""
