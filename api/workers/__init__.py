"""The workers over HTTP."""
