"""The embedded stack: a real Postgres, Valkey and S3 server in one data folder, on loopback.

It is the production stack in small, so that there is one SQL dialect, one broker and one object store to
write and test against. This package starts and stops processes and knows their addresses; it imports nothing
else of ours and is never needed where the addresses of real servers are given.

`embedded.stack` starts and stops, `embedded.state` tells what runs.
"""
