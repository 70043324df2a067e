"""The HTTP service: routes, schemas, problem documents, streams. It never imports torch or the worker."""
