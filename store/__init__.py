"""What lasts: settings, the Postgres models, the job state machine, the object store, the queue's bell."""
