"""The Celery worker: claims jobs and supervises one trainer process at a time."""
