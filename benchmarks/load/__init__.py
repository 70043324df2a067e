"""What the service bears: many clients, many jobs, and what supervising a training costs."""
