"""The distillation library: captions, teacher, students, losses, training, evaluation, export.

It knows nothing of HTTP, SQL, queues or object stores, and it imports nothing else of this repository.
``core.spec`` and what it imports stays free of torch.
"""
