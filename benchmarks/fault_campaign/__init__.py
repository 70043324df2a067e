"""A random campaign of faults against the real service, judged job by job at its end."""
