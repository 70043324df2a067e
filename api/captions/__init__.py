"""Caption files over HTTP: uploading, listing, deleting."""
