"""Pictures that somebody waits for: asked of a job that has succeeded, read, cancelled."""
