"""The dashboard: pages for people, rendered here from the same services that the public API uses."""
