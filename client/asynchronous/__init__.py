"""The client, written once, as coroutines; `client.blocking` says how the client that blocks runs them."""
