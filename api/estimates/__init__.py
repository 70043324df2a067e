"""What a job would take, before it is submitted."""
