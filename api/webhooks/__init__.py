"""The endpoints that users want to be told at, and what was sent to them."""
